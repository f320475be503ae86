"""Every arm on thousands of resampled test sets: the replicates from which intervals and paired differences come.

The estimand is the mean test metric over label draws and pretraining runs: what an arm reaches on patients like the test
patients, when the labelled patients are drawn again and the encoder is pretrained again.

A replicate resamples test patients with replacement, each with all their images: images of one patient are not independent, and
resampling images would give intervals that are too narrow (Field & Welsh 2007, "Bootstrapping clustered data"). It holds the
same patients for all arms, draws and runs, so the difference of two arms is paired, and the part of the noise that they
share cancels. Draws and runs are crossed with patients; how they enter an interval stands in `variance`. For figures that need
one distribution of everything together, such as the label efficiency, `Drawn.together` resamples draws and runs too: k - 1
of the k, because k of k would make their variance too small by (k - 1) / k (Rao & Wu 1988, "Resampling inference with complex
survey data"), draws the same for all arms, runs each arm's own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from medssl.evaluation.metrics import metric
from medssl.evaluation.predictions import Block, Cell, TestSet
from medssl.evaluation.scorers import Scorer, names_of, scorer_of
from medssl.evaluation.variance import Estimate, estimate, patient_df
from medssl.seeds import numpy_generator

# Elements (replicates x images) weighed at once, 2 MB in float64: they stay in a core's cache while a model is scored.
CHUNK = 1 << 18
FEWEST_ROWS = 16  # replicates at once all the same: shorter rows are gathered one cache line at a time


@dataclass(frozen=True)
class Interval:
    """`value` is the metric of the test set itself, mean over draws and runs; `lower` .. `upper` its interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Difference:
    """First minus second arm, with its interval, the two-sided `p` of no difference, and the share of it that patients make."""

    value: float
    lower: float
    upper: float
    p: float
    variance_of_patients: float


@dataclass(frozen=True)
class Drawn:
    """One block (mode and budget) on all replicates; see `resample`.

    `values` holds each arm's (runs, draws, M) metrics on the test set, `replicates` its (R, runs, draws, M).
    """

    block: Block
    names: tuple[str, ...]
    values: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]
    patients_df: float
    seed: int

    def used(self, name: str) -> int:
        """Replicates that held every class which the metric needs, in all arms."""
        i = self.names.index(name)
        return int(np.logical_and.reduce([~np.isnan(each[..., i]).any(axis=(1, 2)) for each in self.replicates.values()]).sum())

    def intervals(self, arm: str, level: float = 0.95) -> dict[str, Interval]:
        """Metric -> its mean over draws and runs, with the interval, cut off at the metric's range."""
        _check_level(level)
        found = self._estimate(arm)
        lower, upper = found.skewed(level)
        return {
            name: Interval(float(found.value[i]), max(float(lower[i]), metric(name).low), min(float(upper[i]), metric(name).high))
            if not np.isnan(lower[i])
            else Interval(float(found.value[i]), float("nan"), float("nan"))
            for i, name in enumerate(self.names)
        }

    def differences(self, arm: str, other: str, level: float = 0.95) -> dict[str, Difference]:
        """Metric -> `arm` minus `other` on the same patients and draws."""
        _check_level(level)
        found = self._estimate(arm, other)
        lower, upper = found.symmetric(level)
        columns = zip(found.value, lower, upper, found.p(), found.of_patients, strict=True)
        return {name: Difference(*map(float, row)) for name, row in zip(self.names, columns, strict=True)}

    def together(self, name: str) -> dict[str, np.ndarray]:
        """Arm -> (R,) values of one metric with patients, draws and runs resampled together."""
        i, result = self.names.index(name), {}
        for arm, each in self.replicates.items():
            replicates, runs, draws = each.shape[:3]
            # Stream names do not depend on the arm for draws: they are the same patients for all arms.
            of_draw = _weights(draws, replicates, self.seed, "draws")
            of_run = _weights(runs, replicates, self.seed, "runs", arm)
            result[arm] = np.einsum("rnk,rn,rk->r", each[..., i], of_run, of_draw)
        return result

    def _estimate(self, *arms: str) -> Estimate:
        return estimate([self.values[arm] for arm in arms], [self.replicates[arm] for arm in arms], self.patients_df)


