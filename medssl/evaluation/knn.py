"""Nearest neighbours on frozen features: the kNN that is watched while a run trains, and the mode of fine-tuning.

Neighbours vote with exp(cosine similarity / temperature) (Wu et al. 2018, 1805.01978, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from medssl.data.budgets import LabelDraw
from medssl.evaluation.links import class_weights
from medssl.task import Outputs

TEMPERATURE = 0.2  # as the authors of SimSiam use for their monitor
MOST_NEIGHBOURS = 20


def knn_auroc(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """AUROC of a weighted kNN vote, each image judged by the images of other patients.

    Neighbours vote with a temperature of 0.2. k is 20, or a quarter of the images where they are few.

    Args:
        features: (N, D) float.
        labels: (N,) 0 or 1.
        groups: (N,) patient of each image; a patient's own images have no vote.

    Returns:
        AUROC in [0, 1]; NaN where only one class is there.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    unit = _unit(features)
    similarity = (unit @ unit.T).astype(np.float64)
    similarity[groups[:, None] == groups[None, :]] = -np.inf
    k = max(1, min(MOST_NEIGHBOURS, len(labels) // 4))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.exp(near / TEMPERATURE)
    totals = votes.sum(axis=1)
    share = np.divide((votes * labels[nearest]).sum(axis=1), totals, out=np.full(len(labels), 0.5), where=totals > 0)
    return float(roc_auc_score(labels, share))


@dataclass(frozen=True)
class Neighbours:
    """Labelled images that vote on others."""

    features: np.ndarray  # (n, D) of the budget, of length 1
    labels: np.ndarray  # (n, T) float64, NaN unknown
    outputs: Outputs
    k: int
    temperature: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(N, K) shares of the vote of the k nearest whose label is known (fewer where there are fewer); regression: their mean.

        Where no label of a target is known, it gets 0.5.
        """
        return self._scores_for(features, [self.k])[0]

    def _scores_for(self, features: np.ndarray, tried: list[int]) -> np.ndarray:
        """(len(tried), N, K): the same for several k, which look at the same similarities."""
        out = []
        for start in range(0, len(features), CHUNK):
            similarity = (_unit(features[start : start + CHUNK]) @ self.features.T).astype(np.float64)
            votes = [self._votes(similarity, column, tried) for column in range(self.labels.shape[1])]
            out.append(np.concatenate(votes, axis=2))
        return np.concatenate(out, axis=1) if out else np.empty((len(tried), 0, len(self.outputs.names)))

    def _votes(self, similarity: np.ndarray, column: int, tried: list[int]) -> np.ndarray:
        known = ~np.isnan(self.labels[:, column])
        y, near = self.labels[known, column], similarity[:, known]
        values = np.eye(len(self.outputs.names))[y.astype(np.int64)] if self.outputs.kind in MANY_CLASSES else y[:, None]
        if not len(y):
            return np.full((len(tried), len(similarity), 1), 0.5)
        order = np.argsort(-near, axis=1, kind="stable")[:, : min(max(tried), len(y))]
        weight = np.take_along_axis(near, order, axis=1)
        weight = np.exp((weight - weight[:, :1]) / self.temperature)  # the nearest is 1, so the sum is never 0
        totals = np.cumsum(weight, axis=1)
        sums = np.cumsum(weight[:, :, None] * values[order], axis=1)
        at = [min(k, len(y)) - 1 for k in tried]
        return np.stack([sums[:, k] / totals[:, [k]] for k in at])


MANY_CLASSES = ("multiclass", "ordinal")
CHUNK = 1024  # images judged at a time


@dataclass(frozen=True)
class KnnFit:
    """What was chosen on a label budget, and what was seen inside it."""

    neighbours: Neighbours
    k: int
    validation_scores: np.ndarray  # (rows of the budget, K) by other rows; NaN where there was none
    losses: list[float]  # of each k in falling order, on validation: see `fit_knn`

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, K) scores of features (n, D)."""
        return self.neighbours.scores(features)


def fit_knn(features: np.ndarray, draw: LabelDraw, outputs: Outputs, neighbours: list[int], temperature: float) -> KnnFit:
    """Choose k on validation, then let the whole budget vote.

    k is chosen by the squared error of the shares with every class weighing the same (regression: of the values), mean over the targets:
    a log loss would be without end where no neighbour is of the class. Of equals the larger k, which is the smoother.

    Args:
        features: (rows of the draw, D).
        neighbours: values of k; one above the rows that can vote means all of them.
    """
    least = min(len(fit) for fit, _ in draw.divisions)
    tried = sorted({min(k, least) for k in neighbours}, reverse=True)
    scores = np.full((len(tried), len(draw.rows), len(outputs.names)), np.nan)
    unit = _unit(features)
    for fit, held in draw.divisions:
        scores[:, held] = Neighbours(unit[fit], draw.labels[fit], outputs, 0, temperature)._scores_for(features[held], tried)
    losses = [_squared_error(each, draw.labels, outputs) for each in scores]
    best = 0 if np.isnan(losses).all() else int(np.nanargmin(losses))
    k = tried[best]
    return KnnFit(Neighbours(unit, draw.labels, outputs, k, temperature), k, scores[best], losses)


def _squared_error(scores: np.ndarray, labels: np.ndarray, outputs: Outputs) -> float:
    errors = []
    for column in range(labels.shape[1]):
        seen = ~np.isnan(labels[:, column]) & ~np.isnan(scores).any(axis=1)
        y = labels[seen, column]
        if outputs.kind in MANY_CLASSES:
            wrong = ((scores[seen] - np.eye(len(outputs.names))[y.astype(np.int64)]) ** 2).sum(axis=1)
        else:
            wrong = (scores[seen, column] - y) ** 2
        weights = np.ones(len(y)) if outputs.kind == "regression" else class_weights(y, max(2, len(outputs.names)))
        errors.append(float((weights * wrong).mean()) if len(y) else float("nan"))
    known = [error for error in errors if not np.isnan(error)]
    return float(np.mean(known)) if known else float("nan")


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
