"""Label budgets: nested, stratified, by patient, the same from the same seed, nothing outside of them."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest

from medssl.data.budgets import budget_name, draw_labels
from medssl.errors import DataError


def pool(patients: int = 400, positive_every: int = 4) -> tuple[pd.DataFrame, pd.Series]:
    """Two images a patient; the last tenth of the patients is test."""
    rows = [
        (p, p, int(p % positive_every == 0), "test" if p >= patients * 0.9 else "train", f"{p}/{i}")
        for p in range(patients)
        for i in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["patient", "group", "label", "split", "content"]).astype({"label": "Int8"})
    return frame, frame["content"].map(lambda text: hashlib.sha256(text.encode()).hexdigest())


def draw(budget, number=0, seed=0, folds=5, **kind):
    splits, hashes = pool(**kind)
    return draw_labels(splits, hashes, budget, seed, number, folds=folds), splits


def test_a_budget_is_that_many_patients_and_all_of_their_images():
    drawn, splits = draw(40)
    assert drawn.patients == len(np.unique(drawn.groups)) == 40
    assert len(drawn.rows) == 80
    assert (splits["split"].iloc[drawn.rows] == "train").all()
    assert drawn.labels.mean() == 0.25  # the pool's prevalence


def test_smaller_budgets_are_inside_larger_ones():
    sizes = [10, 40, 0.5, "all"]
    rows = [set(draw(size, number=2)[0].rows) for size in sizes]
    assert all(small < large for small, large in itertools.pairwise(rows))
    assert len(rows[-1]) == 720


def test_same_seed_same_draw_and_draws_differ():
    assert set(draw(40)[0].rows) == set(draw(40)[0].rows)
    assert set(draw(40, number=1)[0].rows) != set(draw(40)[0].rows)
    assert set(draw(40, seed=1)[0].rows) != set(draw(40)[0].rows)


def test_under_a_hundred_patients_it_is_cross_validated_inside():
    drawn, _ = draw(99)
    assert drawn.cross_validated
    assert len(drawn.divisions) == 5
    validated = np.sort(np.concatenate([validation for _, validation in drawn.divisions]))
    assert validated.tolist() == list(range(len(drawn.rows)))


def test_from_a_hundred_patients_it_is_divided_four_to_one():
    drawn, _ = draw(100)
    assert not drawn.cross_validated
    ((fit, validation),) = drawn.divisions
    assert len(np.unique(drawn.groups[fit])) == 80
    assert len(np.unique(drawn.groups[validation])) == 20


@pytest.mark.parametrize("size", [8, 40, 99, 100, "all"])
def test_no_patient_is_on_both_sides_and_both_classes_are_on_each(size):
    for fit, validation in draw(size)[0].divisions:
        groups, labels = draw(size)[0].groups, draw(size)[0].labels
        assert not set(groups[fit]) & set(groups[validation])
        assert set(labels[fit, 0]) == set(labels[validation, 0]) == {0, 1}


def test_fewer_folds_where_a_class_has_fewer_patients():
    drawn, _ = draw(12)
    assert len(drawn.divisions) == 3  # 3 positive patients among 12


@pytest.mark.parametrize(
    ("size", "kind", "line"),
    [
        (1000, {}, "1000 patients are asked for, the training part has 360 labelled ones"),
        (8, {"positive_every": 40}, "draw 0 of 8 has . patients of one class, and at least 2 are needed"),
    ],
)
def test_budgets_that_cannot_be_drawn(size, kind, line):
    with pytest.raises(DataError, match=line):
        draw(size, **kind)


def test_names():
    assert [budget_name(size) for size in (40, 0.1, 0.015, 1.0, "all")] == ["40", "10%", "1.5%", "all", "all"]
