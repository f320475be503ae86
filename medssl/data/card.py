"""The data card: where a data set comes from, how it is laid out, where labels and patient keys stand, its known faults."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from medssl.data.formats.options import ReadOptions
from medssl.data.pair_kinds import PairKind
from medssl.errors import CardError
from medssl.strict import Name, StrictModel, check, near_miss, read_yaml

VERSION = 1
DATA_VARIABLE = "MEDSSL_DATA"
SUBGROUPS = ("sex", "age", "vendor", "view", "laterality", "modality", "study_year")
"""Columns of the manifest that divide results; a card's targets do so besides."""


class ValueSource(StrictModel):
    """Where a value of an image stands: exactly one of a CSV, a pattern on its path below the root, or a DICOM tag."""

    csv: str | None = Field(default=None, description="Path of a CSV below the root")
    key: str = Field(default="file", description="The CSV's column with each image's path below the root")
    column: str | None = Field(default=None, description="The CSV's column with the value")
    optional: bool = Field(default=False, description="Go on to the next source when the CSV is not there")
    pattern: str | None = Field(
        default=None, description="Regular expression searched in the path; its group `value` is the value"
    )
    tag: str | None = Field(default=None, description="DICOM keyword, or medmnist_label / medmnist_split", pattern=r"^\w+$")

    @model_validator(mode="after")
    def _is_one_of_three(self) -> ValueSource:
        if sum(part is not None for part in (self.csv, self.pattern, self.tag)) != 1:
            raise ValueError("must have exactly one of csv, pattern, tag")
        if (self.csv is None) != (self.column is None):
            raise ValueError("csv and column go together")
        return self

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groupindex
            except re.error as problem:
                raise ValueError(f"is not a regular expression ({problem})") from None
            if "value" not in groups:
                raise ValueError("has no group (?P<value>...)")
        return pattern


class Target(StrictModel):
    """One thing that images are labelled with: classes, or a number."""

    description: str
    classes: dict[str, list[str]] | None = Field(default=None, min_length=2, description="Class: the raw values that mean it")
    numeric: bool = Field(default=False, description="In the place of classes: the raw values are numbers")
    unknown: list[str] = Field(default_factory=list, description="Raw values that mean `not known`, besides an empty one")
    source: list[ValueSource] = Field(min_length=1, description="The first source that has a value counts")

    @model_validator(mode="after")
    def _raw_values_are_distinct(self) -> Target:
        if self.numeric == (self.classes is not None):
            raise ValueError("must have exactly one of classes, numeric: true")
        raw = [value for values in (self.classes or {}).values() for value in values] + self.unknown
        if len(set(raw)) != len(raw):
            raise ValueError("a raw value stands under two classes")
        return self


class Official(StrictModel):
    """The split that the publishers of a data set made."""

    source: list[ValueSource] = Field(min_length=1)
    train: list[str] = Field(min_length=1)
    validation: list[str] = Field(default_factory=list)
    test: list[str] = Field(min_length=1)


class TileGrid(StrictModel):
    """Where tiles stand that are files of their own: their slide, and their place on its grid, counted from 0."""

    slide: list[ValueSource] = Field(min_length=1, description="Names the slide; an image without one is no tile")
    index: list[ValueSource] = Field(default_factory=list, description="Number of the tile, counted row by row")
    columns: int | None = Field(default=None, ge=1, le=1_000_000, description="With index: tiles in a row of the grid")
    row: list[ValueSource] = Field(default_factory=list)
    column: list[ValueSource] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_one_place(self) -> TileGrid:
        given = (bool(self.index), self.columns is not None, bool(self.row), bool(self.column))
        if given not in ((True, True, False, False), (False, False, True, True)):
            raise ValueError("must have index and columns, or row and column")
        return self

    def sources(self) -> list[ValueSource]:
        """All that is looked up."""
        return [*self.slide, *self.index, *self.row, *self.column]


class Files(StrictModel):
    """Which files below the root belong to the data set (glob patterns on the path below the root)."""

    include: list[str] = Field(default=["**/*"], min_length=1)
    exclude: list[str] = Field(default_factory=list)


class Phantom(StrictModel):
    """How the built-in archive is generated."""

    patients: int = Field(ge=4, le=100_000)
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=256, ge=64, le=2048)


