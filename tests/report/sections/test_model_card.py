from __future__ import annotations

import dataclasses
import re

import pytest

from medssl.models.encoder_file import EncoderCard
from medssl.report.model_card import model_card

SECTIONS = [
    "Model details",
    "Intended use",
    "Out of scope",
    "Data",
    "Training",
    "Metrics",
    "Subgroups",
    "Calibration",
    "Limits",
    "Ethical considerations",
    "How to load",
]


def _card(shown, facts_for, kind="binary", arm="in_domain", **changes):
    table, extras = shown(kind)
    facts = dataclasses.replace(facts_for(kind), **changes)
    return model_card(arm, facts, table, extras.pairs, extras.subgroups), table, extras


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "ordinal", "regression"])
def test_every_section_is_there_with_something_in_it(kind, shown, facts_for):
    card, _, _ = _card(shown, facts_for, kind)
    found = re.findall(r"^## (.*)\n\n(.)", card, re.MULTILINE)
    assert [heading for heading, _ in found] == SECTIONS
    assert "nan" not in re.findall(r"[a-z]+", card)
    for table in re.findall(r"(?:^\|.*\n?)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1


def test_its_numbers_are_the_comparisons(shown, facts_for):
    card, table, extras = _card(shown, facts_for)
    for row in table[(table["arm"] == "in_domain") & (table["metric"] == "auroc")].to_dict("records"):
        assert f"{row['value']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]" in card
    pair = extras.pairs[(extras.pairs["a"] == "imagenet") & (extras.pairs["b"] == "in_domain")].iloc[0]
    assert f"| imagenet | Linear probe | 40 | {-pair['difference']:.3f} [{-pair['upper']:.3f}, {-pair['lower']:.3f}]" in card
    assert f"Linear probe: in\\_domain" in card  # noqa: F541
    assert "for this one pretraining run" in card
    assert "imagenet\\_in\\_domain beats" not in card
    assert "It had not converged." in card
    assert 'medssl.load_encoder("pretrain/in_domain/encoder")' in card
    assert "| age\\_band | 0-17 |" in card
    assert "too few patients" in card


def test_an_arm_that_was_not_pretrained_says_so(shown, facts_for):
    card, _, _ = _card(shown, facts_for, arm="imagenet")
    assert "The encoder was not trained by this study" in card
    assert "What the initial weights (imagenet) were trained on is not known" in card
    card, _, _ = _card(shown, facts_for, arm="imagenet", about_arms=["imagenet: photographs.", "imagenet_2: radiographs."])
    assert "The weights that it starts from (imagenet): photographs." in card
    assert "radiographs." not in card
    assert "is not known to this study" not in card


def test_warnings_stand_first(shown, facts_for):
    card, _, _ = _card(shown, facts_for, synthetic=True, transductive=True)
    assert card.index("**Synthetic data.**") < card.index("**Transductive.**") < card.index("## Model details")
    assert "were kept out of it" not in card


def test_the_encoders_card_adds_how_it_was_made(shown, facts_for):
    encoder = EncoderCard.model_validate(
        {
            "medssl_version": "9.8",
            "backbone": "resnet18",
            "stem": "small",
            "input_size": 64,
            "feature_dim": 512,
            "normalization": {"mean": [0.5] * 3, "std": [0.2] * 3},
            "preprocessing": {"store_size": 72, "window": "file", "steps": []},
            "batch_norm": "as_loaded",
            "init": {"source": "random", "sha256": None},
            "method": {"name": "simsiam", "settings": {}},
            "seed": 7,
            "data_digest": "abc123",
            "excluded_digest": None,
            "synthetic": False,
            "weights_sha256": "0" * 64,
        }
    )
    table, _ = shown()
    card = model_card("in_domain", facts_for("binary"), table, encoder=encoder)
    for expected in (
        "medssl 9.8",
        "resnet18, small stem",
        "| features | 512 |",
        "0" * 64,
        "| hash of the images | abc123 |",
        "| seed | 7 |",
    ):
        assert expected in card
    assert "Not measured: the data card names no subgroups." in card


def test_text_from_outside_is_only_text(shown, facts_for):
    bad = "<script>*x*|`y`\n# z"
    card, _, _ = _card(shown, facts_for, study=bad, target=bad, notes=[bad], encoder={bad: bad})
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert "\n# z" not in card
    assert len(re.findall(r"^# ", card, re.MULTILINE)) == 1


def test_an_arm_that_nobody_knows_is_refused(shown, facts_for):
    with pytest.raises(ValueError, match="'other' is no arm"):
        _card(shown, facts_for, arm="other")
