"""Data cards: the shipped ones are right, wrong ones get their line, roots are found where they are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medssl.data.card import find_card, find_root, read_card
from medssl.data.values import ValueReader
from medssl.errors import CardError, DataError

CARDS = Path(__file__).parents[2] / "data_cards"


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_cards(path):
    card = read_card(path)
    assert card.name == path.stem
    assert card.licence
    assert card.obtain
    assert card.synthetic == (card.phantom is not None)


def test_a_card_is_found_by_name_or_path(tmp_path):
    study = tmp_path / "configs" / "study.yaml"
    study.parent.mkdir()
    assert find_card("phantom_cxr", study) == CARDS / "phantom_cxr.yaml"
    (tmp_path / "data_cards").mkdir()
    own = tmp_path / "data_cards" / "phantom_cxr.yaml"
    own.write_text("x")
    assert find_card("phantom_cxr", study) == own  # beside the study comes first
    (study.parent / "mine.yaml").write_text("x")
    assert find_card("mine.yaml", study) == study.parent / "mine.yaml"
    with pytest.raises(CardError, match="there is no card 'kermany_cxx'; did you mean 'kermany_cxr'"):
        find_card("kermany_cxx", study)
    with pytest.raises(CardError, match=r"there is no card none\.yaml"):
        find_card("none.yaml", study)


def test_unknown_keys_and_versions(tmp_path):
    text = (CARDS / "breastmnist.yaml").read_text()
    path = tmp_path / "card.yaml"
    path.write_text(text.replace("licence:", "license:"))
    with pytest.raises(CardError, match=r"license: unknown key; did you mean 'licence'|licence: is missing"):
        read_card(path)
    path.write_text(text.replace("version: 1", "version: 7"))
    with pytest.raises(CardError, match="version: is 7, this medssl reads version 1"):
        read_card(path)


def test_roots(tmp_path, monkeypatch):
    card = read_card(CARDS / "breastmnist.yaml")
    monkeypatch.delenv("MEDSSL_DATA", raising=False)
    with pytest.raises(
        CardError,
        match=r"data\.breast: no folder is known for breastmnist; pass --set data\.breast\.root=FOLDER or set MEDSSL_DATA",
    ):
        find_root(card, None, "breast", tmp_path)
    with pytest.raises(CardError, match=r"data\.breast: there is no folder"):
        find_root(card, str(tmp_path / "none"), "breast", tmp_path)
    (tmp_path / "medmnist").mkdir()
    monkeypatch.setenv("MEDSSL_DATA", str(tmp_path))
    assert find_root(card, None, "breast", tmp_path) == tmp_path / "medmnist"
    phantom = read_card(CARDS / "phantom_cxr.yaml")
    assert find_root(phantom, None, "archive", tmp_path / "made") == tmp_path / "made"


def card_with(tmp_path, addition: str, card: str = "kermany_cxr"):
    """The card with `addition` in the place of its positive_pairs, read."""
    text = (CARDS / f"{card}.yaml").read_text()
    before, _, after = text.partition("positive_pairs:")
    path = tmp_path / "card.yaml"
    path.write_text(before + addition + "\n" + after[after.index("known_faults:") :])
    return read_card(path)


def test_shipped_cards_say_which_images_are_related():
    kinds = {path.stem: [kind.kind for kind in read_card(path).positive_pairs] for path in CARDS.glob("*.yaml")}
    assert kinds["he_regions"] == kinds["breakhis_tiles"] == ["adjacent_tile"]
    assert kinds["hippocampus_slices"] == ["adjacent_slice"]
    assert kinds["phantom_cxr"] == ["same_study_other_view", "same_patient_other_date"]
    assert kinds["kermany_cxr"] == [], "children share its patients' numbers"
    assert kinds["breastmnist"] == kinds["pneumoniamnist"] == kinds["hippocampus"] == []


def test_related_images_have_defaults(tmp_path):
    tile, view = card_with(tmp_path, "positive_pairs: [{kind: adjacent_tile}, {kind: same_study_other_view}]").positive_pairs
    assert (tile.radius, tile.diagonal, view.laterality) == (1, True, "free")


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ("[same_patient]", r"positive_pairs: 'same_patient' is a word, not a block such as \{kind: same_patient\}"),
        (
            "[{kind: adjacent_tiles}]",
            r"positive_pairs\.0: .*kind.* is 'adjacent_tiles'; did you mean 'adjacent_tile'\?; allowed: .*'adjacent_tile'",
        ),
        ("[{radius: 1}]", r"positive_pairs\.0: .*kind.* is missing"),
        ("[{kind: adjacent_slice}]", r"positive_pairs\.0: adjacent_slice needs exactly one of radius \(slices\) and radius_mm"),
        ("[{kind: adjacent_slice, radius: 1, radius_mm: 2.0}]", r"positive_pairs\.0: .* exactly one of"),
        ("[{kind: adjacent_slice, radius: 1.5}]", r"positive_pairs\.0\.radius: is 1\.5"),
        ("[{kind: adjacent_slice, radius_mm: 0}]", r"positive_pairs\.0\.radius_mm: is 0"),
        ("[{kind: adjacent_tile, radius: 0}]", r"positive_pairs\.0\.radius: is 0"),
        ("[{kind: same_series, radius: 1}]", r"positive_pairs\.0\.radius: unknown key"),
        ("[{kind: same_study_other_view, laterality: same}]", r"positive_pairs\.0\.laterality: is 'same'; allowed"),
    ],
)
def test_wrong_related_images_are_one_line(tmp_path, pairs, words):
    with pytest.raises(CardError, match=words) as caught:
        card_with(tmp_path, f"positive_pairs: {pairs}")
    assert "\n" not in str(caught.value)


SLIDE = "slide: [{pattern: '(?P<value>s[0-9]+)_'}]"


def test_tiles_by_number_and_by_row_and_column(tmp_path):
    numbered = card_with(tmp_path, f"tiles: {{{SLIDE}, index: [{{pattern: '_(?P<value>[0-9x]+)[.]png$'}}], columns: 3}}")
    values = ValueReader(numbered, tmp_path)
    assert [values.tile(f"a/s1_{number}.png", {}) for number in range(6)] == [
        ("s1", row, column) for row in range(2) for column in range(3)
    ]
    assert values.tile("a/overview.png", {}) is None
    with pytest.raises(DataError, match=r"kermany_cxr: tiles\.index: the value '1x' is no whole number"):
        values.tile("a/s1_1x.png", {})
    placed = card_with(
        tmp_path, f"tiles: {{{SLIDE}, row: [{{pattern: '_r(?P<value>\\d+)'}}], column: [{{pattern: '_c(?P<value>\\d+)'}}]}}"
    )
    assert ValueReader(placed, tmp_path).tile("s12_r4_c0.png", {}) == ("s12", 4, 0)
    assert ValueReader(placed, tmp_path).tile("s12_r4.png", {}) is None


def test_breakhis_tiles_stand_on_a_grid_of_three_columns(tmp_path):
    values = ValueReader(read_card(CARDS / "breakhis_tiles.yaml"), tmp_path)
    assert values.tile("benign/SOB_B_A_14-22549AB_4.png", {}) == ("SOB_B_A_14-22549AB", 1, 1)
    assert values.tile("malignant/SOB_M_DC_14-12312_2.png", {}) == ("SOB_M_DC_14-12312", 0, 2)


@pytest.mark.parametrize(
    "place",
    ["columns: 3", "index: [{tag: n}]", "row: [{tag: n}]", "row: [{tag: n}], column: [{tag: n}], columns: 3"],
)
def test_tiles_need_one_way_to_say_their_place(tmp_path, place):
    with pytest.raises(CardError, match="tiles: must have index and columns, or row and column"):
        card_with(tmp_path, f"tiles: {{{SLIDE}, {place}}}")


def test_only_raster_images_are_laid_out_by_the_card(tmp_path):
    with pytest.raises(CardError, match="tiles: is for format raster, and the format is slide"):
        card_with(tmp_path, f"tiles: {{{SLIDE}, index: [{{tag: n}}], columns: 3}}", "he_regions")


@pytest.mark.parametrize("change", [{"numeric": True}, {"classes": None}])
def test_a_target_has_classes_or_numbers(tmp_path, change):
    value = yaml.safe_load((CARDS / "breastmnist.yaml").read_text())
    value["targets"]["malignant"] |= change
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(CardError, match=r"targets\.malignant: must have exactly one of classes, numeric: true"):
        read_card(path)


def test_a_numeric_target(tmp_path):
    value = yaml.safe_load((CARDS / "breastmnist.yaml").read_text())
    value["targets"]["age"] = {"description": "d", "numeric": True, "source": [{"tag": "PatientAge"}]}
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(value))
    assert read_card(path).targets["age"].classes is None


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["sex", "vendr"], r"subgroups: 'vendr'; did you mean 'vendor'\?; allowed: sex, age, vendor"),
        (["dose"], r"subgroups: 'dose'.*; allowed: sex, age, .*, grade$"),  # every value would be a group
        (["sex", "sex"], "subgroups names one twice"),
    ],
)
def test_what_results_are_divided_by(tmp_path, names, line):
    value = yaml.safe_load((CARDS / "breastmnist.yaml").read_text())
    source = [{"tag": "medmnist_label"}]
    grade = {"description": "d", "classes": {"low": ["0"], "high": ["1"]}, "source": source}
    targets = {"grade": grade} | {name: {"description": "d", "numeric": True, "source": source} for name in ("age", "dose")}
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(value | {"targets": targets, "subgroups": ["sex", "age", "grade"]}))
    assert read_card(path).subgroups == ["sex", "age", "grade"]
    path.write_text(yaml.safe_dump(value | {"targets": targets, "subgroups": names}))
    with pytest.raises(CardError, match=line):
        read_card(path)
