"""One training step: forward and backward passes, the check that all is finite, the optimiser's step."""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from medssl.errors import CapacityError
from medssl.seeds import seed_global
from medssl.training.divergence import DivergenceError, Trace, divergence_report
from medssl.training.feed import Part, Prepared
from medssl.training.optimizers import set_learning_rates

if TYPE_CHECKING:
    from medssl.training.loop import Drawn, LossOutput, Run

SKIPPED_IN_A_ROW = 10  # steps without a finite loss after which the run stops: by then no batch is to blame


@dataclass(frozen=True)
class Progress:
    """What is known after a step. `loss`, `logs` and `grad_norm` are those of the global batch, the same on all ranks."""

    step: int  # steps done, from 1
    total: int
    epoch: int  # from 0
    outputs: list[LossOutput]  # of this rank, one a part of the batch
    loss: float  # mean over parts and ranks
    logs: dict[str, Tensor]  # likewise; scalars, not read yet
    learning_rates: dict[str, float]
    grad_norm: float  # before clipping
    data_seconds: float  # waited for the store in this step
    began: float  # time.perf_counter() at its start
    skipped: bool  # loss or gradient were not finite, so nothing has changed
    skipped_steps: int  # so far, this one included


class Stepper:
    """Does the steps of a run. Its state is part of the checkpoint."""

    def __init__(self, run: Run, ranks: int, rank: int) -> None:
        self._run, self._ranks, self._rank = run, ranks, rank
        self._parameters = [p for p in run.module.parameters() if p.requires_grad]
        self._buffers = list(run.module.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._scaler = torch.amp.GradScaler(run.device.type, enabled=run.precision == torch.float16)
        self._skipped = self._in_a_row = 0
        self._trace = Trace()
        if run.device.type == "cuda":
            self._read, self._arrived = torch.empty(2, pin_memory=True), torch.cuda.Event()
        # No buffer is sent: batch statistics are those of all ranks, and where they are not, each rank keeps its own and rank 0's are saved.
        self._called = _shared(run.module) if ranks > 1 else run.module

    def __call__(self, prepared: Prepared, total: int, upcoming: Callable[[], Prepared | None] = lambda: None) -> Progress:
        """Do one step.

        Args:
            upcoming: gives what the next step gets, if it is there. On a GPU its views are made while this step's gradients are
                computed, when the CPU has nothing else to do.

        Raises:
            CapacityError: the memory is too small.
            DivergenceError: too many steps in a row had no finite loss.
        """
        try:
            return self._step(prepared, total, upcoming)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise CapacityError(_too_large(self._run)) from error

    def _step(self, prepared: Prepared, total: int, upcoming: Callable[[], Prepared | None]) -> Progress:
        run, step, began = self._run, prepared.step, time.perf_counter() - prepared.waited
        seed_global(run.seed, "step", step, self._rank)  # for layers that read the global generators, such as dropout
        rates = set_learning_rates(run.optimizer, step, total, run.warmup_steps, run.final_lr)
        run.before_step(step, total)
        run.optimizer.zero_grad(set_to_none=True)
        _copy(self._kept, self._buffers)
        outputs = self._passes(prepared)
        run.after_backward(step, total)
        loss, logs = self._means(outputs)
        read = self._ask(loss)
        if run.device.type == "cuda" and (following := upcoming()) is not None:
            following.drawn = draw(run, following.parts[0])
        loss, norm = read()
        # Where fp16's scale made the gradient overflow the scaler leaves the step out and takes a smaller one.
        self._trace.add(step + 1, loss, norm, max(rates.values()))
        skipped = not (math.isfinite(loss) and (math.isfinite(norm) or self._scaler.is_enabled()))
        if skipped:
            self._skip(step, loss, norm)
        else:
            self._in_a_row = 0
            self._update(norm)
            run.after_step(step, total)
        return Progress(
            step + 1, total, prepared.epoch, outputs, loss, logs, rates, norm, prepared.waited, began, skipped, self._skipped
        )

    def _passes(self, prepared: Prepared) -> list[LossOutput]:
        run, parts, outputs = self._run, prepared.parts, []
        samples = sum(len(part.samples) for part in parts)
        for number, part in enumerate(parts):
            drawn, prepared.drawn = prepared.drawn or draw(run, part), None
            last = number == len(parts) - 1
            apart = contextlib.nullcontext() if last or self._ranks == 1 else self._called.no_sync()
            with apart:
                with torch.autocast(run.device.type, dtype=run.precision, enabled=run.precision != torch.float32):
                    outputs.append(run.forward(self._called, drawn))
                self._scaler.scale(outputs[-1].loss * len(part.samples) / samples).backward()
        return outputs

    def _means(self, outputs: list[LossOutput]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and logs, mean over parts and ranks."""
        names = list(outputs[0].logs)
        rows = [torch.stack([output.loss.detach().float(), *(output.logs[name].float() for name in names)]) for output in outputs]
        means = torch.stack(rows).mean(dim=0)
        if self._ranks > 1:
            dist.all_reduce(means)
            means = means / self._ranks
        return means[0], dict(zip(names, means[1:], strict=True))

    def _ask(self, loss: Tensor) -> Callable[[], list[float]]:
        """Have loss and norm of the gradient computed; what is returned waits for the device and gives them."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._run.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        values = torch.stack([loss, norm.float()])
        if values.device.type != "cuda":
            return values.tolist
        # Waits for these two values alone: `tolist` would wait for everything that the GPU is given until then.
        self._read.copy_(values, non_blocking=True)
        self._arrived.record(torch.cuda.current_stream(values.device))

        def read() -> list[float]:
            self._arrived.synchronize()
            return self._read.tolist()

        return read

    def _update(self, norm: float) -> None:
        run = self._run
        if run.clip_norm is not None and math.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(self._parameters, run.clip_norm, torch.tensor(norm, device=run.device))
        self._scaler.step(run.optimizer)
        self._scaler.update()

    def _skip(self, step: int, loss: float, norm: float) -> None:
        """Undo what the forward pass did to running statistics and queues: one NaN in them would never leave."""
        self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
        ends = self._in_a_row >= SKIPPED_IN_A_ROW
        report = divergence_report(self._run.module, self._trace, self._run.precision) if ends else ""  # before it is undone
        _copy(self._buffers, self._kept)
        self._run.optimizer.zero_grad(set_to_none=True)
        if self._scaler.is_enabled():
            self._scaler.update()
        if ends:
            raise DivergenceError(
                f"training: the loss is {loss} and the norm of its gradient {norm} at step {step + 1}, the {self._in_a_row}th step in a "
                f"row without a finite one ({self._skipped} in all); lower pretrain.optimizer.base_lr, set pretrain.clip_norm: 1.0 "
                "or pretrain.precision: float32, and start over with --fresh",
                report,
            )

    def state_dict(self) -> dict[str, int | dict]:
        """Counters and fp16's scale."""
        return {"skipped": self._skipped, "in_a_row": self._in_a_row, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on with a state."""
        self._skipped, self._in_a_row = state["skipped"], state["in_a_row"]
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


@torch.no_grad()
def _copy(to: list[Tensor], of: list[Tensor]) -> None:
    """All of a type at once: a GPU gets a few kernels instead of hundreds."""
    for dtype in {tensor.dtype for tensor in to}:
        alike = [n for n, tensor in enumerate(to) if tensor.dtype == dtype]
        torch._foreach_copy_([to[n] for n in alike], [of[n] for n in alike])


def _shared(module: nn.Module) -> nn.Module:
    """`module` with its gradients averaged over ranks. Newer torch has another name for the same switch."""
    wrapper = nn.parallel.DistributedDataParallel
    names = inspect.signature(wrapper.__init__).parameters
    return wrapper(module, **{"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False})


def draw(run: Run, part: Part) -> Drawn:
    """The views of some samples, on the device."""
    from medssl.training.loop import Drawn

    batch = part.samples.to(run.device)
    others = None if part.others is None else part.others.to(run.device)
    related = None if part.related is None else part.related.to(run.device)
    views = [
        plan.policy.apply(others if plan.related else batch, parameters, plan.size)
        for plan, parameters in zip(run.views, part.parameters, strict=True)
    ]
    return Drawn(views, batch, related)


def _too_large(run: Run) -> str:
    more = (
        f"pretrain.accumulate: {2 * run.accumulate} passes the same batch in half as large parts, which about halves the memory"
    )
    if run.device.type != "cuda":
        return f"training: the memory of this machine is too small for batches of {run.batch_size}; {more}"
    total = torch.cuda.get_device_properties(run.device).total_memory / 2**30
    return (
        f"training: batches of {run.batch_size} do not fit into the {total:.0f} GB of the GPU; {more}; smaller: pretrain.batch_size, "
        "encoder.input_size, or pretrain.precision: bfloat16"
    )
