"""Doing the jobs of a grid: where, and what becomes of failures and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medssl.grid.board import Board
from medssl.grid.how import ExecutionHow
from medssl.grid.job import Job, Summary, Work, attempt, stopping_by
from medssl.grid.processes import run_in_processes
from medssl.grid.slots import Limits, slots_of
from medssl.training.stop import StopFlag, Stopped

_POLL = 0.2  # seconds


def execute(
    jobs: Sequence[Job],
    function: Callable[[Any, str], Any],
    context: Any,
    how: ExecutionHow,
    *,
    on_done: Callable[[str, Any], None],
    stop: StopFlag,
    is_done: Callable[[Any, str], bool] | None = None,
    lock_of: Callable[[Any, str], Path] | None = None,
    limits: Limits = Limits(),
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Do every job once: in this process where children do not pay off, in child processes, or on a dask cluster.

    An error costs its job, which the summary names; so does a process that dies over the same job twice. The others are done.

    Args:
        jobs: what is to do; of a command with `how.shard` its share, see `share_of`.
        function: (context, key) -> a small result. A function of a module, as are `is_done` and `lock_of`; `context` is pickled once
            for each process, which may keep what it opens by module-level caches. Jobs that take long look at `stop_flag()`.
        on_done: called here with each key and its result; None as the result of a job that another command did meanwhile.
        is_done: (context, key) -> whether there is nothing to do; asked right before the job, under its lock.
        lock_of: (context, key) -> a file of which a lock is held meanwhile. A job whose lock another command holds is put off.
        tell: called with lines for people: a death, waiting for another command.

    Raises:
        Stopped: `stop` was set; finished jobs stay.
        GridError: processes or the cluster cannot be started or reached.
    """
    work, board = Work(function, context, is_done, lock_of), Board(jobs, on_done, tell)
    if how.scheduler is not None:
        from medssl.grid.cluster import run_on_cluster

        run_on_cluster(work, board, how.scheduler, stop, parallel=limits.parallel or 1)
    elif environments := slots_of(jobs, how, limits):
        run_in_processes(work, board, environments, stop)
    else:
        run_here(work, board, stop)
    if stop.signum is not None and board.open:
        raise Stopped(stop.signum, board.finished, board.finished + len(board.summary.failures) + board.open, "cell")
    return board.summary


def run_here(work: Work, board: Board, stop: StopFlag) -> None:
    """Do what is on the board in this process, one after another, until nothing is left or `stop` is set."""
    with stopping_by(stop):
        while board.open and stop.signum is None:
            job = board.take("here")
            if job is None:
                time.sleep(_POLL)
            else:
                board.note("here", attempt(work, job.key))
