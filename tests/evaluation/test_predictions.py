from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssl.errors import DataError
from medssl.evaluation.predictions import Cell, read_predictions


def test_layout_does_not_depend_on_the_order_of_rows(predictions):
    table = predictions(budgets=[("all", 400), ("40", 40), ("120", 120)], modes=("full", "linear"))
    shuffled = table.sample(frac=1, random_state=0)
    for given in (table, shuffled):
        test = read_predictions(given)
        sizes = [(block.mode, block.budget) for block in test.blocks]
        assert sizes == [(mode, budget) for mode in ("linear", "full") for budget in ("40", "120", "all")]
        rows = given[(given.arm == "in_domain") & (given["mode"] == "full") & (given.budget == "all") & (given.seed == 2)]
        by_key = rows.set_index("row_key").score[given.row_key.unique()]
        np.testing.assert_array_equal(test.scores[Cell("in_domain", "full", "all", 2)][:, 0], by_key)
        assert test.n_patients == 120
        assert test.patients_with(1) + test.patients_with(0) == 120


def test_categorical_columns_read_the_same(predictions):
    table = predictions()
    categorical = table.astype(dict.fromkeys(("arm", "mode", "budget", "split"), "category"))
    assert read_predictions(categorical).blocks == read_predictions(table).blocks


def _cell(table: pd.DataFrame, arm: str = "in_domain", seed: int = 1) -> pd.Series:
    return (table.arm == arm) & (table.seed == seed)


def _without_two_images(table):
    return table.drop(table[_cell(table)].index[:2])


def _other_images(table):
    table.loc[table[_cell(table)].index[0], "row_key"] = "another image"
    return table


def _twice(table):
    return pd.concat([table, table[_cell(table)].head(3)])


def _other_label(table):
    table.loc[table[_cell(table)].index[0], "label"] ^= 1
    return table


def _other_patient(table):
    table.loc[table[_cell(table)].index[0], "patient"] = "someone else"
    return table


def _two_thresholds(table):
    table.loc[table[_cell(table)].index[0], "threshold"] = 0.4
    return table


def _more_labels_for_one_arm(table):
    table.loc[_cell(table), "budget_patients"] = 50
    return table


def _missing_draw(table):
    return table[~_cell(table)]


def _validation_rows(table):
    table.loc[_cell(table), "split"] = "validation"
    return table


def _unknown_score(table):
    table.loc[table.index[:4], "score"] = np.nan
    return table


def _without_patient(table):
    table["patient"] = table["patient"].where(table.index != 0, None)
    return table


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_without_two_images, r"arm 'in_domain' \(full, budget 40, seed 1\) has \d+ of the \d+ test images"),
        (_other_images, r"has \d+ of the \d+ test images"),
        (_twice, r"arm 'in_domain' .* scores 3 test images more than once"),
        (_other_label, "1 test images have another label"),
        (_other_patient, "1 test images have another patient"),
        (_two_thresholds, "arm 'in_domain' .* has 2 thresholds"),
        (_more_labels_for_one_arm, r"seed 1: imagenet 40 \(80\), in_domain 50 \(80\)"),
        (_missing_draw, "arm 'in_domain' has 2 of the 3 label draws"),
        (_validation_rows, r"2 splits in one table \(test, validation\)"),
        (_unknown_score, "4 rows have a score"),
        (_without_patient, "without row_key or patient"),
        (lambda table: table.assign(label=2), "label other than 0 or 1"),
        (lambda table: table.assign(label=1), "test images is negative"),
        (lambda table: table.assign(patient="one"), "one patient"),
        (lambda table: table.assign(mode="half"), "'half' is not one of linear, linear_recalibrated, knn, full"),
        (lambda table: table.drop(columns=["threshold", "split"]), "no column split, threshold"),
        (lambda table: table.head(0), "no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_one_line(predictions, break_it, message):
    with pytest.raises(DataError, match=message) as error:
        read_predictions(break_it(predictions()))
    assert "\n" not in str(error.value)
    assert "image1" not in str(error.value)  # no row key
    assert "patient1" not in str(error.value)
