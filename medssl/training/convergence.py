"""Whether a pretraining has come to rest: by how long it was, and by what still moved at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

IMAGENET_IMAGES = 1_281_167  # the training images of ILSVRC 2012, which the papers' epochs count
SHARE = 0.05  # of its whole range that a figure may change in the last fifth
LAST = 0.2  # the part of a run that is looked at
FEWEST_POINTS = 5  # in that part, or in all of a short run
NOISE = 2.0  # standard errors that a change must be above


def converged(
    history: Iterable[Mapping[str, Any]], *, epochs: int, samples: int, least_epochs: int = 100, share: float = SHARE
) -> tuple[bool, str]:
    """Judge a finished pretraining by its log.

    Not converged is a run (1) of fewer than `least_epochs` epochs that has also seen fewer samples than so many epochs of ImageNet
    have (an archive larger than ImageNet need not be gone through as often), or (2) whose loss or kNN still moves: a straight line
    through its values of the last fifth changes there by more than `share` of the range that the figure has had in the whole run,
    and by more than two standard errors, so that noise is no movement. The loss counts as its mean over each epoch.

    A learning rate that falls to zero brings every loss to rest, trained long enough or not: rule 2 alone would prove nothing.

    Args:
        history: the records of metrics.jsonl, in the order of the steps: `pretrain/loss`, `pretrain/epoch`, `pretrain/knn_auroc`
            where they were logged. Numbers may be words (`NaN`); those that are not finite are left out.
        epochs: that were done.
        samples: that were seen.
        least_epochs: see above; `pretrain.converged_epochs`.
        share: see above, in (0, 1).

    Returns:
        Whether it has converged, and why, as a part of a sentence.
    """
    if epochs < least_epochs and samples < least_epochs * IMAGENET_IMAGES:
        return False, f"{_counted(epochs, 'epoch')}, fewer than {least_epochs:,}"
    records = list(history)
    losses = _epoch_means(records)
    figures = {"loss": losses, "kNN": _values(records, "pretrain/knn_auroc")}
    if len(losses) < FEWEST_POINTS:
        return False, f"{_counted(len(losses), 'epoch')} with a loss in its log, too few to tell"
    said, moving = [], []
    for name, values in figures.items():
        if len(values) < FEWEST_POINTS:
            continue  # no kNN was asked for, or hardly any
        change, error = _trend(values)
        span = max(values) - min(values)
        part = abs(change) / span if span > 0 else 0.0
        text = f"the {name} {'rises' if change > 0 else 'falls'} by {part:.0%} of its range"
        said.append(text)
        if part > share and abs(change) > NOISE * error:
            moving.append(text)
    if moving:
        return False, f"in the last fifth of {_counted(epochs, 'epoch')} {' and '.join(moving)}"
    return True, f"{_counted(epochs, 'epoch')}; in the last fifth {' and '.join(said)}, which is within {share:.0%} or noise"


def _trend(values: Sequence[float]) -> tuple[float, float]:
    """Change of a least-squares line over the last fifth of `values` (their last five at the least), and its standard error."""
    last = np.asarray(values[-max(FEWEST_POINTS, math.ceil(LAST * len(values))) :])
    place = np.linspace(-0.5, 0.5, len(last))
    slope = float(place @ last / (place @ place))
    rest = last - last.mean() - slope * place
    return slope, float(np.sqrt(rest @ rest / (len(last) - 2) / (place @ place)))


def _epoch_means(records: list[Mapping[str, Any]]) -> list[float]:
    """The mean loss of each epoch that has a finite one, in order."""
    sums: dict[float, list[float]] = {}
    for record in records:
        loss, epoch = float(record.get("pretrain/loss", math.nan)), float(record.get("pretrain/epoch", math.nan))
        if math.isfinite(loss) and math.isfinite(epoch):
            sums.setdefault(epoch, []).append(loss)
    return [float(np.mean(values)) for _, values in sorted(sums.items())]


def _values(records: list[Mapping[str, Any]], key: str) -> list[float]:
    return [value for record in records if key in record and math.isfinite(value := float(record[key]))]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
