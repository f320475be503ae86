"""SwAV: balanced assignments, prototypes of unit length that wait, the queue, small views."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import nn

from medssl.errors import StudyError
from medssl.methods import Batch
from medssl.methods.swav import SwAV, SwAVSettings, sinkhorn, swapped_loss


class TinyEncoder(nn.Sequential):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> SwAV:
    torch.manual_seed(0)
    values = {"projector_hidden": 24, "projector_dim": 8, "prototypes": 10, "freeze_steps": 0} | settings
    return SwAV(SwAVSettings(**values), TinyEncoder()).train()


def make_batch(rows: int = 16, small: int = 0, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    full = torch.rand(2, rows, 1, 12, 12, generator=generator)
    return Batch([*full, *torch.rand(small, rows, 1, 7, 7, generator=generator)])


def scores_of(views: int, rows: int = 16, prototypes: int = 10, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(views, rows, 6, generator=generator), dim=-1)
    return z @ F.normalize(torch.randn(prototypes, 6, generator=generator), dim=-1).T


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.03, 3), (0.5, 1)])
def test_sinkhorn_equals_lightly(epsilon, iterations):
    scores = scores_of(1)[0]
    expected = lightly_sinkhorn(scores, iterations=iterations, epsilon=epsilon)
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, atol=1e-5, rtol=0)


def test_assignments_are_balanced():
    scores = scores_of(1)[0]
    q = sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(16))
    even = sinkhorn(scores, 0.2, 200)
    torch.testing.assert_close(even.sum(dim=1), torch.ones(16))
    torch.testing.assert_close(even.sum(dim=0), torch.full((10,), 1.6), atol=1e-4, rtol=0)
    assert sinkhorn(torch.zeros(4, 5), 0.05, 3).unique().tolist() == pytest.approx([0.2])


def test_a_tiny_epsilon_does_not_give_nan():
    q = sinkhorn(scores_of(1)[0], 1e-3, 3)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(16))


@pytest.mark.parametrize("small", [0, 3])
@pytest.mark.parametrize("queue", [0, 12])
def test_loss_equals_lightly(small, queue):
    scores, former = scores_of(2 + small), scores_of(2, rows=queue, seed=5) if queue else None
    oracle = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    expected = oracle(list(scores[:2]), list(scores[2:]), None if former is None else list(former))
    joined = scores[:2] if former is None else torch.cat([former, scores[:2]], dim=1)
    assignments = torch.stack([sinkhorn(one, 0.05, 3)[-16:] for one in joined])
    torch.testing.assert_close(swapped_loss(scores, assignments, 0.1), expected.squeeze(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("small", [0, 3])
def test_forward_is_that_loss(small):
    method, batch = tiny(small_views=small), make_batch(small=small)
    output = method(batch)
    features = [method.encoder(torch.cat(views)) for views in (batch.views[:2], batch.views[2:]) if views]
    unit = F.normalize(method.projector(torch.cat(features)), dim=1).view(2 + small, 16, 8)
    scores = unit @ method.prototypes.weight.T
    expected = SwaVLoss()(list(scores[:2]), list(scores[2:])).squeeze()
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(output.z, dim=-1), unit[:2])
    torch.testing.assert_close(output.features, features[0].view(2, 16, 16))
    assert 0 < output.logs["assignment_entropy"] < 1
    assert float(output.logs["loss_of_ln_k"]) == pytest.approx(float(output.loss.detach()) / math.log(10))
    with pytest.raises(ValueError, match="views"):
        method(make_batch(small=small + 1))


def test_collapse_shows_in_the_logs():
    method = tiny()
    nn.init.zeros_(method.projector[-1].weight)
    logs = method(make_batch()).logs
    assert float(logs["assignment_entropy"]) == pytest.approx(1, abs=1e-5)
    assert float(tiny()(make_batch()).logs["assignment_entropy"]) < 0.95


def test_prototypes_have_unit_length_at_each_step():
    method = tiny()
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(10))
    with torch.no_grad():
        method.prototypes.weight.mul_(3)
    direction = method.prototypes.weight / 3
    method.before_step(4, 10)
    torch.testing.assert_close(method.prototypes.weight, direction)
    assert method.prototypes.bias is None


def test_prototypes_wait_and_the_rest_learns():
    method = tiny(freeze_steps=2)
    optimizer = torch.optim.SGD([p for one in method.parameter_groups() for p in one["params"]], lr=1.0)
    moved = []
    for step in range(3):
        method.before_step(step, 3)
        watched = method.prototypes.weight, method.encoder[0].weight
        before = [weight.clone() for weight in watched]
        optimizer.zero_grad(set_to_none=True)
        method(make_batch()).loss.backward()
        method.after_backward(step, 3)
        optimizer.step()
        moved.append([not torch.equal(old, new) for old, new in zip(before, watched, strict=True)])
    assert moved == [[False, True], [False, True], [True, True]]


def test_queue_fills_from_its_share_of_the_training_and_counts_once_full():
    method = tiny(queue_size=32, queue_from=0.5)
    assert len(method.queues) == 2
    pushed, same = [], []
    for step in range(8):
        method.before_step(step, 8)
        batch = make_batch(seed=step)
        plain = tiny().train()
        plain.load_state_dict(method.state_dict(), strict=False)
        pushed.append(int(method.queues[0].pushed))
        same.append(torch.equal(method(batch).loss, plain(batch).loss))
    assert pushed == [0, 0, 0, 0, 0, 16, 32, 48]
    assert same == [True] * 6 + [False] * 2
    unit = F.normalize(method(make_batch(seed=7)).z, dim=-1)
    for view in range(2):
        torch.testing.assert_close(method.queues[view].rows[:16], unit[view], atol=1e-6, rtol=0)


def test_a_queue_smaller_than_the_batch_is_one_line():
    method = tiny(queue_size=8, queue_from=0.0)
    method.before_step(0, 10)
    with pytest.raises(StudyError, match="queue_size: is 8, below the 16"):
        method(make_batch())


def test_small_views_change_the_crops():
    assert [dict(view.changes) for view in tiny().view_spec().views] == [{}, {}]
    views = tiny(small_views=2, small_size=0.5).view_spec().views
    assert [view.size for view in views] == [1.0, 1.0, 0.5, 0.5]
    assert [view.changes["geometry"]["crop_scale"] for view in views] == [[0.14, 1.0]] * 2 + [[0.05, 0.14]] * 2


def test_loss_is_in_float32_under_autocast():
    method = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(make_batch())
    scores = F.normalize(output.z, dim=-1) @ method.prototypes.weight.T
    torch.testing.assert_close(output.loss, SwaVLoss()(list(scores), []).squeeze(), atol=1e-5, rtol=0)


def test_batch_is_assigned_together_with_a_full_queue():
    method = tiny(queue_size=20, queue_from=0.0)
    former = F.normalize(torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(9)), dim=-1)
    for queue, rows in zip(method.queues, former, strict=True):
        queue.push(rows)
    method.before_step(0, 10)
    output, weight = method(make_batch()), method.prototypes.weight
    scores = F.normalize(output.z, dim=-1) @ weight.T
    expected = SwaVLoss()(list(scores), [], list(former @ weight.T)).squeeze()
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=0)
    assert (expected - SwaVLoss()(list(scores), []).squeeze()).abs() > 1e-3
