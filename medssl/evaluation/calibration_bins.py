"""Bins for the expected calibration error, and probabilities after temperature scaling."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import rankdata

BINS = 15
# The logit of a probability of exactly 0 or 1 is not finite; float32's next neighbour of 1 is 6e-8 away.
SMALLEST = 1e-12


def equal_mass_bins(scores: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(N,) bin of each score, 0 .. bins - 1, about as many scores in each.

    Tied scores have one midrank and so one bin, whatever the order of the images. NaN scores get the bin -1.
    """
    scores = np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(scores)
    result = np.full(len(scores), -1)
    if known.any():
        share = (rankdata(scores[known]) - 0.5) / known.sum()
        result[known] = np.minimum((share * bins).astype(np.int64), bins - 1)
    return result


def gaps(scores: np.ndarray, outcomes: np.ndarray, bin_of: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(N, bins): score minus outcome in the image's own bin, 0 elsewhere and where either is unknown.

    With weights w, the expected calibration error (Naeini et al. 2015) is the sum over bins of the absolute weighted
    column sums, over the sum of the weights: n_b / n * |mean score - observed share|, the n_b cancelled.
    """
    result = np.zeros((len(scores), bins))
    known = (bin_of >= 0) & ~np.isnan(outcomes)
    result[known, bin_of[known]] = (scores - outcomes)[known]
    return result


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N,) of one class each, their logits divided by `temperature` (Guo et al. 2017)."""
    return expit(logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST)) / temperature)


def scaled_classes(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) that sum to 1, their logarithms divided by `temperature` and normalised again."""
    return softmax(np.log(np.clip(probabilities, SMALLEST, None)) / temperature, axis=1)
