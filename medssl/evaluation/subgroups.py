"""How good each arm is for men and women, for the young and the old, by vendor or view: with intervals, and the gap to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medssl.evaluation.bootstrap import score_replicates
from medssl.evaluation.metrics import PRIMARY, metric
from medssl.evaluation.predictions import Block, Cell, TestSet
from medssl.evaluation.scorers import Scorer, scorer_of
from medssl.evaluation.variance import Estimate, estimate, patient_df
from medssl.evaluation.verdicts import FEWEST_OF_A_CLASS

COLUMNS = {
    "column": "what the groups are of, such as sex",
    "group": "the group; `unknown` where the column is empty",
    "arm": "the arm",
    "mode": "how it was trained",
    "budget": "label of the budget",
    "metric": "a name of medssl.evaluation.metrics",
    "patients": "test patients with an image in the group",
    "images": "test images in the group",
    "positives": "positive ones among them; empty for other than binary tasks",
    "too_small": "whether a class has fewer than 10 patients in the group: no metric is given then",
    "value": "mean over draws and runs in the group",
    "lower": "lower end of its interval",
    "upper": "upper end of its interval",
    "gap": "value minus that of all other images, on the same models; empty where the rest is too small",
    "gap_lower": "lower end of its interval",
    "gap_upper": "upper end of its interval",
    "difference": "value minus the reference's in the group, paired; empty for the reference",
    "difference_lower": "lower end of its interval",
    "difference_upper": "upper end of its interval",
}
AGE_BANDS = ((0, 17), (18, 39), (40, 64), (65, None))
UNKNOWN = "unknown"


def age_bands(years: pd.Series) -> pd.Series:
    """'0-17', '18-39', '40-64' or '65+' for ages in whole years; empty stays empty, as does an age below 0."""
    bands = pd.Series(np.nan, index=years.index, dtype=object)
    for low, high in AGE_BANDS:
        inside = (years >= low) & (years <= (high if high is not None else np.inf))
        bands[inside.fillna(False).astype(bool)] = f"{low}+" if high is None else f"{low}-{high}"
    return bands


def subgroups(
    test: TestSet,
    groups: pd.DataFrame,
    reference: str,
    blocks: Sequence[Block] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row a column, group, block, arm and metric, columns COLUMNS.

    Args:
        test: the test set, with its `keys`.
        groups: one row a `row_key` (its index), one column a division, such as sex or an age band; empty: unknown.
        reference: the arm that others are compared with in each group.
        blocks: which modes and budgets; None: all.
        replicates: bootstrap samples of all test patients, the same for a group, the rest and all arms.

    The metrics are the primary one and, for binary tasks, sensitivity and specificity. Intervals are made as those of the
    comparison (`variance`) and are not corrected for the number of groups: with many, some gap will leave out 0 by chance.
    """
    names = (PRIMARY[test.outputs.kind], *(("sensitivity", "specificity") if test.outputs.kind == "binary" else ()))
    rows = []
    aligned = groups.reindex(test.keys)
    for column in groups.columns:
        values = aligned[column].astype(object).where(aligned[column].notna(), UNKNOWN).astype(str).to_numpy()
        known = sorted(set(values) - {UNKNOWN})
        for group in [*known, *([UNKNOWN] if UNKNOWN in values else [])]:
            inside = values == group
            for block in test.blocks if blocks is None else blocks:
                made = _group_rows(test, block, inside, names, reference, replicates, seed, level)
                rows += [{"column": column, "group": group, "mode": block.mode, "budget": block.budget} | row for row in made]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _group_rows(
    test: TestSet,
    block: Block,
    inside: np.ndarray,
    names: Sequence[str],
    reference: str,
    replicates: int,
    seed: int,
    level: float,
) -> list[dict]:
    own, rest = (_part(test, chosen) for chosen in (inside, ~inside))
    sizes = {
        "patients": len(np.unique(test.patients[inside])),
        "images": int(inside.sum()),
        "positives": int((test.labels[inside] == 1).sum()) if test.outputs.kind == "binary" else np.nan,
        "too_small": own is None,
    }
    if own is None:
        return [{"arm": arm, "metric": name} | sizes for arm in test.arms for name in names]
    found = _scored(test, block, [(own, inside)] + ([(rest, ~inside)] if rest is not None else []), names, replicates, seed)
    df = patient_df(own.class_sizes(), own.n_patients)
    df_gap = min(df, patient_df(rest.class_sizes(), rest.n_patients)) if rest is not None else df
    rows = []
    for arm in test.arms:
        whole, drawn = found[arm]
        value = estimate([whole[0]], [drawn[0]], df)
        gap = estimate([whole[0] - whole[1]], [drawn[0] - drawn[1]], df_gap) if rest is not None else None
        paired = None
        if arm != reference:
            other = found[reference]
            paired = estimate([whole[0], other[0][0]], [drawn[0], other[1][0]], df)
        ends = value.skewed(level)
        for i, name in enumerate(names):
            low, high = metric(name).low, metric(name).high
            row = {"arm": arm, "metric": name, "value": value.value[i]}
            row |= {"lower": max(ends[0][i], low), "upper": min(ends[1][i], high)}
            rows.append(row | sizes | _ends("gap", gap, i, level) | _ends("difference", paired, i, level))
    return rows


