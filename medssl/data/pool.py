"""Work on many items in child processes that may die or hang: each costs the one item that it was on, by name.

Children are started as `python -m medssl.data.pool_child` and spoken to over a socket; see `medssl.children`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from medssl.children import end_child, start_child
from medssl.data.formats.items import Item, Reject
from medssl.errors import DataError

TIME_LIMIT = 120.0
"""Seconds that a child may be silent over one item: the largest volumes take a few, a hanging decoder for ever."""
MOST_HELD = 2048
"""Results that may wait for those before them until no further chunk is begun."""
START_LIMIT = 300.0  # seconds; a cold network disk takes its time over Python's imports
# Images come and go by the megabyte: memory that glibc hands back to the system after each is faulted in again for the
# next, which takes longer than to read it.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**28), "MALLOC_TRIM_THRESHOLD_": str(2**29)}

Answer = tuple[Item, list[Any]]
"""An item and what came of it."""


class Task(Protocol):
    """What is done with an item. It is pickled once for each child."""

    def __call__(self, item: Item) -> list[Any]:
        """What comes of one item; for an item that could not be read, a Reject."""


@dataclass
class _Child:
    process: subprocess.Popen
    connection: Connection
    number: int | None = None  # of the chunk that it is on
    items: list[Item] = field(default_factory=list)  # of that chunk, not yet done
    since: float = 0.0  # when it was last heard of
    ready: bool = False


class Pool:
    """`workers` child processes with one task. A context manager: leaving it ends them."""

    def __init__(self, task: Task, workers: int, *, time_limit: float = TIME_LIMIT) -> None:
        self._task = pickle.dumps(task)
        self._limit = time_limit
        self._workers = workers
        self._children: list[_Child] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            end_child(child.process, child.connection)
        self._children.clear()

    def map(self, chunks: Iterator[list[Item]] | list[list[Item]], *, ahead: int | None = None) -> Iterator[list[Answer]]:
        """What comes of each chunk, in order; at most `ahead` (None: 4 a worker) chunks are begun before they are asked for.

        Yields:
            For each chunk its items, each with what came of it.
        """
        ahead = ahead or 4 * self._workers
        source = enumerate(chunks)
        done: dict[int, list[Answer]] = {}
        begun: deque[tuple[int, list[Item]]] = deque()
        next_out, last_in, exhausted = 0, -1, False
        while True:
            while not exhausted and last_in - next_out + 1 < ahead:
                entry = next(source, None)
                if entry is None:
                    exhausted = True
                    break
                last_in = entry[0]
                done[last_in] = []
                begun.append((last_in, list(entry[1])))
            if _held(done) < MOST_HELD:  # the chunk that all wait for is handed out already: they go out in order
                self._hand_out(begun)
            while next_out in done and not self._is_open(next_out, begun):
                yield done.pop(next_out)
                next_out += 1
            if exhausted and next_out > last_in:
                return
            self._listen(done)

    def _is_open(self, number: int, begun: deque[tuple[int, list[Item]]]) -> bool:
        return any(child.number == number for child in self._children) or any(number == waiting for waiting, _ in begun)

    def _hand_out(self, begun: deque[tuple[int, list[Item]]]) -> None:
        while begun:
            child = next((child for child in self._children if child.number is None), None)
            if child is None:
                if len(self._children) >= self._workers:
                    return
                child = self._start()
            child.number, child.items = begun.popleft()
            self._send(child)

    def _send(self, child: _Child) -> None:
        child.since = time.monotonic()
        if not child.items:
            child.number = None
            return
        with contextlib.suppress(OSError):  # it has died; `_listen` finds out
            child.connection.send(child.items)

    def _listen(self, done: dict[int, list[Answer]]) -> None:
        """Take in what the children say, until one has something or one is given up."""
        busy = [child for child in self._children if child.number is not None]
        if not busy:
            return
        for connection in wait([child.connection for child in busy], timeout=1.0):
            child = next(child for child in busy if child.connection is connection)
            try:
                message = child.connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                self._replace(child, done, "died")
                continue
            child.since = time.monotonic()
            if message is None:
                child.ready = True
            elif isinstance(message, Exception):
                raise message
            else:
                done[child.number].append((child.items.pop(0), message))
                if not child.items:
                    child.number = None
        now = time.monotonic()
        for child in busy:
            if child.number is not None and now - child.since > (self._limit if child.ready else START_LIMIT):
                self._replace(child, done, "hung")

    def _replace(self, child: _Child, done: dict[int, list[Answer]], reason: str) -> None:
        """Name the item that a child was on, and let another child do the rest of its chunk."""
        end_child(child.process, child.connection)
        self._children.remove(child)
        if not child.ready:
            raise DataError(
                f"reading: a process that reads files could not be started (exit code {child.process.returncode}); what it wrote above "
                "says why; mend that and run the same command again"
            )
        detail = f"no answer for {self._limit:g} s" if reason == "hung" else f"exit code {child.process.returncode}"
        lost = child.items[0]
        done[child.number].append((lost, [Reject(lost, reason, detail)]))
        number, rest = child.number, child.items[1:]
        if rest:
            other = self._start()
            other.number, other.items = number, rest
            self._send(other)

    def _start(self) -> _Child:
        process, connection = start_child("medssl.data.pool_child", self._task, _MALLOC | os.environ)
        child = _Child(process, connection, since=time.monotonic())
        self._children.append(child)
        return child


def _held(done: dict[int, list[Answer]]) -> int:
    return sum(len(results) for answers in done.values() for _, results in answers)
