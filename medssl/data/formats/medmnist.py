"""The npz files of MedMNIST v2 (Yang et al., Scientific Data 2023): images and labels of three official splits in one file.

Rows are counted over train, then val, then test, one after the other: row `len(train_images)` is the first of val.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.data.formats.finding import find_files, resolve_inside
from medssl.data.formats.guard import quiet, read_guarded
from medssl.data.formats.items import MAX_PIXELS, Header, Image, Item, RefusedError, Reject

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "val", "test")
BLOCK = 256
"""Rows of one item."""


class MedMnistReader:
    """Files with the suffix .npz, in blocks of `BLOCK` rows. A block may reach from one split into the next."""

    name = "medmnist"

    def find(self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Item]:
        """Blocks of rows of every .npz; one item for a file that is none of MedMNIST. See `Reader.find`."""
        items: list[Item] = []
        for path in find_files(root, include, exclude):
            if path.lower().endswith(".npz"):
                rows = _count_rows(Path(root), path)
                items += [Item(path, start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)] or [Item(path)]
        return items

    def read(self, root: Path, item: Item, tags: Sequence[str] = ()) -> list[Image | Reject]:
        """The images of the item's rows, in order; see `Reader.read`. `tags` is ignored: every image carries both of

        - `medmnist_label`: the label as in the file, "0"; several (multi-label sets) joined by commas, "0,1,0";
        - `medmnist_split`: "train", "val" or "test".
        """
        return read_guarded(root, item, lambda path: _read_rows(path, item))


def _count_rows(root: Path, path: str) -> int:
    try:
        with quiet():
            real = resolve_inside(root, path)
            return sum(shape[0] for shape in _shapes(real).values())
    except (RefusedError, MemoryError):  # reading the item says what is the matter
        return 0


def _read_rows(path: Path, item: Item) -> list[Image | Reject]:
    stat = path.stat()
    images: list[Image | Reject] = []
    first = 0
    for split, shape in _shapes(path).items():
        begin, end = max(item.start - first, 0), min(item.stop - first, shape[0])
        if begin < end:
            pixels, labels = _load_split(str(path), split, stat.st_mtime_ns, stat.st_size)
            images += [
                _row(pixels[row], labels[row], split, Item(item.path, first + row, first + row + 1)) for row in range(begin, end)
            ]
        first += shape[0]
    if not images:
        raise RefusedError("bad_npz", f"{first} rows, none of them asked for")
    return images


def _row(pixels: np.ndarray, label: np.ndarray, split: str, item: Item) -> Image | Reject:
    import numpy as np

    if pixels.ndim == 3:
        return Reject(item, "colour") if pixels.shape[-1] == 3 else Reject(item, "multi_frame", "a volume")
    if pixels.min() == pixels.max():
        return Reject(item, "constant")
    tags = {"medmnist_label": ",".join(str(int(value)) for value in label), "medmnist_split": split}
    return Image(
        pixels=pixels.copy(),  # not a view, which would keep the whole split in memory
        full_range=(0.0, 255.0),
        header=Header(frame=item.start, tags=tags),
        syntax="npz",
        decoder=f"numpy {np.__version__}",
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each split's images, from the arrays' headers alone.

    Raises:
        RefusedError: "bad_npz" or "too_large".
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {split: _checked_shape(archive, split) for split in SPLITS}
    except (RefusedError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own for damaged bytes
        raise RefusedError("bad_npz", type(error).__name__) from error


def _checked_shape(archive: zipfile.ZipFile, split: str) -> tuple[int, ...]:
    import numpy as np

    shapes = []
    for array in (f"{split}_images", f"{split}_labels"):
        info = archive.getinfo(f"{array}.npy")
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise RefusedError("bad_npz", f"{array}: npy version {version[0]}.{version[1]}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if dtype.kind not in ("u" if array.endswith("images") else "iu") or (dtype.kind == "u" and dtype.itemsize > 8):
                raise RefusedError("bad_npz", f"{array}: type {dtype.str}")
            size = dtype.itemsize
            for length in shape:
                size *= length
            # A header may promise any shape; memory is asked for only if the archive says that the bytes are there.
            if size != info.file_size - file.tell():
                raise RefusedError("bad_npz", f"{array}: {info.file_size - file.tell()} bytes for shape {shape}")
        shapes.append(shape)
    images, labels = shapes
    if len(images) not in (3, 4) or len(labels) != 2 or images[0] != labels[0]:
        raise RefusedError("bad_npz", f"{split}: images of shape {images}, labels of shape {labels}")
    if images[1] * images[2] > MAX_PIXELS:
        raise RefusedError("too_large", f"{images[1]} rows, {images[2]} columns")
    return images


# The blocks of a file come one after another: one split in memory means one decompression each, in each process.
@functools.lru_cache(maxsize=1)
def _load_split(path: str, split: str, modified: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split; `modified` and `size` are there to tell a file that has changed."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[f"{split}_images"], archive[f"{split}_labels"]
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each have their own for damaged bytes
        raise RefusedError("bad_npz", f"{split}: {type(error).__name__}") from error
