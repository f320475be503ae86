"""A k-nearest-neighbour classifier on frozen features: a look at a run while it trains, never a result."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

TEMPERATURE = 0.2  # as the authors of SimSiam use for their monitor
MOST_NEIGHBOURS = 20


def knn_auroc(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """AUROC of a weighted kNN vote, each image judged by the images of other patients.

    Neighbours vote with exp(cosine similarity / 0.2) (Wu et al. 2018, 1805.01978, section 3.4). k is 20, or a quarter of the
    images where they are few.

    Args:
        features: (N, D) float.
        labels: (N,) 0 or 1.
        groups: (N,) patient of each image; a patient's own images have no vote.

    Returns:
        AUROC in [0, 1]; NaN where only one class is there.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = (unit @ unit.T).astype(np.float64)
    similarity[groups[:, None] == groups[None, :]] = -np.inf
    k = max(1, min(MOST_NEIGHBOURS, len(labels) // 4))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(similarity, nearest, axis=1)
    votes = np.exp(near / TEMPERATURE)
    totals = votes.sum(axis=1)
    share = np.divide((votes * labels[nearest]).sum(axis=1), totals, out=np.full(len(labels), 0.5), where=totals > 0)
    return float(roc_auc_score(labels, share))
