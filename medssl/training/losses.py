"""The losses of fine-tuning, one for each kind of task; an unknown label is never read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.evaluation.links import class_weights
from medssl.task import Outputs

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B, J), labels (B, T) with NaN for unknown, weights (B, T)) -> a scalar: the weighted sum over known labels a label."""


def row_weights(labels: np.ndarray, outputs: Outputs, balanced: bool) -> np.ndarray:
    """(n, T) weights with which the classes of each target weigh the same, mean 1 over known labels; 0 for unknown ones.

    Args:
        labels: (n, T) of the rows to fit.
        balanced: False: 1 for every known label. Of a regression all labels weigh the same.
    """
    weights = (~np.isnan(labels)).astype(np.float64)
    if balanced and outputs.kind != "regression":
        for column in range(labels.shape[1]):
            known = ~np.isnan(labels[:, column])
            weights[known, column] = class_weights(labels[known, column], max(2, len(outputs.names)))
    return weights


def build_loss(outputs: Outputs, *, kind: str = "cross_entropy", gamma: float = 2.0, smoothing: float = 0.0) -> Loss:
    """The loss of a kind of task.

    binary, multilabel: sigmoid cross-entropy a target. multiclass: softmax cross-entropy. ordinal: sigmoid cross-entropy of each cut "above
    class j" (Frank & Hall 2001), mean over the cuts. regression: smooth L1 of standardised labels, with its bend at 1.

    Args:
        kind: `cross_entropy`, or `focal`: each term times (1 - p)^gamma (Lin et al. 2017, 1708.02002, equation 4). A regression has neither.
        smoothing: the share of a label that is spread over all classes alike (Szegedy et al. 2015, 1512.00567, section 7).
    """
    power = gamma if kind == "focal" else 0.0
    if outputs.kind == "regression":
        return lambda logits, labels, weights: _mean(F.smooth_l1_loss(logits, _known(labels), reduction="none"), weights)
    if outputs.kind == "multiclass":
        return lambda logits, labels, weights: _mean(_softmax_terms(logits, labels, power, smoothing), weights)
    if outputs.kind == "ordinal":
        cuts = torch.arange(len(outputs.names) - 1)

        def ordinal(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
            above = (_known(labels) > cuts.to(labels.device)).float()
            return _mean(_sigmoid_terms(logits, above, power, smoothing).mean(dim=1, keepdim=True), weights)

        return ordinal
    return lambda logits, labels, weights: _mean(_sigmoid_terms(logits, _known(labels), power, smoothing), weights)


def _known(labels: Tensor) -> Tensor:
    """Unknown labels become 0, and weigh nothing: NaN times 0 would be NaN."""
    return torch.nan_to_num(labels.float(), nan=0.0)


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    """Over the known labels of the batch; 0, with a gradient of 0, where there are none."""
    return (terms * weights).sum() / (weights > 0).sum().clamp(min=1)


def _sigmoid_terms(logits: Tensor, labels: Tensor, power: float, smoothing: float) -> Tensor:
    soft = labels * (1 - smoothing) + smoothing / 2
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    if power:
        return -(soft * no.exp() ** power * yes + (1 - soft) * yes.exp() ** power * no)
    return -(soft * yes + (1 - soft) * no)


def _softmax_terms(logits: Tensor, labels: Tensor, power: float, smoothing: float) -> Tensor:
    hard = F.one_hot(_known(labels)[:, 0].long(), logits.shape[1]).float()
    soft = hard * (1 - smoothing) + smoothing / logits.shape[1]
    log_p = F.log_softmax(logits, dim=1)
    terms = soft * log_p * (1 - log_p.exp()) ** power if power else soft * log_p
    return -terms.sum(dim=1, keepdim=True)
