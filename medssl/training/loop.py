"""The training loop, for pretraining and for fine-tuning: reads top to bottom.

Everything random is a function of (seed, epoch, step), so a run that goes on from a checkpoint does exactly what the
uninterrupted run would have done, and the checkpoint holds no generator state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medssl.data.batches import PixelBatch, PixelSource, epoch_order
from medssl.errors import DataError
from medssl.seeds import seed_global, torch_generator
from medssl.training.checkpoint import load_checkpoint, save_checkpoint
from medssl.training.memory import keep_memory
from medssl.training.optimizers import set_learning_rates
from medssl.training.stop import StopFlag, Stopped


class Policy(Protocol):
    """How views are drawn; see medssl.augment."""

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Tensor]: ...
    def apply(self, batch: PixelBatch, parameters: dict[str, Tensor], size: int) -> Tensor: ...


class LossOutput(Protocol):
    """What a forward pass returns; see medssl.methods.Output."""

    loss: Tensor
    logs: dict[str, Tensor]


@dataclass(frozen=True)
class ViewPlan:
    """How one view of each sample is made."""

    policy: Policy
    size: int  # side, px
    related: bool = False  # of the related image that `Run.pairs` names


@dataclass
class Drawn:
    """What a forward pass gets, all on the device; row i of everything belongs to sample i."""

    views: list[Tensor]  # (N, C, size, size) float32 in [0, 1], one a plan
    pixels: PixelBatch  # the samples themselves
    related: Tensor | None  # (N,) bool: the sample has a related image; None where no view asks for one


class Pairs(Protocol):
    """Related images; see medssl.data.pairs."""

    def partners(self, seed: int, epoch: int) -> Tensor: ...  # (len(source),) int64: a position, or -1 for none


@dataclass
class Run:
    """All that one training run is made of."""

    module: nn.Module  # everything that is trained and saved
    forward: Callable[[Drawn], LossOutput]
    optimizer: torch.optim.Optimizer
    source: PixelSource
    views: Sequence[ViewPlan]
    epochs: int  # of the schedule
    batch_size: int  # samples a step
    seed: int
    device: torch.device
    accumulate: int = 1  # parts that a batch is worked on in, one after the other; the step is taken once
    pairs: Pairs | None = None  # where a view shows a related image
    max_steps: int | None = None  # the schedule ends after so many steps; None: after `epochs`
    drop_last: bool = True  # a smaller last batch would have other batch statistics
    warmup_epochs: int = 0
    final_lr: float = 0.0  # where the cosine ends, share of the highest rate
    last_epoch: int | None = None  # end after so many epochs of the schedule; None: at its end
    precision: torch.dtype = torch.float32
    checkpoint: Path | None = None  # None: too short to be worth one
    checkpoint_every: int = 1  # epochs
    inputs: dict[str, Any] = field(default_factory=dict)  # what the checkpoint must agree with
    extra_state: dict[str, nn.Module] = field(default_factory=dict)  # more that an exact resume needs, such as the monitor
    before_step: Callable[[int, int], None] = lambda step, total: None
    after_step: Callable[[int, int], None] = lambda step, total: None
    on_step: Callable[[Progress], None] = lambda progress: None
    on_epoch: Callable[[int, int], None] = lambda epoch, step: None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        whole, rest = divmod(len(self.source), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up; of a schedule that ends early a tenth at most, or it would end before it reaches its rate."""
        steps = self.warmup_epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps // 10)

    @property
    def total_steps(self) -> int:
        """Steps of the schedule."""
        return self.max_steps or self.steps_per_epoch * self.epochs


@dataclass(frozen=True)
class Progress:
    """What is known after a step."""

    step: int  # steps done, from 1
    total: int
    epoch: int  # from 0
    outputs: list[LossOutput]  # one a part of the batch
    loss: Tensor  # their mean, detached
    learning_rates: dict[str, float]
    grad_norm: Tensor
    data_seconds: float  # waited for pixels and views in this step
    began: float  # time.perf_counter() at its start; the device may be at work on it still


def train(run: Run, stop: StopFlag) -> None:
    """Train to the end, from the checkpoint where there is one.

    Raises:
        Stopped: a signal asked for it; the checkpoint is written.
        DataError: there are fewer images than one batch takes.
        CheckpointError: the checkpoint is of another run.
    """
    per_epoch = run.steps_per_epoch
    total = run.total_steps
    if per_epoch == 0:
        raise DataError(f"training: {len(run.source)} images are fewer than one batch of {run.batch_size}; lower the batch size")
    keep_memory()
    start = _restore(run)
    order, partners, ordered_epoch = None, None, None
    run.module.train()
    end = per_epoch * run.last_epoch if run.last_epoch else total
    for step in range(start, end):
        epoch, within = divmod(step, per_epoch)
        if epoch != ordered_epoch:
            order, ordered_epoch = epoch_order(len(run.source), run.seed, epoch), epoch
            partners = run.pairs.partners(run.seed, epoch) if run.pairs else None
        positions = order[within * run.batch_size : (within + 1) * run.batch_size]
        run.on_step(_step(run, positions, partners, step, total, epoch))

        done = step + 1
        epoch_ends = done % per_epoch == 0
        if epoch_ends:
            run.on_epoch(epoch, done)
            run.module.train()
        if run.checkpoint and done < end:
            due = epoch_ends and (epoch + 1) % run.checkpoint_every == 0
            if due or stop.signum is not None:
                _save(run, done)
        if stop.signum is not None and done < end:
            raise Stopped(stop.signum, done, end)


