"""Splits from files to tables: planted leaks are refused or dropped by their keys; every kind of task; folds; out of distribution."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from medssl.data.private import locate
from medssl.data.targets import targets_of
from medssl.errors import DataError, StudyError
from medssl.stages.index import index
from medssl.stages.splits import FOUND, audit_splits
from medssl.stages.watch import can_watch, two_sided
from medssl.stages.workspace import check_study, open_workspace


def changed(clinics, clinic, tmp_path, change) -> str:
    """A copy of the clinic with another labels.csv."""
    root = tmp_path / "changed"
    shutil.copytree(clinic, root)
    lines = clinics.lines_of(root)
    change({line["file"]: line for line in lines}, root)
    clinics.write(root, lines)
    return root


OFFICIAL = {"split": {"kind": "official"}}


def test_a_clean_split_is_audited_and_proved(study, capsys):
    work = study(OFFICIAL)
    audit_splits(work)
    said = capsys.readouterr().out
    assert "share no patient, no study, no identical and no near-identical image" in said
    assert (work.folder / FOUND).read_text() == "split,first,second,kind,key\n"
    audit_splits(study())
    assert "pretraining" in capsys.readouterr().out


def test_the_same_patient_in_two_splits(study, clinics, clinic, tmp_path, capsys):
    def leak(lines, root):
        lines["p8_0.png"]["split"] = "train"  # the other image of the patient is in the test part

    root = changed(clinics, clinic, tmp_path, leak)
    work = study(OFFICIAL, root)
    with pytest.raises(DataError, match=r"has 1 patients .* on both sides, 1 images"):
        index(work)
    with pytest.raises(
        DataError, match=r"the split of clinic leaks: train or validation and test share 1 patients \(1 and 1 images\)"
    ):
        audit_splits(work)
    found = pd.read_csv(work.folder / FOUND)
    key = found.loc[(found["kind"] == "patients") & (found["first"] == "train"), "key"].unique().item()
    assert set(locate(work.private, key)["path"]) == {"p8_0.png", "p8_1.png"}
    assert "P8" not in capsys.readouterr().out + (work.folder / FOUND).read_text()

    allowed = study({"split": {"kind": "official", "collisions": "allow"}}, root)
    audit_splits(allowed)
    summary = allowed.archive.summary["splits"]
    assert (summary["collisions"], summary["leaks"]) == ("allow", {"images": 1, "patients": 1})
    assert "every result leaks" in capsys.readouterr().err

    removed = study({"split": {"kind": "official", "collisions": "remove_from_training"}}, root)
    audit_splits(removed)
    said = capsys.readouterr().out
    assert "as published: train and test share 1 patients" in said
    assert "share no patient" in said
    assert removed.archive.summary["splits"]["leaks"] == {"images": 0, "patients": 0}


def test_the_command_ends_with_2_and_one_line(study, clinics, clinic, tmp_path):
    def leak(lines, root):
        lines["p8_0.png"]["split"] = "train"

    work = study(OFFICIAL, changed(clinics, clinic, tmp_path, leak))
    command = [sys.executable, "-m", "medssl.cli", "splits", "audit", "--config", str(work.study_file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: task.split: the split of clinic leaks: ")
    assert done.stderr.count("\n") == 1
    assert "What is in each part" in done.stdout
    allowed = subprocess.run([*command, "--set", "task.split.collisions=allow"], capture_output=True, text=True)
    assert allowed.returncode == 0, allowed.stderr


def test_the_same_pixels_under_two_keys(study, clinics, clinic, tmp_path):
    def leak(lines, root):
        shutil.copy(root / "p8_0.png", root / "p0_0.png")

    work = study(OFFICIAL, changed(clinics, clinic, tmp_path, leak))
    with pytest.raises(
        DataError, match=r"train or validation and test share 1 identical images \(1 and 1 images\), 1 linked patients"
    ):
        audit_splits(work)
    found = pd.read_csv(work.folder / FOUND)
    key = found.loc[found["kind"] == "identical images", "key"].unique().item()
    assert locate(work.private, key)["path"].tolist() == ["p8_0.png"]


def test_a_reencoded_test_image_in_the_pretraining_source_is_dropped_by_its_key(study, clinics, clinic, tmp_path, capsys):
    extra = tmp_path / "extra"
    extra.mkdir()
    lines = []
    for name, number in (("a.jpg", 16), ("b.jpg", 400)):  # 16: p8_0.png, a test image
        encoded = io.BytesIO()
        clinics.picture(number).save(encoded, "JPEG", quality=60)
        (extra / name).write_bytes(encoded.getvalue())
        lines.append(clinics.lines_of(clinic)[0] | {"file": name, "patient": f"X{number}", "split": ""})
    clinics.write(extra, lines)
    work = study(OFFICIAL, data={"extra": {"card": "card.yaml", "root": str(extra)}}.items())
    audit_splits(work)
    splits = work.archive.splits
    dropped = splits.loc[(splits["source"] == "extra") & ~splits["pretrain"]]
    assert dropped["excluded"].tolist() == ["near_held_out"]
    assert locate(work.private, dropped["row_key"].item())["path"].tolist() == ["a.jpg"]
    assert splits["pretrain"][splits["source"] == "extra"].sum() == 1
    capsys.readouterr()
    # Put back by hand, it is found again.
    splits.loc[dropped.index, "pretrain"] = True
    with pytest.raises(DataError, match=r"pretraining sees held-out images: pretraining and test share 1 near-identical images"):
        audit_splits(work)


@pytest.mark.parametrize("column", ["file", "row_key", "patient"])
def test_a_table_whose_test_list_is_its_validation_list_is_refused(study, tmp_path, column):
    """As in a published repository, where the test file was a copy of the validation file."""
    work = study()
    archive = index(work)
    places = {key: path for key in archive.manifest["row_key"] for path in locate(work.private, key)["path"]}
    frame = archive.manifest[["row_key", "patient"]].assign(file=archive.manifest["row_key"].map(places))
    train, other = frame.iloc[:60], frame.iloc[60:]
    good = pd.concat([train.assign(split="train"), other.iloc[:10].assign(split="val"), other.iloc[10:].assign(split="test")])
    bad = pd.concat([train.assign(split="training"), other.assign(split="val"), other.assign(split="test")])
    for name, table in (("good", good), ("bad", bad)):
        table[[column, "split"]].to_csv(tmp_path / f"{name}.csv", index=False)
    audit_splits(work, tmp_path / "good.csv")
    with pytest.raises(
        DataError, match=r"bad\.csv: the split leaks: train or validation and test share 10 patients \(20 and 20 images\)"
    ):
        audit_splits(work, tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,split\np0_0.png,trian\n", r"line 2: split is 'trian'; did you mean 'train'\?; allowed: train"),
        (
            "image,split\np0_0.png,train\n",
            "needs the column split and exactly one of row_key, patient, file; it has: image, split",
        ),
        ("file,split\nnone.png,train\n", "none of its 1 lines names a file of the archive"),
        ("", "it has: no lines"),
    ],
)
def test_tables_that_cannot_be_audited(study, tmp_path, text, line):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(DataError, match=line):
        audit_splits(study(), tmp_path / "own.csv")
    with pytest.raises(DataError, match="there is no such file"):
        audit_splits(study(), tmp_path / "none.csv")


def test_lines_of_a_table_that_name_nothing_are_counted(study, tmp_path, capsys):
    (tmp_path / "own.csv").write_text("file,split\np0_0.png,train\nnone.png,test\np5_0.png,test\n")
    audit_splits(study(), tmp_path / "own.csv")
    assert "1 of its lines name nothing in the archive" in " ".join(capsys.readouterr().err.split())


MULTILABEL = {"kind": "multilabel", "targets": ["finding", "mass"], "positive": "yes", "negative": "no"}


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ({"kind": "multiclass", "target": "grade"}, ("none", "mild", "severe")),
        ({"kind": "ordinal", "target": "grade", "classes": ["none", "severe"]}, ("none", "severe")),
        (MULTILABEL, ("finding", "mass")),
        ({"kind": "regression", "target": "age"}, ("age",)),
    ],
)
def test_every_kind_is_indexed_split_and_audited(study, clinics, task, names, capsys):
    work = study({"data": "clinic", "split": clinics.TASK["split"], **task})
    archive = index(work)
    assert work.task.outputs.names == names
    labels = targets_of(archive.splits, work.task)
    raw = archive.manifest[[f"label.{target}" for target in work.task.targets]]
    if task["kind"] == "regression":
        np.testing.assert_array_equal(labels[:, 0], raw["label.age"].astype(float))
        assert np.isnan(labels).sum() == 2
    elif task["kind"] == "multilabel":
        assert (np.isnan(labels) == raw.isna().to_numpy()).all()
        assert ((labels == 1) == (raw == "yes").to_numpy()).all()
    else:
        named = pd.Series(labels[:, 0]).map(dict(enumerate(names)))
        assert named.fillna("").tolist() == raw["label.grade"].where(raw["label.grade"].isin(names), "").tolist()
    assert archive.splits.groupby("patient")["split"].nunique().max() == 1
    known = labels[~np.isnan(labels).all(axis=1)]
    if can_watch(work.task):
        watched = two_sided(archive.splits["label"].dropna().to_numpy(), work.task)
        assert set(watched) == {0, 1}
        assert len(watched) == len(known)
    else:
        assert task["kind"] == "regression"
    audit_splits(work)
    assert "share no patient" in capsys.readouterr().out


def test_each_fold_is_a_split_of_its_own(study, capsys):
    tested = []
    for fold in range(3):
        work = study({"split": {"kind": "folds", "folds": 3, "fold": fold}})
        archive = index(work)  # in the same folder: the split is made again, the archive is not
        part = archive.splits[archive.splits["split"] == "test"]
        tested += part["row_key"].tolist()
        assert not part["pretrain"].any()
    assert sorted(tested) == sorted(archive.manifest["row_key"])
    assert capsys.readouterr().out.count("index clinic") == 1


def test_by_vendor(tmp_path, write_study):
    task = {"kind": "binary", "data": "archive", "target": "opacity", "positive": "present"}
    work = open_workspace(write_study(tmp_path, task=task, tracking={"enabled": False}))
    vendor = index(work).manifest["vendor"].value_counts().index[-1]
    split = {"kind": "held_out", "column": "vendor", "values": [vendor], "validation": 0.2}
    held = open_workspace(write_study(tmp_path, task=task | {"split": split}, tracking={"enabled": False}))
    archive = index(held)
    audit_splits(held)
    assert set(archive.manifest.loc[archive.splits["split"] == "test", "vendor"]) == {vendor}
    assert vendor not in set(archive.manifest.loc[archive.splits["split"].isin(["train", "validation"]), "vendor"])


@pytest.mark.parametrize(
    ("task", "line"),
    [
        (
            {"kind": "multiclass", "target": "grad"},
            r"task\.target: is 'grad'; did you mean 'grade'\?; the card clinic has: finding, mass",
        ),
        (
            {"kind": "multiclass", "target": "age"},
            r"task\.target: 'age' has numbers .* kind multiclass needs ones with classes; it has: fi",
        ),
        ({"kind": "regression", "target": "grade"}, r"task\.target: 'grade' has classes .* needs numeric ones; it has: age"),
        (
            {"kind": "ordinal", "target": "grade", "classes": ["none", "sever"]},
            r"task\.classes: is 'sever'; did you mean 'severe'",
        ),
        (MULTILABEL | {"targets": ["finding", "mas"]}, r"task\.targets: is 'mas'; did you mean 'mass'"),
        (MULTILABEL | {"positive": "present"}, r"task\.positive: is 'present'; the target 'finding' has: yes, no"),
        (MULTILABEL | {"negative": "yes"}, r"task\.negative: is the same class as task\.positive"),
        (
            {"split": {"kind": "held_out", "column": "vendr", "values": ["GE"]}},
            r"task\.split\.column: is 'vendr'; did you mean 'vendor'",
        ),
        (
            {"split": {"kind": "held_out", "column": "vendor", "after": 3}},
            r"task\.split\.after: is for a column of numbers, and vendor",
        ),
        (
            {"split": {"kind": "held_out", "column": "study_year", "values": ["2019"]}},
            r"'2019' cannot stand in the column study_year",
        ),
        ({"split": {"kind": "held_out", "column": "affine", "values": [1]}}, r"task\.split\.column: is 'affine'"),
    ],
)
def test_a_task_that_does_not_fit_the_card(tmp_path, clinics, clinic, write_study, task, line):
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(clinics.CARD, sort_keys=False))
    base = clinics.TASK if "kind" not in task else {"data": "clinic"}
    data = {"clinic": {"card": "card.yaml", "root": str(clinic)}}
    with pytest.raises(StudyError, match=line) as caught:
        check_study(write_study(tmp_path, data=data, task=base | task))
    assert "\n" not in str(caught.value)


def test_an_official_split_that_the_card_has_not(tmp_path, write_study):
    task = {"kind": "binary", "data": "archive", "target": "opacity", "positive": "present", "split": {"kind": "official"}}
    with pytest.raises(StudyError, match="the card phantom_cxr brings no official split; allowed: kind patient, folds, held_out"):
        check_study(write_study(tmp_path, task=task))


def test_the_published_chest_split_is_reported(tmp_path, shared_data, write_study, capsys):
    """170 names of Kermany et al. in test and also in training or validation, 289 in training and validation."""
    root = shared_data / "kermany_cxr"
    if not root.is_dir():
        pytest.skip("kermany_cxr is absent; set MEDSSL_DATA to the folder that holds it")
    task = {"kind": "binary", "data": "archive", "target": "finding", "positive": "pneumonia", "split": {"kind": "official"}}
    data = {"archive": {"card": "kermany_cxr", "root": str(root)}}
    work = open_workspace(write_study(tmp_path, data=data, task=task, tracking={"enabled": False}, store={"workers": 2}))
    with pytest.raises(DataError, match=r"train or validation and test share 170 patients \(457 and 320 images\)"):
        audit_splits(work)
    said = capsys.readouterr().out
    assert "train and validation share 289 patients (841 and 341 images), 8 identical images (10 and 8 images)" in said
    assert "person" not in said
