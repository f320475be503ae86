"""index of DICOM series as volumes and of NIfTI with label maps: found from headers, known again, every file can be located."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from typer.testing import CliRunner

from medssl.cli import app
from medssl.data.archive import MANIFEST, REJECTS
from medssl.data.store import Store

VOXELS = np.random.default_rng(0).integers(0, 4000, (6, 10, 8)).astype(np.int16)


def write_slice(path, pixels, patient: str, series: str, z: float, number: int) -> None:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"{series}.{number}"
    one.PatientID, one.StudyInstanceUID, one.SeriesInstanceUID = patient, f"{series}.9", series
    one.Modality, one.InstanceNumber = "CT", 99 - number
    one.ImagePositionPatient, one.ImageOrientationPatient = [-10, -20, z], [1, 0, 0, 0, 1, 0]
    one.Rows, one.Columns, one.PixelSpacing = *pixels.shape, [0.5, 0.5]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 1
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.PixelData = pixels.tobytes()
    one["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)


@pytest.fixture
def study(tmp_path):
    """One whole series in two folders, one with a missing slice, one scout, one file that is no DICOM."""
    root = tmp_path / "archive"
    for number, pixels in enumerate(VOXELS):
        write_slice(root / f"{'ab'[number % 2]}/{9 - number}", pixels, "P1", "2.25.10", 2.0 * number, number)
        if number != 3:
            write_slice(root / f"gap/{number}", pixels, "P2", "2.25.20", 2.0 * number, number)
    write_slice(root / "scout", VOXELS[0], "P1", "2.25.30", 0.0, 0)
    (root / "page.dcm").write_text("<html>")
    card = {
        "version": 1, "name": "ct", "title": "t", "source": "s", "licence": "l", "citation": "c", "obtain": "o", "modality": "CT",
        "format": "dicom", "read": {"units": "volumes"}, "patient": [{"tag": "PatientID"}],
    }  # fmt: skip
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "volumes",
                "work_dir": str(tmp_path / "work"),
                "data": {"ct": {"card": "card.yaml", "root": str(root)}},
                "store": {"workers": 2},
                "encoder": {"input_size": 32},
                "tracking": {"enabled": False},
            }
        )
    )
    return tmp_path / "study.yaml"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def set_card(study, **changes) -> None:
    card = yaml.safe_load((study.parent / "card.yaml").read_text()) | changes
    (study.parent / "card.yaml").write_text(yaml.safe_dump(card))


def test_series_become_volumes(study):
    output = run("index", "--config", study)
    assert "1 volumes of 1 patients" in output
    assert "1 localizer" in output
    assert "1 missing_slices" in output
    assert "1 not_dicom" in output
    archive = study.parent / "work" / "archive"
    (row,) = pd.read_parquet(archive / MANIFEST).to_dict("records")
    store = Store(archive / "store")
    voxels = store.volume(row["store_shard"], row["store_row"], (row["depth"], row["rows"], row["columns"]))
    units = voxels * row["store_slope"] + row["store_intercept"]
    # DICOM's columns run to the left and its rows to the back; RAS is the other way round.
    assert np.array_equal(units, VOXELS[:, ::-1, ::-1] - 1024.0)
    affine = np.array(row["affine"]).reshape(3, 4)
    assert np.allclose(affine, [[0.5, 0, 0, 10 - 0.5 * 7], [0, 0.5, 0, 20 - 0.5 * 9], [0, 0, 2, 0]])
    assert (row["spacing_row"], row["spacing_column"], row["spacing_slice"]) == (0.5, 0.5, 2.0)


def test_every_file_of_a_series_can_be_located(study):
    run("index", "--config", study)
    archive = study.parent / "work" / "archive"
    key = pd.read_parquet(archive / MANIFEST)["row_key"][0]
    found = run("locate", key, "--config", study)
    assert all(f"{'ab'[number % 2]}/{9 - number}" in found for number in range(6))
    rejects = pd.read_parquet(archive / REJECTS).set_index("reason")["row_key"]
    assert run("locate", rejects["missing_slices"], "--config", study).count("gap/") == 5
    assert "scout" in run("locate", rejects["localizer"], "--config", study)


def test_a_slice_that_comes_later_completes_its_series(study):
    run("index", "--config", study)
    write_slice(study.parent / "archive" / "gap" / "3", VOXELS[3], "P2", "2.25.20", 6.0, 3)
    output = run("index", "--config", study)
    assert "ct headers: 13 of 14 are known and unchanged, 1 are read" in output
    assert "1 of 2 are known and unchanged, 1 are read" in output
    assert "2 volumes of 2 patients" in output
    assert "nothing has changed: 2 volumes of 2 patients" in run("index", "--config", study)


def test_slices_of_a_series(study):
    set_card(study, read={"units": "slices", "axis": "coronal"})
    assert "10 images of 1 patients" in run("index", "--config", study)
    manifest = pd.read_parquet(study.parent / "work" / "archive" / MANIFEST)
    assert sorted(manifest["slice"]) == list(range(10))
    assert set(zip(manifest["rows"], manifest["columns"], strict=True)) == {(6, 8)}


def test_training_on_whole_volumes_is_refused_in_one_line(study):
    result = CliRunner().invoke(app, ["pretrain", "--config", str(study)])
    assert "is indexed as whole volumes; set `units: slices` under `read` of its card" in str(result.exception)


def test_label_maps_are_paired_and_orphans_named(tmp_path, shared_data):
    root = shared_data / "hippocampus"
    if not root.is_dir():
        pytest.skip("hippocampus is absent; set MEDSSL_DATA to the folder that holds it")
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "hippocampus",
                "work_dir": str(tmp_path / "work"),
                "data": {"mr": {"card": "hippocampus", "root": str(root)}},
                "encoder": {"input_size": 32},
                "tracking": {"enabled": False},
            }
        )
    )
    output = run("index", "--config", tmp_path / "study.yaml")
    assert "260 volumes of 260 patients" in output
    assert "3 files set aside: 2 no_image, 1 no_mask" in output
    archive = tmp_path / "work" / "archive"
    manifest, rejects = pd.read_parquet(archive / MANIFEST), pd.read_parquet(archive / REJECTS)
    located = [run("locate", key, "--config", tmp_path / "study.yaml").split()[-1] for key in rejects["row_key"]]
    assert sorted(located) == ["images/hippocampus_118.nii.gz", "labels/hippocampus_010.nii.gz", "labels/hippocampus_281.nii.gz"]
    store = Store(archive / "store")
    for row in manifest.iloc[::60].to_dict("records"):
        shape = (row["depth"], row["rows"], row["columns"])
        mask = store.volume(int(row["mask_shard"]), int(row["mask_row"]), shape)
        assert set(np.unique(mask)) == {0, 1, 2}
