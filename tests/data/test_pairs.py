"""Related images: against every pair by hand, for random tables of images; drawn evenly, from seed and epoch alone."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy.stats import chisquare

from medssl.data.pair_kinds import PairKind
from medssl.data.pairs import RelatedImages, related_images
from medssl.data.pairs.related import COLUMNS
from medssl.errors import DataError

AXIAL, SAGITTAL = [1.0, 0, 0, 0, 1, 0], [0.0, 1, 0, 0, 0, -1]
KIND = TypeAdapter(PairKind)
PREFERENCES = [
    [{"kind": "adjacent_tile"}],
    [{"kind": "adjacent_tile", "radius": 2, "diagonal": False}],
    [{"kind": "adjacent_tile", "radius": 3}],
    [{"kind": "adjacent_slice", "radius": 1}],
    [{"kind": "adjacent_slice", "radius": 3}],
    [{"kind": "adjacent_slice", "radius_mm": 2.5}],
    [{"kind": "adjacent_slice", "radius_mm": 5}],
    [{"kind": "same_series"}],
    [{"kind": "same_study_other_view"}],
    [{"kind": "same_study_other_view", "laterality": "kept"}],
    [{"kind": "same_patient_other_date"}],
    [{"kind": "same_patient"}],
    [{"kind": "adjacent_tile"}, {"kind": "adjacent_slice", "radius_mm": 2.5}, {"kind": "same_series"}],
    [{"kind": "same_study_other_view"}, {"kind": "same_patient_other_date"}, {"kind": "same_patient"}],
    [],
]


def kinds_of(blocks: list[dict[str, Any]]) -> list[PairKind]:
    return [KIND.validate_python(block) for block in blocks]


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of a manifest with the types that it has when it is read; what a row does not say is empty."""
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(object)
    whole = ["slice", "days_since_first", "tile_row", "tile_column"]
    places = ["spacing_slice", "position_x", "position_y", "position_z"]
    return table.astype(dict.fromkeys(whole + places, "float64"))


def alike(one: dict, other: dict, *names: str) -> bool:
    return all(one[name] is not None and one[name] == other[name] for name in names)


def place_mm(row: dict, axis: int) -> float:
    return row[("position_x", "position_y", "position_z")[axis]]


def slices_by_hand(rows: list[dict], one: dict, other: dict, kind: Any) -> bool:
    if not alike(one, other, "series") or one["orientation"] != other["orientation"]:
        return False
    if kind.radius is not None:
        if one["slice"] is not None and other["slice"] is not None:
            return abs(one["slice"] - other["slice"]) <= kind.radius
    else:
        numbered = [row["slice"] is not None and row["spacing_slice"] is not None for row in (one, other)]
        if all(numbered):
            apart = abs(one["slice"] * one["spacing_slice"] - other["slice"] * other["spacing_slice"])
            return apart <= kind.radius_mm
        if any(numbered):
            return False
    axis = 2 if one["orientation"] == AXIAL else 0
    if one["orientation"] is None or one["position_x"] is None or other["position_x"] is None:
        return False
    if kind.radius_mm is not None:
        return abs(place_mm(one, axis) - place_mm(other, axis)) <= kind.radius_mm
    if one["slice"] is not None or other["slice"] is not None:
        return False
    own = [row for row in rows if alike(row, one, "source", "patient", "series") and row["orientation"] == one["orientation"]]
    places = sorted({place_mm(row, axis) for row in own if row["slice"] is None and row["position_x"] is not None})
    return abs(places.index(place_mm(one, axis)) - places.index(place_mm(other, axis))) <= kind.radius


def by_hand(rows: list[dict], a: int, b: int, kind: Any) -> bool:
    """Whether image b may stand for image a, written down from the kind's description and from nothing else."""
    one, other = rows[a], rows[b]
    if a == b or not alike(one, other, "source", "patient"):
        return False
    match kind.kind:
        case "adjacent_tile":
            if not alike(one, other, "series") or None in (one["tile_row"], other["tile_row"]):
                return False
            steps = abs(one["tile_row"] - other["tile_row"]), abs(one["tile_column"] - other["tile_column"])
            return max(steps) <= kind.radius and (kind.diagonal or min(steps) == 0)
        case "adjacent_slice":
            return slices_by_hand(rows, one, other, kind)
        case "same_series":
            return alike(one, other, "series")
        case "same_study_other_view":
            if not alike(one, other, "study") or None in (one["view"], other["view"]):
                return False
            if kind.laterality == "kept":
                return one["laterality"] == other["laterality"] and one["view"] != other["view"]
            return (one["view"], one["laterality"]) != (other["view"], other["laterality"])
        case "same_patient_other_date":
            dates = one["days_since_first"], other["days_since_first"]
            return None not in dates and dates[0] != dates[1]
    return True


