"""Label budgets: nested, stratified, by patient, the same from the same seed, nothing outside of them."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.budgets import budget_name, draw_labels
from medssl.errors import DataError
from medssl.task import BinaryTask, MulticlassTask, MultilabelTask, OrdinalTask, RegressionTask

TASK = BinaryTask(kind="binary", data="clinic", target="finding", positive="yes")


def pool(patients: int = 400, positive_every: int = 4) -> tuple[pd.DataFrame, pd.Series]:
    """Two images a patient; the last tenth of the patients is test."""
    rows = [
        (p, p, int(p % positive_every == 0), "test" if p >= patients * 0.9 else "train", f"{p}/{i}")
        for p in range(patients)
        for i in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["patient", "group", "label", "split", "content"]).astype({"label": "float64"})
    return frame, frame["content"].map(lambda text: hashlib.sha256(text.encode()).hexdigest())


def draw(budget, number=0, seed=0, folds=5, **kind):
    splits, hashes = pool(**kind)
    return draw_labels(splits, hashes, budget, seed, number, folds=folds, task=TASK), splits


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
        groups, labels = draw(size)[0].groups, draw(size)[0].labels[:, 0]
        assert not set(groups[fit]) & set(groups[validation])
        assert set(labels[fit]) == set(labels[validation]) == {0, 1}


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


KINDS = {
    "binary": TASK,
    "multiclass": MulticlassTask(kind="multiclass", data="clinic", target="t", classes=["a", "b", "c"]),
    "ordinal": OrdinalTask(kind="ordinal", data="clinic", target="t", classes=["a", "b", "c"]),
    "multilabel": MultilabelTask(kind="multilabel", data="clinic", targets=["x", "y"], positive="yes", negative="no"),
    "regression": RegressionTask(kind="regression", data="clinic", target="t"),
}


def pool_of(kind: str, patients: int = 240, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """One or two images a patient, a tenth without a label; of the targets of a multilabel task a fifth is unknown."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, patients, 2 * patients))
    count = len(patient)
    frame = pd.DataFrame({"patient": patient, "group": patient, "split": "train"})
    if kind == "multilabel":
        values = (rng.random((count, 2)) < [0.3, 0.1]).astype(float)
        values[rng.random(values.shape) < 0.2] = np.nan
        frame[["label.x", "label.y"]] = values
        frame["label"] = frame[["label.x", "label.y"]].max(axis=1)
    else:
        shares = [0.6, 0.3, 0.1] if kind in ("multiclass", "ordinal") else [0.7, 0.3]
        frame["label"] = (
            rng.choice(len(shares), count, p=shares).astype(float) if kind != "regression" else rng.normal(50, 9, count)
        )
        frame.loc[rng.random(count) < 0.1, "label"] = np.nan
    return frame, pd.Series([hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(count)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_by_patient_nested_and_divided(kind):
    splits, hashes = pool_of(kind)
    drawn = [draw_labels(splits, hashes, size, 0, 1, folds=5, task=KINDS[kind]) for size in (30, 0.5, 150, "all")]
    for small, large in itertools.pairwise(drawn):
        assert set(small.rows) < set(large.rows)
    for one in drawn:
        assert one.patients == len(np.unique(one.groups))
        assert one.labels.shape == (len(one.rows), 2 if kind == "multilabel" else 1)
        assert one.labels.dtype == np.float64
        assert not np.isnan(one.labels).all(axis=1).any()
        for fit, validation in one.divisions:
            assert not set(one.groups[fit]) & set(one.groups[validation])
            assert len(fit) + len(validation) == len(one.rows)
    assert drawn[0].cross_validated
    assert np.concatenate([validation for _, validation in drawn[0].divisions]).size == len(drawn[0].rows)
    assert not drawn[-1].cross_validated


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", ["all", 1.0, "number"])
def test_the_whole_pool_has_one_draw(kind, whole):
    splits, hashes = pool_of(kind, patients=120)
    size = splits.loc[splits["label"].notna(), "group"].nunique() if whole == "number" else whole
    one, other = (draw_labels(splits, hashes, size, 0, number, folds=5, task=KINDS[kind]) for number in (0, 3))
    assert other.seed == 3
    assert one.rows.tolist() == other.rows.tolist()
    assert len(one.divisions) == len(other.divisions)
    for mine, theirs in zip(one.divisions, other.divisions, strict=True):
        assert [side.tolist() for side in mine] == [side.tolist() for side in theirs]
    part = [draw_labels(splits, hashes, 40, 0, number, folds=5, task=KINDS[kind]).rows.tolist() for number in (0, 3)]
    assert part[0] != part[1]


def test_every_fold_has_every_class():
    for kind in ("multiclass", "ordinal"):
        splits, hashes = pool_of(kind)
        for fit, validation in (one := draw_labels(splits, hashes, 80, 0, 0, folds=5, task=KINDS[kind])).divisions:
            assert set(one.labels[fit, 0]) == set(one.labels[validation, 0]) == {0, 1, 2}
    splits, hashes = pool_of("multilabel")
    one = draw_labels(splits, hashes, 80, 0, 0, folds=5, task=KINDS["multilabel"])
    assert len(one.divisions) == 5
    for _, validation in one.divisions:
        assert all({0, 1} <= set(one.labels[validation, target]) for target in (0, 1))


def test_a_class_that_is_missing_from_a_budget_is_named():
    splits, hashes = pool_of("multiclass")
    rare = splits["label"] == 2
    splits.loc[rare & (rare.cumsum() > 3), "label"] = 0.0
    with pytest.raises(DataError, match=r"draw 0 of 10 has . patients of the class 'c', and at least 2 .* with c\)"):
        draw_labels(splits, hashes, 10, 0, 0, folds=5, task=KINDS["multiclass"])


def test_targets_with_too_few_patients_are_named():
    splits, hashes = pool_of("multilabel")
    splits["label.y"] = splits["label.y"].replace(1.0, 0.0)
    drawn = draw_labels(splits, hashes, 40, 0, 0, folds=5, task=KINDS["multilabel"])
    assert drawn.too_few == ("y",)
    splits["label.x"] = splits["label.x"].replace(0.0, np.nan)
    with pytest.raises(
        DataError, match=r"draw 0 of 40 has too few patients: none of x, y has at least 2 positive and 2 negative"
    ):
        draw_labels(splits, hashes, 40, 0, 0, folds=5, task=KINDS["multilabel"])


def test_a_number_needs_four_patients():
    splits, hashes = pool_of("regression")
    assert len(draw_labels(splits, hashes, 4, 0, 0, folds=5, task=KINDS["regression"]).divisions) == 2
    with pytest.raises(DataError, match="draw 0 of 3 has 3 patients, and at least 4 are needed"):
        draw_labels(splits, hashes, 3, 0, 0, folds=5, task=KINDS["regression"])


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 5), sizes=st.lists(st.integers(40, 110), min_size=2, max_size=2))
def test_any_two_budgets_of_one_draw_are_nested(kind, seed, sizes):
    splits, hashes = pool_of(kind, patients=140, seed=seed)
    small, large = (draw_labels(splits, hashes, size, seed, 0, folds=4, task=KINDS[kind]) for size in sorted(sizes))
    assert set(small.rows) <= set(large.rows)
    assert (small.patients, large.patients) == tuple(sorted(sizes))
