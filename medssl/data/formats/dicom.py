"""DICOM files (PS3.10) with one grey frame: stored values, the map to units, the window, the polarity, the header."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.data.formats.finding import find_files
from medssl.data.formats.guard import read_guarded
from medssl.data.formats.items import Image, Item, RefusedError, Reject

if TYPE_CHECKING:
    import numpy as np
    from pydicom.dataset import Dataset, FileDataset

    from medssl.data.formats.dicom_pixels import Layout

_DISPLAY_KEYWORDS = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "VOILUTSequence", "PresentationLUTShape",
)  # fmt: skip


class DicomReader:
    """Files are known by their content, whatever they are called."""

    name = "dicom"

    def find(self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Item]:
        """Every file but DICOMDIR; see `Reader.find`."""
        return [Item(path) for path in find_files(root, include, exclude) if path.rsplit("/", 1)[-1] != "DICOMDIR"]

    def read(self, root: Path, item: Item, tags: Sequence[str] = ()) -> list[Image | Reject]:
        """The image of one file; see `Reader.read`. `tags` are keywords of the DICOM dictionary, such as BodyPartExamined."""
        from medssl.data.formats.dicom_header import check_tags

        check_tags(tags)
        return read_guarded(root, item, lambda path: [_read_file(path, tags)])


def _read_file(path: Path, tags: Sequence[str]) -> Image:
    from medssl.data.formats import dicom_header, dicom_pixels

    dataset = _parse(path, (*dicom_header.KEYWORDS, *dicom_pixels.KEYWORDS, *_DISPLAY_KEYWORDS, *tags))
    _check_has_pixels(dataset)
    syntax = dicom_header.element(dataset.file_meta, "TransferSyntaxUID")
    if not isinstance(syntax, str) or not syntax:
        raise RefusedError("bad_header", "TransferSyntaxUID is absent or not one UID")
    layout = dicom_pixels.layout_of(dataset)
    slope, intercept = _rescale(dataset)
    window, function = _window(dataset)
    stored, decoder = dicom_pixels.decode(dataset, layout, syntax)
    inverted = _is_inverted(dataset)
    pixels = _without_padding(stored, dataset, layout, dark_is_low=(slope > 0) != inverted)
    if pixels.min() == pixels.max():
        raise RefusedError("constant")
    ends = sorted(slope * value + intercept for value in layout.value_range)
    return Image(
        pixels=pixels,
        slope=slope,
        intercept=intercept,
        window=window,
        window_function=function,
        full_range=(ends[0], ends[1]),
        inverted=inverted,
        header=dicom_header.header_of(dataset, tags),
        syntax=dicom_pixels.syntax_name(syntax),
        decoder=decoder,
    )


def _parse(path: Path, keywords: Sequence[str]) -> FileDataset:
    """The named elements of the file; the others, the patient's name among them, are passed over unread."""
    import pydicom
    from pydicom.config import disable_value_validation

    with path.open("rb") as file:
        # PS3.10 7.1: 128 bytes of preamble, then the prefix.
        if file.read(132)[128:] != b"DICM":
            raise RefusedError("not_dicom")
        file.seek(0)
        try:
            with disable_value_validation():
                return pydicom.dcmread(file, specific_tags=list(keywords))
        except MemoryError:
            raise
        except Exception as error:  # what pydicom's parser happens to raise
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk's error; pydicom's own have no number, its seeks beyond the file have EINVAL
            raise RefusedError("not_dicom", f"its elements cannot be parsed: {type(error).__name__}") from error


def _check_has_pixels(dataset: FileDataset) -> None:
    from medssl.data.formats.dicom_header import element, term
    from medssl.data.formats.dicom_terms import OTHER_MODALITIES

    other = term(dataset, "Modality", OTHER_MODALITIES)
    if other:
        raise RefusedError("no_pixels", other)
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        # pydicom ends a dataset without a word where its file ends; Pixel Data come last.
        storage = getattr(element(dataset.file_meta, "MediaStorageSOPClassUID"), "name", "")
        if "Image Storage" in storage:
            raise RefusedError("truncated", f"{storage} without Pixel Data")
        raise RefusedError("no_pixels")


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """Slope and intercept of PS3.3 C.11.1.1.2; 1 and 0 where the file has none."""
    from medssl.data.formats.dicom_header import element, number

    if element(dataset, "ModalityLUTSequence") is not None:
        raise RefusedError("modality_lut")
    slope = number(dataset, "RescaleSlope", 1.0)
    if slope == 0:
        raise RefusedError("bad_header", "RescaleSlope is 0")
    return slope, number(dataset, "RescaleIntercept", 0.0)


def _window(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Centre and width of the first window, and its function (PS3.3 C.11.2).

    A window that the standard forbids counts as none: not two finite numbers, an unknown function, or a width below
    1 (LINEAR, C.11.2.1.2.1) or not above 0 (SIGMOID and LINEAR_EXACT, C.11.2.1.3).
    """
    from medssl.data.formats.dicom_header import element, text

    function = (text(dataset, "VOILUTFunction") or "LINEAR").lower()
    firsts = [(text(dataset, keyword) or "").split("\\")[0] for keyword in ("WindowCenter", "WindowWidth")]
    try:
        center, width = map(float, firsts)
    except ValueError:
        center = width = math.nan
    allowed = width >= 1 if function == "linear" else width > 0
    if math.isfinite(center) and math.isfinite(width) and allowed and function in ("linear", "linear_exact", "sigmoid"):
        return (center, width), function
    if element(dataset, "VOILUTSequence") is not None:
        raise RefusedError("voi_lut")
    return None, "linear"


def _is_inverted(dataset: Dataset) -> bool:
    """Whether high units are dark.

    PS3.3 C.8.11.3.1.2 requires Presentation LUT Shape INVERSE of every MONOCHROME1 image, so the two together say
    one thing twice: one inversion, not two that cancel.
    """
    from medssl.data.formats.dicom_header import text

    return text(dataset, "PhotometricInterpretation") == "MONOCHROME1" or text(dataset, "PresentationLUTShape") == "INVERSE"


def _without_padding(stored: np.ndarray, dataset: Dataset, layout: Layout, dark_is_low: bool) -> np.ndarray:
    """`stored` with padding (PS3.3 C.7.5.1.1.2) replaced by that extreme of the other pixels that is shown darkest.

    The extreme is of the image, not of its bit depth, so that percentiles and ranges stay those of the picture.
    Lossy compression may have moved padding off its value; only Pixel Padding Range Limit can say by how much.
    """
    import numpy as np

    from medssl.data.formats.dicom_header import element, whole_number

    if element(dataset, "PixelPaddingValue") is None:
        return stored

    def value(keyword: str, default: int | None = None) -> int:
        # Writers and parsers disagree on US or SS: only the bits count.
        bits = whole_number(dataset, keyword, default) & ((1 << layout.allocated) - 1)
        return bits - (1 << layout.allocated) if layout.signed and bits >> (layout.allocated - 1) else bits

    first = value("PixelPaddingValue")
    last = value("PixelPaddingRangeLimit", first)
    padding = (stored >= min(first, last)) & (stored <= max(first, last))
    if not padding.any():
        return stored
    if padding.all():
        raise RefusedError("constant", "all pixels are padding")
    shown = stored[~padding]
    return np.where(padding, shown.min() if dark_is_low else shown.max(), stored)
