"""The board that workers take jobs from: which comes next for whom, what is tried again, what came of all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from medssl.grid.job import Failure, Job, Outcome, Summary

ATTEMPTS = 2
"""Processes that a job may bring down until it counts as failed."""
WAIT = 1.0  # seconds until a job that another command is at is looked at again


class Board:
    """Jobs by group, the longest of each first.

    A worker stays with the group of its last job. When that is used up it opens the largest group that nobody is at; when there is
    none it helps where the most is left for each. Jobs whose process died come last: then fewer neighbours want memory.
    """

    def __init__(self, jobs: Sequence[Job], on_done: Callable[[str, Any], None], tell: Callable[[str], None]) -> None:
        """
        Args:
            on_done: called in this process with the key and result of each finished job; the result is None for a job that
                another command has done.
            tell: called with a line for people, where something is not as it should be.
        """
        self.summary = Summary()
        self._on_done, self._tell = on_done, tell
        self._groups: dict[str, deque[Job]] = {}
        for job in sorted(jobs, key=lambda job: -job.cost):  # stable: equal ones stay in order
            self._groups.setdefault(job.group, deque()).append(job)
        self._again: deque[Job] = deque()
        self._later: deque[tuple[float, Job]] = deque()  # that another command is at
        self._running: dict[Hashable, Job] = {}
        self._group_of: dict[Hashable, str] = {}
        self._deaths: dict[str, int] = {}
        self._told_of_waiting = False

    @property
    def open(self) -> int:
        """Jobs that are not finished: waiting, running, to be tried again."""
        return self._waiting() + len(self._running)

    @property
    def finished(self) -> int:
        """Jobs that are done, by whomever."""
        return self.summary.done + self.summary.taken

    def take(self, worker: Hashable) -> Job | None:
        """The next job for `worker`, which is free; None where there is nothing for it now."""
        job = self._next(worker)
        if job is not None:
            self._running[worker] = job
            self._group_of[worker] = job.group
        return job

    def note(self, worker: Hashable, outcome: Outcome) -> None:
        """What came of the job that `worker` was on."""
        job = self._running.pop(worker)
        if outcome.kind in ("done", "taken"):
            self.summary.done += outcome.kind == "done"
            self.summary.taken += outcome.kind == "taken"
            self._on_done(job.key, outcome.result)
        elif outcome.kind == "busy":
            self._later.append((time.monotonic() + WAIT, job))
            if not self._told_of_waiting and self._waiting() == len(self._later):
                self._told_of_waiting = True
                self._tell(f"another command is at {len(self._later)} of what is left; waiting for it")
        elif outcome.kind == "died" and self._deaths.get(job.key, 0) + 1 < ATTEMPTS:
            self._deaths[job.key] = self._deaths.get(job.key, 0) + 1
            self._again.append(job)
            self._tell(f"{job.key}: {outcome.error}; it is tried once more")
        elif outcome.kind == "stopped":
            self._again.append(job)
        else:
            self.summary.failures.append(Failure(job.key, outcome.error, outcome.detail))

    def gone(self, worker: Hashable) -> None:
        """`worker` takes no more jobs."""
        self._group_of.pop(worker, None)

    def _waiting(self) -> int:
        return sum(map(len, self._groups.values())) + len(self._again) + len(self._later)

    def _next(self, worker: Hashable) -> Job | None:
        left = {name: jobs for name, jobs in self._groups.items() if jobs}
        if left:
            mine = self._group_of.get(worker)
            return left[mine if mine in left else self._largest(left, worker)].popleft()
        if self._again:
            return self._again.popleft()
        if self._later and self._later[0][0] <= time.monotonic():
            return self._later.popleft()[1]
        return None

    def _largest(self, left: dict[str, deque[Job]], worker: Hashable) -> str:
        others = [group for other, group in self._group_of.items() if other != worker]

        def rank(name: str) -> tuple[bool, float]:
            at_it = others.count(name)
            return at_it == 0, sum(job.cost for job in left[name]) / (at_it + 1)

        return max(left, key=rank)
