"""What readers take and give: items to read, images and volumes as stored, rejects with a named reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medssl.data.formats.options import ReadOptions

if TYPE_CHECKING:
    import numpy as np

REASONS: dict[str, str] = {
    "alpha": "The image has transparent pixels, whose value is undefined.",
    "archive_member": "A member of a .zip or .tar cannot be read in place: encrypted, compressed oddly, or an archive itself.",
    "bad_header": "A header field that the pixels depend on is missing, contradictory or not a number.",
    "bad_npz": "The file is not an npz of MedMNIST: an array is missing, of the wrong type or shape, or damaged.",
    "colour": "The image is in colour and the card asks for grey images.",
    "constant": "All pixels (padding aside) have one value.",
    "copied_slice": "Another file of the series holds the same slice, SOP Instance UID included; that one is used.",
    "damaged_nifti": "The file is named like NIfTI but its header or data cannot be read.",
    "died": "The process that read the file died; the file brought its decoder down.",
    "duplicate_slices": "Two slices of the series stand at one position and are not the same image.",
    "four_dimensional": "The image has a fourth axis (time, echo, channel); `read.time: split` makes volumes of it.",
    "gantry_tilt": "The slices are shifted against each other along their rows or columns: a tilted gantry, not a rectangular volume.",
    "hung": "Reading took longer than the time limit and was stopped.",
    "localizer": "A localizer (scout) image, or a series of fewer slices than `read.least_slices`.",
    "mask_mismatch": "The label map does not fit its image: another shape or another affine.",
    "mask_values": "The label map holds values that are no whole numbers from 0 to 255.",
    "missing_slices": "A gap in the series is a whole multiple of the slice spacing: slices are missing.",
    "mixed_orientation": "The series holds slices of several orientations that do not make several volumes.",
    "mixed_series": "Slices of one series differ in rows, columns, pixel spacing or rescale in a way that no sub-series explains.",
    "modality_lut": "The header maps stored values by a Modality LUT Sequence that is damaged.",
    "multi_frame": "The file holds more than one page or slice and its format is read one image a file.",
    "no_image": "A label map without an image that the card's pattern pairs it with.",
    "no_mask": "An image without a label map that the card's pattern pairs it with.",
    "no_pixels": "The file is DICOM but not an image: a report, plan, segmentation, dose grid or the like.",
    "no_position": "The slices do not say where they lie, so their order is unknown.",
    "no_tissue": "The slide has no tile with enough tissue.",
    "non_finite": "The image has pixels that are infinite or not a number, more than stray ones.",
    "not_dicom": "What the file holds cannot be parsed as DICOM.",
    "not_nifti": "The file is named like NIfTI but its content is not.",
    "not_raster": "The file is named like a PNG, JPEG or TIFF image but its content is none of them.",
    "not_slide": "The file is not a slide that can be opened.",
    "outside_root": "The path leads out of the data set's root (a link, or a name in an archive); such paths are not followed.",
    "presentation_lut": "The header shows the image by a Presentation LUT Sequence, which is not read.",
    "too_large": "The image or file is larger than what is decoded, or does not fit into memory.",
    "truncated": "The file or its compressed stream ends before its pixels do.",
    "undecodable": "The decoder refused the pixel data, or they disagree with their header.",
    "uneven_spacing": "The distances between slices differ by more than a hundredth of their median.",
    "unreadable": "The file cannot be opened, or reading failed in a way that no other reason names.",
    "unsupported_syntax": "The pixels are compressed in a way for which there is no open decoder.",
    "unsupported_type": "The pixels have a type or depth that is not read (32-bit rasters, 16-bit colour, complex numbers, ...).",
    "voi_lut": "The header shows the image by a VOI LUT Sequence that is damaged, or asks for a window that is not there.",
}
"""Every reason for which a reader refuses an image: name -> one sentence for people."""

MAX_PIXELS = 2**26
"""Largest rows x columns of one image that is decoded: 8,192 x 8,192, beyond any radiograph; slides are read by tiles."""

MAX_VOXELS = 2**28
"""Largest volume that is decoded: 1,024 slices of 512 x 512."""

FLAGS = ("burned_in", "secondary_capture", "ultrasound")
"""Reasons for which pixels may show text or a face and are never sent to a tracker."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to read: a file, a part of one, or the files of one volume.

    A path with `!/` in it is a member of an archive: `2019/exam.zip!/IM0001`.
    """

    path: str  # relative to the root, with "/"
    start: int = 0  # first row, tile or frame
    stop: int = 1  # one after the last
    members: tuple[str, ...] = ()  # of a volume in several files: all of them, in the order of its slices
    frames: tuple[int, ...] = ()  # with members: the frame of each
    mask: str | None = None  # the label map that belongs to it


@dataclass
class Header:
    """What a file says about its image. Identifiers stand here in clear: keep them in memory or in private/.

    The patient's name is never read.
    """

    frame: int = 0  # index of the frame in its file, of the row in its npz, of the tile in its slide
    patient_id: str | None = None
    issuer: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    modality: str | None = None  # a defined term of PS3.3 C.7.3.1.1.1
    view: str | None = None  # a known code in capitals: "PA", "AP", "LL", "MLO", ...
    laterality: str | None = None  # "L", "R", "B" or "U"
    vendor: str | None = None  # a name of `dicom_terms.VENDORS` or "other"
    spacing: tuple[float, float] | None = None  # mm between rows, mm between columns
    spacing_kind: str | None = None  # "pixel": in the patient; "imager": at the detector's plane
    position: tuple[float, float, float] | None = None  # mm, LPS, centre of the first pixel (Image Position (Patient))
    orientation: tuple[float, float, float, float, float, float] | None = None  # LPS cosines of a row, then of a column
    slice_index: int | None = None  # in the volume that the slice was cut from
    spacing_slice: float | None = None  # mm between the centres of neighbouring slices
    tile: tuple[int, int, int, int] | None = None  # x, y of its corner at full resolution, row, column in the grid
    tile_mpp: float | None = None  # micrometres a pixel of the tile
    study_date: datetime.date | None = None
    age_years: int | None = None
    sex: str | None = None  # "F", "M" or "O"
    burned_in: bool | None = None  # Burned In Annotation; None: the file does not say
    flags: tuple[str, ...] = ()  # of FLAGS
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Image:
    """One image as stored, with how to show it."""

    pixels: np.ndarray  # (H, W) uint8, int16, uint16 or int32: values before rescale; or (H, W, 3) uint8: RGB
    slope: float = 1.0  # units = slope * pixels + intercept (PS3.3 C.11.1.1.2); not 0, may be negative
    intercept: float = 0.0
    window: tuple[float, float] | None = None  # centre, width, in units; None: no valid window in the file
    window_function: str = "linear"  # "linear", "linear_exact", "sigmoid" or "lut" (PS3.3 C.11.2.1)
    voi_lut: np.ndarray | None = None  # (4096,) uint16 where the function is "lut": 0 to 65535 over the window's range
    full_range: tuple[float, float] | None = None  # in units: lowest and highest that the bit depth allows
    inverted: bool = False  # high units are shown dark
    modality_lut: bool = False  # pixels are the output of a Modality LUT
    padding: float = 0.0  # share of pixels that were padding and were replaced
    mask: np.ndarray | None = None  # (H, W) uint8, label values
    header: Header = field(default_factory=Header)
    syntax: str = ""  # name of the transfer syntax, or "PNG", "JPEG", "TIFF", "npz", "NIfTI", ...
    decoder: str = ""  # name and version


@dataclass
class Volume:
    """One volume as stored. Axes are (slice, row, column) = (k, j, i), and i, j, k run to the right, front and head (RAS).

    `affine` takes (i, j, k, 1) to millimetres, RAS (nibabel's convention). It may be oblique: the axes are permuted and
    flipped to the closest RAS axes, never resampled.
    """

    voxels: np.ndarray  # (D, H, W) uint8, int16 or uint16
    affine: np.ndarray  # (4, 4) float64
    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float] | None = None
    window_function: str = "linear"
    full_range: tuple[float, float] | None = None
    inverted: bool = False
    mask: np.ndarray | None = None  # (D, H, W) uint8, in the same axes
    header: Header = field(default_factory=Header)
    syntax: str = ""
    decoder: str = ""


@dataclass(frozen=True)
class Reject:
    """An image that was not read, and why. `detail` holds numbers and terms of standards, never a file's own words."""

    item: Item
    reason: str  # a key of REASONS
    detail: str = ""

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"{self.reason!r} is not in REASONS")


class RefusedError(Exception):
    """Raised inside a reader, caught by `guard.read_guarded`: becomes a `Reject` with this reason and detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Reader(Protocol):
    """A format. Instances are stateless and can be sent to other processes."""

    name: str

    def find(
        self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> list[Item | Reject]:
        """What there is to read under `root`, sorted by path and row. Globs are those of `finding.find_files`.

        A `Reject` stands for a file that is known not to be readable without looking into it: an orphan label map.

        Raises:
            DataError: `root` is not a folder.
        """

    def read(
        self, root: Path, item: Item, tags: Sequence[str] = (), options: ReadOptions = ReadOptions()
    ) -> Iterator[Image | Volume | Reject]:
        """The images of `item` one after another, each or its reject; only one is in memory at a time where the format allows.

        Content, however damaged, never raises.

        Raises:
            CardError: `tags` asks for something that cannot be a label.
        """
