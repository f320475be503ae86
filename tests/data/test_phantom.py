"""The phantom archive: the same files every time, real DICOM that reads back as drawn, labels that fit the images."""

from __future__ import annotations

import csv
import errno
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medssl.data.phantom import archive as archive_module
from medssl.data.phantom import generate
from medssl.data.phantom.acquisition import VENDORS, Picture, draw_exposure, take
from medssl.data.phantom.anatomy import draw_anatomy, draw_opacities
from medssl.data.phantom.plan import plan_patient
from medssl.errors import DataError, StoreError
from medssl.seeds import numpy_generator

PATIENTS, SIZE = 16, 64


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "archive"
    generate(folder, patients=PATIENTS, size=SIZE, workers=1)
    return folder


@pytest.fixture(scope="module")
def datasets(root) -> dict[str, pydicom.Dataset]:
    return {path.relative_to(root).as_posix(): pydicom.dcmread(path) for path in sorted(root.rglob("*.dcm"))}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def labels(root: Path) -> dict[str, str]:
    with (root / "labels.csv").open(newline="") as file:
        return {row["file"]: row["opacity"] for row in csv.DictReader(file)}


def displayed(picture: Picture, vendor: str) -> np.ndarray:
    """Grey in [0, 1], 1 = white, as a viewer shows the stored window."""
    centre, width = picture.window
    grey = np.clip((picture.pixels - (centre - width / 2)) / width, 0, 1)
    return 1 - grey if VENDORS[vendor].photometric == "MONOCHROME1" else grey


def exposed(seed: int, vendor: str, view: str, *, diseased: bool) -> Picture:
    anatomy = draw_anatomy(numpy_generator(seed, "anatomy"), 1.5)
    opacities = draw_opacities(anatomy, numpy_generator(seed, "opacities")) if diseased else ()
    exposure = draw_exposure(numpy_generator(seed, "exposure"), view)
    return take(anatomy, opacities, exposure, VENDORS[vendor], 96, numpy_generator(seed, "noise"))


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(root, tmp_path):
    generate(tmp_path / "again", patients=PATIENTS, size=SIZE, workers=2)
    assert contents(tmp_path / "again") == contents(root)


def test_a_smaller_archive_is_the_beginning_of_a_larger_one(root, tmp_path):
    generate(tmp_path / "small", patients=3, size=SIZE, workers=1)
    small = {name: content for name, content in contents(tmp_path / "small").items() if name.endswith(".dcm")}
    assert small.items() <= contents(root).items()


def test_another_seed_gives_other_images_and_uids(root, datasets, tmp_path):
    generate(tmp_path / "other", seed=1, patients=2, size=SIZE, workers=1)
    others = [pydicom.dcmread(path) for path in (tmp_path / "other").rglob("*.dcm")]
    uids = {dataset.SOPInstanceUID for dataset in datasets.values()}
    pixels = {dataset.pixel_array.tobytes() for dataset in datasets.values()}
    assert not any(other.SOPInstanceUID in uids or other.pixel_array.tobytes() in pixels for other in others)


def test_every_file_decodes_to_what_was_drawn(datasets):
    syntaxes = Counter()
    for index in range(PATIENTS):
        patient = plan_patient(0, index)
        anatomy = draw_anatomy(numpy_generator(0, "phantom", "anatomy", index), 1.5)
        opacities = draw_opacities(anatomy, numpy_generator(0, "phantom", "opacities", index))
        for study in patient.studies:
            for image in study.images:
                stream = ("phantom", "image", index, study.number, image.number)
                exposure = draw_exposure(numpy_generator(0, *stream, "exposure"), image.view)
                noise = numpy_generator(0, *stream, "noise")
                drawn = take(anatomy, opacities if study.opacity else (), exposure, VENDORS[study.vendor], SIZE, noise)
                dataset = datasets[f"{patient.name}/S{study.number}/IM{image.number:04d}.dcm"]
                np.testing.assert_array_equal(dataset.pixel_array, drawn.pixels)
                syntaxes[dataset.file_meta.TransferSyntaxUID.name] += 1
    assert set(syntaxes) == {
        "Explicit VR Little Endian",
        "RLE Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
    }


