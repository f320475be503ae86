"""From the slices of DICOM series to volumes: which slices make one, in which order, and why others make none.

The names of what is refused follow the checks of dicom2nifti (https://github.com/icometrix/dicom2nifti).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np

from medssl.data.formats.items import Item, RefusedError, Reject
from medssl.data.formats.options import ReadOptions
from medssl.data.formats.slice_headers import SliceHeader, scan

__all__ = ["SliceHeader", "check_stack", "group", "scan", "stack_geometry"]

SAME_COSINE = 1e-3
"""Cosines that differ by no more are one orientation: scanners write them rounded, and some let them drift."""
EVEN = 0.01
"""Share of the slice spacing by which distances may differ, and by which a slice may be shifted in its plane."""
ROUNDED = 0.01
"""Millimetres by which distances may differ besides: positions are often written with two decimals."""
FARTHEST = 1e6
"""Millimetres from the origin beyond which a position is none."""
NEAR = 1e-4
"""Millimetres between slices up to which they stand at one position."""
IN_PLANE = 0.05
"""Share of a pixel by which a slice may be shifted in its plane besides."""

# What may tell apart the slices that stand at one position (PS3.3 C.7.6.2, C.8.3.1, C.8.13.5, C.7.6.16.2.2).
_SUB_SERIES: tuple[Callable[[SliceHeader], Any], ...] = (
    attrgetter("acquisition"),
    attrgetter("echo_time"),
    attrgetter("temporal_position"),
    attrgetter("b_value"),
    attrgetter("image_type"),
    attrgetter("stack"),
    attrgetter("trigger_time"),
)


def group(headers: Iterable[SliceHeader], options: ReadOptions = ReadOptions()) -> list[Item | Reject]:
    """The volumes of scanned slices, one item each with its slices in order, and one reject for each part that is none.

    Slices are put together by Series Instance UID, then by orientation, and by sub-series (acquisition, echo, time, b-value,
    image type, stack) only where several stand at one position. Their order is that of position along the normal, never that of
    file names or instance numbers. Of slices that are the same in every field, SOP Instance UID included, one is used and
    the others make one reject "copied_slice". Of several orientations those with `options.least_slices` become volumes.

    A reject's item has all slices of its part as members.
    """
    found: list[Item | Reject] = []
    for series in _by_key(headers, lambda one: (one.series_uid is None, one.series_uid or one.path.rpartition("/")[0])):
        found += _volumes_of(series, options.least_slices)
    return sorted(found, key=_place)


def stack_geometry(slices: Sequence[SliceHeader]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of slices along their normal, and shifts in their plane (row, column), from the first; both in mm.

    Returns:
        (n,) and (n, 2) float64.
    """
    cosines = np.array(slices[0].orientation)
    row, column = cosines[:3], cosines[3:]
    offsets = np.array([one.position for one in slices]) - np.array(slices[0].position)
    return offsets @ np.cross(row, column), offsets @ np.stack([row, column], axis=1)


def _volumes_of(series: list[SliceHeader], least: int) -> Iterator[Item | Reject]:
    series, copies = _without_copies(series)
    if copies:
        yield Reject(_item(copies), "copied_slice", f"{len(copies)} slices")
    scouts = [one for one in series if one.is_localizer]
    if scouts:
        yield Reject(_item(scouts), "localizer", f"{len(scouts)} slices")
    series = [one for one in series if not one.is_localizer]
    lost = [one for one in series if not _is_placed(one)]
    if lost:
        yield Reject(_item(lost), "no_position", f"{len(lost)} of {len(series)} slices")
    placed = [one for one in series if _is_placed(one)]
    orientations = _by_orientation(placed)
    if len(orientations) > 1 and max(map(len, orientations)) < least:
        yield Reject(_item(placed), "mixed_orientation", f"{len(orientations)} orientations in {len(placed)} slices")
        return
    for slices in orientations:
        try:
            for part in _sub_series(slices, least):
                yield _checked(part, least)
        except RefusedError as refusal:
            yield Reject(_item(slices), refusal.reason, refusal.detail)


def _checked(part: list[SliceHeader], least: int) -> Item | Reject:
    try:
        part = _in_order(part)
        if len(part) < least:
            raise RefusedError("localizer", f"{len(part)} slices")
        check_stack(part)
    except RefusedError as refusal:
        return Reject(_item(part), refusal.reason, refusal.detail)
    return _item(part)


