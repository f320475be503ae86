"""Where slices stand in their series, along the normal of their plane."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.pair_kinds import AdjacentSlice
from medssl.data.pairs.mates import Mates, codes, within_reach

POSITION = ["position_x", "position_y", "position_z"]
_PARALLEL = 0.01
"""Direction cosines of slices of one stack differ by less: writers round them, and headers of one stack may differ in the last digits."""
_SAME_PLACE = 0.01
"""mm; slices that are nearer stand at one place, as in `formats.slice_headers`."""
_FARTHEST = 1e6
"""mm; a position beyond is no position."""


def adjacent_slices(table: pd.DataFrame, kind: AdjacentSlice) -> Mates:
    """Slices within the radius, of one series and one direction.

    A slice's place is `slice`, its number in the volume that it was cut from, where it has one; else its position projected on
    the normal of its series, of which `radius` counts the distinct places that are among the rows. In mm it is `slice` times
    `spacing_slice`, else the projection (LPS). Slices at one place, such as two echoes, are mates. Distances are
    good to 2 micrometres, so that a radius of 5.0 mm holds two slices of 2.5 mm.

    Args:
        table: with `source`, `patient`, `series`, `slice`, `spacing_slice`, POSITION and `orientation`.
    """
    rows = np.flatnonzero((table["series"].notna() & table["patient"].notna()).to_numpy())
    part = table.iloc[rows]
    stack, normal, has_normal = _stacks(part)
    projected = _projected(part, normal, has_normal)
    number = pd.to_numeric(part["slice"]).to_numpy(np.float64, na_value=np.nan)
    if kind.radius_mm is None:
        numbered = np.isfinite(number)
        place = np.where(numbered, number, np.nan)
        rest = np.flatnonzero(~numbered & np.isfinite(projected))
        place[rest] = _ranks(stack[rest], projected[rest])
        reach = kind.radius
    else:
        in_mm = number * pd.to_numeric(part["spacing_slice"]).to_numpy(np.float64, na_value=np.nan)
        numbered = np.isfinite(in_mm) & (np.abs(in_mm) < _FARTHEST)
        place = np.rint(np.where(numbered, in_mm, projected) * 1000)  # micrometres, so that sorting and adding are exact
        reach = round(kind.radius_mm * 1000) + 1
    known = np.isfinite(place)
    # Numbers and projections of one series have different origins and are never compared.
    group = stack * 2 + numbered
    return within_reach(rows[known], group[known], place[known].astype(np.int64), reach)


def _stacks(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M,) int64: series and direction; (M, 3): the normal of the stack; (M,) bool: whether it is known."""
    series = codes(part, ["source", "patient", "series"])
    given = np.array([value is not None and np.size(value) == 6 for value in part["orientation"]], bool)
    cosines = np.full((len(part), 6), np.nan)
    if given.any():
        cosines[given] = np.stack(part["orientation"].to_numpy()[given]).astype(np.float64)
    given &= np.isfinite(cosines).all(axis=1)
    direction, left = np.zeros(len(part), np.int64), np.flatnonzero(given)
    normal, turn = np.zeros((len(part), 3)), 0
    # Cosines are compared with those of the first slice of the series: rounding them would divide a stack at the edge of a bin.
    while len(left):
        turn += 1
        _, first, of = np.unique(series[left], return_index=True, return_inverse=True)
        reference = cosines[left[first]][of]
        alike = np.abs(cosines[left] - reference).max(axis=1) < _PARALLEL
        direction[left[alike]] = turn
        normal[left[alike]] = np.cross(reference[alike, :3], reference[alike, 3:])
        left = left[~alike]
    return series * (turn + 1) + direction, normal, given


def _projected(part: pd.DataFrame, normal: np.ndarray, has_normal: np.ndarray) -> np.ndarray:
    """(M,) float64: mm along the normal; NaN where position or direction is not known."""
    position = part[POSITION].to_numpy(np.float64, na_value=np.nan)
    along = (position * normal).sum(axis=1)
    return np.where(has_normal & (np.abs(along) < _FARTHEST), along, np.nan)


def _ranks(stack: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(M,) int64: the number of each place in its stack, counted from an arbitrary one; what stands at one place has one number."""
    at = np.lexsort((along, stack))
    step = np.ones(len(at), np.int64)
    step[1:] = (np.diff(along[at]) > _SAME_PLACE) | (np.diff(stack[at]) != 0)
    ranks = np.empty(len(at), np.int64)
    ranks[at] = np.cumsum(step)
    # From 0 in each stack: the numbers of all stacks together would make keys of stack and place too large.
    first = pd.Series(ranks).groupby(stack).transform("min").to_numpy(np.int64)
    return ranks - first
