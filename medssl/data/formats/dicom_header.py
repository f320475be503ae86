"""From DICOM elements to `Header`: closed lists instead of free text, None instead of values that cannot be."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medssl.data.formats.dicom_terms import IMAGE_MODALITIES, VIEWS, vendor_of
from medssl.data.formats.items import Header, RefusedError
from medssl.errors import CardError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEYWORDS = (
    "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality",
    "ViewPosition", "ImageLaterality", "Laterality", "Manufacturer", "PixelSpacing", "ImagerPixelSpacing",
    "ImagePositionPatient", "StudyDate", "PatientAge", "PatientSex", "BurnedInAnnotation",
)  # fmt: skip
"""What `header_of` reads."""

# Value representations of which a value can be a label. PN is a person's name, UI a UID; sequences and bytes are no text.
_LABEL_VRS = frozenset(("AE", "AS", "CS", "DS", "FD", "FL", "IS", "LO", "LT", "SH", "SL", "SS", "ST", "UC", "UL", "US"))
_IDENTIFIERS = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientAddress",
    "PatientTelephoneNumbers", "InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber",
    "MedicalRecordLocator", "MilitaryRank", "AdmissionID", "RequestingService", "PatientComments",
)  # fmt: skip


def check_tags(tags: Sequence[str]) -> None:
    """See that each of `tags` is a DICOM keyword whose value can be a label: a label goes into the manifest in clear.

    Raises:
        CardError: it is not.
    """
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword in tags:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise CardError(
                f"tag {keyword}: is not a keyword of the DICOM dictionary; write it as in PS3.6, say BodyPartExamined"
            )
        if not set(dictionary_VR(tag).split(" or ")) & _LABEL_VRS or keyword in _IDENTIFIERS:
            raise CardError(f"tag {keyword}: is an identifier, a date, a sequence or bytes and cannot be a label; choose another")


def header_of(dataset: Dataset, tags: Sequence[str] = ()) -> Header:
    """The header of a single-frame image; `tags` are those `check_tags` let pass."""
    spacing, kind = _spacing(dataset)
    texts = {keyword: text(dataset, keyword) for keyword in tags}
    position = _numbers(dataset, "ImagePositionPatient", 3)
    return Header(
        patient_id=text(dataset, "PatientID"),
        issuer=text(dataset, "IssuerOfPatientID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        modality=term(dataset, "Modality", IMAGE_MODALITIES),
        view=term(dataset, "ViewPosition", VIEWS),
        # Image Laterality (0020,0062) is of the image, Laterality (0020,0060) of its series.
        laterality=term(dataset, "ImageLaterality", "LRBU") or term(dataset, "Laterality", "LRBU"),
        vendor=vendor_of(text(dataset, "Manufacturer")),
        spacing=spacing,
        spacing_kind=kind,
        position=position and (position[0], position[1], position[2]),
        study_date=date_of(text(dataset, "StudyDate")),
        age_years=age_of(text(dataset, "PatientAge")),
        sex=term(dataset, "PatientSex", "FMO"),
        burned_in={"YES": True, "NO": False}.get(term(dataset, "BurnedInAnnotation", ("YES", "NO")) or ""),
        tags={keyword: value for keyword, value in texts.items() if value is not None},
    )


def date_of(value: str | None) -> datetime.date | None:
    """The day of a DA value, YYYYMMDD or ACR-NEMA's YYYY.MM.DD (PS3.5 6.2); None if it is not a day."""
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", value or "", re.ASCII)
    if match is None:
        return None
    try:
        return datetime.date(*map(int, match.groups()))
    except ValueError:
        return None


def age_of(value: str | None) -> int | None:
    """Whole years of an AS value such as 034Y, 018M, 006W or 010D (PS3.5 6.2), rounded down; None if it is none."""
    match = re.fullmatch(r"(\d{1,3})([YMWD])", (value or "").upper(), re.ASCII)
    if match is None:
        return None
    units_in_a_year = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
    return int(int(match[1]) / units_in_a_year[match[2]])


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, str | None]:
    """Spacing of rows and columns (mm) and whether it holds in the patient ("pixel") or at the detector ("imager")."""
    pixel = _numbers(dataset, "PixelSpacing", 2)
    imager = _numbers(dataset, "ImagerPixelSpacing", 2)
    pixel = pixel if pixel and min(pixel) > 0 else None
    imager = imager if imager and min(imager) > 0 else None
    # PS3.3 10.7.1.3: a Pixel Spacing equal to Imager Pixel Spacing has not been corrected for magnification.
    if pixel and pixel != imager:
        return (pixel[0], pixel[1]), "pixel"
    return ((imager[0], imager[1]), "imager") if imager else (None, None)


def element(dataset: Dataset, keyword: str) -> Any:
    """The element's value; None if absent or empty.

    Raises:
        RefusedError: "bad_header", the value cannot be parsed.
    """
    try:
        value = dataset.get(keyword)
        # pydicom gives an empty list, text or sequence for an element of length 0.
        return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value
    except Exception as error:  # pydicom raises what its converters happen to raise
        raise RefusedError("bad_header", f"{keyword} cannot be parsed") from error


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """The element's one finite number; of several the first is not taken.

    Raises:
        RefusedError: "bad_header", it is absent without `default`, or not one finite number.
    """
    value = element(dataset, keyword)
    if value is None:
        if default is None:
            raise RefusedError("bad_header", f"{keyword} is absent")
        return default
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedError("bad_header", f"{keyword} is not one number") from error
    if not math.isfinite(result):
        raise RefusedError("bad_header", f"{keyword} is not finite")
    return result


def whole_number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """As `number`, for counts and codes."""
    value = number(dataset, keyword, default)
    if value != int(value):
        raise RefusedError("bad_header", f"{keyword} is not a whole number")
    return int(value)


def text(dataset: Dataset, keyword: str) -> str | None:
    """The element as text, several values joined by a backslash as in the file; None if absent, empty or damaged."""
    try:
        value = element(dataset, keyword)
        if value is None or isinstance(value, bytes):
            return None
        several = value if isinstance(value, list | tuple) or hasattr(value, "_list") else [value]
        return "\\".join(str(part) for part in several).strip(" \0") or None
    except Exception:  # a field that only describes the image does not cost the image
        return None


def term(dataset: Dataset, keyword: str, allowed: Sequence[str] | frozenset[str]) -> str | None:
    """The element in capitals if it is one of `allowed`: free text in a coded field may hold a name."""
    value = (text(dataset, keyword) or "").upper()
    return value if value and value in set(allowed) else None


def _numbers(dataset: Dataset, keyword: str, count: int) -> list[float] | None:
    try:
        values = [float(part) for part in (text(dataset, keyword) or "").split("\\")]
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None
