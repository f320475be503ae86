"""Kinds of split: folds, out of distribution, and every kind of task in each; disjoint whatever comes."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.split_summary import summarise
from medssl.data.splits import assert_disjoint, make_splits
from medssl.errors import DataError
from medssl.task import (
    BinaryTask,
    FoldSplit,
    HeldOutSplit,
    MultilabelTask,
    OfficialSplit,
    OrdinalTask,
    PatientSplit,
    RegressionTask,
)

TASKS = {
    "binary": BinaryTask(kind="binary", data="clinic", target="finding", positive="yes"),
    "ordinal": OrdinalTask(kind="ordinal", data="clinic", target="grade", classes=["none", "mild", "severe"]),
    "multilabel": MultilabelTask(kind="multilabel", data="clinic", targets=["finding", "mass"], positive="yes", negative="no"),
    "regression": RegressionTask(kind="regression", data="clinic", target="age"),
}


def clinic(patients: int = 200, seed: int = 0) -> pd.DataFrame:
    """Two images a patient; every fourth patient was seen by another vendor in 2020, the others in 2015."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    frame = pd.DataFrame({"source": "clinic", "patient": [f"p{number}" for number in patient]})
    frame["row_key"] = [f"k{number}" for number in range(len(frame))]
    frame["study"] = [f"s{number}" for number in patient]
    frame["exact_hash"] = [hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(len(frame))]
    frame["official_split"] = None
    frame["vendor"] = np.where(patient % 4 == 0, "GE", "Siemens")
    frame["study_year"] = np.where(patient % 4 == 0, 2020.0, 2015.0)
    frame["label.finding"] = rng.choice(["yes", "no"], len(frame), p=[0.3, 0.7])
    frame["label.mass"] = rng.choice(np.array(["yes", "no", None], object), len(frame), p=[0.1, 0.7, 0.2])
    frame["label.grade"] = rng.choice(["none", "mild", "severe"], len(frame), p=[0.6, 0.3, 0.1])
    frame["label.age"] = [repr(float(age)) for age in rng.normal(50, 9, len(frame))]
    return frame


def split_by(kind: str, split, manifest: pd.DataFrame | None = None, **more) -> pd.DataFrame:
    task = TASKS[kind].model_copy(update={"split": split})
    return make_splits(clinic() if manifest is None else manifest, task, 0, transductive=False, **more)


@pytest.mark.parametrize("kind", TASKS)
def test_folds_are_disjoint_cover_all_patients_and_are_stratified(kind):
    whole = split_by(kind, PatientSplit())
    tested = [split_by(kind, FoldSplit(folds=4, fold=fold)) for fold in range(4)]
    parts = [set(splits.loc[splits["split"] == "test", "patient"]) for splits in tested]
    assert set.union(*parts) == set(whole["patient"])
    assert sum(map(len, parts)) == 200
    for splits, part in zip(tested, parts, strict=True):
        assert 46 <= len(part) <= 54
        assert splits.groupby("group")["split"].nunique().max() == 1
        rest = splits[splits["split"] != "test"]
        assert rest.loc[rest["split"] == "validation", "patient"].nunique() == pytest.approx(15, abs=3)
        assert set(splits.loc[splits["pretrain"], "split"]) == {"train"}  # pretraining knows nothing of its fold
        mean = splits.loc[splits["split"] == "test", "label"].mean()
        assert mean == pytest.approx(splits["label"].mean(), rel=0.15)


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_is_divided_by_patient_with_the_asked_shares(kind):
    splits = split_by(kind, PatientSplit(validation=0.2, test=0.3))
    patients = splits.drop_duplicates("patient")["split"].value_counts(normalize=True)
    assert splits.groupby("patient")["split"].nunique().max() == 1
    assert patients["test"] == pytest.approx(0.3, abs=0.02)
    assert patients["validation"] == pytest.approx(0.2, abs=0.02)
    if kind == "multilabel":
        share = [splits.loc[splits["split"] == name, "label.mass"].mean() for name in ("train", "test")]
        assert share[0] == pytest.approx(share[1], abs=0.03)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("split", [HeldOutSplit(column="vendor", values=["GE"]), HeldOutSplit(column="study_year", after=2019)])
def test_out_of_distribution_the_test_part_is_who_has_the_values(kind, split):
    manifest = clinic()
    splits = split_by(kind, split, manifest)
    assert (manifest.loc[splits["split"] == "test", "vendor"] == "GE").all()
    assert (manifest.loc[splits["split"] != "test", "vendor"] == "Siemens").all()
    assert splits.loc[splits["split"] == "validation", "patient"].nunique() == pytest.approx(15, abs=2)
    assert set(splits.loc[splits["pretrain"], "split"]) == {"train"}


def test_patients_of_both_sides_and_of_none_are_removed():
    manifest = clinic()
    manifest.loc[0, "vendor"] = "Siemens"  # the first patient has been to both
    manifest.loc[2, "vendor"] = None  # of the second one image says nothing
    near = np.array([[8, 10]])  # the fifth (GE) and the sixth (Siemens) share an image
    splits = split_by("binary", HeldOutSplit(column="vendor", values=["GE"]), manifest, near=near)
    assert splits.loc[splits["split"] == "removed", "patient"].unique().tolist() == ["p0", "p1", "p4", "p5"]
    assert not splits.loc[splits["split"] == "removed", "pretrain"].any()


