"""The loop: exact resume at any step, a clean stop, checkpoints of another run refused."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.batches import epoch_order
from medssl.errors import CheckpointError, DataError
from medssl.training.loop import Run, ViewPlan, seconds_per_step, train
from medssl.training.optimizers import build_optimizer
from medssl.training.recipe import Recipe
from medssl.training.stop import StopFlag, Stopped


@dataclass
class Out:
    loss: Tensor
    logs: dict = field(default_factory=dict)


class Tiny(nn.Module):
    """Has all that can break an exact resume: batch statistics, dropout, momentum."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(3)
        )
        self.net(torch.zeros(2, 1, 12, 12))

    def forward(self, views):
        return Out(((self.net(views[0]) - self.net(views[1])) ** 2).mean() + self.net(views[0]).pow(2).mean())


def make_run(source, checkpoint=None, **changes) -> Run:
    torch.manual_seed(0)
    module = Tiny()
    groups = [{"name": "all", "params": list(module.parameters())}]
    run = Run(
        module=module,
        forward=lambda drawn: module(drawn.views),
        optimizer=build_optimizer(Recipe(name="sgd", base_lr=0.005, weight_decay=1e-4), groups, 0.005),
        source=source,
        views=[ViewPlan(build_policy(policy_settings({"policy": "chest_xray"})), 12)] * 2,
        epochs=3,
        batch_size=5,
        seed=1,
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        inputs={"pretrain": {"epochs": 3}, "data": "d" * 64},
    )
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def tensors(run: Run) -> list[Tensor]:
    return [
        *run.module.state_dict().values(),
        *(v for s in run.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)),
    ]


@pytest.mark.parametrize("at", [1, 3, 4, 7, 11])
def test_stopped_anywhere_and_gone_on_it_ends_bitwise_the_same(source, tmp_path, at):
    whole = make_run(source)
    train(whole, StopFlag())

    stop = StopFlag()
    first = make_run(source, tmp_path / "c.pt")
    first.on_step = lambda progress: progress.step == at and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped, match=rf"stopped after step {at} of 12; the same command goes on") as caught:
        train(first, stop)
    assert caught.value.signum == signal.SIGTERM

    steps = []
    second = make_run(source, tmp_path / "c.pt", on_step=lambda progress: steps.append(progress.step))
    train(second, StopFlag())
    assert steps == list(range(at + 1, 13))
    assert all(torch.isfinite(tensor).all() for tensor in tensors(whole))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(second), strict=True))


def test_killed_after_an_epoch_it_repeats_from_the_last_checkpoint(source, tmp_path):
    whole = make_run(source)
    train(whole, StopFlag())

    class Killed(BaseException):
        pass

    def kill(progress):
        if progress.step == 6:
            raise Killed

    first = make_run(source, tmp_path / "c.pt", on_step=kill)
    with pytest.raises(Killed):
        train(first, StopFlag())
    steps = []
    second = make_run(source, tmp_path / "c.pt", on_step=lambda progress: steps.append(progress.step))
    train(second, StopFlag())
    assert steps[0] == 5
    assert all(torch.isfinite(tensor).all() for tensor in tensors(whole))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(second), strict=True))


def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(source, tmp_path):
    stop = StopFlag()
    run = make_run(source, tmp_path / "c.pt", on_step=lambda progress: stop.set(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(run, stop)
    before = (tmp_path / "c.pt").read_bytes()
    other = make_run(source, tmp_path / "c.pt", inputs={"pretrain": {"epochs": 4}, "data": "e" * 64})
    with pytest.raises(
        CheckpointError, match=r"belongs to another study: data has changed, pretrain\.epochs was 3 and is now 4; .*--fresh"
    ):
        train(other, StopFlag())
    assert (tmp_path / "c.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_one_line(source, tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.pt: is not a checkpoint of medssl") as caught:
        train(make_run(source, tmp_path / "c.pt"), StopFlag())
    assert "\n" not in str(caught.value)


def test_fewer_images_than_a_batch(source):
    with pytest.raises(DataError, match="22 images are fewer than one batch of 23; lower the batch size"):
        train(make_run(source, batch_size=23), StopFlag())


def test_trying_the_speed_changes_nothing(source):
    whole, tried = make_run(source), make_run(source)
    train(whole, StopFlag())
    assert seconds_per_step(tried) > 0
    train(tried, StopFlag())
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(tried), strict=True))


def test_last_epoch_ends_early_on_the_same_schedule(source):
    rates = []
    run = make_run(source, last_epoch=1, on_step=lambda progress: rates.append(progress.learning_rates["all"]))
    train(run, StopFlag())
    assert len(rates) == 4
    assert rates[-1] > 0.004  # a third of the way down the cosine of three epochs, not at its end


def test_the_order_is_a_function_of_seed_and_epoch():
    assert torch.equal(epoch_order(50, 3, 2), epoch_order(50, 3, 2))
    assert not torch.equal(epoch_order(50, 3, 2), epoch_order(50, 3, 3))
    assert epoch_order(50, 3, 2).sort().values.tolist() == list(range(50))


def test_every_image_is_evaluated_once_and_in_order(source):
    rows = torch.cat([batch.row for batch in source.batches(5)])
    assert rows.tolist() == list(range(22))
