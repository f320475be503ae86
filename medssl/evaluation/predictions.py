"""The table of predictions, checked and laid out as arrays: one test set, and the scores of every cell on it.

A cell is one model: an arm, a mode, a label budget and a seed (the draw of the labelled patients).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from medssl.errors import DataError

MODES = ("linear", "full")
COLUMNS = {
    "arm": "name of the initialisation arm",
    "mode": "linear (frozen encoder) | full (all weights trained)",
    "budget": "label of the budget, such as 40 or all",
    "budget_patients": "labelled patients of the budget, validation included",
    "budget_images": "labelled images of the budget, validation included",
    "seed": "the label draw",
    "row_key": "key of the image in the manifest",
    "patient": "hashed patient key",
    "label": "0 | 1",
    "score": "probability of the positive class",
    "threshold": "operating point, chosen inside the label budget; one a cell",
    "split": "the split that was scored; one a table",
}
CELL = ["arm", "mode", "budget", "seed"]


class Cell(NamedTuple):
    arm: str
    mode: str
    budget: str
    seed: int

    def __str__(self) -> str:
        return f"arm '{self.arm}' ({self.mode}, budget {self.budget}, seed {self.seed})"


@dataclass(frozen=True)
class Block:
    """What all arms share: a mode and a label budget, with its draws. Patients and images are means over the draws."""

    mode: str
    budget: str
    seeds: tuple[int, ...]
    patients: int
    images: int


@dataclass(frozen=True)
class TestSet:
    """N test images of P patients, and every cell's scores for them."""

    __test__ = False  # the name is the field's; pytest need not collect it

    labels: np.ndarray  # (N,) int8, 0 | 1
    patients: np.ndarray  # (N,) int64, 0 .. P - 1
    arms: tuple[str, ...]  # in the order of the table
    blocks: tuple[Block, ...]  # linear before full, small budgets first
    scores: dict[Cell, np.ndarray]  # (N,) float64 each
    thresholds: dict[Cell, float]

    @property
    def n_patients(self) -> int:
        return int(self.patients.max()) + 1

    def patients_with(self, label: int) -> int:
        """Patients with at least one image of this label."""
        return len(np.unique(self.patients[self.labels == label]))


def read_predictions(predictions: pd.DataFrame) -> TestSet:
    """Check the table against COLUMNS and lay it out.

    Raises DataError (one line, counts and arm names only) when a column is missing or holds something else, when the
    table mixes splits, when an arm was scored on other images than the others or twice on the same, when arms were
    given different label budgets or draws, or when the test set lacks a class or has a single patient.
    """
    _check_values(predictions)
    keys, _ = pd.factorize(predictions["row_key"])
    n_images = int(keys.max()) + 1
    labels, patients = _per_image(predictions, keys, n_images)
    scores, thresholds = {}, {}
    for name, rows in predictions.groupby(CELL, sort=False, observed=True).indices.items():
        cell = Cell(str(name[0]), str(name[1]), str(name[2]), int(name[3]))
        _check_images(cell, keys[rows], n_images)
        threshold = predictions["threshold"].to_numpy()[rows]
        if (threshold != threshold[0]).any():
            raise DataError(f"predictions: {cell} has {len(set(threshold))} thresholds: a cell has one operating point")
        scores[cell] = np.empty(n_images)
        scores[cell][keys[rows]] = predictions["score"].to_numpy(dtype=np.float64)[rows]
        thresholds[cell] = float(threshold[0])
    arms = tuple(dict.fromkeys(cell.arm for cell in scores))
    blocks = _blocks(predictions)
    _check_grid(arms, blocks, scores)
    return TestSet(labels, patients, arms, blocks, scores, thresholds)


