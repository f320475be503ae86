"""finetune: small labelled sets. A cell for each arm, mode, label budget and draw; reads no label outside of its budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from medssl.evaluation.primary import PRIMARY
from medssl.finetuning import NETWORK_MODES, budget_name
from medssl.grid import ExecutionHow, Job, Summary, execute, share_of
from medssl.stages import cell_jobs
from medssl.stages.cell_context import CellContext, check_modes
from medssl.stages.cell_fit import is_fitted, work_of
from medssl.stages.cell_jobs import CellJobs, feature_jobs, jobs_of, limits_of
from medssl.stages.cells import Cell, grid
from medssl.stages.devices import choose_device
from medssl.stages.encoders import new_encoder
from medssl.stages.grid_failures import failed
from medssl.stages.index import index
from medssl.stages.pretrain import pretrain
from medssl.stages.record import log_record
from medssl.stages.screen import bar, say, warn
from medssl.stages.tracked import track_data
from medssl.stages.views import check_fit, finetune_views
from medssl.stages.workspace import Workspace
from medssl.tracking.locks import locked
from medssl.training.stop import Stopped, stop_on_signals

if TYPE_CHECKING:
    from medssl.tracking import RunLog


def finetune(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False, how: ExecutionHow = ExecutionHow()) -> None:
    """Fit every cell that is not there yet, or of a command with `how.shard` those of its share.

    Raises:
        Stopped: a signal asked for it; finished cells stay.
        GridError: some cells have failed, and the others are there; or those who do the work cannot be reached.
        UserError: see the errors of each part.
    """
    _ = work.task  # said before days of pretraining
    check_modes(work, new_encoder(work))
    with _one_shard_at_a_time(work, how):
        pretrain(work, arms=arms)
        archive = index(work)
    labelled = archive.rows(split="train", source=work.task.data)
    for mode in work.study.finetune.modes():
        if mode in NETWORK_MODES:
            check_fit(archive, labelled, finetune_views(work, mode), f"finetune.{mode}.views")
    cells = {cell.name: cell for cell in grid(work, archive, work.chosen_arms(arms))}
    device, gpu = _devices(work, how)
    context = CellContext(work, device)
    for cell in cells.values():
        context.draws.of(cell)  # a budget that cannot be drawn is said before any work
    # The share is of all cells, done or not: it must not change while other commands do theirs.
    share = [cells[job.key] for job in share_of(jobs_of(context, list(cells.values()), gpu=gpu), how.shard)]
    todo = [cell for cell in share if fresh or not is_fitted(context, cell)]
    if not todo:
        say("finetune", f"nothing has changed, {len(share)} cells are there{_elsewhere(context, cells, how)}")
        return
    summary = _fit(context, todo, how, gpu=gpu, fresh=fresh)
    taken = f", {summary.taken} by another command" if summary.taken else ""
    told = f"{summary.done} cells fitted{taken}, {len(share) - len(todo)} were there{_elsewhere(context, cells, how)}"
    say("finetune", told)
    if summary.failures:
        raise failed(work, summary, len(todo))


@contextmanager
def _one_shard_at_a_time(work: Workspace, how: ExecutionHow) -> Iterator[None]:
    """Of the commands of a grid one makes what is not there yet; the others wait, and find it."""
    with ExitStack() as stack:
        if how.shard is not None:
            path = work.folder / ".shards.lock"
            try:
                stack.enter_context(locked(path, timeout=0.5))
            except TimeoutError:
                say("finetune", "another part of the grid makes what all need; waiting for it")
                stack.enter_context(locked(path, timeout=math.inf))
        yield


def _devices(work: Workspace, how: ExecutionHow) -> tuple[torch.device, bool]:
    """The device of this process, and whether networks are trained on GPUs: of a cluster, those that its workers offer."""
    study = work.study
    if how.scheduler is None:
        device = choose_device(study)
        return device, device.type == "cuda"
    from medssl.grid.cluster import offers_gpus

    gpu = study.device.startswith("cuda") or (study.device == "auto" and offers_gpus(how.scheduler))
    return choose_device(study) if gpu and torch.cuda.is_available() else torch.device("cpu"), gpu


def _elsewhere(context: CellContext, cells: dict[str, Cell], how: ExecutionHow) -> str:
    """Of one of several commands, what the others have still to do."""
    if how.shard is None:
        return ""
    missing = sum(not is_fitted(context, cell) for cell in cells.values())
    rest = (
        f"{missing} of the grid's {len(cells)} cells are still missing"
        if missing
        else f"all {len(cells)} cells of the grid are there"
    )
    return f" (part {how.shard[0]} of {how.shard[1]}); {rest}"


def _fit(context: CellContext, todo: list[Cell], how: ExecutionHow, *, gpu: bool, fresh: bool) -> Summary:
    """Do the jobs of `todo`, each logged to the run of its arm.

    Returns:
        What came of the cells: features count only where they have failed.
    """
    features, jobs = feature_jobs(context, todo, gpu=gpu), jobs_of(context, todo, gpu=gpu)
    limits = limits_of(context.work, context.device if gpu else torch.device("cpu"))
    guards = {"is_done": cell_jobs.is_done, "lock_of": cell_jobs.lock_of}
    with stop_on_signals() as stop, ExitStack() as stack:
        logs = {arm: stack.enter_context(_arm_log(context, arm, todo, how)) for arm in dict.fromkeys(cell.arm for cell in todo)}
        values = stack.enter_context(_Values(context, logs, todo, jobs).flushed())
        progress = stack.enter_context(bar("finetune", sum(work_of(context, cell) for cell in todo)))

        def done(key: str, result: Any) -> None:
            if key in values:
                progress.reach(values.add(key, result))
            elif result is not None:
                say("features", f"{key.split('/')[0]}: {result[0]:,} images, {result[1]:,} features each")

        work = CellJobs(context, todo, fresh=fresh, on_cpu=not gpu, advance=progress.advance)
        what = [*features, *jobs], cell_jobs.do, work, how
        try:
            summary = execute(*what, on_done=done, stop=stop, limits=limits, tell=warn, **guards)
        except Stopped as stopped:  # which counts features too
            raise Stopped(stopped.signum, values.fitted + values.taken, len(todo), "cell") from stopped
        for arm, log in logs.items():
            if failures := sum(failure.key.startswith(f"{arm}/") for failure in summary.failures):
                log.metrics({"finetune/failed_cells": failures}, step=0)
    return Summary(values.fitted, values.taken, summary.failures)


class _Values:
    """The primary metrics of cells, which come in any order and are logged in one: steps of a log rise, and it is the same each time."""

    def __init__(self, context: CellContext, logs: dict[str, RunLog], todo: list[Cell], jobs: list[Job]) -> None:
        self._context, self._logs = context, logs
        self.fitted = self.taken = 0
        self._reached = 0  # of `work_of`
        self._known: dict[str, float | None] = {}
        cost = {job.key: job.cost for job in jobs}
        curves: dict[tuple, float] = {}
        for cell in todo:
            curves[_curve(cell)] = max(curves.get(_curve(cell), 0.0), cost[cell.name])
        self._cells = {cell.name: cell for cell in todo}
        # About the order in which they are done.
        self._left = {arm: [] for arm in logs}
        for cell in sorted(todo, key=lambda cell: -curves[_curve(cell)]):
            self._left[cell.arm].append(cell)

    def __contains__(self, key: str) -> bool:
        return key in self._cells

    def add(self, key: str, value: float | None) -> int:
        """Keep a value, None of a cell that another command has fitted and logged; returns how much of `work_of` is done."""
        self.fitted += value is not None
        self.taken += value is None
        self._known[key] = value
        self._reached += work_of(self._context, self._cells[key])
        left = self._left[self._cells[key].arm]
        while left and left[0].name in self._known:
            self._log(left.pop(0))
        return self._reached

    @contextmanager
    def flushed(self) -> Iterator[_Values]:
        """After the block all values are logged, also where cells before them are missing."""
        try:
            yield self
        finally:
            for cell in (cell for left in self._left.values() for cell in left if cell.name in self._known):
                self._log(cell)

    def _log(self, cell: Cell) -> None:
        if (value := self._known[cell.name]) is None:
            return
        budget, run = budget_name(cell.budget).replace("%", "pct"), f"/run{cell.run}" if cell.run else ""
        key = f"finetune/{cell.mode}/{budget}{run}/validation_{PRIMARY[self._context.outputs.kind]}"
        self._logs[cell.arm].metrics({key: value}, step=cell.draw)


def _curve(cell: Cell) -> tuple:
    return cell.arm, cell.run, cell.mode, cell.budget


@contextmanager
def _arm_log(context: CellContext, arm: str, todo: list[Cell], how: ExecutionHow) -> Iterator[RunLog]:
    """A tracked run of an arm."""
    work, encoder = context.work, context.encoder(next(cell for cell in todo if cell.arm == arm))
    params = {
        "arm": arm,
        "weights": encoder.source,
        "encoder_digest": encoder.sha256,
        "finetune": work.study.finetune.model_dump(mode="json"),
    }
    if how.shard is not None:
        params["shard"] = f"{how.shard[0]}/{how.shard[1]}"
    with work.open_log(f"finetune-{arm}", stage="finetune", params=params, tags={"medssl.arm": arm}) as log:
        track_data(work, log, context.archive.summary, [work.task.data], "fine-tuning")
        log_record(work, context.archive, log, encoder)
        yield log
