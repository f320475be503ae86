"""The child's side of `medssl.grid.processes`: takes a key at a time, answers what came of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from medssl.grid.job import Outcome, Work, attempt, stop_flag


def main(descriptor: int) -> None:
    """Serve until the other side closes the connection or SIGTERM comes; where the parent is gone, end at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a stop means
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    connection = Connection(descriptor)
    try:
        sys.path[:] = connection.recv()
        work: Work = pickle.loads(connection.recv_bytes())
        signal.signal(signal.SIGTERM, stop_flag().set)  # not before: a stop ends a child that still imports at once
        connection.send(None)
    except (EOFError, ConnectionError):
        return
    keys: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, keys), daemon=True).start()
    while stop_flag().signum is None:
        with contextlib.suppress(queue.Empty):
            _answer(connection, attempt(work, keys.get(timeout=0.5)))


def _listen(connection: Connection, keys: queue.SimpleQueue[str]) -> None:
    """Take keys in while a job is being done: also then is the end of the parent seen."""
    try:
        while True:
            keys.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)  # nothing that is half done must be saved: files are written beside their place


def _answer(connection: Connection, outcome: Outcome) -> None:
    try:
        connection.send(outcome)
    except (pickle.PicklingError, TypeError, AttributeError):
        kind = type(outcome.result).__name__
        connection.send(Outcome("failed", error=f"its result, a {kind}, cannot be sent to the parent process"))
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
