"""From what was read to rows of the manifest: keys instead of identifiers, labels where the card says, dates as days."""

from __future__ import annotations

import json
import os
from typing import Any

from medssl.data.card import Card
from medssl.data.formats import Header
from medssl.data.journal import header_from
from medssl.data.manifest import LABEL_PREFIX
from medssl.data.private import Secret, normalise_patient_id
from medssl.data.values import PATIENT_TAG, ValueReader
from medssl.errors import DataError

OLDEST_AGE = 90  # ages above identify people; they stand together
_PLAIN = (
    "kind", "rows", "columns", "depth", "channels", "slope", "intercept", "full_low", "full_high", "window_center",
    "window_width", "window_function", "modality_lut", "inverted", "padding", "p00_5", "p01", "p50", "p99", "p99_5",
    "syntax", "decoder", "affine", "exact_hash", "perceptual_hash", "store_row", "store_slope", "store_intercept", "mask_row",
)  # fmt: skip


class RowBuilder:
    """Makes the rows of one data set, and apart from them what `medssl locate` needs."""

    def __init__(self, source: str, card: Card, values: ValueReader, secret: Secret) -> None:
        self.source, self.card, self._values, self._secret = source, card, values, secret
        self.images = 0
        self.without_patient: list[str] = []  # row keys; left out of the manifest
        self.reasons: dict[str, int] = {}

    def image(self, raw: dict[str, Any]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The manifest's row of an image of the journal, and its rows of the locations; no row where no patient is known.

        `lut`, `store_shard` and `mask_shard` are left to the caller, and `days_since_first` is the day itself (ordinal).

        Raises:
            DataError: its label or official split is not in the card.
        """
        header, path = header_from(raw["header"]), os.fsdecode(raw["path"])
        row_key = self._row_key(path, header.frame)
        patient, patient_from = self._patient(header, path, row_key)
        study, series = self._key("study", header.study_uid), self._key("series", header.series_uid)
        tile = self._values.tile(path, header.tags)
        if series is None:
            series = self._series_without_uid(header, path, tile and tile[0])
        locations = self._locations(row_key, raw, header, patient, study, series)
        if patient is None:
            self.without_patient.append(row_key)
            return None, locations
        self.images += 1
        date = header.study_date
        box = raw["box"]
        row = {
            "row_key": row_key,
            "source": self.source,
            "patient": patient,
            "patient_from": patient_from,
            "study": study,
            "series": series,
            **_acquisition(header, self.card),
            **{name: raw[name] for name in _PLAIN},
            **dict(zip(("box_y0", "box_x0", "box_y1", "box_x1"), box, strict=True)),
            "study_year": date and date.year,
            "days_since_first": date and date.toordinal(),
            **({} if tile is None else {"tile_row": tile[1], "tile_column": tile[2]}),
            "official_split": self._values.official_split(path, header.tags),
            **{f"{LABEL_PREFIX}{target}": self._values.label(target, path, header.tags) for target in self.card.targets},
        }
        return row, locations

    def reject(self, raw: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The rejects' row of an item that was set aside, and its rows of the locations."""
        row_key = self._row_key(os.fsdecode(raw["path"]), raw["start"])
        self.reasons[raw["reason"]] = self.reasons.get(raw["reason"], 0) + 1
        row = {"row_key": row_key, "source": self.source, "reason": raw["reason"], "detail": raw["detail"]}
        return row, self._locations(row_key, raw, Header(frame=raw["start"]), None, None, None)

    def check(self) -> None:
        """See that there is something to train on.

        Raises:
            DataError: no image could be read, or an image belongs to no patient.
        """
        if self.without_patient:
            raise DataError(
                f"{self.source}: {len(self.without_patient)} images belong to no patient, the first has the key "
                f"{self.without_patient[0]} (`medssl locate` shows its file); extend `patient` in the card {self.card.name} or "
                "leave them out with files.exclude"
            )
        if not self.images:
            reasons = sorted(self.reasons.items(), key=lambda entry: (-entry[1], entry[0]))
            why = ", ".join(f"{count} {reason}" for reason, count in reasons) or "no file matches files.include of the card"
            raise DataError(f"{self.source}: the archive holds no image that can be read ({why})")

    def _row_key(self, path: str, frame: int) -> str:
        return self._secret.key("row", self.source, path, str(frame))

    def _key(self, kind: str, identifier: str | None) -> str | None:
        return self._secret.key(kind, identifier) if identifier else None

    def _series_without_uid(self, header: Header, path: str, slide: str | None) -> str | None:
        """Of a tile that is a file of its own the key of its slide, of a slice the key of the volume that it was cut from."""
        if slide is not None:
            return self._secret.key("slide", self.source, slide)
        if header.slice_index is None:
            return None
        from medssl.data.formats.orientation import MAX_SIDE  # it loads nibabel, which only volumes need

        return self._secret.key("volume", self.source, path, str(header.frame // MAX_SIDE))

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

    def _locations(
        self,
        row_key: str,
        raw: dict[str, Any],
        header: Header,
        patient: str | None,
        study: str | None,
        series: str | None,
    ) -> list[dict[str, Any]]:
        """A row for each file that the image was read from."""
        members = [bytes.fromhex(path) for path in json.loads(raw["members"])] if raw["members"] else [raw["path"]]
        return [
            {
                "row_key": row_key,
                "patient": patient,
                "study": study,
                "series": series,
                "source": self.source,
                "path": path.decode(errors="backslashreplace"),
                "frame": header.frame,
                "patient_id": header.patient_id,
                "study_uid": header.study_uid,
                "series_uid": header.series_uid,
                "instance_uid": header.instance_uid,
            }
            for path in members
        ]


def _acquisition(header: Header, card: Card) -> dict[str, Any]:
    position = header.position or (None, None, None)
    spacing = header.spacing or (None, None)
    tile = header.tile or (None, None, None, None)
    modality = header.modality or card.modality
    flags = {*header.flags, *(["burned_in"] if header.burned_in else []), *(["ultrasound"] if modality in _ULTRASOUND else [])}
    return {
        "frame": header.frame,
        "slice": header.slice_index,
        "tile_x": tile[0],
        "tile_y": tile[1],
        "tile_row": tile[2],
        "tile_column": tile[3],
        "tile_mpp": header.tile_mpp,
        "position_x": position[0],
        "position_y": position[1],
        "position_z": position[2],
        "orientation": None if header.orientation is None else list(header.orientation),
        "laterality": header.laterality,
        "view": header.view,
        "modality": modality,
        "vendor": header.vendor,
        "spacing_row": spacing[0],
        "spacing_column": spacing[1],
        "spacing_slice": header.spacing_slice,
        "spacing_kind": header.spacing_kind,
        "burned_in": header.burned_in,
        "flags": ",".join(sorted(flags)) or None,
        "age": None if header.age_years is None else min(header.age_years, OLDEST_AGE),
        "sex": header.sex,
    }


_ULTRASOUND = ("US", "IVUS")