def mates_by_hand(rows: list[dict], kinds: dict[str, list[Any]]) -> list[tuple[str, set[int]]]:
    found = []
    for a, row in enumerate(rows):
        for kind in kinds.get(row["source"], []):
            if mates := {b for b in range(len(rows)) if by_hand(rows, a, b, kind)}:
                found.append((kind.kind, mates))
                break
        else:
            found.append(("", set()))
    return found


def mates_of(related: RelatedImages) -> list[set[int]]:
    """All mates of each image, read off by asking for each number instead of a drawn one."""
    found: list[set[int]] = [set() for _ in range(len(related))]
    for mates in related._served:
        counts = mates.counts()
        for which in range(int(counts.max())):
            has = np.flatnonzero(counts > which)
            for row, mate in zip(mates.rows[has], mates.only(counts > which).pick(np.full(len(has), which)), strict=True):
                assert mate not in found[row], "a mate that counts twice would be drawn twice as often"
                found[row].add(int(mate))
    return found


def maybe(*values: Any) -> st.SearchStrategy:
    return st.sampled_from([None, *values])


QUARTERS = st.integers(0, 30).map(lambda quarters: quarters / 4)
IMAGE = st.fixed_dictionaries(
    {
        "source": st.sampled_from("ab"),
        "patient": st.sampled_from(["p", "q", "q", "r"]),
        "study": maybe("s", "t"),
        "series": maybe("x", "x", "y"),
        "slice": st.none() | st.integers(0, 9),
        "spacing_slice": maybe(0.5, 1.0, 1.0, 2.5),
        "position": st.none() | QUARTERS,
        "orientation": maybe(AXIAL, AXIAL, SAGITTAL),
        "laterality": maybe("L", "R"),
        "view": maybe("CC", "MLO"),
        "days_since_first": maybe(0, 0, 34),
        "tile": st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)),
    }
)


def spread(images: list[dict]) -> list[dict]:
    """Images with positions and tiles as columns; two tiles of a slide never stand at one place."""
    rows, taken = [], set()
    for image in images:
        tile, at = image["tile"], image["position"]
        place = (image["source"], image["patient"], image["series"], tile)
        tile = (None, None) if tile is None or place in taken else tile
        taken.add(place)
        position = dict.fromkeys(("position_x", "position_y", "position_z"), at)
        rows.append({name: image[name] for name in image if name not in ("tile", "position")} | position)
        rows[-1] |= {"tile_row": tile[0], "tile_column": tile[1]}
    return rows


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(IMAGE, max_size=30).map(spread), st.sampled_from(PREFERENCES), st.sampled_from(PREFERENCES))
def test_the_mates_are_those_of_every_pair_by_hand(rows, of_a, of_b):
    kinds = {"a": kinds_of(of_a), "b": kinds_of(of_b)}
    related = related_images(table_of(rows), kinds)
    expected = mates_by_hand(rows, kinds)
    assert mates_of(related) == [mates for _, mates in expected]
    assert related.kinds.tolist() == [kind for kind, _ in expected]
    assert related.mates.tolist() == [len(mates) for _, mates in expected]
    assert related.found.tolist() == [bool(mates) for _, mates in expected]
    for epoch in range(3):
        for row, partner in enumerate(related.partners(5, epoch).tolist()):
            assert partner in expected[row][1] if expected[row][1] else partner == -1
            assert partner == -1 or (rows[partner]["patient"], rows[partner]["source"]) == (
                rows[row]["patient"],
                rows[row]["source"],
            )


def stack(places: list[float], **others: Any) -> list[dict]:
    about = {"source": "a", "patient": "p", "series": "x", "orientation": AXIAL, "position_x": 7.0, "position_y": -3.0} | others
    return [about | {"position_z": place} for place in places]


def numbers(rows: list[dict], *blocks: dict) -> list[set[int]]:
    return mates_of(related_images(table_of(rows), {"a": kinds_of(list(blocks))}))


def test_a_radius_in_slices_counts_places_and_one_in_mm_measures():
    rows = stack([0, 1, 2.5, 20, 20])
    assert numbers(rows, {"kind": "adjacent_slice", "radius": 1}) == [{1}, {0, 2}, {1, 3, 4}, {2, 4}, {2, 3}]
    assert numbers(rows, {"kind": "adjacent_slice", "radius_mm": 1.5}) == [{1}, {0, 2}, {1}, {4}, {3}]


def test_the_edge_of_a_radius_belongs_to_it_although_positions_are_rounded():
    rows = stack([0.1 * 3, 0.1 * 3 + 2.5, 0.1 * 3 + 2 * 2.5 + 1e-9, 5.31])
    assert numbers(rows, {"kind": "adjacent_slice", "radius_mm": 5.0})[0] == {1, 2}


