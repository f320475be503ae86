"""The whole phantom archive: patients drawn side by side, written beside the archive's place and renamed into it at the end."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from medssl.data.phantom.acquisition import VENDORS, draw_exposure, plane_of, take
from medssl.data.phantom.anatomy import draw_anatomy, draw_opacities
from medssl.data.phantom.description import (
    DESCRIPTION,
    README,
    VERSION,
    Record,
    Summary,
    flushed_digest,
    labels_csv,
    recognise,
    summarise,
)
from medssl.data.phantom.dicom_file import write_image
from medssl.data.phantom.plan import plan_patient
from medssl.data.phantom.projection import Pose
from medssl.errors import DataError, StoreError
from medssl.files import write_atomic, write_json
from medssl.seeds import numpy_generator


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
        return recognise(root, parameters)
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
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was first
            return recognise(root, parameters)
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
    write_atomic(building / "labels.csv", labels_csv(in_order))
    write_atomic(building / "README.txt", README)
    summary = summarise(in_order, building)
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
            records.append(Record(name, label, image.view, vendor.manufacturer, syntax, flushed_digest(path)))
    return records


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(root: Path, error: OSError) -> StoreError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{root.name}: could not be written ({reason}); make room or mend the permissions and run it again")
