"""Schedules and optimizers: the papers' numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medssl.training.optimizers import build_optimizer, set_learning_rates
from medssl.training.recipe import Recipe
from medssl.training.schedules import cosine


def test_cosine_from_one_to_zero():
    assert cosine(0, 100) == 1
    assert cosine(50, 100) == pytest.approx(0.5)
    assert cosine(99, 100) == pytest.approx(0.000247, abs=1e-5)


def test_warm_up_is_linear_and_ends_at_the_top():
    assert [cosine(step, 100, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_cosine_may_end_above_zero():
    assert cosine(0, 100, final=0.001) == 1
    assert cosine(100, 100, final=0.001) == pytest.approx(0.001)
    assert cosine(50, 100, final=0.2) == pytest.approx(0.6)


def test_cosine_equals_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 37)
    for step in range(37):
        assert cosine(step, 37) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_groups_follow_their_own_schedule_and_decay():
    one, two, three = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    groups = [
        {"name": "encoder", "params": [one], "lr_scale": 0.1},
        {"name": "predictor", "params": [two], "schedule": "constant"},
        {"name": "bias", "params": [three], "weight_decay": False},
    ]
    for name in ("sgd", "lars", "adamw"):
        optimizer = build_optimizer(Recipe(name=name, base_lr=0.4, weight_decay=1e-4), groups, 0.4)
        assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-4, 1e-4, 0.0]
        rates = set_learning_rates(optimizer, 50, 100, 0)
        assert rates == pytest.approx({"encoder": 0.02, "predictor": 0.4, "bias": 0.2})
        assert set_learning_rates(optimizer, 0, 100, 10) == pytest.approx({"encoder": 0.004, "predictor": 0.4, "bias": 0.04})
