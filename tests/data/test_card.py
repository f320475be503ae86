"""Data cards: the shipped ones are right, wrong ones get their line, roots are found where they are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssl.data.card import find_card, find_root, read_card
from medssl.errors import CardError

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
