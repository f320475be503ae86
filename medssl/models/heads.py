"""Heads: the projectors and predictors of the methods, and the linear classifier."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from torch import nn


def mlp(
    widths: Sequence[int],
    *,
    hidden_bn: bool = True,
    output_bn: Literal["none", "affine", "scale", "plain"] = "none",
    output_bias: bool | None = None,
) -> nn.Sequential:
    """A multilayer perceptron, (N, widths[0]) -> (N, widths[-1]): Linear, BN and ReLU for each hidden layer, then Linear and perhaps BN.

    A Linear has a bias where no BN follows, which would take it away.

    Args:
        widths: of the input, of each hidden layer and of the output; at least two.
        hidden_bn: BN after each hidden Linear.
        output_bn: `plain` is a BN without affine parameters, `scale` one with a scale and no shift.
        output_bias: bias of the last Linear; None: where no BN follows.

    Raises:
        ValueError: fewer than two widths.
    """
    if len(widths) < 2:
        raise ValueError(f"expected the widths of an input and an output at least, got {list(widths)}")
    modules: list[nn.Module] = []
    for width_in, width in itertools.pairwise(widths[:-1]):
        modules.append(nn.Linear(width_in, width, bias=not hidden_bn))
        modules += [nn.BatchNorm1d(width)] if hidden_bn else []
        modules.append(nn.ReLU(inplace=True))
    modules.append(nn.Linear(widths[-2], widths[-1], bias=output_bn == "none" if output_bias is None else output_bias))
    if output_bn != "none":
        norm = nn.BatchNorm1d(widths[-1], affine=output_bn != "plain")
        if output_bn == "scale":
            norm.register_parameter("bias", None)
        modules.append(norm)
    return nn.Sequential(*modules)


def linear_head(feature_dim: int, outputs: int) -> nn.Linear:
    """The classifier on pooled features, (N, feature_dim) -> (N, outputs) logits.

    Weights and biases start at zero: every arm then starts from the same predictions, and no draw enters.
    """
    head = nn.Linear(feature_dim, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
