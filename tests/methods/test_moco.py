"""MoCo: InfoNCE, the queue, the key encoder, and batch statistics that do not give pairs away."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import nn

from medssl.errors import StudyError
from medssl.methods import Batch
from medssl.methods.moco import MoCo, MoCoSettings, in_groups, info_nce
from medssl.methods.queue import Queue


class TinyEncoder(nn.Sequential):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def tiny(**settings) -> MoCo:
    torch.manual_seed(0)
    return MoCo(MoCoSettings(**{"projector_dim": 8, "queue_size": 48} | settings), TinyEncoder()).train()


@pytest.fixture
def batch():
    return Batch(list(torch.rand(2, 16, 1, 12, 12, generator=torch.Generator().manual_seed(1))))


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(2)
    q, k = torch.randn(2, 12, 8, generator=generator)
    return q, k, F.normalize(torch.randn(30, 8, generator=generator), dim=1)


def test_info_nce_equals_lightly(vectors):
    q, k, negatives = vectors
    oracle = NTXentLoss(temperature=0.2, memory_bank_size=(30, 8))
    oracle.memory_bank.bank = negatives
    torch.testing.assert_close(info_nce(q, k, negatives, 0.2)[0], oracle(q, k), atol=1e-5, rtol=0)


def test_info_nce_equals_an_explicit_softmax(vectors):
    q, k, negatives = vectors
    losses, hits = [], []
    for query, key in zip(F.normalize(q, dim=1), F.normalize(k, dim=1), strict=True):
        own, others = torch.exp(query @ key / 0.07), torch.exp(negatives @ query / 0.07)
        losses.append(-torch.log(own / (own + others.sum())))
        hits.append(float(own > others.max()))
    loss, top1 = info_nce(q, k, negatives, 0.07)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), atol=1e-5, rtol=0)
    assert float(top1) == pytest.approx(sum(hits) / len(hits))


def test_keys_get_no_gradient(vectors):
    q, k, negatives = (x.clone().requires_grad_() for x in vectors)
    info_nce(q, k, negatives.detach(), 0.2)[0].backward()
    assert q.grad.abs().sum() > 0
    assert k.grad is None


def test_queue_is_first_in_first_out():
    queue, rows = Queue(6, 2), torch.arange(20.0).view(10, 2)
    assert not queue.full
    queue.push(rows[:4])
    assert not queue.full
    queue.push(rows[4:8])  # goes round the end
    assert queue.full
    assert sorted(queue.rows[:, 0].tolist()) == rows[2:8, 0].tolist()
    queue.push(rows[8:])
    assert sorted(queue.rows[:, 0].tolist()) == rows[4:, 0].tolist()
    with pytest.raises(ValueError, match="at most 6"):
        queue.push(torch.zeros(7, 2))


def test_step_reads_the_old_queue_and_then_pushes_its_keys(batch):
    method = tiny()
    torch.testing.assert_close(method.queue.rows.norm(dim=1), torch.ones(48))
    before = method.queue.rows.clone()
    output = method(batch)
    torch.testing.assert_close(output.loss, info_nce(output.z[0], output.z[1], before, 0.2)[0])
    torch.testing.assert_close(method.queue.rows[:16], F.normalize(output.z[1], dim=1))
    assert torch.equal(method.queue.rows[16:], before[16:])
    output.loss.backward()  # the push must not have touched what it needs


@pytest.mark.parametrize("size", [40, 8])
def test_queue_must_be_a_multiple_of_the_batch(batch, size):
    with pytest.raises(StudyError, match=r"queue_size: is \d+, not a multiple of the 16 images") as caught:
        tiny(queue_size=size)(batch)
    assert "\n" not in str(caught.value)


def test_key_encoder_starts_equal_and_moves_before_the_keys_are_made(batch):
    method = tiny(momentum=0.75)
    key = method.teacher.copies[0][0].weight
    assert torch.equal(key, method.encoder[0].weight)
    start = key.clone()
    method.before_step(0, 10)
    method(batch).loss.backward()
    torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0).step()
    method.after_step(0, 10)
    assert torch.equal(key, start)
    method.before_step(1, 10)
    moved = key.clone()
    torch.testing.assert_close(moved, 0.75 * start + 0.25 * method.encoder[0].weight)
    assert not torch.equal(moved, start)
    method(batch)
    method(batch)  # a batch in two parts: still one move a step
    assert torch.equal(key, moved)


def test_gradient_reaches_the_query_side_alone(batch):
    method = tiny()
    method(batch).loss.backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in method.named_parameters() if not name.startswith("teacher.")}


def test_groups_are_even_and_shuffling_is_undone():
    sizes, x = [], torch.randn(70, 3)

    def network(rows):
        sizes.append(len(rows))
        return rows * 2, rows.sum(dim=1)

    for shuffle in (False, True):
        doubled, summed = in_groups(network, x, 32, shuffle=shuffle)
        assert torch.equal(doubled, x * 2)
        assert torch.equal(summed, x.sum(dim=1))
    assert sizes == [24, 23, 23] * 2


def test_shuffled_groups_have_other_batch_statistics():
    """Within a group BN's mean is that of the group: after shuffling, a key's group is not its query's."""
    x = torch.arange(64.0).view(64, 1)

    def network(rows):
        return (rows.mean().expand(len(rows)),)

    (plain,) = in_groups(network, x, 32)
    assert plain.unique().tolist() == [15.5, 47.5]
    torch.manual_seed(0)
    (shuffled,) = in_groups(network, x, 32, shuffle=True)
    first, second = shuffled.unique().tolist()
    assert first + second == pytest.approx(63)
    assert 15.5 < first < 47.5
    assert len(shuffled[:32].unique()) == len(shuffled[32:].unique()) == 2
    torch.manual_seed(0)
    assert torch.equal(in_groups(network, x, 32, shuffle=True)[0], shuffled)
    (whole,) = in_groups(network, x, 64, shuffle=True)
    assert whole.unique().tolist() == [31.5]


def test_keys_are_shuffled_between_groups_and_queries_are_not(batch):
    method = tiny(bn_group=8)
    torch.manual_seed(3)
    output = method(batch)
    _, ordered = in_groups(method.teacher, batch.views[1], 8)
    torch.manual_seed(3)
    _, shuffled = in_groups(method.teacher, batch.views[1], 8, shuffle=True)
    torch.testing.assert_close(output.z[1], shuffled)
    assert (shuffled - ordered).abs().max() > 1e-3
    expected = torch.cat([method.encoder(half) for half in batch.views[0].chunk(2)])
    torch.testing.assert_close(output.features[0], expected)


def test_loss_is_in_float32_under_autocast(vectors):
    expected = info_nce(*vectors, 0.2)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(info_nce(*vectors, 0.2)[0], expected, atol=1e-6, rtol=0)


def test_a_full_queue_is_young_again_where_a_younger_one_is_loaded():
    queue = Queue(2, 2)
    young = {name: value.clone() for name, value in queue.state_dict().items()}
    queue.push(torch.ones(2, 2))
    assert queue.full
    queue.load_state_dict(young)
    assert not queue.full
