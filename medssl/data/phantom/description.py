"""What stands beside the phantom's images: labels, a plain warning, and the description by which an archive is known again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import DataError, StoreError
from medssl.files import read_json

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


def labels_csv(patients: list[list[Record]]) -> str:
    """labels.csv: a row a labelled image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "opacity"])
    writer.writerows([record.file, record.label] for patient in patients for record in patient if record.label)
    return text.getvalue()


def summarise(patients: list[list[Record]], building: Path) -> Summary:
    """What was written to `building`, patients in the order of their index."""
    images = [record for patient in patients for record in patient]
    hashes = {record.file: record.sha256 for record in images}
    hashes |= {name: flushed_digest(building / name) for name in ("labels.csv", "README.txt")}
    labels = Counter(record.label for record in images)

    def count(values: Iterable[str]) -> dict[str, int]:
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


def recognise(root: Path, parameters: dict[str, int]) -> Summary:
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


def flushed_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, once they have reached the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
