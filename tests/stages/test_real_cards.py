"""The shipped cards of real sets, on those sets where they are at hand."""

from __future__ import annotations

import shutil

import pytest

from medssl.stages.index import index
from medssl.stages.workspace import open_workspace

REMOVE = {"kind": "official", "collisions": "remove_from_training"}


def index_card(write_study, folder, card, root, target, positive, **split):
    task = {"kind": "binary", "data": "set", "target": target, "positive": positive, "split": split or {"kind": "patient"}}
    study = write_study(folder, data={"set": {"card": card, "root": str(root)}}, task=task, tracking={"enabled": False})
    return index(open_workspace(study))


@pytest.mark.parametrize(
    ("card", "target", "positive", "images", "positives", "duplicates"),
    [("pneumoniamnist", "pneumonia", "pneumonia", 5856, 4273, 27), ("breastmnist", "malignant", "malignant", 780, 210, None)],
)
def test_medmnist(tmp_path, shared_data, write_study, card, target, positive, images, positives, duplicates):
    root = shared_data / "medmnist"
    if not (root / f"{card}.npz").is_file():
        pytest.skip(f"{card}.npz is absent; its card says where it comes from")
    archive = index_card(write_study, tmp_path, card, root, target, positive, **REMOVE)
    assert len(archive.manifest) == images
    assert int((archive.splits["label"] == 1).sum()) == positives
    assert set(archive.manifest["patient_from"]) == {"image"}
    hashes = archive.manifest["exact_hash"]
    if duplicates is not None:
        assert hashes[hashes.duplicated(keep=False)].nunique() == duplicates
    held = set(hashes[archive.splits["split"].isin(["validation", "test"])])
    assert not held & set(hashes[archive.splits["pretrain"]])


def test_the_chest_set_by_its_folders_alone(tmp_path, shared_data, write_study):
    """As published: no labels.csv, classes, patients and the publishers' split from folder and file names."""
    root = shared_data / "kermany_cxr" / "images"
    if not root.is_dir():
        pytest.skip("kermany_cxr is absent; its card says where it comes from")
    copy = tmp_path / "chest_xray"
    for part in ("train", "test"):
        for kind in ("NORMAL", "PNEUMONIA"):
            files = sorted((root / part / kind).iterdir())[:: 20 if part == "train" else 8]
            for path in files:
                target = copy / part / kind / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    archive = index_card(write_study, tmp_path / "study", "kermany_cxr", copy, "subtype", "bacteria")
    manifest = archive.manifest
    assert manifest["label.finding"].notna().all()
    assert set(manifest["label.subtype"]) == {"normal", "bacteria", "virus"}
    assert set(manifest["official_split"]) == {"train", "test"}
    assert ((manifest["label.finding"] == "normal") == (manifest["label.subtype"] == "normal")).all()
    assert manifest["patient"].nunique() < len(manifest)
    assert len(archive.splits) == len(manifest)
