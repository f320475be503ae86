"""From DICOM elements to `Header`: closed lists instead of free text, None instead of values that cannot be."""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from medssl.data.formats.dicom_terms import IMAGE_MODALITIES, VIEWS, vendor_of
from medssl.data.formats.items import FLAGS, Header, RefusedError
from medssl.errors import CardError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEYWORDS = (
    "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality",
    "ViewPosition", "ImageLaterality", "Laterality", "Manufacturer", "PixelSpacing", "ImagerPixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "StudyDate", "PatientAge", "PatientSex",
    "BurnedInAnnotation", "SOPClassUID", "ConversionType",
)  # fmt: skip
"""What `header_of` reads."""

# SOP classes of PS3.6, with the classes below them: Secondary Capture; Ultrasound and Ultrasound Multi-frame with their
# retired forms, Enhanced US Volume.
_SECONDARY_CAPTURE = ("1.2.840.10008.5.1.4.1.1.7.",)
_ULTRASOUND = ("1.2.840.10008.5.1.4.1.1.3.", "1.2.840.10008.5.1.4.1.1.6.")

# Value representations of which a value can be a label. PN is a person's name, UI a UID; sequences and bytes are no text.
_LABEL_VRS = frozenset(("AE", "AS", "CS", "DS", "FD", "FL", "IS", "LO", "LT", "SH", "SL", "SS", "ST", "UC", "UL", "US"))
_IDENTIFIERS = (
    "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientAddress",
    "PatientTelephoneNumbers", "InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber",
    "MedicalRecordLocator", "MilitaryRank", "AdmissionID", "RequestingService", "PatientComments",
)  # fmt: skip


# Representations of one line of characters: what is ASCII is the same in every character set of PS3.3 C.12.1.1.2.
_PLAIN_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "IS", "LO", "SH", "TM", "UI"))
_ESC = b"\x1b"  # begins another character set
_DECIMAL = re.compile(rb" *[+-]?(?:[0-9]{1,16}(?:\.[0-9]{0,16})?|\.[0-9]{1,16})(?:[eE][+-]?[0-9]{1,2})? *")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,12} *")


@functools.cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


@functools.cache
def _vr(keyword: str) -> str:
    return dictionary_VR(_tag(keyword))


def check_tags(tags: Sequence[str]) -> None:
    """See that each of `tags` is a DICOM keyword whose value can be a label: a label goes into the manifest in clear.

    Raises:
        CardError: it is not.
    """
    for keyword in tags:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise CardError(
                f"tag {keyword}: is not a keyword of the DICOM dictionary; write it as in PS3.6, say BodyPartExamined"
            )
        if not set(dictionary_VR(tag).split(" or ")) & _LABEL_VRS or keyword in _IDENTIFIERS:
            raise CardError(f"tag {keyword}: is an identifier, a date, a sequence or bytes and cannot be a label; choose another")