class Card(StrictModel):
    """A data card."""

    version: Literal[1]
    name: Name
    title: str
    source: str = Field(description="Where it comes from: publisher, address, version")
    licence: str
    citation: str
    obtain: str = Field(description="How to get it and lay it out below the root")
    folder: str | None = Field(default=None, description=f"Folder below ${DATA_VARIABLE}; null: the card's name")
    synthetic: bool = False
    modality: str = Field(
        description="DICOM modality (PS3.3 C.7.3.1.1.1) of images whose files do not say", pattern=r"^[A-Z]{2,8}$"
    )
    format: Literal["dicom", "nifti", "raster", "slide", "medmnist"]
    files: Files = Files()
    read: ReadOptions = Field(default=ReadOptions(), description="What is made of the files")
    phantom: Phantom | None = Field(default=None, description="Generated by medssl into the work folder where no root is given")
    patient: list[ValueSource] | Literal["image"] = Field(description="`image`: no patient is known, each image counts as one")
    targets: dict[Name, Target] = Field(default_factory=dict)
    official_split: Official | None = None
    tiles: TileGrid | None = Field(default=None, description="raster: the images are tiles of slides; slides know their own grid")
    positive_pairs: list[PairKind] = Field(
        default_factory=list,
        description="Which images are related, in order of preference; an image without any has a second view of itself",
    )
    subgroups: list[Name] = Field(
        default_factory=list,
        description="What results are divided by: sex, age (in bands), vendor, view and the like, or a target with classes of this card",
    )
    known_faults: list[str] = Field(default_factory=list)

    @field_validator("positive_pairs", mode="before")
    @classmethod
    def _are_blocks(cls, value: Any) -> Any:
        words = [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
        if words:
            raise ValueError(f"{words[0]!r} is a word, not a block such as {{kind: same_patient}}")
        return value

    @model_validator(mode="after")
    def _subgroups_are_known(self) -> Card:
        for name in self.subgroups:
            # Ages are divided into bands; every value of another number would be a group.
            known = [*SUBGROUPS, *(key for key, target in self.targets.items() if target.classes)]
            if name not in known:
                raise ValueError(f"subgroups: '{name}'{near_miss(name, known)}; allowed: {', '.join(known)}")
        if len(set(self.subgroups)) != len(self.subgroups):
            raise ValueError("subgroups names one twice")
        return self

    @model_validator(mode="after")
    def _tiles_are_raster(self) -> Card:
        if self.tiles is not None and self.format != "raster":
            raise ValueError(f"tiles: is for format raster, and the format is {self.format}")
        return self

    @model_validator(mode="after")
    def _patient_tag_is_the_id(self) -> Card:
        sources = [] if self.patient == "image" else self.patient
        if any(source.tag not in (None, "PatientID") for source in sources):
            raise ValueError("patient: the only tag that names a patient is PatientID")
        labels = [source for target in self.targets.values() for source in target.source]
        if any(source.tag == "PatientID" for source in labels):
            raise ValueError("targets: PatientID is no label")
        return self


def find_card(card: str, study_file: Path) -> Path:
    """The path of a card: a path to a .yaml beside the study file or here, or a name in a folder data_cards/.

    Raises:
        CardError: there is none; with the names that are there.
    """
    bases = [study_file.parent, Path.cwd()]
    if card.endswith((".yaml", ".yml")):
        for base in bases:
            if (base / card).is_file():
                return base / card
        raise CardError(f"{study_file}: data: there is no card {card}")
    folders = [study_file.parent / "data_cards", study_file.parent.parent / "data_cards", Path.cwd() / "data_cards"]
    folders.append(Path(__file__).parents[2] / "data_cards")
    for folder in folders:
        if (folder / f"{card}.yaml").is_file():
            return folder / f"{card}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise CardError(f"{study_file}: data: there is no card '{card}'{near_miss(card, known)}; there are: {', '.join(known)}")


def read_card(path: Path) -> Card:
    """Read and check a data card.

    Raises:
        CardError: `file: key: what is wrong, what is allowed`.
    """
    value = read_yaml(path, CardError, "data card")
    if isinstance(value, dict) and value.get("version") not in (None, VERSION):
        raise CardError(f"{path}: version: is {value['version']!r}, this medssl reads version {VERSION}")
    return check(Card, value, str(path), CardError)


def find_root(card: Card, root: str | None, name: str, generated: Path) -> Path:
    """The folder of a data set: the study's `root`, or below $MEDSSL_DATA, or `generated` for the built-in archive.

    Raises:
        CardError: nothing names a folder, or it is not there; says how to obtain the data.
    """
    if root is None and card.phantom is not None:
        return generated
    if root is not None:
        folder = Path(root).expanduser()
    elif DATA_VARIABLE in os.environ:
        folder = Path(os.environ[DATA_VARIABLE]) / (card.folder or card.name)
    else:
        raise CardError(
            f"data.{name}: no folder is known for {card.name}; pass --set data.{name}.root=FOLDER or set {DATA_VARIABLE} to the "
            "folder that holds it; its card says how to obtain it"
        )
    if not folder.is_dir():
        raise CardError(
            f"data.{name}: there is no folder {folder}; pass --set data.{name}.root=FOLDER; its card says how to obtain it"
        )
    return folder
