"""Intervals and p-values of a mean over label draws and pretraining runs, on resampled test patients.

Three things were sampled: test patients, label draws, and (for arms that are pretrained) pretraining runs. A bootstrap
of patients shows what the first adds. Draws and runs are few, and percentiles of a bootstrap over five of anything are
too narrow, so they enter as variance components with Student's t:

    V = V_patients + max(0, V_repeats - V_shown)        df from Welch and Satterthwaite

- V_patients: variance over bootstrap replicates of the mean over all draws and runs, each replicate one sample of patients for
  all of them.
- V_repeats: the classical estimate from a two-way table of draws and runs (Searle, Casella & McCulloch 1992, "Variance
  Components"): MS_draws / k + MS_runs / n - MS_rest / (k n), each mean square that of the paired difference where all arms share
  the draws; runs are each arm's own.
- V_shown: the part of V_repeats that comes from having only so many test patients. Models of several draws differ on a given
  test set even where they are equally good; that part is in V_patients already, and counting it twice made intervals of
  draws that do not differ hold the truth in 98 to 99 of 100 studies. It is V_repeats of the replicates about their mean.
- df: V^2 / (V_patients^2 / df_patients + w * sum of component^2 / its df). With w = 1 the components count in full, as they were
  estimated, and where draws do not differ 98 % and more is held: V cannot fall below V_patients, whatever the few draws say. With
  w = (net / full)^2, counting what is left after V_shown, too little is held. w = (net / full)^(1/2) holds 93 to 97 % with 5
  draws wherever the variance lies; see docs/statistics.md.

docs/statistics.md shows how often the truth is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t


@dataclass(frozen=True)
class Estimate:
    """M metrics of an arm, or differences between two arms; every array is (M,) but `offsets` (R, M)."""

    value: np.ndarray  # on the test set itself, mean over draws and runs
    variance: np.ndarray  # V of the module's text; NaN where no replicate is known
    of_patients: np.ndarray  # V_patients
    df: np.ndarray
    offsets: np.ndarray  # replicates minus their mean; NaN where a replicate lacks a class that the metric needs

    def symmetric(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Value ± t standard errors. For differences: the end that leaves out 0 and `p` say the same."""
        half = t.ppf((1 + level) / 2, self.df) * np.sqrt(self.variance)
        return self.value - half, self.value + half

    def skewed(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Percentiles of the replicates about their mean, widened for draws, runs and few degrees of freedom.

        An AUROC near 1 has more room below than above, which percentiles show. What V and t add to them is added in
        quadrature on both sides (as in the method of variance estimates recovery, Zou & Donner 2008).
        """
        z, with_t = norm.ppf((1 + level) / 2), t.ppf((1 + level) / 2, self.df)
        more = np.maximum(with_t**2 * self.variance - z**2 * self.of_patients, 0)
        lower, upper = np.full_like(self.value, np.nan), np.full_like(self.value, np.nan)
        known = ~np.isnan(self.variance)
        if known.any():
            ends = np.nanquantile(self.offsets[:, known], [(1 - level) / 2, (1 + level) / 2], axis=0)
            lower[known] = self.value[known] - np.hypot(ends[0], np.sqrt(more[known]))
            upper[known] = self.value[known] + np.hypot(ends[1], np.sqrt(more[known]))
        return lower, upper

    def p(self) -> np.ndarray:
        """Two-sided, of no difference. 1 where the difference is 0 and nothing varies."""
        with np.errstate(invalid="ignore", divide="ignore"):
            p = 2 * t.sf(np.abs(self.value) / np.sqrt(self.variance), self.df)
        return np.where((self.variance == 0) & (self.value == 0), 1.0, p)


def estimate(values: Sequence[np.ndarray], replicates: Sequence[np.ndarray], patients_df: float) -> Estimate:
    """The estimate of one arm, or of the first minus the second of two.

    Args:
        values: one array an arm, (runs, draws, M) metrics on the test set; the draws are the same for both.
        replicates: one array an arm, (R, runs, draws, M): the same on R samples of the patients, the same for both.
        patients_df: degrees of freedom of the variance over patients.
    """
    signs = (1.0, -1.0)[: len(values)]
    value = sum(sign * each.mean(axis=(0, 1)) for sign, each in zip(signs, values, strict=True))
    means = sum(sign * each.mean(axis=(1, 2)) for sign, each in zip(signs, replicates, strict=True))  # (R, M)
    known = ~np.isnan(means)
    count = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(known, means, 0).sum(axis=0) / count
        offsets = means - centre
        of_patients = (np.where(known, offsets, 0) ** 2).sum(axis=0) / (count - 1)
        centred = [np.where(known[:, None, None], each - _known_mean(each, known), 0) for each in replicates]
        shown = sum(components(centred).values()).sum(axis=0) / (count - 1)
        found = components([each[None] for each in values])
        repeats = sum(found.values())[0]
        net = np.maximum(repeats - shown, 0)
        variance = of_patients + net
        spread = of_patients**2 / patients_df
        weight = np.sqrt(np.divide(net, repeats, out=np.zeros_like(net), where=repeats > 0))
        spread = spread + weight * sum(part[0] ** 2 / df for (_, df), part in found.items() if df > 0)
        df = np.where(spread > 0, variance**2 / np.where(spread > 0, spread, 1), patients_df)
    fewest = min([patients_df, *(df for _, df in found if df > 0)])
    unknown = np.where((count > 1) & ~np.isnan(value), 1.0, np.nan)
    return Estimate(value, variance * unknown, of_patients * unknown, np.maximum(df, fewest), offsets)


def components(values: Sequence[np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    """The parts of V_repeats: (name, its degrees of freedom) -> (..., M). 0 degrees of freedom: a part that is subtracted.

    `values` holds (..., runs, draws, M) of one arm, or of two whose difference is meant. Without repeats: {("none", 0): zeros}.
    """
    draws = values[0].shape[-2]
    parts: dict[tuple[str, int], np.ndarray] = {("none", 0): np.zeros(values[0].shape[:-3] + values[0].shape[-1:])}
    if draws > 1:
        of_draw = values[0].mean(axis=-3) - (values[1].mean(axis=-3) if len(values) > 1 else 0)
        parts["draws", draws - 1] = of_draw.var(axis=-2, ddof=1) / draws
    for which, each in enumerate(values):
        runs = each.shape[-3]
        if runs < 2:
            continue
        of_run = each.mean(axis=-2)
        parts[f"runs {which}", runs - 1] = of_run.var(axis=-2, ddof=1) / runs
        if draws > 1:
            # Both mean squares hold the rest, which the mean holds once.
            rest = each - of_run[..., :, None, :] - each.mean(axis=-3, keepdims=True) + each.mean(axis=(-3, -2), keepdims=True)
            parts[f"rest {which}", 0] = -(rest**2).sum(axis=(-3, -2)) / ((runs - 1) * (draws - 1) * runs * draws)
    return parts


def patient_df(class_sizes: np.ndarray, n_patients: int) -> float:
    """Degrees of freedom of a variance over patients.

    Args:
        class_sizes: (G, 2) patients with and without each class that is compared; no rows: the metric compares none.
        n_patients: test patients.

    A comparison of m with n patients has Welch's degrees of freedom, both classes varying alike: few where one class is
    rare. A mean of G comparisons adds their variances.
    """
    if not len(class_sizes) or (class_sizes < 2).any():
        return max(1.0, float(n_patients - 1) if not len(class_sizes) else float(class_sizes.min() - 1))
    parts = 1.0 / class_sizes
    return float(parts.sum() ** 2 / (parts**2 / (class_sizes - 1)).sum())


def _known_mean(replicates: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(1, runs, draws, M) mean over the replicates whose mean over all cells of the contrast is known."""
    mask = known[:, None, None]
    return np.where(mask, replicates, 0).sum(axis=0, keepdims=True) / mask.sum(axis=0, keepdims=True)
