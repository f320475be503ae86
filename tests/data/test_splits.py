"""Splits: disjoint by patient and by image, stratified, the same at another site; and what pretraining must not see."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from medssl.data.groups import MOST_SHARED, content_order, link_patients, order_groups, shared_images
from medssl.data.split_summary import summarise
from medssl.data.splits import assert_disjoint, make_splits
from medssl.errors import DataError
from medssl.task import BinaryTask

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
    counts = summarise(splits, manifest["exact_hash"], TASK)["excluded_from_pretraining"]
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


def rows_of(manifest: pd.DataFrame, *patients: str) -> list[int]:
    """The first row of each patient."""
    return [int(np.flatnonzero(manifest["patient"] == patient)[0]) for patient in patients]


def test_patients_with_a_near_identical_image_stay_together():
    manifest = clinic()
    near = np.array([rows_of(manifest, "p0", "p3"), rows_of(manifest, "p3", "p9"), rows_of(manifest, "p1", "p2")])
    group = pd.Series(link_patients(manifest, near)).groupby(manifest["patient"]).first()
    assert group["p0"] == group["p3"] == group["p9"]
    assert group["p1"] == group["p2"] != group["p0"]
    assert group.nunique() == 60 - 3
    splits = make_splits(manifest, TASK, 0, transductive=False, near=near)
    assert splits.groupby("group")["split"].nunique().max() == 1


def test_an_image_near_to_those_of_many_patients_links_nobody_but_leaks_nothing():
    manifest = clinic()
    many = rows_of(manifest, *[f"p{k}" for k in range(60)])
    near = np.array(list(pairwise(many)))
    splits = make_splits(manifest, TASK, 0, transductive=False, near=near)
    assert splits["group"].nunique() == 60
    assert not (splits["split"].iloc[many] == "train").any()
    assert set(splits.loc[splits["excluded"] == "near_held_out", "split"]) == {"removed"}
    train = np.flatnonzero(splits["split"] == "train")
    assert_disjoint(splits, manifest["exact_hash"], train, near)
    leaked = np.append(train, np.flatnonzero(splits["excluded"] == "near_held_out")[0])
    assert_disjoint(splits, manifest["exact_hash"], leaked)
    with pytest.raises(DataError, match="1 images of held-out patients"):
        assert_disjoint(splits, manifest["exact_hash"], leaked, near)


@pytest.mark.parametrize(("sharing", "groups"), [(MOST_SHARED, 60 - MOST_SHARED + 1), (MOST_SHARED + 1, 60)])
def test_how_many_patients_may_share_an_image(sharing, groups):
    manifest = clinic()
    some = rows_of(manifest, *[f"p{k}" for k in range(sharing)])
    assert len(set(link_patients(manifest, np.array([(some[0], other) for other in some[1:]])))) == groups
    manifest.loc[some, "exact_hash"] = "same"
    assert len(set(link_patients(manifest))) == groups


def test_a_near_pair_stands_for_all_rows_with_the_identical_image():
    manifest = clinic()
    first, twin, near_one = rows_of(manifest, "p0", "p1", "p2")
    manifest.loc[twin, "exact_hash"] = manifest.loc[first, "exact_hash"]
    group = link_patients(manifest, np.array([[first, near_one]]))
    assert group[first] == group[twin] == group[near_one]


def test_near_images_of_held_out_patients_are_dropped_and_counted():
    labelled = clinic()
    held = make_splits(labelled, TASK, 0, transductive=False).query("split == 'test'")["patient"].iloc[0]
    more = table([("archive", "other key", "a re-encoded image", None, None), ("archive", "other key", "another", None, None)])
    manifest = pd.concat([labelled, more], ignore_index=True)
    near = np.array([[*rows_of(manifest, held), len(labelled)]])
    splits = make_splits(manifest, TASK, 0, transductive=False, near=near)
    assert splits["excluded"].tolist()[-2:] == ["near_held_out", "linked_to_held_out"]
    assert not splits["pretrain"].iloc[-2:].any()
    counts = summarise(splits, manifest["exact_hash"], TASK)
    assert counts["excluded_from_pretraining"]["near_held_out"] == {"images": 1, "patients": 1}
    assert counts["linked_groups"] == 1


def test_an_official_split_with_near_images_on_both_sides_is_refused():
    manifest = official([])
    near = np.array([rows_of(manifest, "train0", "test0")])
    task = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official"}})
    with pytest.raises(DataError, match=r"1 patients .*near-identical"):
        make_splits(manifest, task, 0, transductive=False, near=near)
    remove = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official", "collisions": "remove_from_training"}})
    splits = make_splits(manifest, remove, 0, transductive=False, near=near)
    assert splits.loc[splits["split"] == "removed", "patient"].tolist() == ["train0"]


def test_without_a_task_everything_is_for_pretraining():
    manifest = clinic().drop(columns="label.finding")
    near = np.array([rows_of(manifest, "p0", "p1")])
    splits = make_splits(manifest, None, 0, transductive=False, near=near)
    assert (splits["split"] == "archive").all()
    assert splits["pretrain"].all()
    assert splits["label"].isna().all()
    assert splits["excluded"].isna().all()
    assert splits["group"].nunique() == 59
    summary = summarise(splits, manifest["exact_hash"], None)
    assert summary["pretraining_images"] == len(manifest)
    assert summary["parts"]["test"]["images"] == 0
    assert_disjoint(splits, manifest["exact_hash"], np.arange(len(splits)), near)


def test_the_order_of_groups_is_that_of_their_content_hashed_one_by_one():
    rng = np.random.default_rng(0)
    words = ["", "é", "b", "ab", "a", "Z", "a"]
    frame = pd.DataFrame({"group": rng.integers(3, 40, 200) * 2, "exact_hash": rng.choice(words, 200)})
    expected = {group: content_order(5, "split", hashes) for group, hashes in frame.groupby("group")["exact_hash"]}
    assert order_groups(frame, 5, "split").to_dict() == expected
    assert order_groups(frame.iloc[:0], 5, "split").empty


def test_shared_images_are_listed_with_where_they_stand():
    manifest = clinic()
    a, b, c, d = rows_of(manifest, "p0", "p1", "p2", "p3")
    manifest.loc[[a, b], "exact_hash"] = "same"
    manifest.loc[b, "source"] = "archive"
    splits = pd.DataFrame({"split": ["train"] * len(manifest)})
    splits.loc[b, "split"] = "test"
    found = shared_images(manifest, np.array([[d, c]]), splits)
    assert found.to_dict("records") == [
        {
            "images": 2, "patients": 2, "identical": True, "sources": "archive, labelled", "splits": "test, train",
            "row_keys": [f"k{a}", f"k{b}"],
        },
        {
            "images": 2, "patients": 2, "identical": False, "sources": "labelled", "splits": "train",
            "row_keys": [f"k{c}", f"k{d}"],
        },
    ]  # fmt: skip
    assert shared_images(manifest)["row_keys"].tolist() == [[f"k{a}", f"k{b}"]]
    joined = shared_images(manifest, np.array([[b, c]]))
    assert joined[["images", "identical"]].to_dict("records") == [{"images": 3, "identical": False}]
    assert shared_images(clinic()).empty


def test_patients_with_one_study_stay_together_but_a_placeholder_links_nobody():
    manifest = clinic()
    manifest["study"] = manifest["patient"] + "s"
    a, b = rows_of(manifest, "p0", "p1")
    manifest.loc[[a, b], "study"] = "one study"
    splits = make_splits(manifest, TASK, 0, transductive=False)
    assert splits["group"].nunique() == 59
    assert splits.groupby("study")["split"].nunique().max() == 1
    manifest["study"] = "1.2.3"
    assert make_splits(manifest, TASK, 0, transductive=False)["group"].nunique() == 60


def test_the_assertion_fires_for_a_study_on_both_sides():
    manifest = clinic().assign(study=lambda frame: frame["patient"])
    splits = make_splits(manifest, TASK, 0, transductive=False)
    rows = np.flatnonzero(splits["split"] == "train")
    assert_disjoint(splits, manifest["exact_hash"], rows)
    splits.loc[rows[0], "study"] = splits.loc[splits["split"] == "test", "study"].iloc[0]
    with pytest.raises(DataError, match="images of held-out patients"):
        assert_disjoint(splits, manifest["exact_hash"], rows)


def test_the_assertion_fires_for_a_test_patient_in_validation():
    manifest = clinic()
    splits = make_splits(manifest, TASK, 0, transductive=False)
    rows = np.flatnonzero(splits["split"] == "train")
    tested = np.flatnonzero(splits["split"] == "test")
    splits.loc[tested[0], "split"] = "validation"  # its patient has two further images in test
    with pytest.raises(DataError, match="1 images of test patients are in the validation part"):
        assert_disjoint(splits, manifest["exact_hash"], rows)
    copied = make_splits(manifest, TASK, 0, transductive=False)
    hashes = manifest["exact_hash"].copy()
    hashes.iloc[np.flatnonzero(copied["split"] == "validation")[0]] = hashes.iloc[tested[0]]
    with pytest.raises(DataError, match="1 images of test patients are in the validation part"):
        assert_disjoint(copied, hashes, rows)


def test_a_leak_that_is_allowed_is_marked_counted_and_kept_from_pretraining():
    manifest = official(
        [
            ("test0", "new", "y", "train"),
            ("validation1", "new2", "y", "train"),
            ("elsewhere", "test1", "y", "train"),
            ("test2", "new3", "y", "validation"),
        ]
    )
    allow = BinaryTask.model_validate(TASK.model_dump() | {"split": {"kind": "official", "collisions": "allow"}})
    splits = make_splits(manifest, allow, 0, transductive=False)
    assert splits["split"].tolist() == manifest["official_split"].tolist()
    assert np.flatnonzero(splits["leaks"]).tolist() == [18, 19, 20, 21]
    assert not splits.loc[splits["leaks"], "pretrain"].any()
    rows = np.flatnonzero(splits["split"] == "train")
    assert_disjoint(splits, manifest["exact_hash"], rows)
    with pytest.raises(DataError, match="1 images of held-out patients"):  # any other leak is still one
        assert_disjoint(splits.assign(leaks=splits.index.isin([18, 19, 21])), manifest["exact_hash"], rows)
    summary = summarise(splits, manifest["exact_hash"], allow)
    assert summary["collisions"] == "allow"
    assert summary["leaks"] == {"images": 4, "patients": 4}
