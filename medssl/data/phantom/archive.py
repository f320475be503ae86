"""The whole phantom archive: patients drawn side by side, written beside the archive's place and renamed into it at the end."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

from medssl.data.phantom.acquisition import VENDORS, draw_exposure, plane_of, take
from medssl.data.phantom.anatomy import draw_anatomy, draw_opacities
from medssl.data.phantom.dicom_file import write_image
from medssl.data.phantom.drawing import Pose
from medssl.data.phantom.plan import plan_patient
from medssl.errors import DataError, StoreError
from medssl.files import read_json, write_atomic, write_json
from medssl.seeds import numpy_generator

VERSION = 1  # of the drawing: another number means other pixels from the same seed
DESCRIPTION = "phantom.json"
README = """SYNTHETIC PHANTOM ARCHIVE

Every image in this folder was drawn by medssl. There is no patient in it, and nothing in it was taken or learnt from images of
people. Names, IDs, dates and findings are made up.

It is for trying the tool: reading DICOM, splitting, pretraining, comparing. A result on it is never evidence about any method,
any initialisation or any medical question, and no model trained on it may be used on patients.

labels.csv    file, opacity (absent or present; one label a study). A quarter of the patients have no label.
phantom.json  what this folder was made from.
"""


@dataclass(frozen=True)
class Summary:
    """What the archive holds. `positives` counts labelled images whose study has an opacity; `digest` is the SHA-256 over the
    names and contents of all files but phantom.json, in the order of their names; `reused`: it was there already."""

    patients: int
    images: int
    labelled_patients: int
    labelled_images: int
    positives: int
    views: dict[str, int]
    vendors: dict[str, int]
    syntaxes: dict[str, int]
    digest: str
    reused: bool = False


@dataclass(frozen=True)
class Record:
    """One written file; `file` is relative to the archive's root, `label` is None for patients without labels."""

    file: str
    label: str | None
    view: str
    vendor: str
    syntax: str
    sha256: str


