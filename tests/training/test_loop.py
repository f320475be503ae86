"""The loop: exact resume at any step, a clean stop, checkpoints of another run refused."""

from __future__ import annotations

import re
import signal
import threading
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.batches import epoch_order
from medssl.errors import CapacityError, CheckpointError, DataError
from medssl.intervals import Interval
from medssl.training.checkpoint import Checkpoints
from medssl.training.divergence import DivergenceError
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


def make_run(source, checkpoints=None, **changes) -> Run:
    torch.manual_seed(0)
    module = Tiny()
    groups = [{"name": "all", "params": list(module.parameters())}]
    run = Run(
        module=module,
        forward=lambda module, drawn: module(drawn.views),
        optimizer=build_optimizer(Recipe(name="sgd", base_lr=0.005, weight_decay=1e-4), groups, 0.005),
        source=source,
        views=[ViewPlan(build_policy(policy_settings({"policy": "chest_xray"})), 12)] * 2,
        epochs=3,
        batch_size=5,
        seed=1,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
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
    first = make_run(source, Checkpoints(tmp_path / "c"))
    first.on_step = lambda progress: progress.step == at and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped, match=rf"stopped after step {at} of 12; the same command goes on") as caught:
        train(first, stop)
    assert caught.value.signum == signal.SIGTERM

    steps = []
    second = make_run(source, Checkpoints(tmp_path / "c"), on_step=lambda progress: steps.append(progress.step))
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

    first = make_run(source, Checkpoints(tmp_path / "c"), on_step=kill)
    with pytest.raises(Killed):
        train(first, StopFlag())
    steps = []
    second = make_run(source, Checkpoints(tmp_path / "c"), on_step=lambda progress: steps.append(progress.step))
    train(second, StopFlag())
    assert steps[0] == 5
    assert all(torch.isfinite(tensor).all() for tensor in tensors(whole))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(second), strict=True))


def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(source, tmp_path):
    stop = StopFlag()
    run = make_run(source, Checkpoints(tmp_path / "c"), on_step=lambda progress: stop.set(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(run, stop)
    before = Checkpoints(tmp_path / "c").path(1).read_bytes()
    other = make_run(source, Checkpoints(tmp_path / "c"), inputs={"pretrain": {"epochs": 4}, "data": "e" * 64})
    with pytest.raises(
        CheckpointError, match=r"belongs to another study: data has changed, pretrain\.epochs was 3 and is now 4; .*--fresh"
    ):
        train(other, StopFlag())
    assert Checkpoints(tmp_path / "c").path(1).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_where_no_checkpoint_can_be_read_it_is_one_line(source, tmp_path, content):
    (tmp_path / "c").mkdir()
    Checkpoints(tmp_path / "c").path(4).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-000000004\.pt: cannot be read as a checkpoint .* no older one") as caught:
        train(make_run(source, Checkpoints(tmp_path / "c")), StopFlag())
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(source, tmp_path):
    whole = make_run(source)
    train(whole, StopFlag())
    stop = StopFlag()
    first = make_run(source, Checkpoints(tmp_path / "c"), checkpoint_every=Interval(steps=2))
    first.on_step = lambda progress: progress.step == 7 and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped):
        train(first, stop)
    assert Checkpoints(tmp_path / "c").steps() == [6, 7]
    newest = Checkpoints(tmp_path / "c").path(7)
    newest.write_bytes(newest.read_bytes()[:-100])
    (tmp_path / "c" / ".step-000000008.pt.half").write_bytes(b"what a killed process leaves")
    said, steps = [], []
    second = make_run(source, Checkpoints(tmp_path / "c", say=said.append), on_step=lambda progress: steps.append(progress.step))
    train(second, StopFlag())
    assert steps == list(range(7, 13))
    assert len(said) == 1
    assert "step-000000007.pt: cannot be read" in said[0]
    assert "going on from the one before it, after step 6" in said[0]
    assert not list((tmp_path / "c").glob(".step-*"))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(second), strict=True))


