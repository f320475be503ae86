"""A contact sheet of related images: each image beside those that epochs of pretraining would draw for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from medssl.augment.evaluate import eval_view
from medssl.data.batches import PixelBatch
from medssl.data.pairs import RelatedImages
from medssl.report.contact_sheet import sheet_png


def pairs_sheet(
    load: Callable[[np.ndarray], PixelBatch],
    manifest: pd.DataFrame,
    related: RelatedImages,
    chosen: np.ndarray,
    drawn: np.ndarray,
    size: int,
    *,
    tile: int = 184,
) -> bytes:
    """A PNG with a row for each chosen image: the image, then what is drawn for it in each epoch, as evaluation sees them.

    Args:
        load: gives the images at positions, (M,) int64.
        manifest: N rows, those of `related`.
        related: of the same N rows.
        chosen: (R,) int64: positions of the images.
        drawn: (E, R) int64: positions of the related images that each epoch draws, -1 for none.
        size: side of the pictures, px, before they are enlarged or reduced to `tile`.
    """
    shown = np.unique(np.concatenate([chosen, drawn[drawn >= 0]]))
    at = {position: i for i, position in enumerate(shown.tolist())}
    pixels = eval_view(load(shown), size).cpu().numpy()
    pixels = pixels.repeat(max(1, tile // size), axis=2).repeat(max(1, tile // size), axis=3)
    empty = np.full((size, size), 0.92, np.float32).repeat(max(1, tile // size), 0).repeat(max(1, tile // size), 1)
    pictures: list[np.ndarray] = []
    captions: list[list[str]] = []
    for i, position in enumerate(chosen.tolist()):
        pictures.append(pixels[at[position]])
        captions.append([_of(manifest, position), _mates(int(related.mates[position]))])
        for epoch, partner in enumerate(drawn[:, i].tolist()):
            if partner < 0:
                pictures.append(empty)
                captions.append(["no related image:", "second view"])
                continue
            kind = str(related.kinds[position])
            pictures.append(pixels[at[partner]])
            captions.append([f"epoch {epoch}: {kind}", difference(kind, manifest.iloc[position], manifest.iloc[partner])])
    return sheet_png(pictures, captions, columns=len(drawn) + 1, tile=tile)


def difference(kind: str, one: pd.Series, other: pd.Series) -> str:
    """What sets a related image apart from the image, in a few words: `slice +2, +2.0 mm`, `tile (0,+1)`, `view PA->LL`, `+34 days`."""
    if kind == "adjacent_tile":
        down, across = (int(other[name]) - int(one[name]) for name in ("tile_row", "tile_column"))
        return f"tile ({_signed(down)},{_signed(across)})"
    parts = []
    if kind in ("adjacent_slice", "same_series"):
        parts += _slices(one, other)
    if kind in ("same_study_other_view", "same_patient_other_date", "same_patient"):
        parts += [f"view {_view(one)}->{_view(other)}"] if _view(one) != _view(other) else []
    if kind in ("same_patient_other_date", "same_patient") and _known(one, other, "days_since_first"):
        days = int(other["days_since_first"]) - int(one["days_since_first"])
        parts.insert(0, f"{days:+d} days" if days else "same day")
    return ", ".join(parts) or {"same_series": "of the series", "same_patient": "of the patient"}.get(kind, "")


def _slices(one: pd.Series, other: pd.Series) -> list[str]:
    if _known(one, other, "slice"):
        steps = int(other["slice"]) - int(one["slice"])
        mm = [f"{steps * float(one['spacing_slice']):+.1f} mm"] if pd.notna(one["spacing_slice"]) else []
        return [f"slice {_signed(steps)}", *mm]
    position = ["position_x", "position_y", "position_z"]
    if all(_known(one, other, name) for name in position):
        apart = other[position].to_numpy(np.float64) - one[position].to_numpy(np.float64)
        return [f"{np.linalg.norm(apart):.1f} mm away"]
    return []


def _of(manifest: pd.DataFrame, position: int) -> str:
    row = manifest.iloc[position]
    parts = []
    if pd.notna(row["tile_row"]):
        parts.append(f"tile ({row['tile_row']:.0f},{row['tile_column']:.0f})")
    elif pd.notna(row["slice"]):
        parts.append(f"slice {row['slice']:.0f}")
    elif _view(row) != "?":
        parts.append(f"view {_view(row)}")
    if pd.notna(row["days_since_first"]):
        parts.append(f"day {row['days_since_first']:.0f}")
    return "the image" + (f": {', '.join(parts)}" if parts else "")


def _mates(count: int) -> str:
    return f"{count} related image{'s' if count > 1 else ''}" if count else "none is related"


def _view(row: pd.Series) -> str:
    words = [str(row[name]) for name in ("view", "laterality") if pd.notna(row[name])]
    return " ".join(words) or "?"


def _known(one: pd.Series, other: pd.Series, column: str) -> bool:
    return bool(pd.notna(one[column]) and pd.notna(other[column]))


def _signed(value: int) -> str:
    return f"{value:+d}" if value else "0"