def generate(
    root: Path,
    *,
    patients: int = 400,
    seed: int = 0,
    size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write a chest-radiograph phantom archive of real DICOM files to `root`.

    The same seed, patients and size give the same files, byte for byte with the same versions of pydicom and of the encoders,
    whatever the number of workers; a larger archive begins with the patients of a smaller one. Where `root` already is this
    very archive nothing is written.

    Args:
        root: the archive's folder. It appears complete or not at all.
        patients: number of patients, at least 1; about 2.5 images each.
        seed: everything is drawn from it.
        size: pixels along the longer side of vendor A's images; vendor B's have an eighth more. 48 to 4096.
        workers: processes; None = one a CPU, or none beside this one for a few patients.
        progress: called with (patients done, patients in all).

    Raises:
        DataError: `root` holds something else, an argument is out of range, or a worker process died.
        StoreError: the disk is full or cannot be written.
    """
    root = Path(root)
    if patients < 1 or not 48 <= size <= 4096:
        raise DataError(f"phantom: patients={patients}, size={size}: give at least 1 patient and a size from 48 to 4096")
    parameters = {"version": VERSION, "seed": seed, "patients": patients, "size": size}
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        return _reuse(root, parameters)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name[:40]}."))
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        summary = _fill(building, parameters, workers, progress)
        building.chmod(0o755)
        building.replace(root)
        _flush_folder(root.parent)
    except OSError as error:
        raise _unwritable(root, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return summary


def _fill(
    building: Path, parameters: dict[str, int], workers: int | None, progress: Callable[[int, int], None] | None
) -> Summary:
    """Write everything into the temporary folder; the description comes last."""
    total, records = parameters["patients"], {}
    for index, written in _written(building, parameters, workers):
        records[index] = written
        if progress:
            progress(len(records), total)
    in_order = [records[index] for index in sorted(records)]
    write_atomic(building / "labels.csv", _labels(in_order))
    write_atomic(building / "README.txt", README)
    summary = _summary(in_order, building)
    write_json(building / DESCRIPTION, parameters | {"files": summary.images + 3, "archive": asdict(summary)})
    return summary


def _written(building: Path, parameters: dict[str, int], workers: int | None) -> Iterator[tuple[int, list[Record]]]:
    """Each patient's records as they are done, in any order."""
    total = parameters["patients"]
    arguments = (str(building), parameters["seed"], parameters["size"])
    if workers is None:
        workers = 1 if total < 24 else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers <= 1:
        for index in range(total):
            yield index, write_patient(*arguments, index)
        return
    try:
        with ProcessPoolExecutor(min(workers, total), mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = {pool.submit(write_patient, *arguments, index): index for index in range(total)}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise DataError(
            "phantom: a worker process died (out of memory, or called from a script without `if __name__ == '__main__':`); "
            "call it with workers=1"
        ) from error


def write_patient(building: str, seed: int, size: int, index: int) -> list[Record]:
    """Draw one patient and write all of the patient's images; depends on the seed and the index alone."""
    patient = plan_patient(seed, index)
    step = min(max(0.75 * plane_of(VENDORS["A"], size, Pose()).pixel, 0.3), 1.5)
    anatomy = draw_anatomy(numpy_generator(seed, "phantom", "anatomy", index), step)
    opacities = draw_opacities(anatomy, numpy_generator(seed, "phantom", "opacities", index))
    records = []
    for study in patient.studies:
        vendor = VENDORS[study.vendor]
        for image in study.images:
            name = f"{patient.name}/S{study.number}/IM{image.number:04d}.dcm"
            path = Path(building) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = ("phantom", "image", index, study.number, image.number)
            exposure = draw_exposure(numpy_generator(seed, *stream, "exposure"), image.view)
            found = opacities if study.opacity else ()
            picture = take(anatomy, found, exposure, vendor, size, numpy_generator(seed, *stream, "noise"))
            syntax = write_image(path, seed, patient, study, image, anatomy, vendor, picture)
            label = ("present" if study.opacity else "absent") if patient.labelled else None
            records.append(Record(name, label, image.view, vendor.manufacturer, syntax, _flushed_digest(path)))
    return records


def _flushed_digest(path: Path) -> str:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _labels(patients: list[list[Record]]) -> str:
    """labels.csv: a row a labelled image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "opacity"])
    writer.writerows([record.file, record.label] for patient in patients for record in patient if record.label)
    return text.getvalue()


def _summary(patients: list[list[Record]], building: Path) -> Summary:
    images = [record for patient in patients for record in patient]
    hashes = {record.file: record.sha256 for record in images}
    hashes |= {name: _flushed_digest(building / name) for name in ("labels.csv", "README.txt")}
    labels = Counter(record.label for record in images)

    def count(values: Iterator[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return Summary(
        patients=len(patients),
        images=len(images),
        labelled_patients=sum(patient[0].label is not None for patient in patients),
        labelled_images=labels["present"] + labels["absent"],
        positives=labels["present"],
        views=count(record.view for record in images),
        vendors=count(record.vendor for record in images),
        syntaxes=count(record.syntax for record in images),
        digest=hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest(),
    )


def _reuse(root: Path, parameters: dict[str, int]) -> Summary:
    """The summary of the archive that is there.

    Raises:
        DataError: the folder holds something else, or the archive is no longer whole.
    """
    elsewhere = "give another folder, or remove this one"
    if not (root / DESCRIPTION).is_file():
        raise DataError(f"{root.name}: exists and is no phantom archive; {elsewhere}")
    try:
        description = read_json(root / DESCRIPTION)
        found = {key: description[key] for key in parameters}
        summary = Summary(**{**description["archive"], "reused": True})
    except (StoreError, KeyError, TypeError) as error:
        raise DataError(f"{root.name}: its {DESCRIPTION} cannot be read; {elsewhere}") from error
    if found != parameters:
        differing = ", ".join(f"{key} {found[key]}, not {parameters[key]}" for key in parameters if found[key] != parameters[key])
        raise DataError(f"{root.name}: holds another phantom archive ({differing}); {elsewhere}")
    files = sum(1 for path in root.rglob("*") if path.is_file())
    if files != description.get("files"):
        raise DataError(f"{root.name}: has {files} files where {DESCRIPTION} counts {description.get('files')}; {elsewhere}")
    return summary


def _unwritable(root: Path, error: OSError) -> StoreError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{root.name}: could not be written ({reason}); make room or mend the permissions and run it again")
