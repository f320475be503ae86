"""The bytes of a NIfTI-1 file: its header, checked, and its voxels a block at a time, turned to RAS as they are read.

The format is that of nifti1.h (Cox et al. 2004, https://nifti.nimh.nih.gov); nibabel reads the header and chooses the affine.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import nibabel
import numpy as np

from medssl.data.formats.items import MAX_VOXELS, RefusedError
from medssl.data.formats.orientation import Axes, axes_of
from medssl.data.formats.quantise import Stats, quantisation, stats_of

MAX_OFFSET = 2**24
"""Most bytes of header extensions that are skipped."""
MAX_SURPLUS = 2**20
"""Most bytes that a compressed file may unpack to after its last voxel."""
HELD = 2**27
"""Volumes of up to so many bytes as stored are held while their range is looked for; larger ones are read twice."""
_BLOCK = 2**22
_DEFLATE_RATIO = 1032  # the most that DEFLATE can pack (zlib's technical notes, "Maximum Compression Factor")
_HEADER = 348
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}

Block = tuple[int, int, np.ndarray]  # k, first j, values (j, i) as stored


@dataclass(frozen=True)
class NiftiFile:
    """An open file with a checked header."""

    stream: BinaryIO
    is_compressed: bool
    dtype: np.dtype  # as stored, with its byte order
    offset: int  # of the first voxel, bytes
    times: int  # volumes: the product of all axes after the third
    affine: np.ndarray  # (4, 4), of the axes as stored, mm, RAS
    axes: Axes
    slope: float
    intercept: float

    def read(self, time: int) -> tuple[np.ndarray, float, float, tuple[float, float]]:
        """Volume `time`: voxels (D, H, W) uint8, int16 or uint16 in RAS, slope, intercept, lowest and highest in units.

        Whole numbers that span 16 bits or fewer are kept as they are; others become uint16 by one linear map from their
        range. Stray voxels that are not finite become the lowest.

        Raises:
            RefusedError: "truncated", "damaged_nifti", "constant", "non_finite", "bad_header" or "too_large".
        """
        blocks = self._repeatable(time)
        stats = Stats()
        for _, _, block in blocks():
            stats = stats_of(block, stats)
        quantise = quantisation(stats, self.dtype)
        slope = self.slope * quantise.slope
        intercept = self.slope * quantise.intercept + self.intercept
        ends = sorted(self.slope * end + self.intercept for end in (float(stats.low), float(stats.high)))
        if slope == 0 or not all(map(math.isfinite, (slope, intercept, *ends))):
            raise RefusedError("bad_header", "scl_slope and scl_inter lead out of the range of numbers")
        voxels = np.empty(self.axes.turned_shape, quantise.dtype)
        view = self.axes.file_view(voxels)
        for k, j, block in blocks():
            view[k, j : j + len(block)] = quantise(block)
        self._check_end(time)
        return voxels, slope, intercept, (ends[0], ends[1])

    def read_labels(self, axes: Axes) -> np.ndarray:
        """The one volume as labels (D, H, W) uint8, turned as `axes` says.

        Raises:
            RefusedError: "truncated", "damaged_nifti", "mask_values" or "too_large".
        """
        labels = np.empty(axes.turned_shape, np.uint8)
        view = axes.file_view(labels)
        for k, j, block in self._blocks(0):
            values = block * np.float64(self.slope) + self.intercept
            whole = np.rint(values)
            # A slope such as 1/255 leaves whole numbers a rounding error beside themselves.
            if not (np.abs(values - whole) <= 1e-6).all() or whole.min() < 0 or whole.max() > 255:
                raise RefusedError("mask_values")
            view[k, j : j + len(block)] = whole
        self._check_end(0)
        return labels

    def _repeatable(self, time: int) -> Callable[[], Iterator[Block]]:
        """The blocks of a volume, twice over."""
        size = math.prod(self.axes.shape) * self.dtype.itemsize
        if size <= HELD:
            held = list(self._blocks(time))
            return lambda: iter(held)
        if self.is_compressed and self.times > 1:  # to go back is to unpack all that lies before
            raise RefusedError("too_large", f"{self.times} compressed volumes of {size} bytes")
        return lambda: self._blocks(time)

    def _blocks(self, time: int) -> Iterator[Block]:
        depth, height, width = self.axes.shape
        line = width * self.dtype.itemsize
        lines = max(1, _BLOCK // line)
        with _named_damage():
            self.stream.seek(self.offset + time * depth * height * line)
        for k in range(depth):
            for j in range(0, height, lines):
                count = min(lines, height - j)
                data = _read(self.stream, count * line)
                if len(data) < count * line:
                    raise RefusedError("truncated", f"ends in slice {k + 1} of {depth}")
                yield k, j, np.frombuffer(data, self.dtype).reshape(count, width)

    def _check_end(self, time: int) -> None:
        """Read the last volume's stream to its end: there stands the checksum, or a bomb."""
        if self.is_compressed and time == self.times - 1 and len(_read(self.stream, MAX_SURPLUS + 1)) > MAX_SURPLUS:
            raise RefusedError("too_large", f"more than {MAX_SURPLUS} bytes after the last voxel")


