"""Jobs in child processes of this one. One that dies costs the job that it was on one of its attempts, and nothing else."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from subprocess import Popen

from medssl.children import end_child, environment_with, how_it_ended, start_child
from medssl.errors import GridError
from medssl.grid.board import Board
from medssl.grid.job import Job, Outcome, Work
from medssl.training.stop import StopFlag

GRACE = 5.0  # seconds that a child has to end its step when it is asked to stop
_POLL = 0.2  # seconds until the stop flag is looked at again


class Worker:
    """A place for one child process, which is started with its first job, and anew where it has died."""

    def __init__(self, packed: bytes, environment: dict[str, str]) -> None:
        """
        Args:
            packed: the pickled `Work`.
            environment: variables that differ from this process's.
        """
        self.job: Job | None = None
        self._packed, self._environment = packed, environment
        self._child: tuple[Popen, Connection] | None = None
        self._ready = False

    @property
    def connection(self) -> Connection:
        """What the child is heard on."""
        return self._child[1]

    @property
    def lives(self) -> bool:
        """Whether its child is there."""
        return self._child is not None and self._child[0].poll() is None

    def begin(self, job: Job) -> None:
        """Give the child a job."""
        if not self.lives:
            self.kill()
            self._ready = False
            self._child = start_child("medssl.grid.child", self._packed, environment_with(self._environment))
        self.job = job
        with suppress(OSError):  # it has died; `hear` finds out
            self.connection.send(job.key)

    def hear(self) -> Outcome | None:
        """What came of the job, once the connection can be read; None where the child has only said that it is there.

        Raises:
            GridError: the child died before it could take a job.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._died()
        if message is None:
            self._ready = True
        else:
            self.job = None
        return message

    def ask_to_stop(self) -> None:
        """SIGTERM to the child."""
        if (child := self._child) is not None and child[0].poll() is None:
            child[0].terminate()

    def interrupt(self) -> None:
        """End the child at once, from another thread than the one that hears it, which then hears that it died."""
        if (child := self._child) is not None:
            child[0].kill()

    def kill(self) -> None:
        """End the child at once."""
        if self._child is not None:
            end_child(*self._child)
        self._child, self.job = None, None

    def _died(self) -> Outcome:
        self._child[1].close()
        how, ready = how_it_ended(self._child[0]), self._ready
        self._child, self.job = None, None
        if not ready:
            raise GridError(f"grid: a worker process could not be started ({how}); what it wrote above says why")
        return Outcome("died", error=f"its process died ({how})")


def run_in_processes(work: Work, board: Board, environments: Sequence[dict[str, str]], stop: StopFlag) -> None:
    """Do what is on the board with a child process for each of `environments`, until nothing is left or `stop` is set.

    When it returns or raises no child is left. After a stop, what children finish within GRACE seconds still counts.

    Raises:
        GridError: a process could not be started.
    """
    packed = pickle.dumps(work)
    workers = [Worker(packed, environment) for environment in environments]
    try:
        while board.open and stop.signum is None:
            for number, worker in enumerate(workers):
                if worker.job is None and (job := board.take(number)) is not None:
                    worker.begin(job)
            _listen(workers, board)
        if stop.signum is not None:
            _let_end(workers, board)
    finally:
        for worker in workers:
            worker.kill()


def _listen(workers: list[Worker], board: Board) -> None:
    busy = [worker for worker in workers if worker.job is not None]
    if not busy:
        time.sleep(_POLL)  # what is left is being done by another command
        return
    heard = set(wait([worker.connection for worker in busy], timeout=_POLL))
    for number, worker in enumerate(workers):
        if worker.job is not None and worker.connection in heard and (outcome := worker.hear()) is not None:
            board.note(number, outcome)


def _let_end(workers: list[Worker], board: Board) -> None:
    for worker in workers:
        worker.ask_to_stop()
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(worker.job is not None for worker in workers):
        with suppress(GridError):  # a child that was just being started
            _listen(workers, board)
