"""LARS: You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks (1708.03888)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum in which the step of each tensor is scaled by the norm of its weights over that of its gradient.

    For each tensor w with gradient g, weight decay b and trust coefficient eta (the paper's equation 6 and algorithm 1):

        local = eta |w| / (|g| + b |w|)
        v <- momentum v + local (g + b w)
        w <- w - lr v

    Groups with `adaptation: False` (biases and normalisation in SimCLR, BYOL and Barlow Twins; SwAV adapts them too) take
    local = 1. A tensor whose weights or gradient are all zero has no ratio: its v takes g as it is, without decay. The rate
    stands outside of v, as in torch's SGD; the paper's algorithm has it inside, which is the same while the rate is constant.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        """`params`: tensors or groups; a group's `adaptation` is True where it does not say.

        Raises:
            ValueError: a number is negative.
        """
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient}
        for name, value in defaults.items():
            if value < 0:
                raise ValueError(f"{name} is {value}, it must not be negative")
        super().__init__(params, defaults | {"adaptation": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; `closure` as in torch's optimisers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._update(w, group)
        return loss

    def _update(self, w: Tensor, group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        update = w.grad.add(w, alpha=decay) if decay else w.grad
        if group["adaptation"]:
            w_norm, g_norm = torch.linalg.vector_norm(w), torch.linalg.vector_norm(w.grad)
            local = group["trust_coefficient"] * w_norm / (g_norm + decay * w_norm)
            # Chosen on the device: a Python `if` would wait for the GPU once a tensor.
            update = torch.where((w_norm > 0) & (g_norm > 0), local * update, w.grad)
        state = self.state[w]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = update.clone()
        else:
            state["momentum_buffer"].mul_(group["momentum"]).add_(update)
        w.add_(state["momentum_buffer"], alpha=-group["lr"])