def test_two_makers_with_their_own_grey_scales(datasets):
    seen = Counter(
        (dataset.Manufacturer, dataset.PhotometricInterpretation, dataset.BitsStored, max(dataset.Rows, dataset.Columns))
        for dataset in datasets.values()
    )
    assert set(seen) == {
        ("medssl phantom A", "MONOCHROME2", 12, SIZE),
        ("medssl phantom B", "MONOCHROME1", 14, 72),
    }
    assert {dataset.get("VOILUTFunction") for dataset in datasets.values()} == {None, "LINEAR", "SIGMOID"}
    for dataset in datasets.values():
        assert dataset.pixel_array.max() < 2**dataset.BitsStored
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, 0)


def test_headers_name_a_phantom_and_hang_together(datasets):
    for name, dataset in datasets.items():
        folder = name.split("/")[0]
        assert dataset.PatientID == folder
        assert str(dataset.PatientName) == f"Phantom^{folder}"
        assert dataset.SeriesDescription == dataset.ImageComments == "SYNTHETIC PHANTOM, not a patient"
        assert dataset.BurnedInAnnotation == "NO"
        assert "ImageLaterality" not in dataset
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert all(
            uid.is_valid and len(uid) <= 64
            for uid in (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        )
        assert dataset.ViewPosition in {"PA", "AP", "LL"}
        assert 18 <= int(dataset.PatientAge[:3]) < 100
    assert len({dataset.SOPInstanceUID for dataset in datasets.values()}) == len(datasets)
    studies = {(dataset.StudyInstanceUID, dataset.PatientID, dataset.StudyDate) for dataset in datasets.values()}
    assert len({study[0] for study in studies}) == len(studies) == len({study[1:] for study in studies})


def test_patients_have_one_to_four_images_and_some_come_back(datasets):
    images = Counter(dataset.PatientID for dataset in datasets.values())
    assert set(images.values()) <= {1, 2, 3, 4}
    assert max(images.values()) > 1
    dates = {patient: {d.StudyDate for d in datasets.values() if d.PatientID == patient} for patient in images}
    assert {len(found) for found in dates.values()} == {1, 2}


def test_labels_are_one_a_study_and_a_share_of_patients_has_none(root, datasets):
    rows = labels(root)
    assert set(rows) < set(datasets)
    assert set(rows.values()) == {"present", "absent"}
    for study in {dataset.StudyInstanceUID for dataset in datasets.values()}:
        files = [name for name, dataset in datasets.items() if dataset.StudyInstanceUID == study]
        assert len({rows.get(name) for name in files}) == 1
    unlabelled = {name.split("/")[0] for name in datasets} - {name.split("/")[0] for name in rows}
    assert unlabelled == {plan_patient(0, i).name for i in range(PATIENTS) if not plan_patient(0, i).labelled}


def test_shares_over_many_patients():
    patients = [plan_patient(0, index) for index in range(1500)]
    studies = [study for patient in patients for study in patient.studies]
    images = [image for study in studies for image in study.images]
    assert np.mean([patient.labelled for patient in patients]) == pytest.approx(0.75, abs=0.04)
    assert np.mean([any(s.opacity for s in patient.studies) for patient in patients]) == pytest.approx(0.35, abs=0.04)
    assert np.mean([image.view == "LL" for image in images]) == pytest.approx(0.11, abs=0.03)
    assert len(images) / len(patients) == pytest.approx(2.5, abs=0.1)
    # Neither the maker nor the view gives the label away.
    for trait in (lambda s: s.vendor == "A", lambda s: s.images[0].view == "AP"):
        present, absent = ([trait(s) for s in studies if s.opacity is label] for label in (True, False))
        assert np.mean(present) == pytest.approx(np.mean(absent), abs=0.07)


@pytest.mark.parametrize("vendor", ["A", "B"])
def test_lungs_are_dark_and_the_spine_is_bright(vendor):
    for seed in range(6):
        picture = exposed(seed, vendor, "PA", diseased=False)
        grey = displayed(picture, vendor)
        rows, columns = grey.shape
        spine = grey[int(0.55 * rows) : int(0.7 * rows), int(0.46 * columns) : int(0.54 * columns)]
        assert grey[picture.air > 0.6].mean() < 0.5
        assert spine.mean() > grey[picture.air > 0.6].mean() + 0.25


@pytest.mark.parametrize("vendor", ["A", "B"])
def test_opacities_brighten_the_lungs_alone(vendor):
    gains = []
    for seed in range(8):
        with_, without = (exposed(seed, vendor, "PA", diseased=diseased) for diseased in (True, False))
        sign = -1 if VENDORS[vendor].photometric == "MONOCHROME1" else 1
        change = sign * (with_.pixels.astype(float) - without.pixels) / without.window[1]
        lungs = without.air > 0.3
        gains.append(change[lungs].mean())
        assert np.quantile(change[lungs], 0.98) > 0.06
    assert min(gains) > 0
    assert np.mean(gains) > 0.02


def test_images_of_a_patient_share_the_anatomy_and_differ_in_positioning():
    anatomy = draw_anatomy(numpy_generator(3, "anatomy"), 1.5)
    exposures = [draw_exposure(numpy_generator(3, "exposure", number), "PA") for number in range(2)]
    assert exposures[0].pose != exposures[1].pose
    pictures = [take(anatomy, (), exposure, VENDORS["A"], 64, numpy_generator(3, "noise")) for exposure in exposures]
    assert not np.array_equal(pictures[0].pixels, pictures[1].pixels)
    other = draw_anatomy(numpy_generator(4, "anatomy"), 1.5)
    assert (anatomy.chest, anatomy.domes, anatomy.heart) != (other.chest, other.domes, other.heart)


def test_step_of_the_points_changes_no_draw():
    fine, coarse = (draw_anatomy(numpy_generator(5, "anatomy"), step) for step in (0.5, 1.5))
    np.testing.assert_array_equal(fine.texture, coarse.texture)
    np.testing.assert_array_equal(fine.vessels[0].points, coarse.vessels[0].points)
    assert fine.bones.volume.sum() == pytest.approx(coarse.bones.volume.sum(), rel=0.05)


def test_description_and_readme_say_what_it_is(root):
    description = json.loads((root / "phantom.json").read_text())
    assert (description["seed"], description["patients"], description["size"]) == (0, PATIENTS, SIZE)
    assert description["files"] == len(contents(root))
    assert len(description["archive"]["digest"]) == 64
    assert "never evidence" in (root / "README.txt").read_text()


def test_the_same_archive_is_reused_and_nothing_is_written(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    calls = []
    summary = generate(root, patients=PATIENTS, size=SIZE, progress=lambda *done: calls.append(done))
    assert summary.reused
    assert summary.images == len(list(root.rglob("*.dcm")))
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_archive_or_folder_is_refused(root, tmp_path):
    with pytest.raises(DataError, match="seed 0, not 1"):
        generate(root, seed=1, patients=PATIENTS, size=SIZE)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="no phantom archive"):
        generate(tmp_path, patients=1, size=SIZE)
    with pytest.raises(DataError, match="no phantom archive"):
        generate(tmp_path / "mine.txt", patients=1, size=SIZE)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_damaged_archive_is_refused(tmp_path):
    root = tmp_path / "archive"
    generate(root, patients=1, size=SIZE)
    next(root.rglob("*.dcm")).unlink()
    with pytest.raises(DataError, match="files where"):
        generate(root, patients=1, size=SIZE)
    for broken in ("{", "[]", "{}", '{"version": 1, "seed": 0, "patients": 1, "size": 64, "archive": {}}'):
        (root / "phantom.json").write_text(broken)
        with pytest.raises(DataError, match="cannot be read"):
            generate(root, patients=1, size=SIZE)


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"size": 16}, {"size": 5000}])
def test_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(DataError, match="at least 1 patient"):
        generate(tmp_path / "archive", **wrong)


def test_an_empty_folder_is_filled_and_progress_is_told(tmp_path):
    (tmp_path / "archive").mkdir()
    calls = []
    summary = generate(tmp_path / "archive", patients=3, size=SIZE, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert summary.images == len(list((tmp_path / "archive").rglob("*.dcm")))
    assert not summary.reused


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module, "write_image", full)
    with pytest.raises(StoreError, match="No space left"):
        generate(tmp_path / "archive", patients=2, size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_whoever_is_first_wins_and_the_other_reuses_it(tmp_path):
    root = tmp_path / "archive"
    summary = generate(root, patients=1, size=SIZE, progress=lambda *done: generate(root, patients=1, size=SIZE))
    assert summary.reused
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_importing_it_does_not_import_torch():
    code = "import sys, medssl.data.phantom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
