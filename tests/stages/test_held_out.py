"""A test patient planted in the pretraining source, by key and by pixels, is dropped and counted; on real files."""

from __future__ import annotations

import shutil

import pandas as pd
import pydicom
import pytest
from PIL import Image as PillowImage

from medssl.errors import DataError
from medssl.stages.index import index
from medssl.stages.workspace import open_workspace


def test_planted_patients_are_dropped_from_the_archive(tmp_path, write_study, phantom_root, capsys):
    first = open_workspace(write_study(tmp_path / "first", tracking={"enabled": False}))
    archive = index(first)
    places = pd.read_parquet(first.private / "locate.parquet").set_index("row_key")["path"]
    rows = archive.splits.assign(path=archive.splits["row_key"].map(places))
    test, train = rows[rows["split"] == "test"], rows[rows["split"] == "train"]

    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "labels.csv").write_text("file,opacity\n")
    same_key = pydicom.dcmread(phantom_root / test["path"].iloc[0])  # another image of a test patient
    same_key.PixelData = same_key.pixel_array[::-1].tobytes()
    same_key["PixelData"].VR = "OW"
    same_key.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    same_key.save_as(extra / "a.dcm")
    same_pixels = pydicom.dcmread(phantom_root / test["path"].iloc[1])  # a test image under another key
    same_pixels.PatientID, same_pixels.StudyInstanceUID = "ANOTHER", pydicom.uid.generate_uid()
    same_pixels.save_as(extra / "b.dcm")
    stranger = pydicom.dcmread(phantom_root / train["path"].iloc[1])
    stranger.save_as(extra / "c.dcm")

    data = {"archive": {"card": "phantom_cxr", "root": str(phantom_root)}, "extra": {"card": "phantom_cxr", "root": str(extra)}}
    second = open_workspace(write_study(tmp_path / "second", data=data, tracking={"enabled": False}))
    capsys.readouterr()
    both = index(second)
    found = both.splits[both.splits["source"] == "extra"]
    assert found["pretrain"].tolist() == [False, False, True]
    assert found["excluded"].tolist()[1] == "identical_to_held_out"
    counts = both.summary["splits"]["excluded_from_pretraining"]
    assert counts["identical_to_held_out"]["images"] >= 1
    said = capsys.readouterr().out
    assert f"{counts['held_out_patient']['images']} held out patient" in said
    assert "1 identical to held out" in said


def test_a_reencoded_test_image_under_another_name_is_dropped(tmp_path, shared_data, write_study):
    """Real chest X-rays: a test image comes back as a smaller, brighter JPEG of worse quality, another as it was."""
    root = shared_data / "kermany_cxr"
    if not root.is_dir():
        pytest.skip("kermany_cxr is absent; set MEDSSL_DATA to the folder that holds it")
    task = {"kind": "binary", "data": "archive", "target": "finding", "positive": "pneumonia"}
    labels = pd.read_csv(root / "labels.csv").groupby("label").head(60)
    some = tmp_path / "some"
    for file in labels["file"]:
        (some / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, some / file)
    labels.to_csv(some / "labels.csv", index=False)
    data = {"archive": {"card": "kermany_cxr", "root": str(some)}}
    first = open_workspace(write_study(tmp_path / "first", data=data, task=task, tracking={"enabled": False}))
    archive = index(first)
    places = pd.read_parquet(first.private / "locate.parquet").set_index("row_key")["path"]
    test = places[archive.splits.loc[archive.splits["split"] == "test", "row_key"]].tolist()
    train = places[archive.splits.loc[archive.splits["split"] == "train", "row_key"]].tolist()

    extra = tmp_path / "extra"
    extra.mkdir()
    for name, file, quality in (("person9001_x", test[0], 40), ("person9002_x", test[1], 60), ("person9003_x", train[0], 40)):
        with PillowImage.open(some / file) as image:
            changed = image.convert("L").resize((200, 200)).point(lambda value: min(255, round(value * 1.08)))
            changed.save(extra / f"{name}.jpeg", quality=quality)
    data["extra"] = {"card": "kermany_cxr", "root": str(extra)}
    both = index(open_workspace(write_study(tmp_path / "second", data=data, task=task, tracking={"enabled": False})))
    found = both.splits[both.splits["source"] == "extra"]
    assert found["excluded"].tolist()[:2] == ["near_held_out"] * 2
    assert found["pretrain"].tolist() == [False, False, True]
    assert both.summary["near"]["confirmed"] == 3
    assert both.summary["splits"]["excluded_from_pretraining"]["near_held_out"]["images"] == 2


def test_the_published_chest_split_is_refused_and_then_cleaned(tmp_path, shared_data, write_study):
    root = shared_data / "kermany_cxr"
    if not root.is_dir():
        pytest.skip("kermany_cxr is absent; set MEDSSL_DATA to the folder that holds it")
    task = {"kind": "binary", "data": "archive", "target": "finding", "positive": "pneumonia", "split": {"kind": "official"}}
    data = {"archive": {"card": "kermany_cxr", "root": str(root)}}
    study = write_study(tmp_path, data=data, task=task, tracking={"enabled": False}, store={"workers": 2})
    with pytest.raises(DataError, match=r"the official split of archive has .* patients .* on both sides"):
        index(open_workspace(study))
    task["split"]["collisions"] = "remove_from_training"
    archive = index(open_workspace(write_study(tmp_path, data=data, task=task, tracking={"enabled": False})))
    parts = archive.summary["splits"]["parts"]
    assert parts["test"]["images"] == 624
    assert parts["test"]["positive_images"] == 390
    assert sum(part["images"] for part in parts.values()) == 5856
    manifest, splits = archive.manifest, archive.splits
    duplicated = manifest["exact_hash"].duplicated(keep=False)
    assert manifest.loc[duplicated, "exact_hash"].nunique() == 30
    by_patient = splits[splits["split"] != "removed"].groupby("patient")["split"].nunique()
    assert by_patient.max() == 1
    fitted = set(manifest.loc[splits["pretrain"], "exact_hash"])
    assert not fitted & set(manifest.loc[splits["split"].isin(["test", "validation"]), "exact_hash"])
