"""The batches of a run, made one or two steps ahead in a thread, so that no step waits for the disk.

What a step gets is a function of (seed, epoch, step): the order of samples, the partners of related views, and the parameters of
all views, which are drawn for the global batch; each rank takes its own rows.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medssl.data.batches import PixelBatch, epoch_order
from medssl.errors import DataError, UserError
from medssl.seeds import torch_generator

if TYPE_CHECKING:
    from medssl.training.loop import Drawn, Run

_AHEAD = 2  # batches that wait; one would do where all steps took the same time


@dataclass
class Part:
    """What one forward pass of one rank needs, in the memory of the host (pinned for a GPU), or on the GPU."""

    samples: PixelBatch
    others: PixelBatch | None  # the related images; row i belongs to sample i
    related: Tensor | None  # (N,) bool: the sample has a related image
    parameters: list[dict[str, Tensor]]  # of each view


@dataclass
class Prepared:
    """All of one step."""

    step: int
    epoch: int
    parts: list[Part]
    waited: float = 0.0  # seconds that the step had to wait for it
    drawn: Drawn | None = None  # the views of the first part, where they have been made already


class Feed:
    """Prepares the steps `start` to `end - 1` of a run, in order."""

    def __init__(self, run: Run, start: int, end: int, *, rank: int = 0, ranks: int = 1) -> None:
        """`rank`, `ranks`: which share of each part's rows is made."""
        self._run, self._start, self._end, self._rank, self._ranks = run, start, end, rank, ranks
        self._pin = run.device.type == "cuda"
        self._epoch: tuple[int, Tensor, Tensor | None] | None = None
        self._queue: queue.Queue[Prepared | BaseException] = queue.Queue(_AHEAD)
        self._first: Prepared | BaseException | None = None  # taken from the queue and not given yet
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="medssl-feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while self._thread.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
            self._thread.join(timeout=0.05)

    def __iter__(self) -> Iterator[Prepared]:
        for _ in range(self._start, self._end):
            began = time.perf_counter()
            item, self._first = self._queue.get() if self._first is None else self._first, None
            if isinstance(item, BaseException):
                raise item
            item.waited = time.perf_counter() - began
            yield item

    def ready(self) -> Prepared | None:
        """What the next step will get, where it is there already; nothing is waited for."""
        if self._first is None:
            with contextlib.suppress(queue.Empty):
                self._first = self._queue.get_nowait()
        return self._first if isinstance(self._first, Prepared) else None

    def prepare(self, step: int) -> Prepared:
        """What step `step` gets.

        Raises:
            DataError: the store could not be read.
        """
        run = self._run
        epoch, within = divmod(step, run.steps_per_epoch)
        order, partners = self._order(epoch)
        positions = order[within * run.batch_size : (within + 1) * run.batch_size]
        drawn = parameters_at(run, step, len(positions))
        parts = [
            self._part(positions, partners, drawn, own)
            for own in own_rows(len(positions), run.accumulate, self._rank, self._ranks)
        ]
        return Prepared(step, epoch, parts)

    def _order(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        if self._epoch is None or self._epoch[0] != epoch:
            run = self._run
            partners = run.pairs.partners(run.seed, epoch) if run.pairs else None
            self._epoch = epoch, epoch_order(len(run.source), run.seed, epoch), partners
        return self._epoch[1:]

    def _part(self, positions: Tensor, partners: Tensor | None, drawn: list[dict[str, Tensor]], own: slice) -> Part:
        mine, others, related = positions[own], None, None
        if partners is not None:
            theirs = partners[mine]
            related = theirs >= 0
            others = self._read(torch.where(related, theirs, mine))
        parameters = [{name: value[own] for name, value in view.items()} for view in drawn]
        return Part(self._read(mine), others, related, parameters)

    def _read(self, positions: Tensor) -> PixelBatch:
        batch = self._run.source.batch(positions)
        return batch.pinned() if self._pin else batch

    def _work(self) -> None:
        for step in range(self._start, self._end):
            try:
                item: Any = self.prepare(step)
            except UserError as error:
                item = error
            except Exception as error:  # a thread's error is worth nothing to anybody unless it reaches the loop
                item = DataError(f"training: the images of step {step + 1} could not be read ({type(error).__name__}: {error})")
                item.__cause__ = error
            while not self._closed.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or isinstance(item, BaseException):
                return


def parameters_at(run: Run, step: int, samples: int) -> list[dict[str, Tensor]]:
    """Those of each view of a step, for the global batch and apart from their use: a function of (seed, step, view) alone."""
    return [plan.policy.sample(samples, torch_generator(run.seed, "views", step, view)) for view, plan in enumerate(run.views)]


def own_rows(samples: int, parts: int, rank: int, ranks: int) -> list[slice]:
    """The rows of a global batch that a rank works on, a slice a part: each part is split over the ranks in their order."""
    size = -(-samples // parts)
    spans = [(start, min(start + size, samples)) for start in range(0, samples, size)]
    if ranks == 1:
        return [slice(*span) for span in spans]
    out = []
    for start, end in spans:
        share = (end - start) // ranks  # the loop has checked that it divides
        out.append(slice(start + rank * share, start + (rank + 1) * share))
    return out
