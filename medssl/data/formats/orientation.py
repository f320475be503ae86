"""Axes of volumes: from the file's to RAS by permutation and flips alone, and slices in radiological display order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from medssl.data.formats.items import Image, Item, RefusedError, Reject, Volume

LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""Takes RAS millimetres (NIfTI) to LPS millimetres (DICOM, PS3.3 C.7.6.2.1.1), and back."""

_RAS = np.array([[0, 1], [1, 1], [2, 1]])
MAX_SIDE = 2**15
"""Most slices of a volume: `Header.frame` of a slice is this times the volume's own plus the slice's index."""

_FLATTEST = 1e-6
"""Least volume of a voxel over the product of its three edges: below that, two of its axes are one."""


@dataclass(frozen=True)
class Axes:
    """How the axes (k, j, i) of a file lie, and where its voxels go when they are turned to run along RAS."""

    shape: tuple[int, int, int]  # of the file's (k, j, i)
    orientation: tuple[tuple[int, int], ...]  # nibabel's, of i, j, k: RAS axis and direction of each
    affine: np.ndarray  # of the turned volume

    @property
    def turned_shape(self) -> tuple[int, int, int]:
        """(D, H, W) of the turned volume."""
        sizes = {int(axis): size for (axis, _), size in zip(self.orientation, self.shape[::-1], strict=True)}
        return sizes[2], sizes[1], sizes[0]

    def file_view(self, turned: np.ndarray) -> np.ndarray:
        """A view of the turned volume (D, H, W) in the file's axes (k, j, i): what is written into it lands turned."""
        back = ornt_transform(_RAS, np.array(self.orientation))
        return apply_orientation(turned.transpose(2, 1, 0), back).transpose(2, 1, 0)


def axes_of(shape: tuple[int, int, int], affine: np.ndarray) -> Axes:
    """The axes of a file whose voxels (k, j, i) have `shape` and whose `affine` takes (i, j, k, 1) to millimetres, RAS.

    Raises:
        RefusedError: "bad_header", the affine is singular or has numbers that are not finite.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or edges.min() <= 0 or not np.isfinite(edges).all():
        raise RefusedError("bad_header", "the affine is singular or not finite")
    if abs(np.linalg.det(affine[:3, :3] / edges)) < _FLATTEST:
        raise RefusedError("bad_header", "the affine is singular")
    orientation = io_orientation(affine)
    turned = affine @ inv_ornt_aff(orientation, shape[::-1])
    return Axes(shape, tuple((int(axis), int(direction)) for axis, direction in orientation), turned)


def geometry(affine: np.ndarray) -> Mapping[str, Any]:
    """Fields of `Header` for the plane of i and j through the first voxel, in DICOM's terms: LPS, and spacing in mm."""
    return _plane(affine, np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0]))


def cut(item: Item, volume: Volume, axis: str) -> Iterator[Image | Reject]:
    """The slices of a volume along "axial", "coronal" or "sagittal", as they are displayed, in the order of their RAS axis.

    Rows of axial slices run from front to back, those of the others from head to foot; columns of axial and coronal slices run from
    right to left, those of sagittal ones from front to back. `Header.slice_index` counts slices from foot, back or left;
    `Header.frame` is the same for the first volume of a file (see MAX_SIDE). A volume that is one slice is that slice, whatever the axis.

    Slices of one value are left out; the last thing is one "constant" that counts them.

    Raises:
        RefusedError: "too_large", more than MAX_SIDE slices.
    """
    if max(volume.voxels.shape) > MAX_SIDE or volume.header.frame >= 2**31 // MAX_SIDE:
        raise RefusedError("too_large", f"a side of {max(volume.voxels.shape)} voxels, volume {volume.header.frame}")
    name = _thin_axis(volume.voxels.shape) or axis
    count = len(_planes(volume.voxels, name))
    masks = None if volume.mask is None else _planes(volume.mask, name)
    left_out = 0
    for index, pixels in enumerate(_planes(volume.voxels, name)):
        if pixels.min() == pixels.max():
            left_out += 1
            continue
        place = _slice_geometry(volume.affine, volume.voxels.shape, name, index)
        yield Image(
            pixels=np.ascontiguousarray(pixels),
            slope=volume.slope,
            intercept=volume.intercept,
            window=volume.window,
            window_function=volume.window_function,
            full_range=volume.full_range,
            inverted=volume.inverted,
            mask=None if masks is None else np.ascontiguousarray(masks[index]),
            header=replace(volume.header, frame=volume.header.frame * MAX_SIDE + index, slice_index=index, **place),
            syntax=volume.syntax,
            decoder=volume.decoder,
        )
    if left_out:
        yield Reject(item, "constant", f"{left_out} of {count} slices")


def _thin_axis(shape: tuple[int, ...]) -> str | None:
    thin = [name for name, size in zip(("axial", "coronal", "sagittal"), shape, strict=True) if size == 1]
    return thin[0] if len(thin) == 1 else None


def _planes(voxels: np.ndarray, axis: str) -> np.ndarray:
    """A view (slice, row, column) of (k, j, i) in display order."""
    if axis == "axial":
        return voxels[:, ::-1, ::-1]
    if axis == "coronal":
        return voxels[::-1, :, ::-1].transpose(1, 0, 2)
    return voxels[::-1, ::-1, :].transpose(2, 0, 1)


def _slice_geometry(affine: np.ndarray, shape: tuple[int, ...], axis: str, index: int) -> Mapping[str, Any]:
    depth, height, width = shape
    x, y, z = np.eye(3)
    if axis == "axial":
        return _plane(affine, np.array([width - 1, height - 1, index]), -x, -y, z)
    if axis == "coronal":
        return _plane(affine, np.array([width - 1, index, depth - 1]), -x, -z, y)
    return _plane(affine, np.array([index, height - 1, depth - 1]), -y, -z, x)


def _plane(affine: np.ndarray, first: np.ndarray, column: np.ndarray, row: np.ndarray, through: np.ndarray) -> Mapping[str, Any]:
    """`first` is the voxel (i, j, k) of the first pixel; `column` and `row` are the steps to the next column and row."""
    to_lps = LPS @ affine
    along_row, along_column, across = (to_lps[:3, :3] @ step for step in (column, row, through))
    width, height, depth = (float(np.linalg.norm(step)) for step in (along_row, along_column, across))
    cosines = np.concatenate([along_row / width, along_column / height])
    position = to_lps[:3, :3] @ first + to_lps[:3, 3]
    return {
        "spacing": (height, width),
        "spacing_kind": "pixel",
        "spacing_slice": depth,
        "position": tuple(float(value) for value in position),
        "orientation": tuple(float(value) for value in cosines),
    }
