"""Heads: SimSiam's projector and predictor, and the linear classifier."""

from __future__ import annotations

from torch import nn


def projector(in_dim: int, hidden: int = 2048, out: int = 2048, layers: int = 3) -> nn.Sequential:
    """SimSiam's projection MLP, (N, in_dim) -> (N, out) (2011.10566, section 3 and section 4.4).

    Linear, BN, ReLU for each hidden layer; then Linear and a BN without affine parameters. No Linear has a bias: the BN
    after it would take it away. Three layers, or two as in the paper's appendix D.
    """
    if layers < 2:
        raise ValueError(f"layers must be at least 2, got {layers}")
    modules: list[nn.Module] = []
    for width_in in (in_dim, *[hidden] * (layers - 2)):
        modules += [nn.Linear(width_in, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    modules += [nn.Linear(hidden, out, bias=False), nn.BatchNorm1d(out, affine=False)]
    return nn.Sequential(*modules)


def predictor(dim: int = 2048, hidden: int = 512) -> nn.Sequential:
    """SimSiam's prediction MLP, (N, dim) -> (N, dim), a bottleneck (2011.10566, section 3).

    The output layer has a bias, no BN and no ReLU: BN on the output makes training unstable (table 3).
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, dim),
    )


def linear_head(feature_dim: int, outputs: int) -> nn.Linear:
    """The classifier on pooled features, (N, feature_dim) -> (N, outputs) logits.

    Weights and biases start at zero: every arm then starts from the same predictions, and no draw enters.
    """
    head = nn.Linear(feature_dim, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
