"""Optimizers, built from the parameter groups that a method or a task declares."""

from __future__ import annotations

from typing import Any

import torch

from medssl.training.schedules import factor


def sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with momentum. Groups are those of `medssl.methods.base.ParameterGroup`."""
    return torch.optim.SGD(_with_defaults(groups, lr, weight_decay), lr=lr, momentum=momentum)


def adamw(groups: list[dict[str, Any]], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (1711.05101). Groups as for `sgd`."""
    return torch.optim.AdamW(_with_defaults(groups, lr, weight_decay), lr=lr)


def _with_defaults(groups: list[dict[str, Any]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    out = []
    for group in groups:
        base = lr * group.get("lr_scale", 1.0)
        out.append(
            {
                "params": list(group["params"]),
                "lr": base,
                "base_lr": base,
                "schedule": group.get("schedule", "cosine"),
                "name": group["name"],
                "weight_decay": weight_decay if group.get("weight_decay", True) else 0.0,
            }
        )
    return out


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, total: int, warmup: int) -> dict[str, float]:
    """Set every group's rate for step `step` from the schedule alone; returns {group name: lr}."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor(group["schedule"], step, total, warmup)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
