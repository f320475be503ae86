"""DeLong's variance of the AUROC, its interval, and the paired test of two models on the same images.

The AUROC is the mean of the placement values: for a positive image, the share of negative images with a lower score,
ties one half. DeLong, DeLong & Clarke-Pearson (1988) estimate its variance from the variance of the placements of both
classes. Placements come from midranks (Sun & Xu 2014, "Fast implementation of DeLong's algorithm", IEEE Signal
Processing Letters 21), in n log n steps.

Images of one patient are not independent, which DeLong's variance takes them to be. Wherever a patient has several
images, the variance is Obuchowski's (1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53), which
sums the placements of a patient first; with one image a patient it is exactly DeLong's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from medssl.evaluation.ranking import checked


@dataclass(frozen=True)
class Auroc:
    """An AUROC with its variance and the interval `lower` .. `upper`. NaN where it is unknown."""

    value: float
    variance: float
    lower: float
    upper: float


@dataclass(frozen=True)
class PairedTest:
    """AUROC of the first model minus that of the second, its variance and interval, and the two-sided `p` of no difference."""

    difference: float
    variance: float
    lower: float
    upper: float
    p: float


def delong(
    labels: np.ndarray, scores: np.ndarray, patients: np.ndarray | None = None, level: float = 0.95, scale: str = "logit"
) -> Auroc:
    """The AUROC of one model with its interval.

    Args:
        labels: (N,) 0 | 1.
        scores: (N,) finite.
        patients: (N,) the patient of each image; None: each image is a patient of its own.
        level: of the interval.
        scale: "logit" (the default) makes a symmetric interval for the logit of the AUROC and maps it back: it stays inside
            0 .. 1 and holds its level better near 1 and with few images (Qin & Hotilovac 2008, "Comparison of non-parametric
            confidence intervals for the area under the ROC curve"). "plain" is value ± z standard errors, cut off at 0 and 1.

    The variance is NaN with fewer than two patients of a class. The interval is NaN where the variance is unknown or 0:
    classes that do not overlap in the sample show no spread, which does not mean that there is none.
    """
    if scale not in ("logit", "plain"):
        raise ValueError(f"scale must be 'logit' or 'plain', got {scale!r}")
    values, covariance = covariances(labels, np.asarray(scores)[None], patients)
    value, variance = float(values[0]), float(covariance[0, 0])
    if not variance > 0 or not 0 < value < 1:
        return Auroc(value, variance, math.nan, math.nan)
    half = _quantile(level) * math.sqrt(variance)
    if scale == "plain":
        return Auroc(value, variance, max(0.0, value - half), min(1.0, value + half))
    centre, spread = logit(value), half / (value * (1 - value))
    return Auroc(value, variance, float(expit(centre - spread)), float(expit(centre + spread)))


def delong_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, patients: np.ndarray | None = None, level: float = 0.95
) -> PairedTest:
    """Whether two models (N,) scored on the same images differ in AUROC; arguments as in `delong`.

    Two models that order the images alike differ by exactly 0, with p = 1.
    """
    values, covariance = covariances(labels, np.stack([first, second]), patients)
    difference = float(values[0] - values[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if math.isnan(variance):
        return PairedTest(difference, variance, math.nan, math.nan, math.nan)
    # Equal orders leave nothing but the rounding of their placements.
    variance = variance if variance > 1e-15 else 0.0
    if variance == 0:
        same = abs(difference) < 1e-12
        return PairedTest(difference, 0.0, *((0.0, 0.0, 1.0) if same else (math.nan, math.nan, math.nan)))
    error = math.sqrt(variance)
    half = _quantile(level) * error
    p = float(2 * norm.sf(abs(difference) / error))
    return PairedTest(difference, variance, difference - half, difference + half, p)


def covariances(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(K,) AUROCs of K models and their (K, K) covariance matrix, from `scores` (K, N).

    AUROCs are NaN when a class is absent, covariances also with fewer than two patients of a class.
    """
    labels, _ = checked(labels, scores[0])
    if np.isnan(labels).any():
        raise ValueError("labels must be 0 or 1")
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    unknown = np.full((len(scores), len(scores)), np.nan)
    if not m or not n:
        return unknown[0], unknown
    over_negatives, over_positives = (np.stack(each) for each in zip(*(placements(row, positive) for row in scores), strict=True))
    areas = over_negatives.mean(axis=1)
    x, y = over_negatives - areas[:, None], over_positives - areas[:, None]
    if patients is None or len(np.unique(patients)) == len(labels):
        if min(m, n) < 2:
            return areas, unknown
        return areas, x @ x.T / (m - 1) / m + y @ y.T / (n - 1) / n
    _, patients = np.unique(patients, return_inverse=True)
    return areas, _clustered(x, y, patients[positive], patients[~positive])


def placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every positive image the share of negatives below it, and of every negative image the share of positives above it.

    `scores` (N,), `positive` (N,) bool. Ties count one half.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    # An image's midrank among all less its midrank in its own class counts the images of the other class below it.
    ranks = rankdata(scores)
    above, below = scores[positive], scores[~positive]
    return (ranks[positive] - rankdata(above)) / n, 1 - (ranks[~positive] - rankdata(below)) / m


def _clustered(x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
    """Obuchowski's covariance. `x` (K, m) and `y` (K, n) centred placements, `of_x` and `of_y` their patients."""
    count = int(max(of_x.max(), of_y.max())) + 1
    with_x, with_y = len(np.unique(of_x)), len(np.unique(of_y))
    if min(with_x, with_y) < 2:
        return np.full((len(x), len(x)), np.nan)
    sums_x = np.stack([np.bincount(of_x, row, count) for row in x])
    sums_y = np.stack([np.bincount(of_y, row, count) for row in y])
    m, n = x.shape[1], y.shape[1]
    within_x = with_x / (with_x - 1) * sums_x @ sums_x.T / m**2
    within_y = with_y / (with_y - 1) * sums_y @ sums_y.T / n**2
    # Patients with images of both classes tie the two parts together.
    across = count / (count - 1) * sums_x @ sums_y.T / (m * n)
    return within_x + within_y + across + across.T


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return float(norm.ppf((1 + level) / 2))
