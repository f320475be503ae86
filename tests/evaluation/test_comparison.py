from __future__ import annotations

import numpy as np
import pytest

from medssl.errors import DataError
from medssl.evaluation.binary import BinaryScorer
from medssl.evaluation.comparison import COLUMNS, compare, number, sentence, verdict


def _row(**changes) -> dict:
    return {
        "arm": "in_domain",
        "mode": "full",
        "budget": "47",
        "budget_patients": 47,
        "n_seeds": 5,
        "metric": "auroc",
        "value": 0.9,
        "lower": 0.87,
        "upper": 0.93,
        "reference": "imagenet",
        "difference": 0.031,
        "difference_lower": 0.012,
        "difference_upper": 0.049,
        "level": 0.95,
        "test_patients": 300,
        "test_patients_positive": 100,
        "test_patients_negative": 210,
    } | changes


def test_the_table_is_tidy_and_in_order(predictions):
    budgets = [("all", 400), ("40", 40)]
    table = predictions({"random": -0.5, "imagenet": 0.0, "in_domain": 1.0}, budgets, ("full", "linear"))
    result = compare(table, replicates=100)
    assert list(result.columns) == list(COLUMNS)
    keys = list(zip(result["mode"], result.budget, result.arm, result.metric, strict=True))
    assert keys == [
        (mode, budget, arm, metric)
        for mode in ("linear", "full")
        for budget in ("40", "all")
        for arm in ("random", "imagenet", "in_domain")
        for metric in BinaryScorer.names
    ]
    assert (result.replicates_used == 100).all()
    assert (result.test_patients == 120).all()
    assert (result.test_positives == table.drop_duplicates("row_key").label.sum()).all()
    assert result.metric[result.value.isna()].isin(["brier_scaled", "ece_scaled"]).all()  # the table has no temperature
    result = result[result.value.notna()]
    others = result[result.arm != "imagenet"]
    assert (others.difference_lower <= others.difference_upper).all()
    assert result[result.arm == "imagenet"][["difference", "difference_lower", "difference_upper"]].isna().all(axis=None)
    merged = others.merge(result[result.arm == "imagenet"], on=["mode", "budget", "metric"])
    np.testing.assert_allclose(merged.difference_x, merged.value_x - merged.value_y, atol=1e-14)


def test_a_wider_level_gives_wider_intervals(predictions):
    table = predictions()
    wide, narrow = (compare(table, replicates=300, level=level) for level in (0.99, 0.8))
    known = narrow.lower.notna()
    assert set(wide.metric[~known]) == {"brier_scaled", "ece_scaled"}  # the table has no temperature
    assert (wide.lower <= narrow.lower)[known].all()
    assert (wide.upper >= narrow.upper)[known].all()
    np.testing.assert_array_equal(wide.value, narrow.value)


def test_an_unknown_reference_is_refused(predictions):
    with pytest.raises(DataError, match="the reference 'mae' is none of the arms imagenet, in_domain"):
        compare(predictions(), reference="mae")


def test_a_clear_gain_is_found_and_a_copy_is_not_crowned(predictions):
    table = predictions({"imagenet": 0.0, "copy": 0.0, "in_domain": 1.0}, patients=200)
    auroc = compare(table, replicates=500).query("metric == 'auroc'").set_index("arm")
    rows = {row["arm"]: row for row in auroc.reset_index().to_dict("records")}
    assert {arm: verdict(row) for arm, row in rows.items()} == {
        "imagenet": "reference",
        "copy": "unclear",
        "in_domain": "better",
    }


def test_sentences_say_what_the_interval_says():
    assert sentence(_row(), {"in_domain"}) == (
        "in_domain is better than imagenet by 0.031 AUROC (95% interval 0.012 to 0.049) after full fine-tuning with "
        "47 labelled patients, validation included, for this one pretraining run."
    )
    worse = _row(arm="random", mode="linear", difference=-0.1, difference_lower=-0.15, difference_upper=-0.06)
    assert sentence(worse, {"in_domain"}) == (
        "random is worse than imagenet by 0.100 AUROC (95% interval 0.060 to 0.150) as a linear probe with "
        "47 labelled patients, validation included."
    )
    unclear = _row(difference=0.004, difference_lower=-0.01, difference_upper=0.019, n_seeds=1)
    assert sentence(unclear, {"in_domain"}) == (
        "the data cannot tell in_domain and imagenet apart (difference 0.004 AUROC, 95% interval -0.010 to 0.019) after "
        "full fine-tuning with 47 labelled patients, validation included, for this one pretraining run and this one "
        "label draw."
    )
    assert sentence(_row(arm="imagenet"), {"in_domain"}) == (
        "imagenet, the reference, reaches an AUROC of 0.900 (95% interval 0.870 to 0.930) after full fine-tuning with "
        "47 labelled patients, validation included."
    )


def test_a_pretrained_reference_counts_as_one_pretraining_run():
    row = _row(arm="random", reference="in_domain")
    assert "for this one pretraining run" in sentence(row, {"in_domain"})
    assert "for this one pretraining run" not in sentence(row, {"imagenet_in_domain"})


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [(0.001, 0.1, "better"), (0.0, 0.1, "unclear"), (-0.1, 0.0, "unclear"), (-0.1, -0.001, "worse"), (0.0, 0.0, "unclear")],
)
def test_an_interval_that_touches_zero_names_no_winner(lower, upper, expected):
    row = _row(difference_lower=lower, difference_upper=upper)
    assert verdict(row) == expected
    assert (" is better than " in sentence(row)) == (expected == "better")


def test_unknown_intervals_name_no_winner():
    nan = float("nan")
    assert verdict(_row(difference_lower=nan, difference_upper=nan)) == "unclear"


def test_small_test_sets_are_cautioned_and_tiny_classes_crown_nobody():
    assert sentence(_row(test_patients=99)).endswith(" Caution: only 99 test patients.")
    assert "Caution" not in sentence(_row(test_patients=100, test_patients_positive=50))
    tiny = _row(test_patients=60, test_patients_positive=9)
    assert verdict(tiny) == "too few"
    assert sentence(tiny) == (
        "the test set is too small to compare in_domain with imagenet after full fine-tuning with 47 labelled patients, "
        "validation included. Caution: only 9 of 60 test patients have a positive image; below 10 no arm is called better."
    )


def test_numbers_do_not_round_to_zero():
    assert [number(x) for x in (0.0, 0.0312, -0.01, 0.0003, -0.00004, 1e-9, float("nan"))] == [
        "0.000",
        "0.031",
        "-0.010",
        "0.0003",
        "-0.00004",
        "0.000",
        "?",
    ]
