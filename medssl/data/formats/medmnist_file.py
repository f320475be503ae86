"""Rows of a MedMNIST npz without loading it: a 224-pixel set holds up to 18 GB, so arrays are unpacked as they are walked along."""

from __future__ import annotations

import functools
import math
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medssl.data.formats.items import MAX_PIXELS, MAX_VOXELS, RefusedError

SPLITS = ("train", "val", "test")
MAX_ROWS = 2**22
"""Most rows of a split: fifteen times those of the largest set."""
MAX_ARRAY = 2**36
"""Most bytes that the images of a split may unpack to, 64 GiB: zip packs a thousand zeros into a byte."""
MAX_LABELS = 2**26
"""Most bytes of a split's labels, which are held in memory."""
_CHUNK = 2**20
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, KeyError, ValueError, OverflowError, RuntimeError,
    NotImplementedError, SyntaxError, TypeError, RecursionError,
)  # fmt: skip
"""What zipfile, zlib and numpy raise over damaged bytes; a header of npy is a Python literal, parsed by `ast`."""


@dataclass(frozen=True)
class Split:
    """The arrays of one split, by their headers."""

    name: str  # of SPLITS
    shape: tuple[int, ...]  # of its images
    offset: int  # bytes before the first image
    label_type: np.dtype
    label_shape: tuple[int, int]
    label_offset: int

    @property
    def has_volumes(self) -> bool:
        """A fourth axis of 3 is colour; no set has volumes as thin as that."""
        return len(self.shape) == 4 and self.shape[3] != 3

    @property
    def row_bytes(self) -> int:
        """Bytes of one image or volume."""
        return math.prod(self.shape[1:])


def splits_of(file: BinaryIO) -> list[Split]:
    """The three splits of a file, from the arrays' headers alone.

    Raises:
        RefusedError: "bad_npz" or "too_large".
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return [_split(archive, name) for name in SPLITS]
    except _DAMAGE as error:
        raise RefusedError("bad_npz", type(error).__name__) from error


class RowFile:
    """Rows of one file in any order. In rising order each array is unpacked once, whatever blocks the rows are asked for in."""

    def __init__(self, path: str) -> None:
        with Path(path).open("rb") as file:
            self.splits = splits_of(file)
        self._archive = zipfile.ZipFile(path)
        self._labels = {split.name: self._load_labels(split) for split in self.splits}
        self._open: tuple[str, BinaryIO] | None = None
        self._damaged: dict[str, str] = {}  # split: what unpacking its images came upon

    @staticmethod
    def of(file: BinaryIO) -> RowFile:
        """The rows of an opened file on a disk, kept open for the blocks that follow.

        Raises:
            RefusedError: "bad_npz" or "too_large".
        """
        status = os.fstat(file.fileno())
        return _row_file(str(file.name), status.st_mtime_ns, status.st_size)

    def images(self, split: Split, row: int) -> np.ndarray:
        """One image (H, W) or (H, W, 3), or one volume (D, H, W); uint8, a copy of its own.

        Raises:
            RefusedError: "bad_npz": the array is damaged anywhere.
        """
        if split.name in self._damaged:
            raise RefusedError("bad_npz", f"{split.name}: {self._damaged[split.name]}")
        try:
            member = self._member(split.name)
            member.seek(split.offset + row * split.row_bytes)
            data = member.read(split.row_bytes)
        except _DAMAGE as error:
            self._damaged[split.name] = type(error).__name__
            raise RefusedError("bad_npz", f"{split.name}: {type(error).__name__}") from error
        if len(data) != split.row_bytes:
            raise RefusedError("bad_npz", f"{split.name}: the array ends in row {row}")
        return np.frombuffer(bytearray(data), np.uint8).reshape(split.shape[1:])

    def label(self, split: Split, row: int) -> str:
        """The row's labels, joined by commas."""
        return ",".join(str(int(value)) for value in self._labels[split.name][row])

    def _member(self, name: str) -> BinaryIO:
        # zipfile goes forward by unpacking from where it stands, and back by starting anew.
        if self._open is None or self._open[0] != name:
            member = f"{name}_images.npy"
            self._open = None
            # Only the checksum at an array's end tells damaged pixels from others, and rows are given before it is reached.
            with self._archive.open(member) as whole:
                while whole.read(_CHUNK):
                    pass
            self._open = name, self._archive.open(member)
        return self._open[1]

    def _load_labels(self, split: Split) -> np.ndarray:
        try:
            with self._archive.open(f"{split.name}_labels.npy") as member:
                data = member.read()
        except _DAMAGE as error:
            raise RefusedError("bad_npz", f"{split.name}: {type(error).__name__}") from error
        return np.frombuffer(data, split.label_type, offset=split.label_offset).reshape(split.label_shape)


# The blocks of a file come one after another in each process.
@functools.lru_cache(maxsize=1)
def _row_file(path: str, modified: int, size: int) -> RowFile:
    """`modified` and `size` tell a file that has changed."""
    return RowFile(path)


def _split(archive: zipfile.ZipFile, name: str) -> Split:
    images, kind, offset = _array(archive, f"{name}_images")
    labels, label_kind, label_offset = _array(archive, f"{name}_labels")
    if kind != np.uint8:
        raise RefusedError("bad_npz", f"{name}: images of type {kind.str}")
    if label_kind.kind not in "iu":
        raise RefusedError("bad_npz", f"{name}: labels of type {label_kind.str}")
    if len(images) not in (3, 4) or len(labels) != 2 or images[0] != labels[0]:
        raise RefusedError("bad_npz", f"{name}: images of shape {images}, labels of shape {labels}")
    split = Split(name, images, offset, label_kind, labels, label_offset)
    if 0 in images[1:]:
        raise RefusedError("bad_npz", f"{name}: images of shape {images}")
    limit = MAX_VOXELS if split.has_volumes else MAX_PIXELS * (3 if len(images) == 4 else 1)
    if split.row_bytes > limit or images[0] > MAX_ROWS or images[0] * split.row_bytes > MAX_ARRAY:
        raise RefusedError("too_large", f"{name}: images of shape {images}")
    if labels[0] * labels[1] * label_kind.itemsize > MAX_LABELS:
        raise RefusedError("too_large", f"{name}: labels of shape {labels}")
    return split


def _array(archive: zipfile.ZipFile, array: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and offset of an array's first byte."""
    info = archive.getinfo(f"{array}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without a bound
        raise RefusedError("bad_npz", f"{array}: compression {info.compress_type}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise RefusedError("bad_npz", f"{array}: npy version {version[0]}.{version[1]}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_column_major, kind = read(file)
        if is_column_major and sum(length > 1 for length in shape) > 1:
            raise RefusedError("bad_npz", f"{array}: stored by columns")
        size = kind.itemsize * math.prod(shape)
        # A header may promise any shape; memory is asked for only if the archive says that the bytes are there.
        if kind.hasobject or min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise RefusedError("bad_npz", f"{array}: {info.file_size - file.tell()} bytes for shape {shape}")
        return shape, kind, file.tell()
