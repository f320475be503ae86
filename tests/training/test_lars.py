"""LARS: lightly's, step for step; and a checkpoint that goes on exactly."""

from __future__ import annotations

import io

import pytest
import torch
from lightly.utils.lars import LARS as LightlyLARS  # noqa: N811
from torch import nn

from medssl.training.lars import LARS

SHAPES = [(6, 4), (3, 2, 3, 3), (5,), (4, 4)]


def parameters() -> list[nn.Parameter]:
    """Weights of different scales, and one tensor of zeros."""
    generator = torch.Generator().manual_seed(0)
    made = [
        nn.Parameter(10.0**-i * torch.randn(shape, generator=generator, dtype=torch.float64)) for i, shape in enumerate(SHAPES)
    ]
    made[3].data.zero_()
    return made


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    if step % 5 == 0:
        made[0].zero_()
    return made


def run(optimizer, params, steps) -> None:
    for step in steps:
        for one in optimizer.param_groups:
            one["lr"] = 0.5 / (1 + step)
        for parameter, gradient in zip(params, gradients(step), strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def groups(params) -> list[dict]:
    """The third tensor is excluded: neither decay nor adaptation."""
    return [
        {"params": [params[0], params[1], params[3]], "weight_decay": 1e-3},
        {"params": [params[2]], "weight_decay": 0.0, "adaptation": False},
    ]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_lightly_step_for_step(momentum):
    ours, theirs = parameters(), parameters()
    optimizer = LARS(groups(ours), lr=1.0, momentum=momentum)
    oracle = LightlyLARS(groups(theirs), lr=1.0, momentum=momentum, eps=0.0)
    for step in range(20):
        run(optimizer, ours, [step])
        run(oracle, theirs, [step])
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
    assert not torch.equal(ours[3], torch.zeros_like(ours[3]))  # weights of zero learn all the same


def test_one_step_by_hand():
    w, g = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    for adaptation, local in ((True, 0.01 * 5 / (2 + 0.1 * 5)), (False, 1.0)):
        parameter = nn.Parameter(w.clone())
        parameter.grad = g.clone()
        optimizer = LARS([{"params": [parameter], "adaptation": adaptation}], lr=0.5, weight_decay=0.1, trust_coefficient=0.01)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), w - 0.5 * local * (g + 0.1 * w))


def test_without_a_gradient_nothing_moves_and_no_gradient_is_changed():
    still, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    other.grad = torch.full((3,), 2.0)
    LARS([still, other], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(still, torch.ones(3))
    assert torch.equal(other.grad, torch.full((3,), 2.0))
    assert not torch.equal(other, torch.ones(3))


def test_closure_gives_the_loss():
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = LARS([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 4.0
    assert float(parameter.detach()) < 2.0


def test_a_checkpoint_goes_on_exactly():
    whole, first = parameters(), parameters()
    run(LARS(groups(whole), lr=1.0), whole, range(12))
    optimizer = LARS(groups(first), lr=1.0)
    run(optimizer, first, range(7))
    file = io.BytesIO()
    torch.save({"weights": [p.detach() for p in first], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = [nn.Parameter(w) for w in state["weights"]]
    optimizer = LARS(groups(second), lr=1.0)
    optimizer.load_state_dict(state["optimizer"])
    assert [one["adaptation"] for one in optimizer.param_groups] == [True, False]
    run(optimizer, second, range(7, 12))
    for a, b in zip(whole, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "trust_coefficient"])
def test_negative_numbers_are_refused(name):
    with pytest.raises(ValueError, match=name):
        LARS([nn.Parameter(torch.zeros(1))], **{"lr": 0.1} | {name: -0.1})
