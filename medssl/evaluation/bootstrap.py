"""Intervals from a bootstrap over test patients and label draws, paired between arms.

The estimand is the mean test metric over label draws: what an arm reaches on patients like the test patients, when the
labelled patients are drawn again. Two things were sampled, so both are resampled, together in each replicate:

- test patients, with replacement, each with all their images (images of one patient are not independent; resampling
  images would give intervals that are too narrow: Field & Welsh 2007, "Bootstrapping clustered data");
- label draws (seeds), with replacement, k - 1 of the k draws. Drawing all k would make the variance between draws too
  small by the factor (k - 1) / k, which is a fifth at five draws (Rao & Wu 1988, "Resampling inference with complex
  survey data"). With one draw, patients alone are resampled, and the interval leaves out the luck of the draw.

The two are crossed, as in Owen 2007, "The pigeonhole bootstrap". Few draws remain few: a percentile interval knows
nothing of Student's t, so it is too narrow where the draws differ much and the test set is large; see COVERAGE.

Every replicate holds the same patients and the same draws for all arms, so the difference of two arms is paired, and
the part of the noise that they share cancels. Intervals are percentile intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medssl.evaluation.binary import METRICS, rank
from medssl.evaluation.predictions import Block, Cell, TestSet
from medssl.seeds import numpy_generator

# Elements (replicates x images) weighed at once: 256 kB an array. Larger ones are fetched from the system and returned
# for each operation, which measured three times slower.
CHUNK = 1 << 15

# Label draws -> how many of 100 paired 95% intervals held the true AUROC difference in the worst of six simulated
# settings: 60 or 250 test patients, and a difference that varies between draws by a standard deviation of 0, 0.025 or
# 0.05. The worst is 250 patients and 0.05; where draws do not vary it was 98 or more. `pytest -m long` measures it again.
COVERAGE = {2: 72, 3: 84, 5: 90, 10: 91}


@dataclass(frozen=True)
class Interval:
    """`value` is the metric of the test set itself; `lower` and `upper` bound the percentile interval around it."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Replicates:
    """All replicates of all arms; see `resample`.

    `values` holds, for (arm, mode, budget), the 5 metrics of the test set, and `replicates` (R, 5) those of the
    replicates in which both classes were drawn. `discarded` counts the others: their AUROC is unknown.
    """

    values: dict[tuple[str, str, str], np.ndarray]
    replicates: dict[tuple[str, str, str], np.ndarray]
    discarded: int

    @property
    def used(self) -> int:
        return len(next(iter(self.replicates.values())))

    def interval(self, arm: str, mode: str, budget: str, level: float = 0.95) -> dict[str, Interval]:
        """Metric name -> its mean over the label draws, with the interval."""
        key = (arm, mode, budget)
        return _intervals(self.values[key], self.replicates[key], level)

    def paired_difference(self, arm: str, reference: str, mode: str, budget: str, level: float = 0.95) -> dict[str, Interval]:
        """Metric name -> arm minus reference on the same patients and draws, with the interval."""
        a, b = (arm, mode, budget), (reference, mode, budget)
        return _intervals(self.values[a] - self.values[b], self.replicates[a] - self.replicates[b], level)


def resample(test: TestSet, n_replicates: int = 2000, seed: int = 0) -> Replicates:
    """Evaluate every arm, mode and budget on `n_replicates` bootstrap replicates.

    The stream is ("bootstrap", ...) of `seed`; memory is bounded by CHUNK whatever the size of the test set.
    """
    if n_replicates < 1:
        raise ValueError(f"n_replicates must be at least 1, got {n_replicates}")
    rankings = {cell: rank(test.labels, scores, test.thresholds[cell]) for cell, scores in test.scores.items()}
    once = np.ones((1, len(test.labels)))
    whole = {cell: ranking.evaluate(once)[0] for cell, ranking in rankings.items()}
    drawn = {cell: np.empty((n_replicates, len(METRICS))) for cell in rankings}
    complete = np.empty(n_replicates, dtype=bool)
    start = 0
    for weights in patient_weights(test.patients, n_replicates, numpy_generator(seed, "bootstrap", "patients")):
        rows = slice(start, start + len(weights))
        start = rows.stop
        positives = weights @ test.labels.astype(np.float64)
        complete[rows] = (positives > 0) & (positives < weights.sum(axis=1))
        for cell, ranking in rankings.items():
            drawn[cell][rows] = ranking.evaluate(weights)

    values, replicates = {}, {}
    for block in test.blocks:
        weights = _draw_weights(len(block.seeds), n_replicates, seed)
        for arm in test.arms:
            cells = _cells(arm, block)
            key = (arm, block.mode, block.budget)
            values[key] = np.mean([whole[cell] for cell in cells], axis=0)
            replicates[key] = sum(weights[:, i, None] * drawn[cell] for i, cell in enumerate(cells))[complete]
    return Replicates(values, replicates, int((~complete).sum()))


def patient_weights(patients: np.ndarray, n_replicates: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield chunks (r, N) of image weights: as many patients as there are, drawn with replacement, with all their images.

    `patients` is (N,) numbers 0 .. P - 1. The chunks' sizes do not change what is drawn.
    """
    n_patients = int(patients.max()) + 1
    size = max(1, CHUNK // max(len(patients), n_patients))
    for start in range(0, n_replicates, size):
        rows = min(size, n_replicates - start)
        picks = generator.integers(0, n_patients, size=(rows, n_patients))
        # Patients first and images first, so that Ranking.evaluate gathers contiguous rows.
        flat = np.bincount((picks * rows + np.arange(rows)[:, None]).ravel(), minlength=n_patients * rows)
        counts = flat.reshape(n_patients, rows).astype(np.float64)
        yield counts[patients].T


def _draw_weights(n_draws: int, n_replicates: int, seed: int) -> np.ndarray:
    """(R, n_draws) weights that sum to 1: how often each label draw was drawn, over their number."""
    generator = numpy_generator(seed, "bootstrap", "draws", n_draws)
    picks = generator.integers(0, n_draws, size=(n_replicates, max(1, n_draws - 1)))
    return (picks[:, :, None] == np.arange(n_draws)).mean(axis=1)


def _cells(arm: str, block: Block) -> list[Cell]:
    return [Cell(arm, block.mode, block.budget, seed) for seed in block.seeds]


def _intervals(values: np.ndarray, replicates: np.ndarray, level: float) -> dict[str, Interval]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if len(replicates):
        lower, upper = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    else:
        lower = upper = np.full(len(METRICS), np.nan)
    return {name: Interval(float(values[i]), float(lower[i]), float(upper[i])) for i, name in enumerate(METRICS)}
