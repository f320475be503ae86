"""Stratified draws: every part has its share of every class; several labels at once as Sechidis et al. want it; nested."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.stratify import Strata, deal, divide, first, iterative, strata_of
from medssl.task import BinaryTask, MulticlassTask, MultilabelTask, RegressionTask

BINARY = BinaryTask(kind="binary", data="c", target="t", positive="yes")
CLASSES = MulticlassTask(kind="multiclass", data="c", target="t", classes=["a", "b", "c"])
LABELS = MultilabelTask(kind="multilabel", data="c", targets=["x", "y", "z"], positive="yes", negative="no")
NUMBER = RegressionTask(kind="regression", data="c", target="t")


def table(group: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame({"group": group, **{name.replace("label_", "label."): values for name, values in columns.items()}})
    return frame.assign(exact_hash=[hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(frame))])


def random_labels(count: int, seed: int = 0, shares: tuple[float, ...] = (0.3, 0.1, 0.03)) -> pd.DataFrame:
    """A group an image; a fifth of the labels of each target unknown."""
    rng = np.random.default_rng(seed)
    values = (rng.random((count, len(shares))) < shares).astype(float)
    values[rng.random(values.shape) < 0.2] = np.nan
    columns = {f"label_{name}": values[:, at] for at, name in enumerate("xyz")}
    return table(np.arange(count), label=pd.DataFrame(values).max(axis=1).to_numpy(), **columns)


def digests(count: int) -> list[str]:
    return [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(count)]


def test_a_patient_counts_as_the_rarest_of_their_classes():
    frame = table(np.array([0, 0, 1, 1, 2, 3, 4]), label=np.array([0, 1, 0, 2, 0, np.nan, 1.0]))
    strata = strata_of(frame, CLASSES, 0, "n")
    found = dict(zip(strata.groups.tolist(), strata.stratum.tolist(), strict=True))
    assert found == {0: 1, 1: 2, 2: 0, 4: 1}  # three patients have class 0, two class 1, one class 2; one has no label


def test_a_patient_with_a_positive_image_is_positive():
    frame = table(np.array([0, 0, 1]), label=np.array([0, 1, 0.0]))
    strata = strata_of(frame, BINARY, 0, "n")
    assert {group: strata.names[at] for group, at in zip(strata.groups, strata.stratum, strict=True)} == {0: "yes", 1: "not yes"}


def test_numbers_are_divided_by_range():
    values = np.random.default_rng(1).lognormal(size=400)
    strata = strata_of(table(np.arange(400), label=values), NUMBER, 0, "n")
    assert np.bincount(strata.stratum).tolist() == [40] * 10
    part = divide(strata, [0.25])
    inside, outside = (np.sort(values[strata.groups[part == number]]) for number in (0, 1))
    assert len(inside) == 100
    for share in (0.1, 0.5, 0.9):
        assert np.mean(outside < np.quantile(inside, share)) == pytest.approx(share, abs=0.04)
    same = strata_of(table(np.arange(30), label=np.ones(30)), NUMBER, 0, "n")
    assert np.unique(same.stratum).tolist() == [0]


def test_a_worked_example_of_iterative_stratification():
    """Label 1, the rarest, is dealt first: one of its two groups to each part; then label 0 fills up both parts."""
    members = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 0], [0, 0]], bool)
    part = iterative(members, [0.5, 0.5], digests(6))
    for rows in ([2, 3], [0, 1], [4, 5]):
        assert sorted(part[rows].tolist()) == [0, 1]


def test_rare_labels_are_spread_better_than_at_random():
    """The measure of Sechidis et al., section 5: the mean absolute difference of each label's share in each fold."""
    strata = strata_of(random_labels(600), LABELS, 0, "n")
    fold = deal(strata, 5)
    assert np.ptp(np.bincount(fold)) <= 6  # of 120

    def distance(fold: np.ndarray) -> float:
        whole = strata.members.mean(axis=0)
        return float(np.mean([np.abs(strata.members[fold == k].mean(axis=0) - whole).mean() for k in range(5)]))

    shuffled = np.random.default_rng(0).permutation(fold)
    assert distance(fold) < 0.2 * distance(shuffled)
    rare = [int(strata.members[fold == k][:, 4].sum()) for k in range(5)]
    assert max(rare) - min(rare) <= 1


@pytest.mark.parametrize("count", [5, 60, 300])
def test_parts_of_several_labels_have_their_shares(count):
    strata = strata_of(random_labels(count), LABELS, 0, "n")
    part = divide(strata, [0.3, 0.1])
    sizes = np.bincount(part, minlength=3) / len(part)
    assert np.abs(sizes - [0.3, 0.1, 0.6]).max() <= 3 / len(part)


def test_beginnings_of_a_nested_draw_look_like_the_whole():
    strata = strata_of(random_labels(1000), LABELS, 0, "n")
    whole = strata.members.mean(axis=0)
    rng = np.random.default_rng(0)
    for count in (50, 130, 500):
        chosen = first(strata, count)
        assert len(chosen) == len(set(chosen.tolist())) == count
        away = np.abs(strata.members[chosen].mean(axis=0) - whole)
        drawn = np.mean(
            [np.abs(strata.members[rng.choice(len(strata.groups), count)].mean(axis=0) - whole) for _ in range(200)], axis=0
        )
        assert (away[::2] < 2.5 / count).all()  # positives of each target: within about two patients
        assert away.mean() < 0.7 * drawn.mean()


def test_a_single_positive_is_not_always_in_the_first_half():
    """The choice between equal halves is by lot: else the smallest budget would collect all rare labels."""
    taken = []
    for seed in range(60):
        digest = [hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(64)]
        members = np.zeros((64, 2), bool)
        members[:, 1] = True
        members[7] = [True, False]
        strata = Strata(np.arange(64), digest, members, None, ["rare", "common"])
        taken.append(7 in first(strata, 8))
    assert 0 < np.mean(taken) < 0.4  # an eighth is expected; all or half of them were a fault


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 3), min_size=1, max_size=40),
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    folds=st.integers(2, 6),
)
def test_draws_of_any_labels_are_nested_and_leave_nobody_out(labels, sizes, folds):
    values = np.array(labels)
    columns = {f"label_{name}": values[:, at] for at, name in enumerate("xyz")}
    for task, label in ((LABELS, pd.DataFrame(values).max(axis=1).to_numpy()), (BINARY, values[:, 0]), (NUMBER, values[:, 0])):
        strata = strata_of(table(np.arange(len(values)) // 2, label=label, **columns), task, 0, "n")
        small, large = sorted(min(size, len(strata.groups)) for size in sizes)
        assert set(first(strata, small)) <= set(first(strata, large))
        assert len(first(strata, large)) == large
        assert set(deal(strata, folds)) <= set(range(folds))
        assert set(divide(strata, [0.3, 0.2])) <= {0, 1, 2}


def test_the_order_of_the_rows_changes_nothing():
    frame = random_labels(200)
    shuffled = frame.sample(frac=1, random_state=1)
    one, other = strata_of(frame, LABELS, 0, "n"), strata_of(shuffled, LABELS, 0, "n")
    assert one.groups.tolist() == other.groups.tolist()
    assert deal(one, 5).tolist() == deal(other, 5).tolist()
    assert strata_of(frame, LABELS, 0, "m").groups.tolist() != one.groups.tolist()
