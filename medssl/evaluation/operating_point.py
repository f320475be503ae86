"""The threshold above which an image is called positive, chosen on validation scores inside the label budget."""

from __future__ import annotations

import numpy as np

from medssl.errors import DataError
from medssl.evaluation.ranking import checked


def choose_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold that maximises balanced accuracy, which is Youden's J (Youden 1950): J = 2 * balanced accuracy - 1.

    `labels` (N,) 0 | 1, `scores` (N,) finite; positive means score >= threshold. The candidates are the midpoints
    between neighbouring distinct scores, and the lowest score (everything is called positive). Of equally good
    candidates the lowest is taken: at the same balanced accuracy it has the higher sensitivity. The choice does
    not depend on the order of the images.

    Raises DataError when a class is absent: balanced accuracy is then unknown for every threshold.
    """
    labels, scores = checked(labels, scores)
    distinct, group = np.unique(-scores, return_inverse=True)
    distinct = -distinct
    positives = np.bincount(group, weights=labels)
    true, false = np.cumsum(positives), np.cumsum(np.bincount(group) - positives)
    if not true[-1] or not false[-1]:
        absent = "negative" if true[-1] else "positive"
        raise DataError(
            f"operating point: none of the {len(labels)} validation images is {absent}, so no threshold "
            "can be chosen: give the label budget more patients"
        )
    # Integers decide, so that equal balanced accuracies are equal and not apart by a rounding.
    youden = true * false[-1] - false * true[-1]
    best = int(np.flatnonzero(youden == youden.max())[-1])
    if best == len(distinct) - 1:
        return float(distinct[-1])
    midpoint = distinct[best + 1] + (distinct[best] - distinct[best + 1]) / 2
    # Between two neighbouring floats the midpoint rounds to one of them; it must stay above the lower one.
    return float(midpoint if midpoint > distinct[best + 1] else distinct[best])