def seconds_per_step(run: Run) -> float:
    """How long a step takes on this machine, tried on two steps that are then undone: the run starts as if they had not been."""
    weights = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
    partners = run.pairs.partners(run.seed, 0) if run.pairs else None
    run.module.train()
    for _ in range(2):  # the first one is slower: libraries choose their kernels
        began = time.perf_counter()
        _step(run, torch.arange(min(run.batch_size, len(run.source))), partners, 0, 1, 0)
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        seconds = time.perf_counter() - began
    run.module.load_state_dict(weights)
    run.optimizer.state.clear()
    run.optimizer.zero_grad(set_to_none=True)
    return seconds


def drawn_at(run: Run, step: int) -> list[Drawn]:
    """What the forward passes of a step get, one a part: drawn as training draws it. Seeds the global generators as training does."""
    epoch, within = divmod(step, run.steps_per_epoch)
    positions = epoch_order(len(run.source), run.seed, epoch)[within * run.batch_size : (within + 1) * run.batch_size]
    partners = run.pairs.partners(run.seed, epoch)[positions] if run.pairs else None
    parameters = _parameters(run, step, len(positions))
    seed_global(run.seed, "step", step)
    return [
        _draw(run, positions[part], None if partners is None else partners[part], parameters, part)
        for part in _parts(len(positions), run.accumulate)
    ]


def _parameters(run: Run, step: int, samples: int) -> list[dict[str, Tensor]]:
    """Those of each view of a step, for the whole batch and apart from their use: a function of (seed, step, view) alone."""
    return [plan.policy.sample(samples, torch_generator(run.seed, "views", step, view)) for view, plan in enumerate(run.views)]


def _step(run: Run, positions: Tensor, partners: Tensor | None, step: int, total: int, epoch: int) -> Progress:
    began, data_seconds = time.perf_counter(), 0.0
    parameters = _parameters(run, step, len(positions))
    seed_global(run.seed, "step", step)  # for layers that read the global generators, such as dropout
    rates = set_learning_rates(run.optimizer, step, total, run.warmup_steps, run.final_lr)
    run.before_step(step, total)
    run.optimizer.zero_grad(set_to_none=True)
    outputs, parts = [], _parts(len(positions), run.accumulate)
    for part in parts:
        started = time.perf_counter()
        drawn = _draw(run, positions[part], None if partners is None else partners[positions[part]], parameters, part)
        data_seconds += time.perf_counter() - started
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=run.precision == torch.bfloat16):
            outputs.append(run.forward(drawn))
        (outputs[-1].loss * (part.stop - part.start) / len(positions)).backward()
    grad_norm = torch.nn.utils.get_total_norm([p.grad for p in run.module.parameters() if p.grad is not None])
    run.optimizer.step()
    run.after_step(step, total)
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    return Progress(step + 1, total, epoch, outputs, loss, rates, grad_norm, data_seconds, began)


def _parts(samples: int, parts: int) -> list[slice]:
    size = -(-samples // parts)
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def _draw(run: Run, positions: Tensor, partners: Tensor | None, parameters: list[dict[str, Tensor]], part: slice) -> Drawn:
    """The views of some samples of a batch; `parameters` are those of the whole batch."""
    batch, others, related = run.source.batch(positions).to(run.device), None, None
    if partners is not None:
        found = partners >= 0
        related = found.to(run.device)
        others = run.source.batch(torch.where(found, partners, positions)).to(run.device)
    views = [
        plan.policy.apply(others if plan.related else batch, {name: value[part] for name, value in drawn.items()}, plan.size)
        for plan, drawn in zip(run.views, parameters, strict=True)
    ]
    return Drawn(views, batch, related)


def _save(run: Run, step: int) -> None:
    state = {"module": run.module.state_dict(), "optimizer": run.optimizer.state_dict()}
    state |= {name: part.state_dict() for name, part in run.extra_state.items()}
    save_checkpoint(run.checkpoint, step=step, inputs=run.inputs, state=state)


def _restore(run: Run) -> int:
    if run.checkpoint is None or not run.checkpoint.exists():
        return 0
    step, state = load_checkpoint(run.checkpoint, run.inputs)
    run.module.load_state_dict(state["module"], strict=True)
    run.optimizer.load_state_dict(state["optimizer"])
    for name, part in run.extra_state.items():
        part.load_state_dict(state[name])
    return step
