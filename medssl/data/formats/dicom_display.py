"""From stored grey values to units and to what is shown, in the order of PS3.4 N.2: Modality LUT, VOI LUT, presentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from medssl.data.formats.dicom_header import element, number, text, whole_number
from medssl.data.formats.dicom_layout import Layout
from medssl.data.formats.dicom_lut import Table, table_of
from medssl.data.formats.items import Image, RefusedError
from medssl.data.formats.quantise import Stats, quantisation, stats_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medssl.data.formats.dicom_frames import FrameElements

    Elements = Dataset | FrameElements

KEYWORDS = (
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelIntensityRelationship", "WindowCenter", "WindowWidth",
    "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "PresentationLUTSequence",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit",
)  # fmt: skip
"""What this module reads."""

VOI_ENTRIES = 4096
"""Entries of `Image.voi_lut`."""

_FUNCTIONS = ("linear", "linear_exact", "sigmoid")
# X-Ray Angiographic and Radiofluoroscopic Image Storage.
_FLUOROSCOPY = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")


def grey_image(stored: np.ndarray, view: Elements, layout: Layout, wanted: int | str, *, little_endian: bool) -> Image:
    """An image, without header and decoder, of a grey frame.

    Args:
        stored: (H, W) stored values of the frame, padding included.
        view: the elements that hold for the frame.
        layout: of the frame.
        wanted: `ReadOptions.window`.
        little_endian: whether words of look-up tables begin with their low byte.

    Raises:
        RefusedError: "constant", "bad_header", "modality_lut", "voi_lut", "presentation_lut", "non_finite" or "unsupported_type".
    """
    if element(view, "PresentationLUTSequence") is not None:
        raise RefusedError("presentation_lut")
    table = _modality_table(view, layout, little_endian)
    slope, intercept = (1.0, 0.0) if table else _rescale(view)
    padding = _padding(stored, view, layout)
    lowest, highest = layout.value_range
    if table:
        pixels, lowest, highest = table(stored), 0, (1 << table.bits) - 1
    elif layout.is_float:
        pixels, step, lowest, highest = _quantised(stored, padding)
        # units = slope * (step * pixels + least) + intercept
        least, slope = step[1], slope * step[0]
        intercept += least * slope / step[0]
        lowest, highest = (lowest - least) / step[0], (highest - least) / step[0]
    else:
        pixels = stored
    inverted = _is_inverted(view, layout)
    share = _fill(pixels := np.require(pixels, requirements="W"), padding, dark_is_low=(slope > 0) != inverted)
    if pixels.min() == pixels.max():
        raise RefusedError("constant")
    ends = sorted(slope * value + intercept for value in (lowest, highest))
    window, function, voi_lut = _shown(view, wanted, signed=ends[0] < 0, little_endian=little_endian)
    return Image(
        pixels=pixels,
        slope=slope,
        intercept=intercept,
        window=window,
        window_function=function,
        voi_lut=voi_lut,
        full_range=(ends[0], ends[1]),
        inverted=inverted,
        modality_lut=table is not None,
        padding=share,
    )


def _modality_table(view: Elements, layout: Layout, little_endian: bool) -> Table | None:
    """The table of PS3.3 C.11.1.1.1, if the file has one that concerns the picture."""
    items = element(view, "ModalityLUTSequence")
    if items is None:
        return None
    # PS3.3 C.8.7.1.1.2: there the table leads back to X-ray intensity and does not belong to what is shown.
    if text(view, "PixelIntensityRelationship") in ("LOG", "DISP") and text(view, "SOPClassUID") in _FLUOROSCOPY:
        return None
    if layout.is_float or not hasattr(items[0], "get"):
        raise RefusedError("modality_lut", "of floating-point pixels" if layout.is_float else "")
    return table_of(items[0], little_endian, layout.signed, "modality_lut")


def _rescale(view: Elements) -> tuple[float, float]:
    """Slope and intercept of PS3.3 C.11.1.1.2; 1 and 0 where the file has none."""
    slope = number(view, "RescaleSlope", 1.0)
    if slope == 0:
        raise RefusedError("bad_header", "RescaleSlope is 0")
    return slope, number(view, "RescaleIntercept", 0.0)


def _quantised(values: np.ndarray, padding: np.ndarray | None) -> tuple[np.ndarray, tuple[float, float], float, float]:
    """Floating-point pixels as integers; slope and intercept that lead back to them; the lowest and highest of them."""
    stats = stats_of(values if padding is None else values[~padding], Stats())
    quantise = quantisation(stats, values.dtype)
    with np.errstate(all="ignore"):  # padding may lie anywhere, and is replaced
        pixels = quantise(values)
    return pixels, (quantise.slope, quantise.intercept), float(stats.low), float(stats.high)


def _padding(stored: np.ndarray, view: Elements, layout: Layout) -> np.ndarray | None:
    """Where the frame is padding (PS3.3 C.7.5.1.1.2, C.7.6.24); None if nowhere.

    Lossy compression may have moved padding off its value; only Pixel Padding Range Limit can say by how much.
    """
    prefix = {32: "Float", 64: "DoubleFloat"}[layout.allocated] if layout.is_float else ""
    if element(view, f"{prefix}PixelPaddingValue") is None:
        return None

    def value(keyword: str, default: float | None = None) -> float:
        if layout.is_float:
            return number(view, keyword, default)
        # Writers and parsers disagree on US or SS: only the bits count.
        bits = whole_number(view, keyword, default) & ((1 << layout.allocated) - 1)
        return bits - (1 << layout.allocated) if layout.signed and bits >> (layout.allocated - 1) else bits

    first = value(f"{prefix}PixelPaddingValue")
    last = value(f"{prefix}PixelPaddingRangeLimit", first)
    padding = (stored >= min(first, last)) & (stored <= max(first, last))
    if padding.all():
        raise RefusedError("constant", "all pixels are padding")
    return padding if padding.any() else None


def _fill(pixels: np.ndarray, padding: np.ndarray | None, dark_is_low: bool) -> float:
    """Replace padding by that extreme of the other pixels that is shown darkest; returns the share of padding.

    The extreme is of the image, not of its bit depth, so that percentiles and ranges stay those of the picture.
    """
    if padding is None:
        return 0.0
    shown = pixels[~padding]
    pixels[padding] = shown.min() if dark_is_low else shown.max()
    return float(padding.mean())


def _is_inverted(view: Elements, layout: Layout) -> bool:
    """Whether high units are dark.

    PS3.3 C.8.11.3.1.2 requires Presentation LUT Shape INVERSE of every MONOCHROME1 image, so the two together say
    one thing twice: one inversion, not two that cancel.
    """
    return layout.photometric == "MONOCHROME1" or text(view, "PresentationLUTShape") == "INVERSE"


def _shown(
    view: Elements, wanted: int | str, *, signed: bool, little_endian: bool
) -> tuple[tuple[float, float] | None, str, np.ndarray | None]:
    """Window, its function and its table, as `Image` has them.

    Raises:
        RefusedError: "voi_lut": the table is damaged, or the file has not what is wanted.
    """
    windows, function = _windows(view)
    tables = element(view, "VOILUTSequence") or []
    if isinstance(wanted, int) and wanted != 1:
        if not 1 <= wanted <= len(windows) or windows[wanted - 1] is None:
            raise RefusedError("voi_lut", f"window {wanted} of {len(windows)}")
        return windows[wanted - 1], function, None
    if isinstance(wanted, str) and wanted != "lut":
        number_ = _explained(view, "WindowCenterWidthExplanation", wanted)
        if number_ is not None and number_ < len(windows) and windows[number_] is not None:
            return windows[number_], function, None
        tables = [table for table in tables if _explained(table, "LUTExplanation", wanted) is not None]
        if not tables:
            raise RefusedError("voi_lut", f"none of {len(windows)} windows has the explanation that is asked for")
    elif windows and windows[0] is not None and not (wanted == "lut" and tables):
        return windows[0], function, None
    if not tables:
        return None, "linear", None
    return _voi_table(tables[0], signed, little_endian)


def _windows(view: Elements) -> tuple[list[tuple[float, float] | None], str]:
    """Centre and width of each window, and the function of all (PS3.3 C.11.2).

    A window that the standard forbids is None: not two finite numbers, an unknown function, or a width below
    1 (LINEAR, C.11.2.1.2.1) or not above 0 (SIGMOID and LINEAR_EXACT, C.11.2.1.3).
    """
    function = (text(view, "VOILUTFunction") or "LINEAR").lower()
    columns = [(text(view, keyword) or "").split("\\") for keyword in ("WindowCenter", "WindowWidth")]
    found: list[tuple[float, float] | None] = []
    for texts in zip(*columns, strict=False):
        try:
            center, width = map(float, texts)
        except ValueError:
            center = width = math.nan
        allowed = width >= 1 if function == "linear" else width > 0
        valid = math.isfinite(center) and math.isfinite(width) and allowed and function in _FUNCTIONS
        found.append((center, width) if valid else None)
    return ([] if columns[0] == [""] else found), function


def _explained(view: Elements, keyword: str, wanted: str) -> int | None:
    """Which of the explanations is `wanted`, in capitals or not."""
    explanations = [part.strip().lower() for part in (text(view, keyword) or "").split("\\")]
    return explanations.index(wanted.strip().lower()) if wanted.strip().lower() in explanations else None


def _voi_table(item: Dataset, signed: bool, little_endian: bool) -> tuple[tuple[float, float], str, np.ndarray]:
    """The table of PS3.3 C.11.2.1.1, resampled, and the window whose ends are its first and last input value."""
    if not hasattr(item, "get"):
        raise RefusedError("voi_lut")
    table = table_of(item, little_endian, signed, "voi_lut")
    count = len(table.values)
    if count < 2:
        raise RefusedError("voi_lut", "a table of one entry")
    places = np.linspace(0, count - 1, VOI_ENTRIES)
    values = np.interp(places, np.arange(count), table.values) * (65535 / ((1 << table.bits) - 1))
    return (table.first + (count - 1) / 2, float(count - 1)), "lut", np.rint(values).astype(np.uint16)
