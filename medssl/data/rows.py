"""From what a reader found to a row of the manifest: keys instead of identifiers, labels where the card says, dates as distances."""

from __future__ import annotations

import datetime
from typing import Any

import pandas as pd

from medssl.data.card import Card
from medssl.data.formats import Header, Reject
from medssl.data.manifest import COLUMNS, LABEL_PREFIX, REJECT_COLUMNS
from medssl.data.private import Secret, normalise_patient_id
from medssl.data.reading import ReadImage
from medssl.data.values import PATIENT_TAG, ValueReader
from medssl.errors import DataError

OLDEST_AGE = 90  # ages above identify people; they stand together


class RowBuilder:
    """Collects the rows of one data set, and apart from them what `medssl locate` needs."""

    def __init__(self, source: str, card: Card, values: ValueReader, secret: Secret) -> None:
        self.source, self.card, self._values, self._secret = source, card, values, secret
        self.rows: list[dict[str, Any]] = []
        self.rejects: list[dict[str, Any]] = []
        self.locations: list[dict[str, Any]] = []
        self._dates: list[datetime.date | None] = []
        self._without_patient: list[str] = []

    def add(self, found: ReadImage, shard: int, row: int) -> None:
        """Add an image that stands in the store at (shard, row).

        Raises:
            DataError: its label or official split is not in the card.
        """
        header, path = found.header, found.item.path
        row_key = self._row_key(path, header.frame)
        patient, patient_from = self._patient(header, path, row_key)
        if patient is None:
            self._without_patient.append(row_key)
            return
        study = self._key("study", header.study_uid)
        series = self._key("series", header.series_uid)
        self.rows.append(
            {
                "row_key": row_key,
                "source": self.source,
                "patient": patient,
                "patient_from": patient_from,
                "study": study,
                "series": series,
                **_acquisition(header, self.card),
                **found.columns,
                **_placed(found, shard, row),
                "official_split": self._values.official_split(path, header.tags),
                **{f"{LABEL_PREFIX}{target}": self._values.label(target, path, header.tags) for target in self.card.targets},
            }
        )
        self._dates.append(header.study_date)
        self._locate(row_key, path, header, patient, study, series)

    def reject(self, reject: Reject) -> None:
        """Set an item aside by name."""
        row_key = self._row_key(reject.item.path, reject.item.start)
        self.rejects.append({"row_key": row_key, "source": self.source, "reason": reject.reason, "detail": reject.detail})
        self._locate(row_key, reject.item.path, Header(frame=reject.item.start), None, None, None)

    def manifest(self) -> pd.DataFrame:
        """The rows, in the order of the files.

        Raises:
            DataError: no image could be read, or an image belongs to no patient.
        """
        if self._without_patient:
            raise DataError(
                f"{self.source}: {len(self._without_patient)} images belong to no patient, the first has the key {self._without_patient[0]} "
                f"(`medssl locate` shows its file); extend `patient` in the card {self.card.name} or leave them out with files.exclude"
            )
        if not self.rows:
            reasons = pd.Series([reject["reason"] for reject in self.rejects], dtype=str).value_counts()
            why = (
                ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "no file matches files.include of the card"
            )
            raise DataError(f"{self.source}: the archive holds no image that can be read ({why})")
        frame = pd.DataFrame(self.rows)
        dates = pd.to_datetime(pd.Series(self._dates, index=frame.index))
        frame["study_year"] = dates.dt.year
        frame["days_since_first"] = (dates - dates.groupby(frame["patient"]).transform("min")).dt.days
        return frame.reindex(columns=[*(c.name for c in COLUMNS), *(f"{LABEL_PREFIX}{t}" for t in sorted(self.card.targets))])

    def reject_table(self) -> pd.DataFrame:
        """What was set aside, in the order of the files."""
        return pd.DataFrame(self.rejects, columns=[c.name for c in REJECT_COLUMNS])

    def _row_key(self, path: str, frame: int) -> str:
        return self._secret.key("row", self.source, path, str(frame))

    def _key(self, kind: str, identifier: str | None) -> str | None:
        return self._secret.key(kind, identifier) if identifier else None

    def _patient(self, header: Header, path: str, row_key: str) -> tuple[str | None, str]:
        if self.card.patient == "image":
            return self._secret.key("patient", self.card.name, row_key), "image"
        raw, issuer = self._values.patient(path, header.tags), self.card.name
        if self.card.format == "dicom" and any(source.tag == PATIENT_TAG for source in self.card.patient):
            raw, issuer = raw or header.patient_id, header.issuer or ""
        if known := normalise_patient_id(raw):
            return self._secret.key("patient", issuer, known), "id"
        if header.study_uid:
            return self._secret.key("patient of study", header.study_uid), "study"
        return None, ""

    def _locate(
        self, row_key: str, path: str, header: Header, patient: str | None, study: str | None, series: str | None
    ) -> None:
        self.locations.append(
            {
                "row_key": row_key,
                "patient": patient,
                "study": study,
                "series": series,
                "source": self.source,
                "path": path.encode(errors="surrogateescape").decode(errors="backslashreplace"),
                "frame": header.frame,
                "patient_id": header.patient_id,
                "study_uid": header.study_uid,
                "series_uid": header.series_uid,
                "instance_uid": header.instance_uid,
            }
        )


def _acquisition(header: Header, card: Card) -> dict[str, Any]:
    position = header.position or (None, None, None)
    spacing = header.spacing or (None, None)
    return {
        "frame": header.frame,
        "position_x": position[0],
        "position_y": position[1],
        "position_z": position[2],
        "laterality": header.laterality,
        "view": header.view,
        "modality": header.modality or card.modality,
        "vendor": header.vendor,
        "spacing_row": spacing[0],
        "spacing_column": spacing[1],
        "spacing_kind": header.spacing_kind,
        "burned_in": header.burned_in,
        "age": None if header.age_years is None else min(header.age_years, OLDEST_AGE),
        "sex": header.sex,
    }


def _placed(found: ReadImage, shard: int, row: int) -> dict[str, Any]:
    y0, x0, y1, x1 = found.placed.box
    return {
        "store_shard": shard,
        "store_row": row,
        "store_slope": found.placed.slope,
        "store_intercept": found.placed.intercept,
        "box_y0": y0,
        "box_x0": x0,
        "box_y1": y1,
        "box_x1": x1,
    }
