"""Neighbouring tiles of a slide (SimTriplet, Liu et al., MICCAI 2021, section 2.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medssl.data.pair_kinds import AdjacentTile
from medssl.data.pairs.mates import Mates, codes
from medssl.errors import DataError


def adjacent_tiles(table: pd.DataFrame, kind: AdjacentTile) -> Mates:
    """Tiles of one slide that are neighbours on its grid: in each row of the grid they are one range of the sorted tiles.

    Args:
        table: with `source`, `patient`, `series`, `tile_row` and `tile_column`; rows without them are no tiles.

    Raises:
        DataError: two tiles of a slide stand at one place of its grid.
    """
    needed = ["patient", "series", "tile_row", "tile_column"]
    rows = np.flatnonzero(table[needed].notna().all(axis=1).to_numpy())
    part = table.iloc[rows]
    radius = kind.radius
    row, column = (part[name].to_numpy(np.int64) for name in ("tile_row", "tile_column"))
    row, column = row - row.min(initial=0) + radius, column - column.min(initial=0) + radius
    # One number a place; the margins keep the end of a row, or of a slide, apart from the beginning of the next.
    width, height = int(column.max(initial=0)) + 1 + radius, int(row.max(initial=0)) + 1 + radius
    key = (codes(part, ["source", "patient", "series"]) * height + row) * width + column
    at = np.argsort(key, kind="stable")
    ordered = key[at]
    if (twice := ordered[1:] == ordered[:-1]).any():
        source = part["source"].iloc[at[twice.argmax()]]
        raise DataError(f"{source}: two tiles of one slide stand at one place of its grid; index the tiles of one scale only")
    low, high = [], []
    for down in range(-radius, radius + 1):
        across = radius if kind.diagonal or down == 0 else 0
        middle = key + down * width
        left = np.searchsorted(ordered, middle - across, "left")
        right = np.searchsorted(ordered, middle + across, "right")
        if down == 0:
            own = np.searchsorted(ordered, key, "left")
            low += [left, own + 1]
            high += [own, right]
        else:
            low.append(left)
            high.append(right)
    return Mates(rows, rows[at], np.stack(low), np.stack(high))
