"""What the embeddings are arranged by: two principal components to look at, and how well a group can be told from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

FEWEST_IMAGES = 20  # of a group, and FEWEST_PATIENTS: below either nothing is said of it
FEWEST_PATIENTS = 5
FOLDS = 5


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of features (N, D), N and D at least 2.

    Returns:
        (N, 2) float64 coordinates and (2,) the shares of the variance that they explain, 0 .. 1; both 0 where all rows are equal.
        The sign of a component is fixed: the coordinate of largest absolute loading is positive.

    Raises:
        ValueError: fewer than two rows or columns, or a value that is not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or min(features.shape) < 2:
        raise ValueError(f"expected features (N, D) with at least two rows and columns, got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features hold values that are not finite")
    centred = features - features.mean(axis=0)
    # The Gram matrix of the smaller side: D is a few hundred to thousands, N up to any number.
    if len(centred) >= centred.shape[1]:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        directions = vectors[:, ::-1][:, :2].T
    else:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        directions = (centred.T @ vectors[:, ::-1][:, :2]).T
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    total = float((centred**2).sum())
    signs = np.sign(directions[np.arange(2), np.abs(directions).argmax(axis=1)])
    placed = centred @ (directions * np.where(signs == 0, 1, signs)[:, None]).T
    explained = np.clip(values[::-1][:2] / total, 0, 1) if total > 0 else np.zeros(2)
    return placed, explained


def subsample(groups: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Positions of up to `count` rows, sorted: all where they are no more, else drawn at random without replacement.

    A group keeps its share, so that a figure shows what is there; `groups` (N,) are any labels, one of which every row has.
    """
    if len(groups) <= count:
        return np.arange(len(groups))
    mixed = np.random.default_rng(seed).permutation(len(groups))
    _, codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    order = mixed[np.argsort(codes[mixed], kind="stable")]  # group by group, at random within
    # Every (N / count)-th of that order: each group has its share, up to one.
    return np.sort(order[np.floor(np.arange(count) * len(groups) / count).astype(np.int64)])


@dataclass(frozen=True)
class ToldApart:
    """How well groups of images can be told apart by their embeddings.

    Attributes:
        balanced_accuracy: of a logistic regression, cross-validated with every patient on one side, 0 .. 1.
        chance: what guessing reaches, 1 / number of groups.
        sizes: group -> images, of those that are large enough.
        left_out: images of groups too small to be looked at, or without a group.
    """

    balanced_accuracy: float
    chance: float
    sizes: dict[str, int]
    left_out: int


def told_apart(features: np.ndarray, groups: np.ndarray, patients: np.ndarray, seed: int = 0) -> ToldApart | None:
    """Can it be told which group (a vendor, a site) an image is of? None where fewer than two groups are large enough.

    A linear probe of standardised features with balanced class weights, cross-validated in up to FOLDS folds; no patient is in two
    folds, since two images of one patient are alike whatever made them.

    Args:
        features: (N, D).
        groups: (N,) names; None, NaN or empty: unknown.
        patients: (N,) keys.
    """
    names = np.array(["" if group is None or group != group else str(group) for group in groups], dtype=object)
    sizes = {name: int((names == name).sum()) for name in sorted(set(names) - {""})}
    people = {name: len(set(patients[names == name])) for name in sizes}
    sizes = {name: n for name, n in sizes.items() if n >= FEWEST_IMAGES and people[name] >= FEWEST_PATIENTS}
    if len(sizes) < 2:
        return None
    keep = np.isin(names, list(sizes))
    x, y, who = np.asarray(features, np.float64)[keep], names[keep].astype(str), np.asarray(patients)[keep]
    said = np.empty(len(y), dtype=y.dtype)
    folds = StratifiedGroupKFold(min(FOLDS, min(people[name] for name in sizes)), shuffle=True, random_state=seed)
    with threadpool_limits(1, user_api="blas"):
        for fit, held_out in folds.split(x, y, who):
            mean, scale = x[fit].mean(axis=0), x[fit].std(axis=0)
            scale = np.where(scale > 1e-12, scale, 1.0)
            if len(set(y[fit])) < 2:
                said[held_out] = y[fit][0]
                continue
            model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
            said[held_out] = model.fit((x[fit] - mean) / scale, y[fit]).predict((x[held_out] - mean) / scale)
    return ToldApart(float(balanced_accuracy_score(y, said)), 1 / len(sizes), sizes, int((~keep).sum()))
