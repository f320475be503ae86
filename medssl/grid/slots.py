"""How many processes pay off on this machine, and what each may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from medssl.data.reading import usable_cores
from medssl.grid.how import ExecutionHow
from medssl.grid.job import Job

START = 10.0
"""Seconds of work that a process must find to be worth its start: Python, torch, the archive."""
PROCESS_MEMORY = 1.5 * 2**30  # bytes of the machine's memory: torch, a network, its batches
GPU_SPEED = 50.0
"""How many times as fast as one core a GPU is taken to be where the work for it is weighed: only its order matters."""
GPU_SHARE = 0.9  # of a GPU's free memory that is handed out
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine as this process sees it."""

    index: int
    free: int  # bytes


@dataclass(frozen=True)
class Limits:
    """What a fit may use of a GPU."""

    gpus: tuple[Gpu, ...] = ()  # that jobs may use; none: all run on the CPU
    pinned: bool = False  # the study names its GPU: children see all of them and choose it themselves
    parallel: int | None = None  # fits a GPU; None: as its memory allows
    gpu_memory: int = 4 * 2**30  # bytes of a GPU's memory that one fit needs


def slots_of(jobs: Sequence[Job], how: ExecutionHow, limits: Limits) -> list[dict[str, str]]:
    """For each process its variables that differ from this one's; an empty list: work in this process, children do not pay off.

    On the CPU as many as there are cores, memory and seconds of work for, the cores divided among them. Where jobs need a GPU,
    at most `limits.parallel` a GPU or what its free memory holds. `how.workers` is kept to in any case.

    The threads of a process stay the same through the grid, since the last bits of a sum depend on them.
    """
    wanted = how.workers
    if limits.gpus and any(job.needs_gpu for job in jobs):
        places = _places(limits)
        count = min(wanted or _paying(jobs), len(places), len(jobs))
        if wanted is None and count == 1:
            return []
        seen = [{} if limits.pinned else {"CUDA_VISIBLE_DEVICES": visible(gpu.index)} for gpu in places[:count]]
    else:
        count = min(wanted or _paying(jobs), len(jobs))
        seen = [{} for _ in range(count)]
        if wanted is None and count == 1:
            return []
    threads = _threads(count)
    return [one | dict.fromkeys(_THREADS, str(threads)) for one in seen]


def _paying(jobs: Sequence[Job]) -> int:
    by_memory = int(psutil.virtual_memory().available / PROCESS_MEMORY)
    by_work = int(sum(job.cost / (GPU_SPEED if job.needs_gpu else 1) for job in jobs) / START)
    return max(1, min(usable_cores(), by_memory, by_work))


def _places(limits: Limits) -> list[Gpu]:
    """A GPU for each process, one after another in turn, so that few processes have a GPU each."""
    each = [limits.parallel or max(1, int(GPU_SHARE * gpu.free / limits.gpu_memory)) for gpu in limits.gpus]
    return [gpu for turn in range(max(each)) for gpu, most in zip(limits.gpus, each, strict=True) if turn < most]


def visible(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES must be for a child to see only the GPU that is `index` to this process."""
    mine = os.environ.get("CUDA_VISIBLE_DEVICES")
    return mine.split(",")[index].strip() if mine else str(index)


def _threads(count: int) -> int:
    share = max(1, usable_cores() // count)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdigit() and int(asked) else share
