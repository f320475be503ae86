"""What the headers of DICOM slices say about the volumes that they may make: no pixels are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medssl.data.formats.guard import read_guarded
from medssl.data.formats.items import Item, RefusedError, Reject
from medssl.data.formats.options import ReadOptions

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Keyword and the functional group in which it stands in a multi-frame object (PS3.3 C.7.6.16); a classic slice has it at the top.
_GROUPS = {
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
}
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence", "XRay3DFrameTypeSequence")
_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
KEYWORDS = (
    *_GROUPS, _PER_FRAME, _SHARED, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality",
    "InstanceNumber", "AcquisitionNumber", "ImageType", "Rows", "Columns", "NumberOfFrames", "EchoTime", "TriggerTime",
    "TemporalPositionIdentifier", "PhotometricInterpretation", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient", "DetectorInformationSequence", "SliceVector",
)  # fmt: skip
"""What this module reads."""


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One slice: where it lies and what tells it from the others of its series. Identifiers stand here in clear."""

    path: str
    frame: int
    study_uid: str | None
    series_uid: str | None
    instance_uid: str | None
    sop_class: str | None
    image_type: tuple[str, ...]
    instance_number: int | None
    acquisition: str | None
    echo_time: str | None  # ms, as written: sub-series are told apart by equality
    temporal_position: str | None
    b_value: str | None  # s/mm2
    trigger_time: str | None  # ms
    stack: str | None
    rows: int
    columns: int
    spacing: tuple[float, float] | None  # mm between rows, mm between columns
    position: tuple[float, float, float] | None  # mm, LPS
    orientation: tuple[float, ...] | None  # LPS cosines of a row, then of a column
    slope: float
    intercept: float
    rescale_type: str | None
    photometric: str | None

    @property
    def is_localizer(self) -> bool:
        """Value 3 of Image Type says so (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1); some put it elsewhere."""
        return "LOCALIZER" in self.image_type


def scan(root: Path, item: Item, options: ReadOptions = ReadOptions()) -> list[SliceHeader | Reject]:
    """The headers of the frames of one file, or why it has none.

    A file of many frames without functional groups says nothing of where they lie and gives one header without a position.
    """
    return list(read_guarded(root, item, lambda file: _scan_file(file, item)))


def _scan_file(file: BinaryIO, item: Item) -> Iterator[SliceHeader]:
    from medssl.data.formats.dicom_file import DicomFile
    from medssl.data.formats.dicom_frames import MAX_HEADERS
    from medssl.data.formats.dicom_header import element, term, whole_number
    from medssl.data.formats.dicom_terms import OTHER_MODALITIES

    dataset = DicomFile(file, keywords=KEYWORDS).dataset
    other = term(dataset, "Modality", OTHER_MODALITIES)
    if other:
        raise RefusedError("no_pixels", other)
    # Whether there are pixels too is for reading to say: of a file that is cut short they may be missing.
    if "Rows" not in dataset or "Columns" not in dataset:
        raise RefusedError("no_pixels")
    frames = whole_number(dataset, "NumberOfFrames", 1)
    groups = element(dataset, _PER_FRAME)
    if groups is not None and frames != len(groups):
        raise RefusedError("bad_header", f"{frames} frames, {len(groups)} functional groups")
    if frames > MAX_HEADERS and "DetectorInformationSequence" in dataset:
        raise RefusedError("too_large", f"{frames} frames")
    say_where = groups is not None or "DetectorInformationSequence" in dataset
    for index in range(frames if say_where else 1):
        yield _header(dataset, index, item.path)


class _Frame:
    """The elements of one frame, wherever they stand."""

    def __init__(self, dataset: Dataset, frame: int) -> None:
        self._top = dataset
        self._groups = [dataset[_PER_FRAME].value[frame]] if _PER_FRAME in dataset else []
        self._groups += list(dataset[_SHARED].value[:1]) if _SHARED in dataset else []

    def place(self, keyword: str, sequence: str | None = None) -> Dataset:
        """The data set that has the element, or the top one."""
        if not self._groups:
            return self._top
        sequence = sequence or _GROUPS.get(keyword)
        for group in self._groups:
            if sequence and sequence in group and group[sequence].value and keyword in group[sequence].value[0]:
                return group[sequence].value[0]
        return self._top

    def text(self, *keywords: str) -> str | None:
        """The first of the elements that is there."""
        from medssl.data.formats.dicom_header import text

        found = (text(self.place(keyword), keyword) for keyword in keywords)
        return next((value for value in found if value is not None), None)

    def image_type(self) -> tuple[str, ...]:
        from medssl.data.formats.dicom_header import text

        sequences = _FRAME_TYPES if self._groups else ()
        kinds = (text(self.place("FrameType", sequence), "FrameType") for sequence in sequences)
        kind = next((value for value in kinds if value is not None), None) or text(self._top, "ImageType") or ""
        return tuple(part.strip() for part in kind.upper().split("\\"))


def _header(dataset: Dataset, index: int, path: str) -> SliceHeader:
    from medssl.data.formats.dicom_frames import geometry_of
    from medssl.data.formats.dicom_header import number, text, whole_number

    frame, geometry = _Frame(dataset, index), geometry_of(dataset, index)
    instance_number = frame.text("InstanceNumber") or ""
    return SliceHeader(
        path=path,
        frame=index,
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        sop_class=text(dataset, "SOPClassUID"),
        image_type=frame.image_type(),
        instance_number=int(instance_number) if re.fullmatch(r"[+-]?[0-9]{1,12}", instance_number) else None,
        acquisition=frame.text("FrameAcquisitionNumber", "AcquisitionNumber"),
        echo_time=frame.text("EffectiveEchoTime", "EchoTime"),
        temporal_position=frame.text("TemporalPositionIndex", "TemporalPositionIdentifier"),
        b_value=frame.text("DiffusionBValue"),
        trigger_time=frame.text("NominalCardiacTriggerDelayTime", "TriggerTime"),
        stack=frame.text("StackID"),
        rows=whole_number(dataset, "Rows"),
        columns=whole_number(dataset, "Columns"),
        spacing=geometry.spacing,
        position=geometry.position,
        orientation=geometry.orientation,
        slope=number(frame.place("RescaleSlope"), "RescaleSlope", 1.0),
        intercept=number(frame.place("RescaleIntercept"), "RescaleIntercept", 0.0),
        rescale_type=frame.text("RescaleType"),
        photometric=frame.text("PhotometricInterpretation"),
    )