def open_nifti(file: BinaryIO) -> NiftiFile:
    """Read and check the header of an open .nii or .nii.gz, told apart by content.

    Raises:
        RefusedError: "not_nifti", "truncated", "damaged_nifti", "unsupported_type", "bad_header" or "too_large".
    """
    is_compressed = file.read(2) == b"\x1f\x8b"
    size = file.seek(0, 2)
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if is_compressed else file
    head = _read(stream, _HEADER)
    _check_kind(head)
    header = nibabel.Nifti1Header(head, check=False)
    dtype = _stored_type(header)
    shape, times = _shape(header)
    offset = _offset(header)
    needed = offset + math.prod(shape) * times * dtype.itemsize
    if needed > size * (_DEFLATE_RATIO if is_compressed else 1):
        raise RefusedError("truncated", f"{size} bytes for {needed}" + (" unpacked" if is_compressed else ""))
    affine = _affine(header)
    try:
        slope, intercept = header.get_slope_inter()
    except nibabel.spatialimages.HeaderDataError as error:
        raise RefusedError("bad_header", "scl_inter is not finite") from error
    return NiftiFile(
        stream=stream,
        is_compressed=is_compressed,
        dtype=dtype,
        offset=offset,
        times=times,
        affine=affine,
        axes=axes_of(shape, affine),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _check_kind(head: bytes) -> None:
    size = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if 540 in size and head[4:7] in (b"n+2", b"ni2"):
        raise RefusedError("unsupported_type", "NIfTI-2")
    if head and _HEADER not in size:
        raise RefusedError("not_nifti")
    if len(head) < _HEADER:
        raise RefusedError("truncated", f"{len(head)} of {_HEADER} bytes of the header")
    if head[344:348] == b"ni1\0":
        raise RefusedError("unsupported_type", "NIfTI-1 in a pair of files, .hdr and .img")
    if head[344:348] != b"n+1\0":
        raise RefusedError("not_nifti", "no magic")


def _stored_type(header: nibabel.Nifti1Header) -> np.dtype:
    code = int(header["datatype"])
    if code not in _TYPES:
        raise RefusedError("unsupported_type", f"datatype {code}")
    return np.dtype(_TYPES[code]).newbyteorder(header.endianness)


def _shape(header: nibabel.Nifti1Header) -> tuple[tuple[int, int, int], int]:
    """Voxels (k, j, i) and the number of volumes."""
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise RefusedError("bad_header", f"{axes} axes")
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if min(sizes) < 1:
        raise RefusedError("bad_header", "an axis without voxels")
    sizes += [1] * (7 - axes)
    shape, times = (sizes[2], sizes[1], sizes[0]), math.prod(sizes[3:])
    if math.prod(shape) > MAX_VOXELS or times > 2**16:
        raise RefusedError("too_large", f"{times} volumes of {sizes[0]}x{sizes[1]}x{sizes[2]}")
    return shape, times


def _offset(header: nibabel.Nifti1Header) -> int:
    offset = float(header["vox_offset"]) or _HEADER + 4.0
    if not (_HEADER + 4 <= offset <= MAX_OFFSET and offset == int(offset)):
        raise RefusedError("bad_header", "vox_offset")
    return int(offset)


def _affine(header: nibabel.Nifti1Header) -> np.ndarray:
    """sform if its code is set, else qform, else pixdim, where nibabel lets the first axis run to the left."""
    axes = min(int(header["dim"][0]), 3)
    if not (np.isfinite(header["pixdim"][1 : axes + 1]).all() and (header["pixdim"][1 : axes + 1] > 0).all()):
        raise RefusedError("bad_header", "pixdim is not above 0")
    header["pixdim"][axes + 1 : 4] = 1.0  # of axes that the file does not have
    try:
        affine = np.array(header.get_best_affine(), np.float64)
        unit = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    except (ValueError, KeyError, nibabel.spatialimages.HeaderDataError) as error:
        raise RefusedError("bad_header", "qform or xyzt_units") from error
    affine[:3] *= unit
    return affine


def _read(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer where the file ends."""
    with _named_damage():
        return stream.read(count)


@contextlib.contextmanager
def _named_damage() -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise RefusedError("truncated", "the compressed stream has no end") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RefusedError("damaged_nifti", type(error).__name__) from error
