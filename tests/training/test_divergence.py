"""The report on a loss that is no longer finite names where the numbers were lost."""

from __future__ import annotations

import re

import torch
from torch import nn

from medssl.training.divergence import Trace, divergence_report


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def test_the_layer_that_overflowed_is_named_first():
    module = network()
    with torch.no_grad():
        module[2].weight.fill_(3e38)  # finite, and its products are not
    loss = module(torch.randn(16, 4)).square().mean()
    loss.backward()
    trace = Trace()
    for step in range(1, 41):
        trace.add(step, float("nan"), float("nan"), 0.1)
    report = divergence_report(module, trace, torch.float32)
    assert re.search(r"weights: all of 10 are finite", report)
    buffers = re.search(r"buffers .*: (\d) of 6 are not finite: (.*)", report)
    assert buffers[1] == "2"
    assert buffers[2] == "3.running_mean, 3.running_var"
    assert "gradients of the last step: " in report
    assert "largest weights: 2.weight 3e+38" in report
    assert "| 11 |" in report
    assert "| 10 |" not in report  # the last 30


def test_what_is_finite_is_called_so():
    module = network()
    module(torch.randn(16, 4)).square().mean().backward()
    report = divergence_report(module, Trace(), torch.bfloat16)
    assert len(re.findall(r"all of \d+ are finite", report)) == 3
    assert "not finite:" not in report
    assert "Precision: bfloat16" in report
