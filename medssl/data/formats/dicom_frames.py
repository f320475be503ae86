"""What a multi-frame object says of each of its frames (PS3.3 C.7.6.16: functional groups; C.8.4.15: nuclear medicine)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.datadict import keyword_for_tag

from medssl.data.formats.dicom_header import element, header_of, numbers, spacing_of, term, text, whole_number
from medssl.data.formats.items import Header, RefusedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

MAX_HEADERS = 2**17
"""Most frames whose headers are held at a time."""

_MACROS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SpacingBetweenSlices"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "FrameAnatomySequence": ("FrameLaterality",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": (
        "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
    ),
}  # fmt: skip
_MACRO_OF = {keyword: macro for macro, keywords in _MACROS.items() for keyword in keywords}

KEYWORDS = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DetectorInformationSequence", "SliceVector",
    "SpacingBetweenSlices",
)  # fmt: skip
"""What this module reads of the data set, besides what `header_of` reads."""


class FrameElements:
    """The elements that hold for one frame: those of its functional groups, else of the shared ones, else of the data set.

    Looks like a data set to the functions of `dicom_header`.
    """

    def __init__(self, dataset: Dataset, frame: int) -> None:
        self._dataset = dataset
        groups = (_item(dataset, "PerFrameFunctionalGroupsSequence", frame), _item(dataset, "SharedFunctionalGroupsSequence", 0))
        self._groups = [group for group in groups if group is not None]

    def get(self, keyword: str) -> Any:
        """The element's value; None if it is absent."""
        return self._holder(keyword).get(keyword)

    def get_item(self, tag: BaseTag) -> Any:
        """The element as the file has it; None if it is absent."""
        return self._holder(keyword_for_tag(tag)).get_item(tag)

    def _holder(self, keyword: str) -> Dataset:
        macro = _MACRO_OF.get(keyword)
        if macro is not None:
            for group in self._groups:
                item = _item(group, macro, 0)
                if item is not None and keyword in item:
                    return item
        return self._dataset


def frame_headers(dataset: Dataset, tags: Sequence[str] = ()) -> list[Header]:
    """A header for each of Number of Frames frames, in the file's order, with the geometry of each; no pixels are needed.

    `dataset` holds the elements of `dicom_file.HEADER_KEYWORDS` and `tags`.

    Raises:
        RefusedError: "bad_header" or "too_large", Number of Frames is no number or above MAX_HEADERS.
    """
    frames = whole_number(dataset, "NumberOfFrames", 1)
    if not 1 <= frames <= MAX_HEADERS:
        raise RefusedError("bad_header" if frames < 1 else "too_large", f"{frames} frames")
    whole = header_of(dataset, tags)
    return [frame_header_of(dataset, whole, frame) for frame in range(frames)]


def frame_header_of(dataset: Dataset, whole: Header, frame: int) -> Header:
    """The header of one frame; `whole`: that of its file."""
    if not any(keyword in dataset for keyword in KEYWORDS[:3]):
        return replace(whole, frame=frame, flags=whole.flags, tags=dict(whole.tags))
    view = FrameElements(dataset, frame)
    return replace(
        whole,
        frame=frame,
        **geometry_of(dataset, frame)._asdict(),
        laterality=whole.laterality or term(view, "FrameLaterality", "LRBU"),
        tags={**whole.tags, **{keyword: value for keyword in whole.tags if (value := text(view, keyword)) is not None}},
    )


class Geometry(NamedTuple):
    """Where a frame lies; see the attributes of `Header`."""

    spacing: tuple[float, float] | None
    spacing_kind: str | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_slice: float | None


def geometry_of(dataset: Dataset, frame: int) -> Geometry:
    """The geometry of one frame, of its functional groups where the file has some."""
    several = any(keyword in dataset for keyword in KEYWORDS[:3])
    view = FrameElements(dataset, frame) if several else dataset
    spacing, kind = spacing_of(view)
    position = numbers(view, "ImagePositionPatient", 3)
    orientation = numbers(view, "ImageOrientationPatient", 6)
    if several and position is None and orientation is None:
        position, orientation = _nuclear_geometry(dataset, frame)
    between = numbers(view, "SpacingBetweenSlices", 1)
    return Geometry(
        spacing,
        kind,
        tuple(position) if position else None,
        tuple(orientation) if orientation else None,
        abs(between[0]) or None if between else None,
    )


def _nuclear_geometry(dataset: Dataset, frame: int) -> tuple[list[float] | None, list[float] | None]:
    """Position and orientation of a reconstructed slice of nuclear medicine.

    PS3.3 C.8.4.15: the detector's geometry is that of the first slice; the others follow along the normal (row x column) at
    Spacing Between Slices, against it where that is negative. Slice Vector tells which slice a frame is.
    """
    detector = _item(dataset, "DetectorInformationSequence", 0)
    if detector is None:
        return None, None
    position, orientation = numbers(detector, "ImagePositionPatient", 3), numbers(detector, "ImageOrientationPatient", 6)
    between = numbers(dataset, "SpacingBetweenSlices", 1)
    if position is None or orientation is None or between is None:
        return None, orientation
    slices = numbers(dataset, "SliceVector")
    number = slices[frame] - 1 if slices and frame < len(slices) else float(frame)
    row, column = orientation[:3], orientation[3:]
    normal = [
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    ]
    length = math.hypot(*normal)
    if length == 0:
        return None, orientation
    return [start + number * between[0] * part / length for start, part in zip(position, normal, strict=True)], orientation


def _item(dataset: Dataset, keyword: str, index: int) -> Dataset | None:
    try:
        sequence = element(dataset, keyword)
        return sequence[index] if sequence is not None and index < len(sequence) and hasattr(sequence[index], "get") else None
    except RefusedError:  # a group that cannot be parsed says nothing of the frame
        return None
