"""What readers take and give: items to read, images as stored, rejects with a named reason."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

REASONS: dict[str, str] = {
    "alpha": "The image has transparent pixels, whose grey value is undefined.",
    "bad_header": "A header field that the pixels depend on is missing, contradictory or not a number.",
    "bad_npz": "The file is not an npz of MedMNIST: an array is missing, of the wrong type or shape, or damaged.",
    "colour": "The image is in colour; grey images are read.",
    "constant": "All pixels (padding aside) have one value.",
    "modality_lut": "The header maps stored values by a Modality LUT Sequence, which is not read.",
    "multi_frame": "The file holds more than one frame, page or slice, or is an enhanced multi-frame object.",
    "no_pixels": "The file is DICOM but not an image: a report, plan, segmentation, dose grid or the like.",
    "non_finite": "The image has floating-point pixels, some of them infinite or not a number.",
    "not_dicom": "The file has no DICM prefix after 128 bytes, or what follows cannot be parsed as DICOM.",
    "not_raster": "The file is named like a PNG, JPEG or TIFF image but its content is none of them.",
    "outside_root": "The path is a link that leads out of the data set's root; such links are not followed.",
    "too_large": "The image has more than 2**28 pixels or does not fit into memory.",
    "truncated": "The file or its compressed stream ends before its pixels do.",
    "undecodable": "The decoder refused the pixel data, or they disagree with their header.",
    "unreadable": "The file cannot be opened, or reading failed in a way that no other reason names.",
    "unsupported_syntax": "The pixels are compressed in a way for which there is no open decoder.",
    "unsupported_type": "The pixels have a type or depth that is not read (floats, 32-bit rasters, 16-bit colour, ...).",
    "voi_lut": "The header shows the image by a VOI LUT Sequence alone, without a window; that is not read.",
}
"""Every reason for which a reader refuses an image: name -> one sentence for people."""

MAX_PIXELS = 2**28
"""Largest rows x columns that is decoded: 16,384 x 16,384."""


@dataclass(frozen=True)
class Item:
    """One thing to read: a file, or rows `start` to `stop` (exclusive) of a file that holds many images."""

    path: str  # relative to the root, with "/"
    start: int = 0
    stop: int = 1


@dataclass
class Header:
    """What a file says about its image. Identifiers stand here in clear: keep them in memory or in private/.

    The patient's name is never read.
    """

    frame: int = 0  # index of the frame in its file, or of the row in its npz
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
    position: tuple[float, float, float] | None = None  # mm, Image Position (Patient)
    study_date: datetime.date | None = None
    age_years: int | None = None
    sex: str | None = None  # "F", "M" or "O"
    burned_in: bool | None = None  # Burned In Annotation; None: the file does not say
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Image:
    """One grey image as stored, with how to show it."""

    pixels: np.ndarray  # (H, W), uint8, int16, uint16 or int32: stored values, before rescale
    slope: float = 1.0  # units = slope * pixels + intercept (PS3.3 C.11.1.1.2); not 0, may be negative
    intercept: float = 0.0
    window: tuple[float, float] | None = None  # centre, width, in units; None: no valid window in the file
    window_function: str = "linear"  # "linear", "linear_exact" or "sigmoid" (PS3.3 C.11.2.1.2 and C.11.2.1.3)
    full_range: tuple[float, float] | None = None  # in units: lowest and highest that the bit depth allows
    inverted: bool = False  # high units are shown dark
    header: Header = field(default_factory=Header)
    syntax: str = ""  # name of the transfer syntax, or "PNG", "JPEG", "TIFF", "npz"
    decoder: str = ""  # name and version


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

    def find(self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Item]:
        """What there is to read under `root`, sorted by path and row. Globs are those of `finding.find_files`.

        Raises:
            DataError: `root` is not a folder.
        """

    def read(self, root: Path, item: Item, tags: Sequence[str] = ()) -> list[Image | Reject]:
        """The images of `item`, each one or its reject. Content, however damaged, never raises.

        Raises:
            CardError: `tags` asks for something that cannot be a label.
        """