def _check_values(table: pd.DataFrame) -> None:
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise DataError(f"predictions: no column {', '.join(missing)}; run `medssl evaluate` again")
    if table.empty:
        raise DataError("predictions: no rows; run `medssl evaluate` first")
    unknown = sorted({str(mode) for mode in table["mode"].unique()} - set(MODES))
    if unknown:
        raise DataError(f"predictions: mode {unknown[0]!r} is not one of {', '.join(MODES)}")
    splits = sorted({str(split) for split in table["split"].unique()})
    if len(splits) > 1:
        raise DataError(f"predictions: {len(splits)} splits in one table ({', '.join(splits)}): compare one at a time")
    if table[["row_key", "patient"]].isna().any(axis=None):
        raise DataError("predictions: rows without row_key or patient: every test image belongs to a patient")
    for column in ("score", "threshold"):
        if (bad := int((~np.isfinite(table[column].to_numpy(dtype=np.float64))).sum())) > 0:
            raise DataError(f"predictions: {bad} rows have a {column} that is not a finite number")
    if (bad := int((~table["label"].isin([0, 1])).sum())) > 0:
        raise DataError(f"predictions: {bad} rows have a label other than 0 or 1")


def _per_image(table: pd.DataFrame, keys: np.ndarray, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels and (N,) patient numbers, which every cell must agree on."""
    result = []
    for column, values in (
        ("label", table["label"].to_numpy(dtype=np.int8)),
        ("patient", pd.factorize(table["patient"])[0]),
    ):
        per_image = np.empty(n_images, dtype=values.dtype)
        per_image[keys] = values
        wrong = len(np.unique(keys[per_image[keys] != values]))
        if wrong:
            raise DataError(f"predictions: {wrong} test images have another {column} in one cell than in another")
        result.append(per_image)
    labels, patients = result
    for label, name in ((1, "positive"), (0, "negative")):
        if not (labels == label).any():
            raise DataError(f"predictions: none of the {n_images} test images is {name}: nothing can be compared")
    if patients.max() == 0:
        raise DataError("predictions: all test images are of one patient: an interval needs at least two")
    return labels, patients


def _check_images(cell: Cell, keys: np.ndarray, n_images: int) -> None:
    distinct = len(np.unique(keys))
    if distinct < len(keys):
        raise DataError(f"predictions: {cell} scores {len(keys) - distinct} test images more than once")
    if distinct < n_images:
        raise DataError(
            f"predictions: {cell} has {distinct} of the {n_images} test images that the cells have together: "
            "all arms must be scored on the same images; run `medssl evaluate` again"
        )


def _blocks(table: pd.DataFrame) -> tuple[Block, ...]:
    sizes = table[[*CELL, "budget_patients", "budget_images"]].drop_duplicates()
    for (mode, budget, seed), draw in sizes.groupby(["mode", "budget", "seed"], observed=True):
        if len(draw[["budget_patients", "budget_images"]].drop_duplicates()) > 1:
            given = ", ".join(f"{row.arm} {row.budget_patients} ({row.budget_images})" for row in draw.itertuples())
            raise DataError(
                f"predictions: arms differ in labelled patients (images) in {mode}, budget {budget}, seed {seed}: "
                f"{given}; all arms must have the same label budget"
            )
    blocks = []
    for (mode, budget), rows in sizes.groupby(["mode", "budget"], observed=True):
        draws = rows.drop_duplicates("seed")
        patients, images = round(draws["budget_patients"].mean()), round(draws["budget_images"].mean())
        seeds = tuple(sorted(int(seed) for seed in draws["seed"]))
        blocks.append(Block(str(mode), str(budget), seeds, patients, images))
    return tuple(sorted(blocks, key=lambda block: (MODES.index(block.mode), block.patients, block.budget)))


def _check_grid(arms: tuple[str, ...], blocks: tuple[Block, ...], scores: dict[Cell, np.ndarray]) -> None:
    for block in blocks:
        for arm in arms:
            have = sum(Cell(arm, block.mode, block.budget, seed) in scores for seed in block.seeds)
            if have < len(block.seeds):
                raise DataError(
                    f"predictions: arm '{arm}' has {have} of the {len(block.seeds)} label draws of {block.mode}, "
                    f"budget {block.budget}: a paired comparison needs all; run `medssl evaluate` again"
                )
