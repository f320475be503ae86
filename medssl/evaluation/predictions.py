"""The table of predictions, checked and laid out as arrays: one test set, and the scores of every cell on it.

A cell is one model: an arm, a pretraining run of it, a mode, a label budget and a seed (the draw of the labelled patients).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from medssl.errors import DataError
from medssl.evaluation.columns import label_columns, score_columns, threshold_columns
from medssl.evaluation.prediction_checks import check_grid, check_images, check_labels, check_values
from medssl.modes import MODES
from medssl.task import Outputs

BINARY = Outputs("binary", ("positive",))
COLUMNS = {
    "arm": "name of the initialisation arm",
    "mode": "how it was trained, a name of medssl.modes",
    "budget": "label of the budget, such as 40 or all",
    "budget_patients": "labelled patients of the budget, validation included",
    "budget_images": "labelled images of the budget, validation included",
    "seed": "the label draw",
    "run": "which pretraining run of the arm, from 0; without this column there is one",
    "row_key": "key of the image in the manifest (of the patient, where scores were pooled)",
    "patient": "hashed patient key",
    "label": "binary 0 | 1; the class's index; the value. Multi-label: `label.<target>`, empty where unknown",
    "score": "probability of the positive class, or the value. Several outputs: `score.<output>`, all probabilities",
    "threshold": "operating point of a binary task, chosen inside the label budget. Multi-label: `threshold.<target>`, empty: none",
    "temperature": "fitted inside the label budget; without this column the metrics after scaling are unknown",
    "split": "the split that was scored; one a table",
}
CELL = ["arm", "mode", "budget", "seed", "run"]


class Cell(NamedTuple):
    arm: str
    mode: str
    budget: str
    seed: int
    run: int = 0

    def __str__(self) -> str:
        run = f", pretraining run {self.run}" if self.run else ""
        return f"arm '{self.arm}' ({self.mode}, budget {self.budget}, seed {self.seed}{run})"


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
    """N test images of P patients, and every cell's scores for them. T labels an image, K outputs a model."""

    __test__ = False  # the name is the field's; pytest need not collect it

    labels: np.ndarray  # (N, T) float64, NaN unknown
    patients: np.ndarray  # (N,) int64, 0 .. P - 1
    arms: tuple[str, ...]  # in the order of the table
    blocks: tuple[Block, ...]  # modes in the order of MODES, small budgets first
    scores: dict[Cell, np.ndarray]  # (N, K) float64 each
    thresholds: dict[Cell, np.ndarray]  # (T,) each; NaN for kinds, and for targets, without an operating point
    outputs: Outputs = BINARY
    temperatures: dict[Cell, float] | None = None  # NaN or None: not known
    runs: dict[str, tuple[int, ...]] | None = None  # arm -> its pretraining runs; None: one each
    keys: np.ndarray | None = None  # (N,) row_key of each image

    @property
    def n_patients(self) -> int:
        return int(self.patients.max()) + 1

    @property
    def has_several_images_a_patient(self) -> bool:
        return self.n_patients < len(self.patients)

    def runs_of(self, arm: str) -> tuple[int, ...]:
        return self.runs[arm] if self.runs else (0,)

    def temperature_of(self, cell: Cell) -> float:
        return self.temperatures[cell] if self.temperatures else float("nan")

    def patients_with(self, label: int, target: int = 0) -> int:
        """Patients with at least one image of this label (binary, multi-label: 0 | 1; else the class's index)."""
        return len(np.unique(self.patients[self.labels[:, target] == label]))

    def class_sizes(self) -> np.ndarray:
        """(G, 2) patients with and patients without each class that metrics compare: one row for binary, one a class or a target
        for others, none for regression. A patient with images of both counts in both."""
        if self.outputs.kind == "regression":
            return np.zeros((0, 2), dtype=np.int64)
        if self.outputs.kind in ("binary", "multilabel"):
            pairs = [(self.labels[:, i] == 1, self.labels[:, i] == 0) for i in range(self.labels.shape[1])]
        else:
            known = ~np.isnan(self.labels[:, 0])
            classes = range(len(self.outputs.names))
            pairs = [(self.labels[:, 0] == index, known & (self.labels[:, 0] != index)) for index in classes]
        return np.array([[len(np.unique(self.patients[side])) for side in pair] for pair in pairs])


def read_predictions(predictions: pd.DataFrame, outputs: Outputs = BINARY) -> TestSet:
    """Check the table against COLUMNS and lay it out.

    Raises DataError (one line, counts and arm names only) when a column is missing or holds something else, when the
    table mixes splits, when an arm was scored on other images than the others or twice on the same, when arms were
    given different label budgets or draws, when an arm lacks a cell of a pretraining run, or when a binary test set lacks a class
    or the test set has a single patient.
    """
    check_values(
        predictions, outputs, [name for name in COLUMNS if name not in ("label", "score", "threshold", "run", "temperature")]
    )
    if "run" not in predictions.columns:
        predictions = predictions.assign(run=0)
    codes, names = pd.factorize(predictions["row_key"])
    n_images = len(names)
    labels = _per_image(predictions[label_columns(outputs)].to_numpy(np.float64), codes, n_images, "label")
    patients = _per_image(pd.factorize(predictions["patient"])[0][:, None], codes, n_images, "patient")[:, 0]
    check_labels(labels, patients, outputs)
    points, scores, thresholds, temperatures = threshold_columns(outputs), {}, {}, {}
    all_scores = predictions[score_columns(outputs)].to_numpy(np.float64)
    all_points = predictions[points].to_numpy(np.float64) if points else np.full((len(predictions), labels.shape[1]), np.nan)
    heat = predictions["temperature"].to_numpy(np.float64) if "temperature" in predictions.columns else None
    for name, rows in predictions.groupby(CELL, sort=False, observed=True).indices.items():
        cell = Cell(str(name[0]), str(name[1]), str(name[2]), int(name[3]), int(name[4]))
        check_images(str(cell), codes[rows], n_images)
        if points and _differ(all_points[rows], all_points[rows[0]]).any():
            found = len(np.unique(all_points[rows], axis=0))
            raise DataError(f"predictions: {cell} has {found} thresholds: a cell has one operating point")
        scores[cell] = np.empty((n_images, all_scores.shape[1]))
        scores[cell][codes[rows]] = all_scores[rows]
        thresholds[cell] = all_points[rows[0]]
        temperatures[cell] = float("nan") if heat is None else float(heat[rows[0]])
    arms = tuple(dict.fromkeys(cell.arm for cell in scores))
    runs = {arm: tuple(sorted({cell.run for cell in scores if cell.arm == arm})) for arm in arms}
    blocks = _blocks(predictions)
    check_grid(runs, blocks, {tuple(cell) for cell in scores})
    return TestSet(labels, patients, arms, blocks, scores, thresholds, outputs, temperatures, runs, names.to_numpy())


def _per_image(values: np.ndarray, keys: np.ndarray, n_images: int, column: str) -> np.ndarray:
    """(N, columns) of `values`, one row an image, which every cell must agree on."""
    per_image = np.empty((n_images, values.shape[1]), dtype=values.dtype)
    per_image[keys] = values
    if wrong := len(np.unique(keys[_differ(per_image[keys], values).any(axis=1)])):
        raise DataError(f"predictions: {wrong} test images have another {column} in one cell than in another")
    return per_image


def _differ(given: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (given != values) & ~((given != given) & (values != values))  # two unknown ones agree


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
    order = list(MODES)
    return tuple(sorted(blocks, key=lambda block: (order.index(block.mode), block.patients, block.budget)))