def test_slices_are_ordered_along_their_normal_not_by_an_axis():
    turned = [0.6, 0.0, -0.8, 0.0, 1.0, 0.0]  # its normal is (0.8, 0, 0.6)
    rows = [
        {"source": "a", "patient": "p", "series": "x", "orientation": turned, "position_y": 9.0 * place}
        | {"position_x": 0.8 * place, "position_z": 0.6 * place}
        for place in (4, 0, 1, 3, 2)
    ]
    assert numbers(rows, {"kind": "adjacent_slice", "radius": 1}) == [{3}, {2}, {1, 4}, {0, 4}, {2, 3}]
    assert numbers(rows, {"kind": "adjacent_slice", "radius_mm": 1.0}) == [{3}, {2}, {1, 4}, {0, 4}, {2, 3}]


def test_directions_that_differ_in_the_last_digits_are_one_stack():
    rows = stack([0, 1, 2])
    for row, digit in zip(rows, count(), strict=False):
        row["orientation"] = [1.0, 0.005 + 1e-6 * (digit - 1), 0, -0.005, 1.0, 0]
    assert numbers(rows, {"kind": "adjacent_slice", "radius": 1}) == [{1}, {0, 2}, {1}]


def test_what_is_no_position_takes_no_part():
    rows = [*stack([0.0, 1.0]), *stack([float("nan")]), *stack([1e30]), *stack([0.5], orientation=[float("nan")] * 6)]
    for radius in ({"radius": 2}, {"radius_mm": 9.0}):
        assert numbers(rows, {"kind": "adjacent_slice"} | radius) == [{1}, {0}, set(), set(), set()]


def test_the_eight_tiles_around_one_and_the_four():
    rows = [
        {"source": "a", "patient": "p", "series": "slide", "tile_row": row, "tile_column": column}
        for row in range(5)
        for column in range(5)
    ]
    assert numbers(rows, {"kind": "adjacent_tile"})[12] == {6, 7, 8, 11, 13, 16, 17, 18}
    assert numbers(rows, {"kind": "adjacent_tile", "diagonal": False})[12] == {7, 11, 13, 17}
    assert numbers(rows, {"kind": "adjacent_tile", "diagonal": False, "radius": 2})[12] == {2, 7, 10, 11, 13, 14, 17, 22}
    assert numbers(rows, {"kind": "adjacent_tile"})[4] == {3, 8, 9}, "the end of a row does not touch the next row's beginning"
    assert len(numbers(rows, {"kind": "adjacent_tile", "radius": 2})[12]) == 24


def test_two_tiles_at_one_place_are_one_line():
    tile = {"source": "a", "patient": "p", "series": "slide", "tile_row": 1, "tile_column": 1}
    with pytest.raises(DataError, match="a: two tiles of one slide stand at one place of its grid") as caught:
        numbers([tile, tile], {"kind": "adjacent_tile"})
    assert "\n" not in str(caught.value)


def test_each_mate_is_drawn_as_often_as_any_other():
    rows = [
        {"source": "a", "patient": "p", "series": "slide", "tile_row": row, "tile_column": column}
        for row in range(3)
        for column in range(3)
    ]
    related = related_images(table_of(rows), {"a": kinds_of([{"kind": "adjacent_tile"}])})
    draws = np.stack([related.partners(0, epoch).numpy() for epoch in range(4000)])
    for image, mates in ((4, 8), (0, 3), (1, 5)):
        seen, counts = np.unique(draws[:, image], return_counts=True)
        assert len(seen) == mates
        assert chisquare(counts).pvalue > 1e-3
    both = ((draws[:, 0] == 1) & (draws[:, 2] == 1)).mean()
    assert both == pytest.approx(1 / 9, abs=0.03), "images of one epoch draw apart from each other"


def test_draws_follow_from_seed_and_epoch_alone():
    rows = [{"source": "a", "patient": f"p{i // 20}"} for i in range(200)]
    kinds = {"a": kinds_of([{"kind": "same_patient"}])}
    one, again = related_images(table_of(rows), kinds), related_images(table_of(rows), kinds)
    one.partners(3, 0)
    drawn = one.partners(3, 7)
    assert drawn.dtype.is_floating_point is False
    assert drawn.shape == (200,)
    assert drawn.tolist() == again.partners(3, 7).tolist()
    for seed, epoch in ((3, 8), (4, 7)):
        assert (one.partners(seed, epoch) == drawn).float().mean() < 0.2


def test_the_index_of_the_table_and_its_order_do_not_matter():
    rows = stack([0, 1, 2, 3])
    kinds = {"a": kinds_of([{"kind": "adjacent_slice", "radius": 1}])}
    table = table_of(rows).set_index(pd.Index([70, 7, 700, 0]))
    assert mates_of(related_images(table, kinds)) == [{1}, {0, 2}, {1, 3}, {2}]
    assert mates_of(related_images(table.iloc[[3, 1, 0, 2]], kinds)) == [{3}, {2, 3}, {1}, {0, 1}]


