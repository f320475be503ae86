"""What is known of a run whose loss is no longer finite, for the person who has to find out why."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medssl.errors import CollapseError

REPORT = "divergence.md"
_STEPS, _NAMES = 30, 8  # the last steps that are kept; tensors that are named


class DivergenceError(CollapseError):
    """Too many steps in a row had no finite loss. `report`: Markdown."""

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report


@dataclass
class Trace:
    """The last steps: number from 1, loss, norm of the gradient, learning rate."""

    steps: deque[tuple[int, float, float, float]] = field(default_factory=lambda: deque(maxlen=_STEPS))

    def add(self, step: int, loss: float, norm: float, rate: float) -> None:
        """One more step."""
        self.steps.append((step, loss, norm, rate))


def divergence_report(module: nn.Module, trace: Trace, precision: torch.dtype) -> str:
    """Markdown: the last steps, and where values that are not finite stand.

    Args:
        module: with the gradients of the last step, and the buffers as its forward pass left them.
    """
    parameters = list(module.named_parameters())
    gradients = [(name, p.grad) for name, p in parameters if p.grad is not None]
    lines = [
        "# The loss is no longer finite",
        "",
        f"Precision: {str(precision).removeprefix('torch.')}. Steps without a finite loss or gradient changed no weight.",
        "",
        f"- {_bad('weights', parameters)}",
        f"- {_bad('buffers (running statistics, queues, teachers)', module.named_buffers())}",
        f"- {_bad('gradients of the last step', gradients)}",
        f"- largest weights: {_largest(parameters)}",
        f"- largest finite gradients: {_largest(gradients)}",
        "",
        "| step | loss | norm of the gradient | learning rate |",
        "|---:|---:|---:|---:|",
        *(f"| {step:,} | {loss:.6g} | {norm:.6g} | {rate:.4g} |" for step, loss, norm, rate in trace.steps),
        "",
        "The first running statistics that are not finite tell the layer in which the forward pass lost the numbers; where all are finite, look at",
        "the heads and the loss. Norms that grow step by step: the learning rate is too high for this batch, or `pretrain.clip_norm` would help.",
        "",
    ]
    return "\n".join(lines)


def _bad(what: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    checked = [(name, bool(tensor.isfinite().all())) for name, tensor in tensors]
    names = [name for name, fine in checked if not fine]
    if not names:
        return f"{what}: all of {len(checked):,} are finite"
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return f"{what}: {len(names):,} of {len(checked):,} are not finite: {', '.join(names[:_NAMES])}{more}"


def _largest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    found = [(float(tensor.detach().abs().max()), name) for name, tensor in tensors if tensor.numel()]
    found = sorted((value, name) for value, name in found if math.isfinite(value))[::-1][:3]
    return ", ".join(f"{name} {value:.3g}" for value, name in found) or "none"
