"""The training loop, for pretraining and for fine-tuning: reads top to bottom.

Everything random is a function of (seed, epoch, step), so a run that goes on from a checkpoint does exactly what the
uninterrupted run would have done, and the checkpoint holds no generator state.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medssl.data.batches import PixelBatch, PixelSource
from medssl.errors import DataError, StudyError
from medssl.intervals import Interval
from medssl.seeds import seed_global
from medssl.training.checkpoint import Checkpoints, Clock
from medssl.training.distributed import World
from medssl.training.feed import Feed
from medssl.training.memory import keep_memory
from medssl.training.step import Progress, Stepper, draw
from medssl.training.stop import StopFlag, Stopped

EACH_EPOCH = Interval(epochs=1)


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
    forward: Callable[[nn.Module, Drawn], LossOutput]  # given the module, or what stands for it on several ranks
    optimizer: torch.optim.Optimizer
    source: PixelSource
    views: Sequence[ViewPlan]
    epochs: int  # of the schedule
    batch_size: int  # samples a step, of all ranks together
    seed: int
    device: torch.device
    accumulate: int = 1  # parts that a batch is worked on in, one after the other; the step is taken once
    pairs: Pairs | None = None  # where a view shows a related image
    max_steps: int | None = None  # the schedule ends after so many steps; None: after `epochs`
    drop_last: bool = True  # a smaller last batch would have other batch statistics
    warmup_epochs: int = 0
    final_lr: float = 0.0  # where the cosine ends, share of the highest rate
    clip_norm: float | None = None  # the longest gradient, L2 over all parameters; None: as it comes
    last_epoch: int | None = None  # end after so many epochs of the schedule; None: at its end
    precision: torch.dtype = torch.float32
    checkpoints: Checkpoints | None = None  # None: too short to be worth one
    checkpoint_every: Interval = EACH_EPOCH
    inputs: dict[str, Any] = field(default_factory=dict)  # what the checkpoint must agree with
    extra_state: dict[str, Any] = field(default_factory=dict)  # more that an exact resume needs, such as the monitor
    before_step: Callable[[int, int], None] = lambda step, total: None
    after_backward: Callable[[int, int], None] = lambda step, total: None
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


def train(run: Run, stop: StopFlag, world: World = World()) -> None:
    """Train to the end, from the checkpoint where there is one.

    Raises:
        Stopped: a signal asked for it; the checkpoint is written.
        DataError: there are fewer images than one batch takes; or they could not be read.
        StudyError: the ranks cannot share a batch evenly.
        CheckpointError: the checkpoint is of another run.
        CollapseError, CapacityError: see `Stepper`.
    """
    check_batch(run, world.size)
    keep_memory()
    stepper, total = Stepper(run, world.size, world.rank), run.total_steps
    start = _restore(run, stepper)
    end = run.steps_per_epoch * run.last_epoch if run.last_epoch else total
    clock = Clock(run.checkpoint_every, run.steps_per_epoch)
    run.module.train()
    with Feed(run, start, end, rank=world.rank, ranks=world.size) as feed:
        for prepared in feed:
            run.on_step(stepper(prepared, total, feed.ready))
            done = prepared.step + 1
            if done % run.steps_per_epoch == 0:
                run.on_epoch(prepared.epoch, done)
                run.module.train()
            # All ranks do the same: a signal, or rank 0's clock, may have come to one of them alone.
            signum, due = world.agree(stop.signum or 0, int(clock.due(done)) if world.leads else 0)
            if run.checkpoints and (signum or due) and done < end:
                _save(run, stepper, done, world)
                clock.written()
            if signum and done < end:
                raise Stopped(signum, done, end)


def check_batch(run: Run, ranks: int) -> None:
    """Refuse a batch that cannot be made.

    Raises:
        DataError: there are fewer images than one batch takes.
        StudyError: it cannot be split evenly over the ranks.
    """
    if run.steps_per_epoch == 0:
        raise DataError(f"training: {len(run.source)} images are fewer than one batch of {run.batch_size}; lower the batch size")
    if ranks > 1 and run.batch_size % (ranks * run.accumulate):
        unit = ranks * run.accumulate
        allowed = sorted({max(unit, run.batch_size // unit * unit), (run.batch_size // unit + 1) * unit})
        raise StudyError(
            f"pretrain.batch_size: is {run.batch_size}, which {ranks} processes with accumulate: {run.accumulate} cannot share evenly; "
            f"allowed: multiples of {unit}, such as {' or '.join(map(str, allowed))}"
        )


def seconds_per_step(run: Run, world: World = World()) -> float:
    """How long a step takes on this machine, tried on two steps that are then undone: the run starts as if they had not been."""
    check_batch(run, world.size)
    weights = {name: tensor.clone() for name, tensor in run.module.state_dict().items()}
    run.module.train()
    stepper, feed = Stepper(run, world.size, world.rank), Feed(run, 0, 1, rank=world.rank, ranks=world.size)
    prepared = feed.prepare(0)
    for _ in range(2):  # the first one is slower: libraries choose their kernels
        began = time.perf_counter()
        stepper(prepared, 1)
        seconds = time.perf_counter() - began
    run.module.load_state_dict(weights)
    run.optimizer.state.clear()
    run.optimizer.zero_grad(set_to_none=True)
    return seconds


def drawn_at(run: Run, step: int) -> list[Drawn]:
    """What the forward passes of a step get, one a part: drawn as training draws it. Seeds the global generators as training does."""
    prepared = Feed(run, step, step + 1).prepare(step)
    seed_global(run.seed, "step", step, 0)
    return [draw(run, part) for part in prepared.parts]


def _save(run: Run, stepper: Stepper, step: int, world: World) -> None:
    """All ranks have the same state; rank 0 writes it, and the others wait: one that ended before would have torchrun end all."""
    if world.leads:
        state = {"module": run.module.state_dict(), "optimizer": run.optimizer.state_dict(), "stepper": stepper.state_dict()}
        state |= {name: part.state_dict() for name, part in run.extra_state.items()}
        run.checkpoints.save(step, inputs=run.inputs, state=state, surroundings=surroundings(run, world))
    world.wait()


def surroundings(run: Run, world: World) -> dict[str, Any]:
    """What may change when a run goes on, and is then said: the numbers are no longer the same bit by bit."""
    on_gpu = run.device.type == "cuda"
    return {
        "processes": world.size,
        "device": torch.cuda.get_device_name(run.device) if on_gpu else run.device.type,
        "deterministic": torch.are_deterministic_algorithms_enabled() or not on_gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _restore(run: Run, stepper: Stepper) -> int:
    loaded = None if run.checkpoints is None else run.checkpoints.load(run.inputs)
    if loaded is None:
        return 0
    run.module.load_state_dict(loaded.state["module"], strict=True)
    run.optimizer.load_state_dict(loaded.state["optimizer"])
    stepper.load_state_dict(loaded.state["stepper"])
    for name, part in run.extra_state.items():
        part.load_state_dict(loaded.state[name])
    return loaded.step
