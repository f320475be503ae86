"""A planted name, ID and UID come out nowhere but in private/: every file of the work folder and the screen are searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from PIL import Image

from medssl.cli import main
from medssl.stages.compare import compare
from medssl.stages.workspace import open_workspace

NAME, NUMBER, UID = "Zwetschgenmus", "QX7731904", "1.2.826.0.1.3680043.8.498.77319047731904"
PLANTS = [NAME.encode(), NAME.upper().encode(), NAME.lower().encode(), NUMBER.encode(), UID.encode(), b"77319047731904"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory, phantom_root):
    """A copy of the archive in which the identifiers stand in tags, folders and file names, of good files and of bad ones."""
    root = tmp_path_factory.mktemp("planted") / "archive"
    rows = ["file,opacity"]
    labels = dict(line.split(",") for line in (phantom_root / "labels.csv").read_text().splitlines()[1:])
    for number, source in enumerate(sorted(phantom_root.rglob("*.dcm"))):
        dataset = pydicom.dcmread(source)
        dataset.PatientName = f"{NAME}^{number}"
        dataset.PatientID = f"{NUMBER}-{dataset.PatientID}"
        dataset.StudyInstanceUID = f"{UID}.{dataset.StudyInstanceUID[-6:].replace('.', '1')}"
        dataset.SOPInstanceUID = f"{UID}.9{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesDescription = NAME
        relative = Path(f"{NAME}_{dataset.PatientID}") / f"{NAME} {number} {UID}.dcm"
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(root / relative)
        old = source.relative_to(phantom_root).as_posix()
        if old in labels:
            rows.append(f"{relative.as_posix()},{labels[old]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / NAME / f"{NAME}.dcm").parent.mkdir()
    (root / NAME / f"{NAME}.dcm").write_text(f"<html>{NAME}</html>")
    broken = pydicom.dcmread(sorted(phantom_root.rglob("*.dcm"))[0])
    broken.PatientName, broken.PatientID, broken.StudyDate = NAME, NUMBER, NAME[:8]
    broken.save_as(root / NAME / f"{NUMBER}.dcm")
    content = (root / NAME / f"{NUMBER}.dcm").read_bytes()
    (root / NAME / f"{NUMBER}.dcm").write_bytes(content[: len(content) // 2])
    return root


def test_identifiers_come_out_nowhere(planted, tmp_path, write_study, capfd):
    study = write_study(
        tmp_path,
        data={"archive": {"card": "phantom_cxr", "root": str(planted)}},
        finetune={"budgets": [8], "seeds": 1, "full": None},
        pretrain={"method": {"name": "simsiam", "projector_dim": 8, "projector_hidden": 8}, "epochs": 1, "batch_size": 16},
    )
    work = open_workspace(study)
    compare(work)
    screen = capfd.readouterr()
    assert "2 files set aside" in screen.out
    seen = [("screen", (screen.out + screen.err).encode())]
    seen += [
        (str(path.relative_to(work.folder)), path.read_bytes())
        for path in work.folder.rglob("*")
        if path.is_file() and work.private not in path.parents
    ]
    assert any(name.endswith("mlflow.db") for name, _ in seen)
    assert any("mlartifacts" in name for name, _ in seen)
    assert any(name.endswith("rejects.parquet") for name, _ in seen)
    leaks = [(name, plant.decode()) for name, content in seen for plant in PLANTS if plant in content or plant in name.encode()]
    assert leaks == []
    # Parquet is compressed: look at the values too.
    import pandas as pd

    for path in work.folder.rglob("*.parquet"):
        if work.private not in path.parents:
            text = pd.read_parquet(path).to_csv()
            assert not [plant for plant in PLANTS if plant.decode() in text], path
    private = pd.read_parquet(work.private / "locate.parquet").to_csv()
    assert NUMBER in private  # the test can fail: it is where it may be
    assert NAME in private


def test_errors_name_no_file_of_the_archive(tmp_path, capsys, monkeypatch):
    root = tmp_path / "archive" / NAME
    root.mkdir(parents=True)
    card = yaml.safe_load((Path(__file__).parents[2] / "data_cards" / "kermany_cxr.yaml").read_text())
    card |= {"name": "mine", "files": {"include": ["**/*.png"]}, "patient": [{"pattern": r"(?P<value>p\d+)"}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card))
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 9)).astype(np.uint8)).save(
            root / f"{NAME}{number}.png"
        )
    study = {
        "version": 1,
        "name": "s",
        "work_dir": str(tmp_path / "work"),
        "data": {"a": {"card": "mine.yaml", "root": str(root.parent)}},
    }
    study["task"] = {"kind": "binary", "data": "a", "target": "finding", "positive": "pneumonia"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.setattr("sys.argv", ["medssl", "index", "-c", str(tmp_path / "study.yaml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "3 images belong to no patient" in said
    assert NAME not in said
