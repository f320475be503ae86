"""Optimizers, built from a recipe and the parameter groups that a method or a task declares."""

from __future__ import annotations

from typing import Any

import torch

from medssl.training.lars import LARS
from medssl.training.recipe import Recipe
from medssl.training.schedules import factor


def build_optimizer(recipe: Recipe, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """The optimiser of a recipe.

    Args:
        groups: as `medssl.methods.base.ParameterGroup`; what a group does not say is: lr_scale 1, schedule cosine, weight decay and
            LARS's adaptation yes.
        lr: the highest rate, see `Recipe.peak_lr`.
    """
    groups = _with_defaults(groups, lr, recipe.weight_decay)
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)  # 1711.05101; betas are torch's, 0.9 and 0.999
    if recipe.name == "lars":
        return LARS(groups, lr=lr, momentum=recipe.momentum, trust_coefficient=recipe.trust_coefficient)
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum)


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
                "adaptation": group.get("adaptation", True),
            }
        )
    return out


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, total: int, warmup: int, final: float = 0.0
) -> dict[str, float]:
    """Set every group's rate for step `step` from the schedule alone; returns {group name: lr}."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor(group["schedule"], step, total, warmup, final)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
