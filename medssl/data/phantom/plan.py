"""Which studies and images a phantom patient has: drawn from the patient's own streams, so that patients do not depend on
each other nor on the number of workers."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from medssl.seeds import derive, numpy_generator

DISEASED = 0.35  # share of patients with an opacity in at least one study
UNLABELLED = 0.25  # share of patients without a row in labels.csv
SYNTAXES = {"explicit": 0.5, "rle": 0.2, "jpeg2000": 0.3}


@dataclass(frozen=True)
class PlannedImage:
    """One image to take."""

    number: int
    view: str  # PA | AP | LL
    syntax: str  # a key of SYNTAXES
    sigmoid: bool  # vendor B: the stored window is a sigmoid


@dataclass(frozen=True)
class PlannedStudy:
    """One visit: all its images come from one machine and share one label."""

    number: int
    date: datetime.date
    days: int  # since the patient's first study
    vendor: str  # a key of acquisition.VENDORS
    opacity: bool
    images: tuple[PlannedImage, ...]


@dataclass(frozen=True)
class PlannedPatient:
    """One patient of the archive."""

    index: int
    labelled: bool
    studies: tuple[PlannedStudy, ...]

    @property
    def name(self) -> str:
        return f"P{self.index:04d}"


def plan_patient(seed: int, index: int) -> PlannedPatient:
    """One to four images in one or two studies. View, vendor and syntax are drawn without regard to the opacity."""
    generator = numpy_generator(seed, "phantom", "plan", index)
    images = int(generator.choice(4, p=(0.15, 0.35, 0.35, 0.15))) + 1
    visits = 2 if images > 1 and generator.random() < 0.45 else 1
    counts = [images] if visits == 1 else [(images + 1) // 2, images // 2]
    diseased, labelled = generator.random() < DISEASED, generator.random() >= UNLABELLED
    spared = int(generator.integers(2)) if visits == 2 and generator.random() < 0.35 else None  # a visit without it
    home = str(generator.choice(["A", "B"], p=[0.55, 0.45]))
    days, studies = 0, []
    first = datetime.date(2015, 1, 1) + datetime.timedelta(days=int(generator.integers(0, 2200)))
    for number, count in enumerate(counts, start=1):
        vendor = home if generator.random() < 0.85 else {"A": "B", "B": "A"}[home]
        frontal = "AP" if generator.random() < 0.3 else "PA"
        views = [frontal] * count
        if count > 1 and generator.random() < 0.36:
            views[-1] = "LL"
        planned = tuple(
            PlannedImage(
                number=position,
                view=view,
                syntax=str(generator.choice(list(SYNTAXES), p=list(SYNTAXES.values()))),
                sigmoid=bool(generator.random() < 0.55),
            )
            for position, view in enumerate(views, start=1)
        )
        opacity = bool(diseased and spared != number - 1)
        studies.append(PlannedStudy(number, first + datetime.timedelta(days=days), days, vendor, opacity, planned))
        days += int(generator.integers(5, 700))
    return PlannedPatient(index, bool(labelled), tuple(studies))


def make_uid(seed: int, *name: str | int) -> str:
    """A UID under the root 2.25 (DICOM PS3.5 B.2), the same for the same seed and name."""
    high, low = derive(seed, "phantom", "uid", "high", *name), derive(seed, "phantom", "uid", "low", *name)
    return f"2.25.{(high << 63 | low) >> 2}"