def _part(test: TestSet, chosen: np.ndarray) -> TestSet | None:
    """The test set of the chosen images; None if a class has too few patients there."""
    if not chosen.any():
        return None
    part = replace(test, labels=test.labels[chosen], patients=np.unique(test.patients[chosen], return_inverse=True)[1])
    sizes = part.class_sizes() if test.outputs.kind in ("binary", "multiclass", "multilabel") else np.array([[part.n_patients]])
    return part if sizes.min() >= FEWEST_OF_A_CLASS else None


class _Part:
    """A scorer of some of the images, given weights for all of them."""

    def __init__(self, scorer: Scorer, images: np.ndarray, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._scorer, self._images = scorer, np.flatnonzero(images)
        self._columns = [scorer.names.index(name) for name in names]

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        return self._scorer.evaluate(np.take(weights.T, self._images, axis=0).T)[:, self._columns]


def _scored(
    test: TestSet, block: Block, parts: list[tuple[TestSet, np.ndarray]], names: Sequence[str], replicates: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arm -> (parts, runs, draws, M) metrics and (parts, R, runs, draws, M) replicates."""
    cells = [
        Cell(arm, block.mode, block.budget, draw, run) for arm in test.arms for run in test.runs_of(arm) for draw in block.seeds
    ]
    scorers: list[Scorer] = []
    for part, images in parts:
        for cell in cells:
            scores, heat = test.scores[cell][images], test.temperature_of(cell)
            scorers.append(_Part(scorer_of(test.outputs, part.labels, scores, test.thresholds[cell], heat), images, names))
    whole = np.stack([scorer.evaluate(np.ones((1, len(test.labels))))[0] for scorer in scorers])
    drawn = score_replicates(scorers, test.patients, replicates, seed)
    whole = whole.reshape(len(parts), len(cells), len(names))
    drawn = np.moveaxis(drawn.reshape(replicates, len(parts), len(cells), len(names)), 1, 0)
    result, start = {}, 0
    for arm in test.arms:
        shape = (len(test.runs_of(arm)), len(block.seeds))
        rows = slice(start, start + shape[0] * shape[1])
        start = rows.stop
        result[arm] = (
            whole[:, rows].reshape(len(parts), *shape, len(names)),
            drawn[:, :, rows].reshape(len(parts), replicates, *shape, len(names)),
        )
    return result


def _ends(name: str, found: Estimate | None, i: int, level: float) -> dict[str, float]:
    if found is None:
        return {}
    lower, upper = found.symmetric(level)
    return {name: found.value[i], f"{name}_lower": lower[i], f"{name}_upper": upper[i]}
