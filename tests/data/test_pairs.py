"""Neighbouring tiles: the grid's edges, slides and sources apart, radius, diagonals, and speed at a million rows."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest

from medssl.data.pairs import adjacent_tiles


def _manifest(tiles) -> pd.DataFrame:
    frame = pd.DataFrame(tiles, columns=["source", "series", "tile_row", "tile_column"])
    return frame.astype({"tile_row": "Int32", "tile_column": "Int32"})


def _by_hand(manifest: pd.DataFrame, radius: int, diagonal: bool) -> list[tuple[int, int]]:
    rows = manifest.to_dict("records")
    pairs = []
    for a, b in itertools.combinations(range(len(rows)), 2):
        one, other = rows[a], rows[b]
        if (
            pd.isna(one["series"])
            or (one["source"], one["series"]) != (other["source"], other["series"])
            or pd.isna(one["tile_row"])
        ):
            continue
        if pd.isna(other["tile_row"]):
            continue
        down, across = abs(one["tile_row"] - other["tile_row"]), abs(one["tile_column"] - other["tile_column"])
        if max(down, across) <= radius and (diagonal or min(down, across) == 0):
            pairs.append((a, b))
    return pairs


def test_a_two_by_three_grid():
    grid = _manifest([("a", "s", row, column) for row in range(2) for column in range(3)])
    assert adjacent_tiles(grid).tolist() == [[0, 1], [0, 3], [1, 2], [1, 4], [2, 5], [3, 4], [4, 5]]
    assert adjacent_tiles(grid, diagonal=True).tolist() == sorted(
        [[0, 1], [0, 3], [1, 2], [1, 4], [2, 5], [3, 4], [4, 5], [0, 4], [1, 5], [1, 3], [2, 4]]
    )
    assert [0, 2] in adjacent_tiles(grid, radius=2).tolist()


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_against_every_pair_by_hand(radius, diagonal):
    generator = np.random.default_rng(radius)
    tiles = {
        (("a", "b")[generator.integers(2)], ("s", "t")[generator.integers(2)], *generator.integers(0, 7, 2).tolist())
        for _ in range(90)
    }
    rows = [*tiles, ("a", "s", None, None), ("a", None, 0, 0), ("a", None, 0, 1)]
    generator.shuffle(rows)
    manifest = _manifest([tuple(row) for row in rows])
    pairs = adjacent_tiles(manifest, radius, diagonal=diagonal)
    assert pairs.dtype == np.int64
    assert [tuple(pair) for pair in pairs.tolist()] == _by_hand(manifest, radius, diagonal)
    assert len(pairs) > 20


def test_the_index_of_the_manifest_does_not_matter():
    grid = _manifest([("a", "s", 0, 0), ("a", "s", 0, 1)]).set_index(pd.Index([70, 7]))
    assert adjacent_tiles(grid).tolist() == [[0, 1]]


def test_nothing_to_pair():
    for rows in ([], [("a", "s", None, None)], [("a", "s", 0, 0)], [("a", "s", 0, 0), ("a", "s", 0, 2)]):
        assert adjacent_tiles(_manifest(rows)).shape == (0, 2)


def test_what_cannot_be_paired():
    with pytest.raises(ValueError, match="radius"):
        adjacent_tiles(_manifest([]), 0)
    with pytest.raises(ValueError, match="one place"):
        adjacent_tiles(_manifest([("a", "s", 0, 0), ("a", "s", 0, 0)]))


def test_a_million_tiles_take_seconds():
    side = 500
    row, column = np.divmod(np.arange(side * side), side)
    one = pd.DataFrame({"source": "a", "series": "s", "tile_row": row, "tile_column": column})
    manifest = pd.concat([one.assign(series=name) for name in "stuv"])
    start = time.perf_counter()
    pairs = adjacent_tiles(manifest)
    assert len(pairs) == 4 * 2 * side * (side - 1)
    assert time.perf_counter() - start < 20
