"""Pairs of images that lie side by side: neighbouring tiles of a slide (SimTriplet, Liu et al., MICCAI 2021, section 2.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd


def adjacent_tiles(manifest: pd.DataFrame, radius: int = 1, *, diagonal: bool = False) -> np.ndarray:
    """Pairs of tiles of one slide that are neighbours on its grid.

    Args:
        manifest: with `source`, `series`, `tile_row` and `tile_column`; rows that are no tiles pair with nothing.
        radius: most rows or columns from a tile to its neighbour.
        diagonal: neighbours may differ in row and column; else they share one of them.

    Returns:
        (N, 2) int64: positions of the rows of `manifest` (not its index), each pair once and the lesser position first, sorted.

    Raises:
        ValueError: `radius` is less than 1, or two tiles of a slide stand at one place of its grid.
    """
    if radius < 1:
        raise ValueError(f"radius is {radius}, it must be 1 or more")
    positions = np.flatnonzero((manifest["tile_row"].notna() & manifest["series"].notna()).to_numpy())
    tiles = manifest.iloc[positions]
    slide = tiles.groupby(["source", "series"], sort=False, dropna=False).ngroup().to_numpy(np.int64)
    row, column = (tiles[name].to_numpy(np.int64) for name in ("tile_row", "tile_column"))
    # One number a place; the margin of `radius` keeps the end of a row or slide apart from the beginning of the next.
    width = int(column.max(initial=0)) + 1 + radius
    height = int(row.max(initial=0)) + 1 + radius
    place = (slide * height + row) * width + column
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        raise ValueError("two tiles of one slide stand at one place of its grid; pass the tiles of one scale only")
    found = [np.empty((0, 2), np.int64)]
    for down, across in _offsets(radius, diagonal):
        # Columns have no margin on the left, so that a step to the left may end in the row above.
        inside = column[order] + across >= 0
        sought = ordered[inside] + down * width + across
        at = np.minimum(np.searchsorted(ordered, sought), max(len(ordered) - 1, 0))
        hit = ordered[at] == sought
        found.append(np.stack([positions[order[inside][hit]], positions[order[at[hit]]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _offsets(radius: int, diagonal: bool) -> list[tuple[int, int]]:
    """Half of the neighbourhood, as rows down and columns across: the other half are the same pairs, seen from the other tile."""
    steps = range(-radius, radius + 1)
    return [
        (down, across)
        for down in range(radius + 1)
        for across in steps
        if (down > 0 or across > 0) and (diagonal or down == 0 or across == 0)
    ]
