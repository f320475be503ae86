"""DICOM files (PS3.10): grey and colour images of one frame or many, with the map to units, the window and the polarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medssl.data.formats.finding import find_files
from medssl.data.formats.guard import read_guarded
from medssl.data.formats.items import Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.options import ReadOptions

if TYPE_CHECKING:
    import numpy as np

    from medssl.data.formats.dicom_file import DicomFile
    from medssl.data.formats.dicom_layout import Layout


class DicomReader:
    """Files are known by their content, whatever they are called."""

    name = "dicom"

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """Every file but DICOMDIR, the members of .zip and .tar among them; see `Reader.find`."""
        paths = find_files(root, include, exclude, archives=True)
        return [Item(path) for path in paths if path.rsplit("/", 1)[-1] != "DICOMDIR"]

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The frames of one file, or the volume of an item with members; see `Reader.read`.

        An item that starts at 0 and stops at 1 is the whole file; any other names frames. A reject of a frame names it by its
        item; frames that the file does not hold at its end are one reject. `tags` are keywords of the DICOM dictionary, such as
        BodyPartExamined.
        """
        from medssl.data.formats.dicom_header import check_tags

        check_tags(tags)
        if item.members:
            from medssl.data.formats.dicom_volume import read_volume

            return read_volume(root, item, tags, options)
        return read_guarded(root, item, lambda file: _read_file(file, item, tags, options))


def _read_file(file: BinaryIO, item: Item, tags: Sequence[str], options: ReadOptions) -> Iterator[Image | Reject]:
    from medssl.data.formats.dicom_file import DicomFile

    source = DicomFile(file, tags)
    frames, present = source.layout.frames, source.present
    whole = (item.start, item.stop) == (0, 1)
    start, stop = (0, frames) if whole else (item.start, min(item.stop, frames))
    if stop <= start:
        raise RefusedError("truncated", f"frame {start + 1} of {frames}")
    for index in range(start, min(stop, present)):
        try:
            yield image_of(source, index, options)
        except RefusedError as refusal:
            if frames == 1:
                raise
            yield Reject(replace(item, start=index, stop=index + 1), refusal.reason, refusal.detail)
    if stop > present:
        missing = replace(item, start=max(start, present), stop=stop)
        yield Reject(missing, "truncated", f"{present} of {frames} frames are there")


def image_of(source: DicomFile, index: int, options: ReadOptions = ReadOptions()) -> Image:
    """One frame as an image.

    Raises:
        RefusedError: as `DicomFile.frame`, `dicom_display.grey_image`; "colour" or "unsupported_type", it is not what
            `options.channels` asks for.
    """
    from medssl.data.formats.dicom_display import grey_image
    from medssl.data.formats.dicom_frames import FrameElements

    stored = source.frame(index)
    if stored.ndim == 3:
        image = _colour_image(stored, options)
    else:
        if options.channels == "rgb" and source.layout.stored > 8:
            raise RefusedError("unsupported_type", f"grey of {source.layout.stored} bits in a set of colour images")
        view = FrameElements(source.dataset, index)
        image = grey_image(stored, view, source.layout, options.window, little_endian=source.is_little_endian)
        if options.channels == "rgb":
            image = _grey_as_rgb(image, source.layout)
    image.header = source.header(index)
    image.syntax, image.decoder = source.syntax_name, source.decoder
    return image


def _colour_image(pixels: np.ndarray, options: ReadOptions) -> Image:
    from medssl.data.formats.raster_pixels import grey_of

    if options.channels == "grey":
        pixels = grey_of(pixels)
    if bool((pixels == pixels[:1, :1]).all()):
        raise RefusedError("constant")
    return Image(pixels=pixels, full_range=(0.0, 255.0))


def _grey_as_rgb(image: Image, layout: Layout) -> Image:
    """A grey image of 8 bits or fewer in three equal channels, spread over 0 to 255 and inverted where it is to be."""
    import numpy as np

    if image.modality_lut and image.pixels.dtype != np.uint8:
        raise RefusedError("unsupported_type", "grey of 16 bits in a set of colour images")
    lowest, highest = (0, 255) if image.modality_lut else layout.value_range
    levels = np.rint((image.pixels.astype(np.float32) - lowest) * (255 / (highest - lowest))).astype(np.uint8)
    if image.inverted:
        levels = 255 - levels
    return Image(pixels=np.repeat(levels[..., None], 3, axis=2), full_range=(0.0, 255.0), padding=image.padding)
