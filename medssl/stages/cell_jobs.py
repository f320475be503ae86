"""The cells of fine-tuning as jobs that any process with the work folder can do: what each costs, needs, and comes after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medssl.errors import GridError
from medssl.finetuning import NETWORK_MODES, FullSettings, LinearSettings
from medssl.grid import Job, stop_flag
from medssl.grid.slots import Gpu, Limits
from medssl.stages.arms import features_folder, has_features, labelled_rows
from medssl.stages.cell_context import CellContext
from medssl.stages.cell_fit import Advance, fit_cell, is_fitted, work_of
from medssl.stages.cells import Cell
from medssl.stages.devices import choose_device
from medssl.stages.screen import mute
from medssl.stages.workspace import Workspace

FROZEN = ("linear", "linear_recalibrated", "knn", "linear_then_full")
"""Modes that need the features of the labelled images."""

# Seconds on one core, measured with EfficientNet-lite0 at 64 px. Other networks are slower by a factor, which changes no order.
_FORWARD, _TRAIN = 0.0045, 0.009  # an image
_FIT = 5e-5  # a row and value of C
_LEAST = 0.03  # a cell: reading, thresholds, writing


class CellJobs:
    """Cells, and the features that they need, by key. Pickled it is a study: each process loads for itself what it needs."""

    def __init__(self, context: CellContext, cells: Sequence[Cell], *, fresh: bool, on_cpu: bool, advance: Advance) -> None:
        """
        Args:
            context: of this process.
            cells: all that may be asked for.
            fresh: fit again what is there.
            on_cpu: other processes use no GPU.
            advance: called in this process with how much of `work_of` is done since.
        """
        self._context: CellContext | None = context
        self._work, self._fresh, self._on_cpu, self._advance = context.work, fresh, on_cpu, advance
        self._cells = {cell.name: cell for cell in cells}
        self._features = {key: cell for cell in cells if (key := features_key(cell)) is not None}
        self._is_elsewhere = False

    def __getstate__(self) -> dict[str, Any]:
        # Another process may stand in another folder, and has MLflow's artifacts from this one's work folder.
        starts = {init: replace(start, init=_absolute(start.init)) for init, start in self._work.starts.items()}
        work = replace(self._work, archive=None, folder=self._work.folder.resolve(), starts=starts)
        return self.__dict__ | {"_work": work, "_context": None, "_advance": None, "_is_elsewhere": True}

    @property
    def context(self) -> CellContext:
        """Of this process.

        Raises:
            GridError: it does not see the work folder.
            StudyError: the device is not there.
        """
        if self._context is None:
            if not self._work.folder.is_dir():
                raise GridError(
                    "work_dir: a worker does not see the work folder; all machines of a grid must share it (NFS or alike)"
                )
            mute()  # the parent speaks; a bar of each child would be noise
            no_gpu = self._on_cpu or not torch.cuda.is_available()
            self._context = CellContext(self._work, torch.device("cpu") if no_gpu else choose_device(self._work.study))
        return self._context

    def do(self, key: str) -> Any:
        """Fit a cell: its primary metric on validation. Or compute features: how many, unless that was said here already."""
        if key in self._cells:
            advance = self._advance or (lambda done: None)
            return fit_cell(self.context, self._cells[key], stop=stop_flag(), advance=advance)
        cell = self._features[key]
        rows = labelled_rows(self._work, self.context.archive)
        shape = self.context.features(cell).of(rows).shape
        return shape if self._is_elsewhere else None

    def is_done(self, key: str) -> bool:
        """Whether there is nothing to do for a key."""
        if key in self._cells:
            return not self._fresh and is_fitted(self.context, self._cells[key])
        return features_are_there(self.context, self._features[key])

    def lock_of(self, key: str) -> Path:
        """The lock that keeps two commands from the same."""
        if key in self._cells:
            folder = self._cells[key].folder(self._work)
        else:
            cell = self._features[key]
            folder = features_folder(self._work, cell.arm, cell.run, recalibrated=_recalibrated(cell))
        return folder.with_name(f".{folder.name}.job")


def do(jobs: CellJobs, key: str) -> Any:
    """See `CellJobs.do`."""
    return jobs.do(key)


def is_done(jobs: CellJobs, key: str) -> bool:
    """See `CellJobs.is_done`."""
    return jobs.is_done(key)


def lock_of(jobs: CellJobs, key: str) -> Path:
    """See `CellJobs.lock_of`."""
    return jobs.lock_of(key)


def features_key(cell: Cell) -> str | None:
    """The key of the features that a cell needs; None where it needs none."""
    if cell.mode not in FROZEN:
        return None
    return f"{cell.arm}/{cell.run}/{'recalibrated' if _recalibrated(cell) else 'features'}"


def features_are_there(context: CellContext, cell: Cell) -> bool:
    """Whether the features that a cell needs have been computed."""
    return has_features(context.work, context.archive, context.encoder(cell), recalibrated=_recalibrated(cell))


def jobs_of(context: CellContext, cells: Sequence[Cell], *, gpu: bool) -> list[Job]:
    """A job for each cell. What it costs depends on the study alone, so every command finds the same shares."""
    return [
        Job(cell.name, _cost(context, cell), gpu and _needs_gpu(context.work, cell), _group(cell), features_key(cell) or "")
        for cell in cells
    ]


def feature_jobs(context: CellContext, cells: Sequence[Cell], *, gpu: bool) -> list[Job]:
    """A job for each of the features that cells need and that are not there."""
    needing = {key: cell for cell in reversed(cells) if (key := features_key(cell)) is not None}
    cost = len(labelled_rows(context.work, context.archive)) * _area(context.work) * _FORWARD
    return [Job(key, cost, gpu, _group(cell)) for key, cell in reversed(needing.items()) if not features_are_there(context, cell)]


def limits_of(work: Workspace, device: torch.device) -> Limits:
    """What the fits of a study may use of this machine's GPUs."""
    parallel = work.study.finetune.parallel
    if device.type != "cuda":
        return Limits(parallel=parallel)
    pinned = device.index is not None
    indices = [device.index] if pinned else range(torch.cuda.device_count())
    gpus = tuple(Gpu(index, torch.cuda.mem_get_info(index)[0]) for index in indices)
    largest = max((own.batch_size for own in work.study.finetune.modes().values() if isinstance(own, FullSettings)), default=128)
    # torch and its kernels, and about 120 MB an image of 224 px in a ResNet-50: generous, a full GPU costs an attempt.
    memory = int(2**31 + largest * (work.study.encoder.input_size / 224) ** 2 * 120e6)
    return Limits(gpus, pinned, parallel, memory)


def _needs_gpu(work: Workspace, cell: Cell) -> bool:
    # Recalibrated statistics are part of what an arm's encoder is known by, and a GPU adds them up otherwise than a CPU.
    return cell.mode in NETWORK_MODES or work.study.encoder.batch_norm == "recalibrated"


def _group(cell: Cell) -> str:
    return f"{cell.arm}/{cell.run}" + ("/recalibrated" if _recalibrated(cell) else "")


def _recalibrated(cell: Cell) -> bool:
    return cell.mode == "linear_recalibrated"


def _cost(context: CellContext, cell: Cell) -> float:
    settings, rows = getattr(context.work.study.finetune, cell.mode), len(context.draws.of(cell).rows)
    if isinstance(settings, FullSettings):
        return _LEAST + work_of(context, cell) * rows * _area(context.work) * _TRAIN
    values = len(settings.regularization) if isinstance(settings, LinearSettings) else 1
    return _LEAST + values * rows * _FIT


def _area(work: Workspace) -> float:
    return (work.study.encoder.input_size / 64) ** 2


def _absolute(init: str | Path) -> str | Path:
    return Path.cwd() / init if isinstance(init, Path) else init
