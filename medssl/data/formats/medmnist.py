"""The npz files of MedMNIST v2 (Yang et al., Scientific Data 2023): images and labels of three official splits in one file.

Rows are counted over train, then val, then test, one after the other: row `len(train_images)` is the first of val.
A set has grey images (N, H, W), colour images (N, H, W, 3) or volumes (N, D, H, W), at any of its published sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medssl.data.formats.finding import find_files
from medssl.data.formats.guard import quiet, read_guarded
from medssl.data.formats.items import Header, Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.opening import open_inside
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.raster_pixels import grey_of

if TYPE_CHECKING:
    import numpy as np

    from medssl.data.formats.medmnist_file import Split

BLOCK = 256
"""Rows of one item."""


class MedMnistReader:
    """Files with the suffix .npz, in blocks of `BLOCK` rows. A block may reach from one split into the next."""

    name = "medmnist"

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """Blocks of rows of every .npz; one item for a file that is none of MedMNIST. See `Reader.find`."""
        items: list[Item | Reject] = []
        for path in find_files(root, include, exclude):
            if path.lower().endswith(".npz"):
                rows = _count_rows(Path(root), path)
                items += [Item(path, start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)] or [Item(path)]
        return items

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The images of the item's rows, in order; see `Reader.read`. `tags` is ignored: every image carries both of

        - `medmnist_label`: the label as in the file, "0"; several (multi-label sets) joined by commas, "0,1,0";
        - `medmnist_split`: "train", "val" or "test".

        A volume's affine is the identity: the files say neither spacing nor which axis runs to the head, and their axes are
        taken as (k, j, i) as they stand. Images cut from one have no spacing, position or orientation.
        """
        return read_guarded(root, item, lambda file: _read_rows(file, item, options))


def _count_rows(root: Path, path: str) -> int:
    from medssl.data.formats.medmnist_file import splits_of

    try:
        with quiet(), open_inside(root, path) as file:
            return sum(split.shape[0] for split in splits_of(file))
    except (RefusedError, OSError, MemoryError):  # reading the item says what is the matter
        return 0


def _read_rows(file: BinaryIO, item: Item, options: ReadOptions) -> Iterator[Image | Volume | Reject]:
    from medssl.data.formats.medmnist_file import RowFile

    first, found = 0, False
    rows = RowFile.of(file)
    for split in rows.splits:
        for row in range(max(item.start - first, 0), min(item.stop - first, split.shape[0])):
            found = True
            place = Item(item.path, first + row, first + row + 1)
            yield from _row(rows.images(split, row), rows.label(split, row), split, place, options)
        first += split.shape[0]
    if not found:
        raise RefusedError("bad_npz", f"{first} rows, none of them asked for")


def _row(pixels: np.ndarray, label: str, split: Split, item: Item, options: ReadOptions) -> Iterator[Image | Volume | Reject]:
    if pixels.min() == pixels.max():
        yield Reject(item, "constant")
        return
    header = Header(frame=item.start, tags={"medmnist_label": label, "medmnist_split": split.name})
    try:
        if split.has_volumes:
            yield from _volume(pixels, header, item, options)
        else:
            yield _image(pixels, header, options)
    except RefusedError as refusal:
        yield Reject(item, refusal.reason, refusal.detail)


def _image(pixels: np.ndarray, header: Header, options: ReadOptions) -> Image:
    import numpy as np

    if options.units != "images":
        raise RefusedError("unsupported_type", f"a flat image in a set of {options.units}")
    if pixels.ndim == 3 and options.channels == "grey":
        pixels = grey_of(pixels)
    elif pixels.ndim == 2 and options.channels == "rgb":
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image(pixels=pixels, full_range=(0.0, 255.0), header=header, syntax="npz", decoder=f"numpy {np.__version__}")


def _volume(voxels: np.ndarray, header: Header, item: Item, options: ReadOptions) -> Iterator[Image | Volume | Reject]:
    import numpy as np

    from medssl.data.formats.orientation import cut

    if options.units == "images":
        raise RefusedError("multi_frame", "a volume; `read.units` makes volumes or slices of it")
    if options.channels == "rgb":
        raise RefusedError("unsupported_type", "a grey volume in a set of colour images")
    volume = Volume(
        voxels=voxels,
        affine=np.eye(4),
        full_range=(0.0, 255.0),
        header=header,
        syntax="npz",
        decoder=f"numpy {np.__version__}",
    )
    if options.units == "volumes":
        yield volume
        return
    for image in cut(item, volume, options.axis):
        if isinstance(image, Image):
            unknown = {"spacing": None, "spacing_kind": None, "position": None, "orientation": None, "spacing_slice": None}
            image.header = replace(image.header, **unknown)
        yield image
