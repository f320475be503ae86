"""Related images of a table of images, by each data set's order of preference, and one of them drawn for every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssl.data.pair_kinds import PairKind, SameStudyOtherView
from medssl.data.pairs.mates import Mates, codes, other_part, within_group
from medssl.data.pairs.slices import POSITION, adjacent_slices
from medssl.data.pairs.tiles import adjacent_tiles
from medssl.seeds import numpy_generator

COLUMNS = (
    "source", "patient", "study", "series", "slice", "spacing_slice", *POSITION, "orientation", "laterality", "view",
    "days_since_first", "tile_row", "tile_column",
)  # fmt: skip
"""Columns of the manifest that `related_images` looks at."""


class RelatedImages:
    """Which images may stand for each of N images; positions are those of the table that it was made of.

    A mate is another row of the same table, of the same data set and patient. Make one with `related_images`.

    Attributes:
        kinds: (N,) object: the kind that serves each image, "" where it has no related image.
        mates: (N,) int64: how many related images each has, by that kind alone.
    """

    def __init__(self, images: int, served: Sequence[tuple[str, Mates]]) -> None:
        """`served`: a kind and the mates of the images that it serves, each image at most once and with a mate or more."""
        self._served = [mates for _, mates in served]
        self.kinds = np.full(images, "", object)
        self.mates = np.zeros(images, np.int64)
        for kind, mates in served:
            self.kinds[mates.rows] = kind
            self.mates[mates.rows] = mates.counts()

    def __len__(self) -> int:
        return len(self.mates)

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: the image has a related image."""
        return self.mates > 0

    @property
    def counts(self) -> dict[str, int]:
        """Images that each kind serves, most first."""
        names, counts = np.unique(self.kinds[self.found].astype(str), return_counts=True)
        return dict(sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda entry: (-entry[1], entry[0])))

    def partners(self, seed: int, epoch: int) -> Tensor:
        """(N,) int64: the position of a related image, or -1 for none.

        Each is drawn uniformly among the image's mates from (seed, epoch) alone, for all images at once: the number of
        ranks, the order of samples and a resumed run change nothing.
        """
        which = numpy_generator(seed, "pairs", epoch).integers(0, np.maximum(self.mates, 1))
        drawn = np.full(len(self), -1, np.int64)
        for mates in self._served:
            drawn[mates.rows] = mates.pick(which[mates.rows])
        return torch.from_numpy(drawn)

    def sentence(self) -> str:
        """How many images have a related image, by which kind, and how many fall back to a second view of themselves."""
        found, images = int(self.found.sum()), len(self)
        if not found:
            return f"none of {images:,} images has a related image; all fall back to a second view"
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.counts.items())
        text = f"{found:,} of {images:,} images have a related image ({kinds})"
        if found == images:
            return text
        return f"{text}; {images - found:,} ({(images - found) / images:.1%}) fall back to a second view"


def related_images(manifest: pd.DataFrame, kinds_by_source: Mapping[str, Sequence[PairKind]]) -> RelatedImages:
    """The related images of some rows of a manifest, among these rows alone.

    Args:
        manifest: N rows with COLUMNS; those that pretraining may see. Its index does not matter.
        kinds_by_source: for each data set the kinds of its card, in order of preference: an image is served by the first
            kind that has a mate for it. A data set that is not named has none.

    Raises:
        DataError: two tiles of one slide stand at one place.
    """
    served: list[tuple[str, Mates]] = []
    source = manifest["source"].to_numpy()
    for name, kinds in kinds_by_source.items():
        rows = np.flatnonzero(source == name)
        table, left = manifest.iloc[rows], np.ones(len(rows), bool)
        for kind in kinds:
            if not left.any():
                break
            mates = _FINDERS[kind.kind](table, kind)
            mates = mates.only(left[mates.rows] & (mates.counts() > 0))
            if len(mates.rows):
                left[mates.rows] = False
                served.append((kind.kind, Mates(rows[mates.rows], rows[mates.order], mates.low, mates.high)))
    return RelatedImages(len(manifest), served)


def _having(table: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    rows = np.flatnonzero(table[columns].notna().all(axis=1).to_numpy())
    return rows, table.iloc[rows]


def _same_series(table: pd.DataFrame, kind: PairKind) -> Mates:
    rows, part = _having(table, ["patient", "series"])
    return within_group(rows, codes(part, ["source", "patient", "series"]))


def _same_study_other_view(table: pd.DataFrame, kind: SameStudyOtherView) -> Mates:
    rows, part = _having(table, ["patient", "study", "view"])
    group, own = ["source", "patient", "study"], ["view"]
    (group if kind.laterality == "kept" else own).append("laterality")
    return other_part(rows, codes(part, group), codes(part, own))


def _same_patient_other_date(table: pd.DataFrame, kind: PairKind) -> Mates:
    rows, part = _having(table, ["patient", "days_since_first"])
    return other_part(rows, codes(part, ["source", "patient"]), codes(part, ["days_since_first"]))


def _same_patient(table: pd.DataFrame, kind: PairKind) -> Mates:
    rows, part = _having(table, ["patient"])
    return within_group(rows, codes(part, ["source", "patient"]))


_FINDERS: dict[str, Callable[[pd.DataFrame, PairKind], Mates]] = {
    "adjacent_tile": adjacent_tiles,
    "adjacent_slice": adjacent_slices,
    "same_series": _same_series,
    "same_study_other_view": _same_study_other_view,
    "same_patient_other_date": _same_patient_other_date,
    "same_patient": _same_patient,
}