def resample(test: TestSet, n_replicates: int = 2000, seed: int = 0, threads: int | None = None) -> Iterator[Drawn]:
    """Score every arm of one block after the other on `n_replicates` bootstrap samples of the test patients.

    Args:
        test: the test set.
        n_replicates: R.
        seed: of the streams ("bootstrap", ...); the samples of patients are the same for every block.
        threads: that score at once; None: as many as this process may use cores. They do not change what is drawn.

    Memory is bounded by CHUNK for each thread, whatever the size of the test set, and by R times cells times metrics of one block.
    """
    if n_replicates < 1:
        raise ValueError(f"n_replicates must be at least 1, got {n_replicates}")
    names, df = names_of(test.outputs), patient_df(test.class_sizes(), test.n_patients)
    for block in test.blocks:
        cells = [
            Cell(arm, block.mode, block.budget, seed, run)
            for arm in test.arms
            for run in test.runs_of(arm)
            for seed in block.seeds
        ]
        scorers = [_scorer(test, cell) for cell in cells]
        once = np.ones((1, len(test.labels)))
        whole = np.stack([scorer.evaluate(once)[0] for scorer in scorers])
        drawn = score_replicates(scorers, test.patients, n_replicates, seed, threads)
        values, replicates, start = {}, {}, 0
        for arm in test.arms:
            shape = (len(test.runs_of(arm)), len(block.seeds), len(names))
            rows = slice(start, start + shape[0] * shape[1])
            start = rows.stop
            values[arm] = whole[rows].reshape(shape)
            replicates[arm] = drawn[:, rows].reshape(n_replicates, *shape)
        yield Drawn(block, names, values, replicates, df, seed)


def score_replicates(
    scorers: list[Scorer], patients: np.ndarray, n_replicates: int, seed: int = 0, threads: int | None = None
) -> np.ndarray:
    """(R, cells, M): every scorer on the same `n_replicates` samples of the patients (N,)."""
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    result = np.empty((n_replicates, len(scorers), len(scorers[0].names)))

    def score(weights: np.ndarray, start: int) -> None:
        for i, scorer in enumerate(scorers):
            result[start : start + len(weights), i] = scorer.evaluate(weights)

    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        start = 0
        for weights in patient_weights(patients, n_replicates, numpy_generator(seed, "bootstrap", "patients")):
            waiting.append(pool.submit(score, weights, start))
            start += len(weights)
            if len(waiting) > 2 * threads:  # no more samples in memory than there are threads to score them
                waiting.popleft().result()
        for future in waiting:
            future.result()
    return result


def patient_weights(patients: np.ndarray, n_replicates: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield chunks (r, N) of image weights: as many patients as there are, drawn with replacement, with all their images.

    `patients` is (N,) numbers 0 .. P - 1. The chunks' sizes do not change what is drawn. Their transpose is contiguous, as
    scorers like it.
    """
    n_patients = int(patients.max()) + 1
    size = max(FEWEST_ROWS, CHUNK // max(len(patients), n_patients))
    single = len(patients) == n_patients and (patients == np.arange(n_patients)).all()
    for start in range(0, n_replicates, size):
        rows = min(size, n_replicates - start)
        picks = generator.integers(0, n_patients, size=(rows, n_patients))
        flat = np.bincount((picks * rows + np.arange(rows)[:, None]).ravel(), minlength=n_patients * rows)
        counts = flat.reshape(n_patients, rows).astype(np.float64)
        yield (counts if single else counts[patients]).T


def _weights(count: int, n_replicates: int, seed: int, *stream: str) -> np.ndarray:
    """(R, count) weights that sum to 1: how often each of `count` draws or runs was drawn, over their number."""
    generator = numpy_generator(seed, "bootstrap", *stream, count)
    picks = generator.integers(0, count, size=(n_replicates, max(1, count - 1)))
    return (picks[:, :, None] == np.arange(count)).mean(axis=1)


def _scorer(test: TestSet, cell: Cell) -> Scorer:
    return scorer_of(test.outputs, test.labels, test.scores[cell], test.thresholds[cell], test.temperature_of(cell))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