def test_only_what_was_passed_counts():
    rows = stack([0, 1, 2, 3])
    kinds = {"a": kinds_of([{"kind": "same_series"}]), "absent": kinds_of([{"kind": "same_patient"}])}
    assert mates_of(related_images(table_of(rows).iloc[[0, 3]], kinds)) == [{1}, {0}]
    assert related_images(table_of(rows), {}).partners(0, 0).tolist() == [-1] * 4


def test_the_sentence():
    rows = [*stack([0, 1]), {"source": "a", "patient": "q"}, {"source": "a", "patient": "q"}, {"source": "b", "patient": "q"}]
    blocks = [{"kind": "adjacent_slice", "radius": 1}, {"kind": "same_patient"}]
    related = related_images(table_of(rows), {"a": kinds_of(blocks)})
    assert related.counts == {"adjacent_slice": 2, "same_patient": 2}
    assert related.sentence() == (
        "4 of 5 images have a related image (adjacent_slice 2, same_patient 2); 1 (20.0%) fall back to a second view"
    )
    assert related_images(table_of(rows[:2]), {"a": kinds_of(blocks)}).sentence() == (
        "2 of 2 images have a related image (adjacent_slice 2)"
    )
    none = related_images(table_of(rows), {})
    assert none.sentence() == "none of 5 images has a related image; all fall back to a second view"


def many(rows: int) -> tuple[pd.DataFrame, dict[str, list[PairKind]]]:
    """A quarter each of tiles (slides of 100 x 100), slices (series of 2,500), one huge patient, and studies of two views."""
    part = rows // 4
    at = np.arange(part)
    empty = pd.DataFrame(index=range(part), columns=list(COLUMNS))
    slide, place = np.divmod(at, 10_000)
    tiles = empty.assign(source="tiles", patient="p", series=slide.astype(str), tile_row=place // 100, tile_column=place % 100)
    slices = empty.assign(source="slices", patient="p", series=(at // 2500).astype(str), position_x=0.0, position_y=0.0)
    slices = slices.assign(position_z=(at % 2500) * 0.7, orientation=pd.Series([AXIAL] * part))
    huge = empty.assign(source="huge", patient="one", days_since_first=at % 1000)
    pairs = empty.assign(source="views", patient=(at // 4).astype(str), study=(at // 2).astype(str))
    pairs = pairs.assign(view=np.where(at % 2 == 0, "PA", "LL"))
    blocks = {
        "tiles": {"kind": "adjacent_tile"},
        "slices": {"kind": "adjacent_slice", "radius_mm": 1.5},
        "huge": {"kind": "same_patient_other_date"},
        "views": {"kind": "same_study_other_view"},
    }
    table = pd.concat([tiles, slices, huge, pairs], ignore_index=True)
    whole = ["tile_row", "tile_column", "days_since_first", "slice", "spacing_slice", "position_x", "position_y", "position_z"]
    return table.astype(dict.fromkeys(whole, "float64")), {name: kinds_of([block]) for name, block in blocks.items()}


@pytest.mark.parametrize("rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_rows(rows):
    table, kinds = many(rows)
    related = related_images(table, kinds)
    assert related.counts == dict.fromkeys(
        ("adjacent_slice", "adjacent_tile", "same_patient_other_date", "same_study_other_view"), rows // 4
    )
    held = sum(part.nbytes for mates in related._served for part in (mates.rows, mates.order, mates.low, mates.high))
    assert held < 200 * rows, "memory grows with pairs"  # the huge patient alone has (rows / 4)^2 of them
    drawn = related.partners(0, 0).numpy()
    own = np.arange(rows)
    assert (drawn >= 0).all()
    assert (drawn != own).all()
    for column in ("source", "patient"):
        assert (table[column].to_numpy()[drawn] == table[column].to_numpy()).all()
    by_source = {name: own[table["source"] == name] for name in kinds}
    tiles, slices, huge, views = (by_source[name] for name in ("tiles", "slices", "huge", "views"))
    for column in ("tile_row", "tile_column"):
        assert np.abs(table[column].to_numpy()[drawn[tiles]] - table[column].to_numpy()[tiles]).max() == 1
    apart = np.abs(table["position_z"].to_numpy()[drawn[slices]] - table["position_z"].to_numpy()[slices])
    assert apart.max() == pytest.approx(1.4)
    assert (table["days_since_first"].to_numpy()[drawn[huge]] != table["days_since_first"].to_numpy()[huge]).all()
    assert (drawn[views] == (views ^ 1)).all()
