"""Labels, patient keys and splits of images, looked up where a data card says they stand."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path

from medssl.data.card import Card, Target, ValueSource
from medssl.errors import CardError, DataError

PATIENT_TAG = "PatientID"  # every reader of DICOM brings it with its issuer; it is never asked for as a label

NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""How a number may be written: ASCII digits, a point for the fraction; Python's float() would take 1_000 and other digits too."""


def sources_of(card: Card) -> list[ValueSource]:
    """Every place that a card takes values from."""
    groups = [[] if card.patient == "image" else card.patient, *(target.source for target in card.targets.values())]
    if card.official_split:
        groups.append(card.official_split.source)
    if card.tiles:
        groups.append(card.tiles.sources())
    return [source for group in groups for source in group]


def tags_of(card: Card) -> list[str]:
    """The tags that a reader has to bring with each image."""
    return sorted({source.tag for source in sources_of(card) if source.tag and source.tag != PATIENT_TAG})


class ValueReader:
    """Looks up values by a card's sources; each CSV is read once.

    Raises (from the constructor):
        CardError: a CSV is missing, or lacks a column; the message names the columns that it has.
    """

    def __init__(self, card: Card, root: Path) -> None:
        self.card, self._root = card, root
        self._tables: dict[tuple[str, str, str], dict[str, str] | None] = {}
        for source in sources_of(card):
            if source.csv is not None:
                self._tables[(source.csv, source.key, source.column)] = self._read(source)

    def patient(self, path: str, tags: Mapping[str, str]) -> str | None:
        """The raw patient key of an image, or None."""
        return None if self.card.patient == "image" else self._first(self.card.patient, path, tags)

    def label(self, target: str, path: str, tags: Mapping[str, str]) -> str | None:
        """The class of an image for `target`, of a numeric one the number as text; None where it is not known.

        Raises:
            DataError: the raw value is not in the card, or no number.
        """
        definition = self.card.targets[target]
        raw = self._first(definition.source, path, tags)
        if raw is None or raw == "" or raw in definition.unknown:
            return None
        if definition.numeric:
            return _number_of(raw, target, self.card.name)
        return _class_of(raw, target, definition, self.card.name)

    def official_split(self, path: str, tags: Mapping[str, str]) -> str | None:
        """train, validation or test; None where the official split does not name the image.

        Raises:
            DataError: the raw value is not in the card.
        """
        official = self.card.official_split
        raw = self._first(official.source, path, tags) if official else None
        if not raw:
            return None
        for name in ("train", "validation", "test"):
            if raw in getattr(official, name):
                return name
        raise DataError(f"{self.card.name}: official_split: the value {raw!r} is not in the card")

    def tile(self, path: str, tags: Mapping[str, str]) -> tuple[str, int, int] | None:
        """Slide, row and column of an image; None where the card names no tiles or the image is none.

        Raises:
            DataError: a row, column or number is no whole number.
        """
        grid = self.card.tiles
        slide = grid and self._first(grid.slide, path, tags)
        if not slide:
            return None
        if grid.columns is not None:
            number = self._whole("index", grid.index, path, tags)
            return None if number is None else (slide, *divmod(number, grid.columns))
        row, column = self._whole("row", grid.row, path, tags), self._whole("column", grid.column, path, tags)
        return None if row is None or column is None else (slide, row, column)

    def _whole(self, key: str, sources: list[ValueSource], path: str, tags: Mapping[str, str]) -> int | None:
        raw = self._first(sources, path, tags)
        if not raw:
            return None
        if not re.fullmatch(r"[0-9]{1,6}", raw):
            raise DataError(f"{self.card.name}: tiles.{key}: the value {raw!r} is no whole number from 0 to 999999")
        return int(raw)

    def _first(self, sources: list[ValueSource], path: str, tags: Mapping[str, str]) -> str | None:
        for source in sources:
            value = self._value(source, path, tags)
            if value:
                return value
        return None

    def _value(self, source: ValueSource, path: str, tags: Mapping[str, str]) -> str | None:
        if source.tag is not None:
            return tags.get(source.tag)
        if source.pattern is not None:
            found = re.search(source.pattern, path)
            return found["value"] if found else None
        table = self._tables[(source.csv, source.key, source.column)]
        return table.get(path) if table else None

    def _read(self, source: ValueSource) -> dict[str, str] | None:
        path = self._root / source.csv
        if not path.is_file():
            if source.optional:
                return None
            raise CardError(f"{self.card.name}: the card names {source.csv}, which is not below the root")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                for column in (source.key, source.column):
                    if column not in columns:
                        has = ", ".join(columns)
                        raise CardError(f"{self.card.name}: {source.csv} has no column '{column}'; it has: {has}")
                return self._by_key(reader, source)
        except (UnicodeDecodeError, csv.Error) as problem:
            raise CardError(f"{self.card.name}: {source.csv} is not a CSV in UTF-8 ({type(problem).__name__})") from problem

    def _by_key(self, reader: csv.DictReader, source: ValueSource) -> dict[str, str]:
        table: dict[str, str] = {}
        for row in reader:
            key, value = (row[source.key] or "").strip().replace("\\", "/"), (row[source.column] or "").strip()
            if table.setdefault(key, value) != value:
                raise CardError(
                    f"{self.card.name}: {source.csv}: line {reader.line_num} gives another {source.column} to an image named before"
                )
        return table


def _number_of(raw: str, target: str, card: str) -> str:
    """The number as Python writes it, so that equal numbers are equal text."""
    if not NUMBER.fullmatch(raw.strip()) or not math.isfinite(float(raw)):
        raise DataError(
            f"{card}: targets.{target}: the value {raw!r} is no finite number such as 57 or 3.2e-1; list it under unknown or mend the data"
        )
    return repr(float(raw))


def _class_of(raw: str, target: str, definition: Target, card: str) -> str:
    for name, values in definition.classes.items():
        if raw in values:
            return name
    known = ", ".join(value for values in definition.classes.values() for value in values)
    raise DataError(
        f"{card}: targets.{target}: the label {raw!r} is not in the card, which knows: {known}; add it or mend the data"
    )