def test_force_goes_on_with_other_settings_and_says_which(source, tmp_path):
    stop = StopFlag()
    run = make_run(source, Checkpoints(tmp_path / "c"), on_step=lambda progress: stop.set(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(run, stop)
    said, steps = [], []
    forced = Checkpoints(tmp_path / "c", force=True, say=said.append)
    other = make_run(source, forced, inputs={"pretrain": {"epochs": 4}, "data": "d" * 64})
    other.on_step = lambda progress: steps.append(progress.step)
    train(other, StopFlag())
    assert steps[0] == 2
    assert said == ["going on after step 1 although the study is another one (--force): pretrain.epochs was 3 and is now 4"]


class Poisoned(Tiny):
    """Gives no number in the forward passes that `bad` names, and leaves one in its running statistics."""

    def __init__(self, bad):
        super().__init__()
        self.bad, self.passes = bad, 0

    def forward(self, views):
        self.passes += 1
        return super().forward([view * float("nan") for view in views] if self.passes in self.bad else views)


def poisoned(source, bad) -> Run:
    torch.manual_seed(0)
    module = Poisoned(bad)
    groups = [{"name": "all", "params": list(module.parameters())}]
    optimizer = build_optimizer(Recipe(name="sgd", base_lr=0.005, weight_decay=1e-4), groups, 0.005)
    return make_run(source, module=module, optimizer=optimizer)


def test_a_step_without_a_finite_loss_changes_nothing_and_is_counted(source):
    progress, before = [], {}
    run = poisoned(source, {3, 7})

    def on_step(done):
        progress.append(done)
        now = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
        if done.skipped:
            assert all(torch.equal(before[name], tensor) for name, tensor in now.items())
        before.clear()
        before.update(now)

    run.on_step = on_step
    train(run, StopFlag())
    assert [done.step for done in progress if done.skipped] == [3, 7]
    assert progress[-1].skipped_steps == 2
    assert all(torch.isfinite(tensor).all() for tensor in tensors(run))


def test_ten_steps_in_a_row_without_one_end_the_run(source):
    with pytest.raises(DivergenceError, match=r"the loss is nan .* at step 11, the 10th step in a row .*--fresh") as caught:
        train(poisoned(source, set(range(2, 100))), StopFlag())
    report = caught.value.report
    assert "| 11 | nan | nan |" in report
    assert re.search(r"gradients of the last step: (\d+) of \1 are not finite: \w+", report)
    assert re.search(r"weights: all of \d+ are finite", report)
    assert re.search(r"\| 1 \| -?\d", report)  # the last good step


def test_a_clipped_gradient_is_as_long_as_allowed(source):
    norms = []
    run = make_run(source, clip_norm=0.01)
    run.on_step = lambda progress: norms.append(
        (progress.grad_norm, float(torch.nn.utils.get_total_norm([p.grad for p in run.module.parameters()])))
    )
    train(run, StopFlag())
    assert all(before > 0.01 for before, _ in norms)
    assert all(after == pytest.approx(0.01, rel=1e-3) for _, after in norms)


def test_fp16_with_a_scaled_loss_trains_and_resumes_bitwise(source, tmp_path):
    whole = make_run(source, precision=torch.float16)
    train(whole, StopFlag())
    stop = StopFlag()
    first = make_run(source, Checkpoints(tmp_path / "c"), precision=torch.float16)
    first.on_step = lambda progress: progress.step == 5 and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped):
        train(first, stop)
    second = make_run(source, Checkpoints(tmp_path / "c"), precision=torch.float16)
    train(second, StopFlag())
    untrained = make_run(source)
    assert not torch.equal(tensors(untrained)[0], tensors(whole)[0])
    assert all(torch.isfinite(tensor).all() for tensor in tensors(whole))
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(second), strict=True))


def test_too_little_memory_says_what_halves_it(source):
    def forward(module, drawn):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(CapacityError, match=r"too small for batches of 5; pretrain\.accumulate: 2 passes .* halves the memory"):
        train(make_run(source, forward=forward), StopFlag())


def test_a_store_that_cannot_be_read_is_one_line_that_names_the_step(source, monkeypatch):
    real, calls = source.batch, []

    def batch(positions):
        calls.append(positions)
        if len(calls) > 5:
            raise OSError(5, "Input/output error", "shard-grey-uint8.bin")
        return real(positions)

    monkeypatch.setattr(source, "batch", batch)
    steps = []
    with pytest.raises(DataError, match=r"the images of step 6 could not be read \(OSError: .*shard-grey-uint8\.bin"):
        train(make_run(source, on_step=lambda progress: steps.append(progress.step)), StopFlag())
    assert steps == [1, 2, 3, 4, 5]
    assert not [thread for thread in threading.enumerate() if thread.name == "medssl-feed"]


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