def header_of(dataset: Dataset, tags: Sequence[str] = ()) -> Header:
    """The header of an image of one frame, or of a file; `tags` are those `check_tags` let pass.

    `frame_headers` of `dicom_frames` adds what each frame of several says of itself.
    """
    spacing, kind = spacing_of(dataset)
    texts = {keyword: text(dataset, keyword) for keyword in tags}
    position = numbers(dataset, "ImagePositionPatient", 3)
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    between = numbers(dataset, "SpacingBetweenSlices", 1)
    modality = term(dataset, "Modality", IMAGE_MODALITIES)
    burned_in = {"YES": True, "NO": False}.get(term(dataset, "BurnedInAnnotation", ("YES", "NO")) or "")
    return Header(
        patient_id=text(dataset, "PatientID"),
        issuer=text(dataset, "IssuerOfPatientID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        modality=modality,
        view=term(dataset, "ViewPosition", VIEWS),
        # Image Laterality (0020,0062) is of the image, Laterality (0020,0060) of its series.
        laterality=term(dataset, "ImageLaterality", "LRBU") or term(dataset, "Laterality", "LRBU"),
        vendor=vendor_of(text(dataset, "Manufacturer")),
        spacing=spacing,
        spacing_kind=kind,
        position=tuple(position) if position else None,
        orientation=tuple(orientation) if orientation else None,
        spacing_slice=abs(between[0]) or None if between else None,
        study_date=date_of(text(dataset, "StudyDate")),
        age_years=age_of(text(dataset, "PatientAge")),
        sex=term(dataset, "PatientSex", "FMO"),
        burned_in=burned_in,
        flags=_flags(dataset, modality, burned_in),
        tags={keyword: value for keyword, value in texts.items() if value is not None},
    )


def _flags(dataset: Dataset, modality: str | None, burned_in: bool | None) -> tuple[str, ...]:
    """What makes it likely that the pixels show text (see `items.FLAGS`)."""
    storage = text(dataset, "SOPClassUID") or ""
    found = {
        "burned_in": bool(burned_in),
        "secondary_capture": (storage + ".").startswith(_SECONDARY_CAPTURE)
        or (modality in ("SC", "OT") and text(dataset, "ConversionType") is not None),
        "ultrasound": modality in ("US", "IVUS") or (storage + ".").startswith(_ULTRASOUND),
    }
    return tuple(flag for flag in FLAGS if found[flag])


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


def spacing_of(dataset: Dataset) -> tuple[tuple[float, float] | None, str | None]:
    """Spacing of rows and columns (mm) and whether it holds in the patient ("pixel") or at the detector ("imager")."""
    pixel = numbers(dataset, "PixelSpacing", 2)
    imager = numbers(dataset, "ImagerPixelSpacing", 2)
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
        found = dataset.get_item(_tag(keyword))
        if found is None:
            return None
        value = dataset.get(keyword) if isinstance(found, RawDataElement) else found.value
        # pydicom gives an empty list, text or sequence for an element of length 0.
        return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value
    except Exception as error:  # pydicom raises what its converters happen to raise
        raise RefusedError("bad_header", f"{keyword} cannot be parsed") from error


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """The element's one finite number; of several the first is not taken.

    Raises:
        RefusedError: "bad_header", it is absent without `default`, or not one finite number.
    """
    plain = _plain_number(dataset, keyword)
    if plain is not None:
        return plain
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


def _plain_number(dataset: Dataset, keyword: str) -> float | None:
    """The number of an element that is one well-formed number, as pydicom reads it, at a tenth of the time; else None."""
    raw = dataset.get_item(_tag(keyword))
    if not isinstance(raw, RawDataElement) or not raw.value:
        return None
    vr = raw.VR or _vr(keyword)
    if vr in ("US", "UL") and len(raw.value) == (2 if vr == "US" else 4):
        return float(int.from_bytes(raw.value, "little" if raw.is_little_endian else "big"))
    pattern = _DECIMAL if vr == "DS" else _INTEGER if vr == "IS" else None
    return float(raw.value) if pattern is not None and pattern.fullmatch(raw.value) else None


def whole_number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """As `number`, for counts and codes."""
    value = number(dataset, keyword, default)
    if value != int(value):
        raise RefusedError("bad_header", f"{keyword} is not a whole number")
    return int(value)


def text(dataset: Dataset, keyword: str) -> str | None:
    """The element as text, several values joined by a backslash as in the file; None if absent, empty or damaged."""
    try:
        raw = dataset.get_item(_tag(keyword))
        if raw is None:
            return None
        if (
            isinstance(raw, RawDataElement)
            and (raw.VR or _vr(keyword)) in _PLAIN_VRS
            and raw.value.isascii()
            and _ESC not in raw.value
        ):
            # As pydicom reads it, at a tenth of the time.
            return "\\".join(part.strip(" \0") for part in raw.value.decode("ascii").split("\\")).strip("\n\r\t ") or None
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
    return value if value and value in (allowed if isinstance(allowed, frozenset) else tuple(allowed)) else None


def numbers(dataset: Dataset, keyword: str, count: int | None = None) -> list[float] | None:
    """The element's values, all of them finite; None if it is absent, holds anything else, or not `count` values."""
    try:
        values = [float(part) for part in (text(dataset, keyword) or "").split("\\")]
    except ValueError:
        return None
    return values if count in (None, len(values)) and all(map(math.isfinite, values)) else None