def check_stack(slices: Sequence[SliceHeader]) -> None:
    """See that slices, in order, are the planes of one rectangular volume.

    Raises:
        RefusedError: "no_position", "bad_header", "mixed_series", "duplicate_slices", "missing_slices", "uneven_spacing" or "gantry_tilt".
    """
    if not all(map(_is_placed, slices)):
        raise RefusedError("no_position")
    _check_cosines(slices[0])
    spacing = slices[0].spacing
    if spacing is None:
        raise RefusedError("bad_header", "PixelSpacing is absent or not above 0")
    problem = _problem(slices)
    if problem is not None:
        raise problem
    along, in_plane = stack_geometry(slices)
    gaps = np.diff(along)
    if gaps.min() <= 0:
        raise RefusedError("unreadable", "the slices are not in order")
    typical = float(np.median(gaps))
    if np.abs(gaps - typical).max() > max(EVEN * typical, ROUNDED):
        times = gaps / gaps.min()
        if np.abs(times - np.rint(times)).max() <= max(EVEN, ROUNDED / gaps.min()):
            missing = int((np.rint(times) - 1).sum())
            raise RefusedError("missing_slices", f"{missing} missing among {len(slices)}")
        raise RefusedError("uneven_spacing", f"{gaps.min():.3f} to {gaps.max():.3f} mm")
    shifts = np.linalg.norm(np.diff(in_plane, axis=0), axis=1)
    whole = float(np.linalg.norm(in_plane[-1]))
    if shifts.max() > max(EVEN * typical, IN_PLANE * min(spacing)) or whole > max(EVEN * along[-1], IN_PLANE * min(spacing)):
        angle = np.degrees(np.arctan2(whole, along[-1]))
        raise RefusedError("gantry_tilt", f"{shifts.max():.3f} mm from slice to slice, {angle:.1f} degrees")


def _sub_series(slices: list[SliceHeader], least: int) -> list[list[SliceHeader]]:
    """`slices` of one orientation as they are, or the fewest sub-series in which no two stand at one position.

    A way to split counts if every part is long enough to be a volume, or else if one is (a scan that was broken off).

    Raises:
        RefusedError: "bad_header", "duplicate_slices" or "mixed_series": there is no such way.
    """
    _check_cosines(slices[0])
    problem = _problem(slices)
    if problem is None:
        return [slices]
    keys = [key for key in _SUB_SERIES if len({key(one) for one in slices}) > 1]
    second_best = None
    for count in range(1, min(len(keys), 3) + 1):
        for chosen in itertools.combinations(keys, count):
            parts = _by_key(slices, lambda one, chosen=chosen: tuple((key(one) is None, key(one)) for key in chosen))
            lengths = [len(part) for part in parts]
            if max(lengths) < least or any(_problem(part) for part in parts):
                continue
            if min(lengths) >= least:
                return parts
            second_best = second_best or parts
    if second_best is None:
        raise problem
    return second_best


def _problem(slices: Sequence[SliceHeader]) -> RefusedError | None:
    """Why slices cannot be stacked, whatever their distances."""
    layouts = {(one.rows, one.columns, _rounded(one.spacing), one.rescale_type, one.photometric) for one in slices}
    if len(layouts) > 1:
        return RefusedError("mixed_series", f"{len(layouts)} kinds of rows, columns, spacing and units in {len(slices)} slices")
    gaps = np.diff(np.sort(stack_geometry(slices)[0]))
    apart = gaps[gaps > NEAR]
    places = 1 + int((apart > EVEN * np.median(apart)).sum()) if len(apart) else 1
    if places < len(slices):
        return RefusedError("duplicate_slices", f"{len(slices)} slices at {places} positions")
    return None


def _is_placed(one: SliceHeader) -> bool:
    if one.position is None or one.orientation is None:
        return False
    return max(map(abs, one.position + one.orientation)) <= FARTHEST


def _check_cosines(one: SliceHeader) -> None:
    row, column = np.array(one.orientation[:3]), np.array(one.orientation[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.01:
        raise RefusedError("bad_header", "ImageOrientationPatient is not of two orthogonal unit vectors")


def _without_copies(series: list[SliceHeader]) -> tuple[list[SliceHeader], list[SliceHeader]]:
    kept: dict[Any, SliceHeader] = {}
    copies = []
    for index, one in enumerate(sorted(series, key=_path)):
        # Without a UID nothing shows that two slices are the same image.
        first = kept.setdefault(index if one.instance_uid is None else replace(one, path=""), one)
        if first is not one:
            copies.append(one)
    return list(kept.values()), copies


def _by_orientation(slices: list[SliceHeader]) -> list[list[SliceHeader]]:
    groups: list[list[SliceHeader]] = []
    firsts = np.empty((0, 6))
    for one in slices:
        cosines = np.array(one.orientation)
        near = np.flatnonzero(np.abs(firsts - cosines).max(axis=1) <= SAME_COSINE) if groups else []
        if len(near):
            groups[near[0]].append(one)
        else:
            groups.append([one])
            firsts = np.vstack([firsts, cosines])
    return groups


def _in_order(slices: list[SliceHeader]) -> list[SliceHeader]:
    along, _ = stack_geometry(slices)
    return [slices[index] for index in np.argsort(along, kind="stable")]


def _by_key(slices: Iterable[SliceHeader], key: Callable[[SliceHeader], Any]) -> list[list[SliceHeader]]:
    groups = defaultdict(list)
    for one in slices:
        groups[key(one)].append(one)
    return list(groups.values())


def _item(slices: list[SliceHeader]) -> Item:
    first = slices[0]
    paths, frames = tuple(one.path for one in slices), tuple(one.frame for one in slices)
    return Item(first.path, first.frame, first.frame + 1, members=paths, frames=frames)


def _rounded(spacing: tuple[float, float] | None) -> tuple[float, float] | None:
    return spacing and (round(spacing[0], 4), round(spacing[1], 4))


def _path(one: SliceHeader) -> tuple[str, int]:
    return one.path, one.frame


def _place(one: Item | Reject) -> tuple[str, int]:
    item = one.item if isinstance(one, Reject) else one
    return item.path, item.start