@pytest.mark.parametrize(
    ("split", "line"),
    [
        (
            HeldOutSplit(column="vendor", values=["Simens"]),
            r"has the vendor 'Simens'; did you mean 'Siemens'\?; there are: GE, Siemens",
        ),
        (HeldOutSplit(column="study_year", after=2020), r"has a study_year above 2020; there are: 2015\.0, 2020\.0"),
        (HeldOutSplit(column="official_split", values=["x"]), "no image of clinic has a value of official_split"),
        (HeldOutSplit(column="vendor", values=["GE", "Siemens"]), "the train part of clinic has 0 patients"),
        (FoldSplit(folds=100), "too few to divide into 100 folds"),
        (OfficialSplit(), "brings no official split"),
    ],
)
def test_splits_that_cannot_be_drawn(split, line):
    with pytest.raises(DataError, match=line) as caught:
        split_by("binary", split)
    assert "\n" not in str(caught.value)


def test_a_class_too_rare_to_divide_is_named():
    manifest = clinic()
    severe = manifest["label.grade"] == "severe"
    manifest.loc[severe & (severe.cumsum() > 3), "label.grade"] = "none"
    with pytest.raises(DataError, match=r"the class 'severe' has 3 patients in clinic, too few .*leave it out of task\.classes"):
        split_by("ordinal", PatientSplit(), manifest)


def test_a_number_of_few_patients():
    """Ranges may be missing from a small validation part; the number may not."""
    splits = split_by("regression", PatientSplit(validation=0.02))
    assert splits.loc[splits["split"] == "validation", "patient"].nunique() == 4
    with pytest.raises(DataError, match="task: 'age' has 5 patients in clinic, too few to divide"):
        split_by("regression", PatientSplit(), clinic(5))


def test_a_target_without_positives_is_said_and_a_task_without_any_refused():
    manifest = clinic().assign(**{"label.mass": "no"})
    task = TASKS["multilabel"]
    splits = make_splits(manifest, task, 0, transductive=False)
    assert summarise(splits, manifest["exact_hash"], task)["parts"]["test"]["too_few"] == ["mass: yes"]
    with pytest.raises(DataError, match="no target has 2 positive and 2 negative patients"):
        make_splits(manifest.assign(**{"label.finding": "no"}), task, 0, transductive=False)


def test_counts_of_each_class():
    manifest = clinic()
    for kind, task in TASKS.items():
        parts = summarise(make_splits(manifest, task, 0, transductive=False), manifest["exact_hash"], task)["parts"]
        images = {
            name: sum(part["classes"].get(name, {}).get("images", 0) for part in parts.values())
            for name in parts["test"]["classes"]
        }
        if kind == "ordinal":
            assert images == manifest["label.grade"].value_counts().to_dict()
        elif kind == "multilabel":
            assert images["mass: yes"] == (manifest["label.mass"] == "yes").sum()
            assert images["mass: no"] == (manifest["label.mass"] == "no").sum()
        elif kind == "binary":
            assert (
                sum(part["positive_images"] for part in parts.values())
                == images["yes"]
                == (manifest["label.finding"] == "yes").sum()
            )
        else:
            ages = manifest["label.age"].astype(float)
            assert min(part["values"]["least"] for part in parts.values() if part["values"]) == ages.min()
        assert parts["test"]["positive_images"] is None or kind == "binary"


SPLITS = st.one_of(
    st.builds(lambda fold: FoldSplit(folds=3, fold=fold), st.integers(0, 2)),
    st.builds(lambda test, validation: PatientSplit(test=test, validation=validation), st.floats(0.2, 0.4), st.floats(0.1, 0.3)),
    st.just(HeldOutSplit(column="vendor", values=["GE"])),
    st.sampled_from([OfficialSplit(collisions="remove_from_training")]),
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(TASKS)),
    split=SPLITS,
    copies=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 239)), max_size=12),
    pairs=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 239)), max_size=12),
    visits=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 239)), max_size=6),
)
def test_whatever_is_shared_no_two_parts_share_it(kind, split, copies, pairs, visits):
    """Copies of images, near pairs and shared studies anywhere: the parts and pretraining stay apart."""
    manifest = clinic(120)
    manifest["official_split"] = np.array(["train", "train", "validation", "test"])[np.arange(len(manifest)) % 4]
    for one, other in copies:
        manifest.loc[one, "exact_hash"] = manifest.loc[other, "exact_hash"]
    for one, other in visits:
        manifest.loc[one, "study"] = manifest.loc[other, "study"]
    near = np.array(pairs).reshape(-1, 2)
    try:
        splits = split_by(kind, split, manifest, near=near)
    except DataError:  # too few patients are left of a class
        return
    assert_disjoint(splits, manifest["exact_hash"], np.flatnonzero(splits["split"] == "train"), near)
    assert_disjoint(splits, manifest["exact_hash"], np.flatnonzero(splits["pretrain"]), near)
    kept = splits[splits["split"].isin(["train", "validation", "test"])]
    assert kept.groupby("patient")["split"].nunique().max() == 1
    assert kept.groupby("group")["split"].nunique().max() == 1
    assert kept.groupby("study")["split"].nunique().max() == 1
