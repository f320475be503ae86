"""The board that workers take jobs from: which comes next for whom, what is tried again, what came of all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain
from typing import Any

from medssl.grid.job import Failure, Job, Outcome, Summary

ATTEMPTS = 2
"""Processes that a job may bring down until it counts as failed."""
WAIT = 1.0  # seconds until a job that another command is at is looked at again


class Board:
    """Jobs by group, the longest of each first.

    A worker stays with the group of its last job. When that is used up it opens the largest group that nobody is at; when there is
    none it helps where the most is left for each. Jobs whose process died come last: then fewer neighbours want memory.

    A job that comes after another waits for it, and fails where that one does.
    """

    def __init__(self, jobs: Sequence[Job], on_done: Callable[[str, Any], None], tell: Callable[[str], None]) -> None:
        """
        Args:
            on_done: called in this process with the key and result of each finished job; the result is None for a job that
                another command has done.
            tell: called with a line for people, where something is not as it should be.
        """
        self.summary = Summary()
        self._on_done, self.tell = on_done, tell
        self._groups: dict[str, deque[Job]] = {}
        for job in sorted(jobs, key=lambda job: -job.cost):  # stable: equal ones stay in order
            self._groups.setdefault(job.group, deque()).append(job)
        self._again: deque[Job] = deque()
        self._later: deque[tuple[float, Job]] = deque()  # that another command is at
        self._running: dict[Hashable, Job] = {}
        self._group_of: dict[Hashable, str] = {}
        self._deaths: dict[str, int] = {}
        self._open = {job.key for job in jobs}
        self._told_of_waiting = False

    @property
    def open(self) -> int:
        """Jobs that are not finished: waiting, running, to be tried again."""
        return self._waiting() + len(self._running)

    @property
    def finished(self) -> int:
        """Jobs that are done, by whomever."""
        return self.summary.done + self.summary.taken

    @property
    def wants_gpu(self) -> bool:
        """Whether a job that nobody is at needs a GPU."""
        later = (job for _, job in self._later)
        return any(job.needs_gpu for job in chain(*self._groups.values(), self._again, later))

    def take(self, worker: Hashable, *, gpu: bool = True) -> Job | None:
        """The next job for `worker`, which is free and has a GPU or not; None where there is nothing for it now."""
        job = self._next(worker, gpu)
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
            self._open.discard(job.key)
            self._on_done(job.key, outcome.result)
        elif outcome.kind == "busy":
            self._later.append((time.monotonic() + WAIT, job))
            if not self._told_of_waiting and not self._running and not any(map(self._is_ready, self._in_groups())):
                self._told_of_waiting = True
                self.tell(f"another command is at {len(self._later)} of what is left; waiting for it")
        elif outcome.kind == "died" and self._deaths.get(job.key, 0) + 1 < ATTEMPTS:
            self._deaths[job.key] = self._deaths.get(job.key, 0) + 1
            self._again.append(job)
            self.tell(f"{job.key}: {outcome.error}; it is tried once more")
        elif outcome.kind == "stopped":
            self._again.append(job)
        else:
            self._fail(job, outcome.error, outcome.detail)

    def gone(self, worker: Hashable) -> None:
        """`worker` takes no more jobs."""
        self._group_of.pop(worker, None)

    def _waiting(self) -> int:
        return sum(map(len, self._groups.values())) + len(self._again) + len(self._later)

    def _in_groups(self) -> Iterator[Job]:
        return chain(*self._groups.values())

    def _is_ready(self, job: Job) -> bool:
        return job.after not in self._open

    def _fail(self, job: Job, error: str, detail: str) -> None:
        self.summary.failures.append(Failure(job.key, error, detail))
        self._open.discard(job.key)
        for group in self._groups.values():
            for other in [other for other in group if other.after == job.key]:
                group.remove(other)
                self._fail(other, f"{job.key} has failed, which it needs", "")

    def _next(self, worker: Hashable, gpu: bool) -> Job | None:
        def fits(job: Job) -> bool:
            return self._is_ready(job) and (gpu or not job.needs_gpu)

        left = {name: jobs for name, jobs in self._groups.items() if any(map(fits, jobs))}
        if left:
            mine = self._group_of.get(worker)
            group = left[mine if mine in left else self._largest(left, worker)]
            job = next(filter(fits, group))
            group.remove(job)
            return job
        for job in self._again:
            if fits(job):
                self._again.remove(job)
                return job
        for due, job in self._later:
            if due <= time.monotonic() and fits(job):
                self._later.remove((due, job))
                return job
        return None

    def _largest(self, left: dict[str, deque[Job]], worker: Hashable) -> str:
        others = [group for other, group in self._group_of.items() if other != worker]

        def rank(name: str) -> tuple[bool, float]:
            at_it = others.count(name)
            return at_it == 0, sum(job.cost for job in left[name]) / (at_it + 1)

        return max(left, key=rank)
