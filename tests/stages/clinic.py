"""A clinic of forty patients with two images each, labelled for every kind of task; used through the fixtures of conftest.py."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

PATIENTS = 40
CARD = {
    "version": 1, "name": "clinic", "title": "t", "source": "s", "licence": "l", "citation": "c", "obtain": "o", "modality": "CR",
    "format": "raster", "files": {"include": ["**/*.png", "**/*.jpg"]}, "patient": [{"csv": "labels.csv", "column": "patient"}],
    "targets": {
        "finding": {"description": "d", "classes": {"yes": ["1"], "no": ["0"]}, "source": [{"csv": "labels.csv", "column": "finding"}]},
        "mass": {"description": "d", "classes": {"yes": ["1"], "no": ["0"]}, "unknown": ["-1"],
                 "source": [{"csv": "labels.csv", "column": "mass"}]},
        "grade": {"description": "d", "classes": {"none": ["0"], "mild": ["1"], "severe": ["2"]},
                  "source": [{"csv": "labels.csv", "column": "grade"}]},
        "age": {"description": "d", "numeric": True, "unknown": ["?"], "source": [{"csv": "labels.csv", "column": "age"}]},
    },
    "official_split": {"source": [{"csv": "labels.csv", "column": "split"}], "train": ["train"], "validation": ["val"], "test": ["test"]},
}  # fmt: skip
TASK = {"kind": "binary", "data": "clinic", "target": "finding", "positive": "yes", "split": {"validation": 0.2, "test": 0.3}}


def picture(number: int) -> Image.Image:
    """Soft clouds, another for each number."""
    clouds = gaussian_filter(np.random.default_rng(number).normal(size=(96, 96)), 3)
    return Image.fromarray(np.uint8(255 * (clouds - clouds.min()) / np.ptp(clouds)))


def generate(root: Path) -> None:
    """Write the images and a labels.csv with a clean official split."""
    rng, lines = np.random.default_rng(0), []
    for patient in range(PATIENTS):
        for image in range(2):
            picture(2 * patient + image).save(root / f"p{patient}_{image}.png")
            age = "?" if patient == 0 else f"{rng.normal(50, 9):.1f}"
            lines.append(
                {
                    "file": f"p{patient}_{image}.png", "patient": f"P{patient}", "finding": patient % 2, "mass": rng.integers(-1, 2),
                    "grade": patient % 3, "age": age, "split": ["train", "train", "train", "val", "test"][patient // 2 % 5],
                }
            )  # fmt: skip
    write(root, lines)


def write(root: Path, lines: list[dict[str, str]]) -> None:
    """Write labels.csv."""
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def lines_of(root: Path) -> list[dict[str, str]]:
    """What `write` wrote."""
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))
