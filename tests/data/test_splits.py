"""Splits: disjoint by patient and by image, stratified, the same at another site; and what pretraining must not see."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from medssl.data.splits import assert_disjoint, make_splits, summarise
from medssl.errors import DataError
from medssl.study import BinaryTask

TASK = BinaryTask(kind="binary", data="labelled", target="finding", positive="yes")


def table(rows: list[tuple[str, str, str, str | None, str | None]]) -> pd.DataFrame:
    """rows: source, patient, content, label, official split."""
    frame = pd.DataFrame(rows, columns=["source", "patient", "content", "label.finding", "official_split"])
    frame["exact_hash"] = [hashlib.sha256(content.encode()).hexdigest() for content in frame["content"]]
    frame["row_key"] = [f"k{number}" for number in range(len(frame))]
    return frame


def clinic(patients: int = 60, site: str = "") -> pd.DataFrame:
    """Three images a patient, a third of the patients positive; keys depend on the site, content does not."""
    return table(
        [("labelled", f"{site}p{p}", f"p{p}i{i}", "yes" if p % 3 == 0 else "no", None) for p in range(patients) for i in range(3)]
    )


def test_patients_are_never_divided_and_classes_are_stratified():
    manifest = clinic()
    splits = make_splits(manifest, TASK, 0, transductive=False)
    assert splits.groupby("patient")["split"].nunique().max() == 1
    patients = splits.drop_duplicates("patient").assign(label=lambda f: f["label"].astype(int))
    assert patients["split"].value_counts().to_dict() == {"train": 36, "test": 18, "validation": 6}
    assert patients.groupby("split")["label"].mean().round(6).tolist() == [round(1 / 3, 6)] * 3
    assert set(splits.loc[splits["pretrain"], "split"]) == {"train"}


def test_another_site_with_other_keys_draws_the_same_patients():
    here, there = clinic(), clinic(site="other-")
    first = make_splits(here, TASK, 0, transductive=False)["split"]
    assert first.tolist() == make_splits(there, TASK, 0, transductive=False)["split"].tolist()
    assert first.tolist() != make_splits(here, TASK, 1, transductive=False)["split"].tolist()


def test_the_order_of_the_files_changes_nothing():
    manifest = clinic()
    shuffled = manifest.sample(frac=1, random_state=3).reset_index(drop=True)
    first = make_splits(manifest, TASK, 0, transductive=False).set_index("row_key")["split"]
    second = make_splits(shuffled, TASK, 0, transductive=False).set_index("row_key")["split"]
    assert first.sort_index().equals(second.sort_index())


def test_patients_with_an_identical_image_stay_together():
    manifest = clinic()
    rows = manifest.index[manifest["patient"].isin([f"p{k}" for k in range(0, 40, 10)])][::3]
    manifest.loc[rows, "exact_hash"] = "same"
    splits = make_splits(manifest, TASK, 0, transductive=False)
    assert splits.loc[rows, "split"].nunique() == 1
    assert splits.loc[rows, "group"].nunique() == 1


def test_an_image_that_many_share_links_nobody_but_leaks_nothing():
    manifest = clinic()
    rows = manifest.index[::3]
    manifest.loc[rows, "exact_hash"] = "blank"
    splits = make_splits(manifest, TASK, 0, transductive=False)
    assert splits["group"].nunique() == 60
    assert not ((splits["split"] == "train") & (manifest["exact_hash"] == "blank")).any()
    train = np.flatnonzero(splits["split"] == "train")
    assert_disjoint(splits, manifest["exact_hash"], train)


def test_held_out_patients_and_their_images_are_dropped_from_every_source():
    labelled = clinic()
    first = make_splits(labelled, TASK, 0, transductive=False)
    test_patient = first.loc[first["split"] == "test", "patient"].iloc[0]
    train_patient = first.loc[first["split"] == "train", "patient"].iloc[0]
    planted = table(
        [
            ("archive", test_patient, "another image of the same patient", None, None),
            ("archive", "another key", f"{test_patient}i0", None, None),  # pixel-identical under another key
            ("archive", "another key", "a second image of that key", None, None),
            ("archive", train_patient, "more of a training patient", None, None),
            ("archive", "stranger", "somebody else", None, None),
        ]
    )
    manifest = pd.concat([labelled, planted], ignore_index=True)
    splits = make_splits(manifest, TASK, 0, transductive=False)
    archive = splits[splits["source"] == "archive"]
    assert archive["excluded"].fillna("").tolist() == ["held_out_patient", "identical_to_held_out", "linked_to_held_out", "", ""]
    assert archive["pretrain"].tolist() == [False, False, False, True, True]
    counts = summarise(splits, manifest["exact_hash"], "labelled")["excluded_from_pretraining"]
    assert counts["identical_to_held_out"] == {"images": 1, "patients": 1}
    assert counts["linked_to_held_out"] == {"images": 1, "patients": 1}
    held = splits[splits["split"].isin(["test", "validation"])]
    assert counts["held_out_patient"]["images"] == len(held) + 1


def test_transductive_keeps_them():
    splits = make_splits(clinic(), TASK, 0, transductive=True)
    assert splits["pretrain"].all()


def official(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    base = [
        (f"{part}{k}", f"{part}{k}", label, part) for part in ("train", "validation", "test") for k, label in enumerate("yyynnn")
    ]
    return table([("labelled", p, c, {"y": "yes", "n": "no"}[label], part) for p, c, label, part in base + rows])


def test_a_clean_official_split_is_taken_as_it_is():
    manifest = official([])
    task = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official"}})
    assert make_splits(manifest, task, 0, transductive=False)["split"].tolist() == manifest["official_split"].tolist()


def test_a_leaking_official_split_is_refused_or_its_patients_removed_from_training():
    manifest = official(
        [("test0", "new", "y", "train"), ("validation1", "new2", "y", "train"), ("elsewhere", "test1", "y", "train")]
    )
    refuse = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official"}})
    with pytest.raises(DataError, match=r"has 3 patients .* on both sides, 3 images; set task.split.collisions"):
        make_splits(manifest, refuse, 0, transductive=False)
    remove = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official", "collisions": "remove_from_training"}})
    splits = make_splits(manifest, remove, 0, transductive=False)
    assert splits["split"].tolist()[-3:] == ["removed"] * 3
    assert not splits["pretrain"].tolist()[-3]
    assert splits["split"].tolist()[:18] == manifest["official_split"].tolist()[:18]
    assert_disjoint(splits, manifest["exact_hash"], np.flatnonzero(splits["split"] == "train"))


def test_test_equal_to_validation_is_refused():
    """As in a published repository, where the test list was a copy of the validation list."""
    parts = [("train", "a")] * 6 + [("validation", "b")] * 6 + [("test", "b")] * 6
    rows = [("labelled", f"{who}{k % 6}", f"{who}{k % 6}", "yes" if k % 2 else "no", part) for k, (part, who) in enumerate(parts)]
    task = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official"}})
    with pytest.raises(DataError, match=r"6 patients .* on both sides"):
        make_splits(table(rows), task, 0, transductive=False)


@pytest.mark.parametrize(
    ("manifest", "line"),
    [
        (clinic(9), "the class 'yes' has 3 patients in labelled, too few"),
        (clinic().assign(**{"label.finding": None}), "the class 'not yes' has 0 patients|no image of labelled has a label"),
    ],
)
def test_too_few_patients_of_a_class(manifest, line):
    with pytest.raises(DataError, match=line):
        make_splits(manifest, TASK, 0, transductive=False)


def test_no_official_split_in_the_card():
    task = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official"}})
    with pytest.raises(DataError, match="brings no official split"):
        make_splits(clinic(), task, 0, transductive=False)


def test_unlabelled_patients_are_for_pretraining_only():
    manifest = pd.concat([clinic(), table([("labelled", "new", "unlabelled", None, None)])], ignore_index=True)
    splits = make_splits(manifest, TASK, 0, transductive=False)
    assert splits.iloc[-1]["split"] == "train"
    assert pd.isna(splits.iloc[-1]["label"])
    assert splits.iloc[-1]["pretrain"]


def test_the_assertion_before_fitting_fires():
    manifest = clinic()
    splits = make_splits(manifest, TASK, 0, transductive=False)
    rows = np.flatnonzero(splits["split"] == "train")
    assert_disjoint(splits, manifest["exact_hash"], rows)
    with pytest.raises(DataError, match="1 images of held-out patients"):
        assert_disjoint(splits, manifest["exact_hash"], np.append(rows, np.flatnonzero(splits["split"] == "test")[0]))
