"""DICOM whole-slide images (PS3.3 A.32.8, C.8.12.4): where the frames lie in the total pixel matrix, and its pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medssl.data.formats.dicom_file import IMAGE_KEYWORDS, DicomFile
from medssl.data.formats.dicom_frames import FrameElements
from medssl.data.formats.dicom_header import element, spacing_of, text, whole_number
from medssl.data.formats.dicom_parse import parse
from medssl.data.formats.items import RefusedError
from medssl.data.formats.slide_source import FrameSlide, LevelSlide, Slide, plausible_mpp, row_major_places

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MATRIX = ("TotalPixelMatrixColumns", "TotalPixelMatrixRows")
_LEVEL_KEYWORDS = (*_MATRIX, "ImageType", "SeriesInstanceUID", "ConcatenationUID")
_SLIDE_KEYWORDS = (
    *IMAGE_KEYWORDS, *_LEVEL_KEYWORDS, "DimensionOrganizationType", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip
_FLAVORS = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")
_SEAMS = 24  # pairs of neighbouring frames that are compared to find in which order frames lie
_CLEAR = 0.5  # one order's seams differ by less than this share of the other's


@dataclass(frozen=True)
class Level:
    """What grouping the files of a slide takes."""

    series: str | None
    width: int
    height: int

    def is_coarser(self, base: Level) -> bool:
        """Whether this is the same slide at a lower resolution: the same series and, within a frame's rounding, shape."""
        x, y = base.width / self.width, base.height / self.height
        return self.series is not None and self.series == base.series and min(x, y) > 1.2 and max(x, y) < 1.05 * min(x, y)


def level_of(file: BinaryIO) -> Level:
    """Size and series of a whole-slide image, from its header.

    Raises:
        RefusedError: "no_pixels", a label, overview or thumbnail; "not_slide", "unsupported_type", "bad_header", "not_dicom".
    """
    dataset = parse(file, _LEVEL_KEYWORDS).dataset
    if any(element(dataset, keyword) is None for keyword in _MATRIX):
        raise RefusedError("not_slide", "DICOM without a total pixel matrix")
    flavor = (text(dataset, "ImageType") or "").upper().split("\\")[2:3]
    if flavor and flavor[0] in _FLAVORS:
        raise RefusedError("no_pixels", f"{flavor[0].lower()} image")
    if element(dataset, "ConcatenationUID") is not None:
        raise RefusedError("unsupported_type", "a concatenation: one image in several files")
    width, height = (whole_number(dataset, keyword) for keyword in _MATRIX)
    if width < 1 or height < 1:
        raise RefusedError("bad_header", f"a total pixel matrix of {height} rows, {width} columns")
    return Level(text(dataset, "SeriesInstanceUID"), width, height)


def open_wsi(files: list[BinaryIO]) -> Slide:
    """A slide of the files of its levels, the finest first; they must stay open.

    Raises:
        RefusedError: as `level_of`; "no_position"; what `DicomFile` refuses.
    """
    levels = [_open_level(file) for file in files]
    base = levels[0]
    if len(levels) == 1:
        return base
    return LevelSlide(
        width=base.width,
        height=base.height,
        mpp=base.mpp,
        downsamples=tuple(base.width / level.width for level in levels),
        header=base.header,
        syntax=base.syntax,
        decoder=base.decoder,
        levels=tuple(levels),
    )


def _open_level(file: BinaryIO) -> FrameSlide:
    level = level_of(file)
    dicom = DicomFile(file, keywords=_SLIDE_KEYWORDS)
    layout = dicom.layout
    if layout.samples != 3 and layout.photometric != "PALETTE COLOR":
        raise RefusedError("unsupported_type", f"a slide in {layout.photometric}")
    frame = (layout.columns, layout.rows)
    places = _told_places(dicom.dataset, layout.frames)
    if places is None:
        places = _implied_places(dicom, level, frame)
    spacing, kind = spacing_of(FrameElements(dicom.dataset, 0))
    spacing = spacing if kind == "pixel" and spacing else (None, None)
    return FrameSlide(
        width=level.width,
        height=level.height,
        mpp=plausible_mpp(*(1000 * value if value else None for value in spacing[::-1])),
        header=dicom.header(0),
        syntax=dicom.syntax_name,
        decoder=dicom.decoder,
        places=places,
        frame=frame,
        decode=dicom.frame,
    )


def _told_places(dataset: Dataset, frames: int) -> np.ndarray | None:
    """Places of the Plane Position (Slide) Macro (C.8.12.6.1), which count from 1; None if the frames have none.

    Of several focal planes at one place the first is taken.
    """
    groups = element(dataset, "PerFrameFunctionalGroupsSequence")
    if groups is None or "PlanePositionSlideSequence" not in groups[0]:
        return None
    if len(groups) != frames:
        raise RefusedError("bad_header", f"{len(groups)} functional groups of {frames} frames")
    places = np.empty((frames, 2), np.int64)
    for index, group in enumerate(groups):
        items = element(group, "PlanePositionSlideSequence")
        if items is None:
            raise RefusedError("no_position", f"frame {index}")
        names = ("ColumnPositionInTotalImagePixelMatrix", "RowPositionInTotalImagePixelMatrix")
        places[index] = [np.clip(whole_number(items[0], name) - 1, -(2**31), 2**31) for name in names]
    _, first = np.unique(places, axis=0, return_index=True)
    later = np.setdiff1d(np.arange(frames), first)
    places[later] = -(2**40)  # beyond every slide
    return places


def _implied_places(dicom: DicomFile, level: Level, frame: tuple[int, int]) -> np.ndarray:
    """Places by the frames' order: TILED_FULL runs along the rows (C.7.6.17.3), the first focal plane first.

    Files that do not name their organization are met with in either order; then the frames' seams decide.
    """
    places = row_major_places(level.width, level.height, frame)
    if dicom.layout.frames < len(places):
        raise RefusedError("no_position", f"{dicom.layout.frames} frames for {len(places)} places")
    organization = text(dicom.dataset, "DimensionOrganizationType")
    if organization is None and len(np.unique(places[:, 0])) > 1 and len(np.unique(places[:, 1])) > 1:
        return row_major_places(level.width, level.height, frame, down_first=_runs_down(dicom, places))
    if organization not in (None, "TILED_FULL"):
        raise RefusedError("no_position", "the frames have no positions and are not TILED_FULL")
    return places


def _runs_down(dicom: DicomFile, places: np.ndarray) -> bool:
    """Whether frame k + 1 lies below frame k, and not to its right: where two frames meet, their pixels are alike.

    Raises:
        RefusedError: "no_position": neither is clear.
    """
    columns, rows = (len(np.unique(places[:, axis])) for axis in range(2))
    # Pairs that are neighbours in both orders.
    pairs = [index for index in range(columns * rows - 1) if (index + 1) % columns and (index + 1) % rows]
    right = below = 0.0
    for index in pairs[:: max(1, len(pairs) // _SEAMS)]:
        here, there = dicom.frame(index).astype(np.int32), dicom.frame(index + 1).astype(np.int32)
        right += float(np.abs(here[:, -1] - there[:, 0]).mean())
        below += float(np.abs(here[-1] - there[0]).mean())
    if min(right, below) >= _CLEAR * max(right, below):
        raise RefusedError("no_position", "the file names no order of its frames, and their seams show none")
    return below < right
