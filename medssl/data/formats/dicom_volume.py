"""One volume out of the slices of a DICOM series, as `series.group` put them together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl.data.formats.guard import guarded
from medssl.data.formats.items import FLAGS, MAX_VOXELS, Header, Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.opening import open_inside
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.orientation import LPS, axes_of, cut, geometry
from medssl.data.formats.series import check_stack, scan
from medssl.data.formats.slice_values import StoredSlice, Values, values_of

if TYPE_CHECKING:
    from medssl.data.formats.slice_headers import SliceHeader

MAX_WIDE_VOXELS = MAX_VOXELS // 8
"""Largest volume of pixels of more than 16 bits, several copies of which are held."""


@dataclass
class _Source:
    """What a volume takes from the files of its slices, besides their values."""

    header: Header  # of the first slice
    syntax: str
    decoder: str
    flags: frozenset[str]  # of all slices
    burned_in: bool


def read_volume(
    root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
) -> Iterator[Image | Volume | Reject]:
    """The volume of an item with members, turned to RAS; with `units: slices`, its slices along `options.axis`.

    Rows, columns and slices are only permuted and flipped. The map to units is that of the slices where they share one; where they do not
    (PET), see `slice_values`. The window, polarity and header are those of the first slice; `Header.flags` are of all.

    A slice that cannot be read costs the volume: the reject has its reason and "slice n of m". A slice of one value is a slice
    like others; a volume of one value is "constant".

    Raises:
        CardError: `tags` asks for something that cannot be a label.
    """
    from medssl.data.formats.dicom_header import check_tags

    check_tags(tags)
    yield from guarded(item, lambda: _read(root, item, tags, options))


def _read(root: Path, item: Item, tags: Sequence[str], options: ReadOptions) -> Iterator[Image | Volume | Reject]:
    if options.channels == "rgb":
        raise RefusedError("unsupported_type", "grey volumes in a set of colour images")
    places = list(_places(root, item))
    check_stack(places)
    shape = (len(places), places[0].rows, places[0].columns)
    if len(places) * places[0].rows * places[0].columns > MAX_VOXELS:
        raise RefusedError("too_large", f"{shape[0]} slices of {shape[1]}x{shape[2]}")
    source, slices = _load(root, item, tags, shape)
    values = values_of(slices, options.window)
    volume = _assemble(values, shape, places, source, item.frames[0])
    if options.units == "slices":
        yield from cut(item, volume, options.axis)
    else:
        yield volume


def _runs(item: Item) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Paths and, of each, the places in the stack and frames that follow one another: a file is opened once for all of them."""
    members = zip(item.members, itertools.count(), item.frames or (0,) * len(item.members), strict=False)
    for path, run in itertools.groupby(members, key=lambda member: member[0]):
        yield path, [(number, frame) for _, number, frame in run]


def _places(root: Path, item: Item) -> Iterator[SliceHeader]:
    for path, run in _runs(item):
        found = scan(root, Item(path))
        for number, frame in run:
            one = found[frame] if frame < len(found) else Reject(item, "unreadable", "no such frame")
            refused = found[0] if isinstance(found[0], Reject) else one
            if isinstance(refused, Reject):
                raise _about_slice(refused.reason, refused.detail, number, item)
            yield one


def _load(root: Path, item: Item, tags: Sequence[str], shape: tuple[int, int, int]) -> tuple[_Source, list[StoredSlice]]:
    """All slices as stored, in the order of the stack."""
    from medssl.data.formats.dicom_file import DicomFile
    from medssl.data.formats.dicom_frames import FrameElements

    source: _Source | None = None
    slices: list[StoredSlice] = []
    for path, run in _runs(item):
        number = run[0][0]
        try:
            with open_inside(root, path) as file:
                dicom = DicomFile(file, tags)
                for number, frame in run:  # noqa: B007  # the number is told where reading fails
                    header = dicom.header(frame)
                    if source is None:
                        source = _Source(header, dicom.syntax_name, dicom.decoder, frozenset(), False)
                    source.flags |= frozenset(header.flags)
                    source.burned_in |= bool(header.burned_in)
                    pixels = dicom.frame(frame)
                    if pixels.ndim != 2:
                        raise RefusedError("colour")
                    if pixels.shape != shape[1:]:
                        raise RefusedError("mixed_series", "other rows or columns")
                    if pixels.dtype.itemsize > 2 and shape[0] * pixels.size > MAX_WIDE_VOXELS:
                        raise RefusedError(
                            "too_large", f"{shape[0]} slices of {pixels.size} pixels of {pixels.dtype.itemsize} bytes"
                        )
                    view = FrameElements(dicom.dataset, frame)
                    slices.append(StoredSlice(pixels, view, dicom.layout, dicom.is_little_endian))
        except RefusedError as refusal:
            raise _about_slice(refusal.reason, refusal.detail, number, item) from refusal
    return source, slices


def _about_slice(reason: str, detail: str, number: int, item: Item) -> RefusedError:
    place = f"slice {number + 1} of {len(item.members)}"
    return RefusedError(reason, f"{place}: {detail}" if detail else place)


def _assemble(values: Values, shape: tuple[int, int, int], places: list[SliceHeader], source: _Source, frame: int) -> Volume:
    axes = axes_of(shape, _affine(places))
    voxels = np.empty(axes.turned_shape, values.dtype)
    view = axes.file_view(voxels)
    for number, pixels in enumerate(values.slices()):
        view[number] = pixels
    flags = tuple(flag for flag in FLAGS if flag in source.flags)
    header = replace(source.header, frame=frame, flags=flags, burned_in=source.burned_in or source.header.burned_in)
    return Volume(
        voxels=voxels,
        affine=axes.affine,
        slope=values.slope,
        intercept=values.intercept,
        window=values.window,
        window_function=values.window_function,
        full_range=values.full_range,
        inverted=values.inverted,
        header=replace(header, **geometry(axes.affine)),
        syntax=source.syntax,
        decoder=source.decoder,
    )


def _affine(places: list[SliceHeader]) -> np.ndarray:
    """From (column, row, slice, 1) to RAS millimetres (PS3.3 C.7.6.2.1.1, with the slices' own step for its third column)."""
    first = places[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = row / np.linalg.norm(row) * first.spacing[1]
    affine[:3, 1] = column / np.linalg.norm(column) * first.spacing[0]
    affine[:3, 2] = (np.array(places[-1].position) - np.array(first.position)) / (len(places) - 1)
    affine[:3, 3] = first.position
    return LPS @ affine
