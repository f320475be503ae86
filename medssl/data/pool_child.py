"""The child's side of `medssl.data.pool`: takes chunks of items, answers item by item."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

MEMORY = 4 * 2**30
"""Bytes that a child may allocate. What asks for more gets a MemoryError, and becomes a named reject."""


def main(descriptor: int) -> None:
    """Serve until the other side closes the connection."""
    # The parent decides what a stop means; its children end when it closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many children as cores: threads would only compete
    _limit_memory()
    with contextlib.suppress(EOFError, ConnectionError), Connection(descriptor) as connection:
        sys.path[:] = connection.recv()
        task = pickle.loads(connection.recv_bytes())
        connection.send(None)
        while True:
            for item in connection.recv():
                try:
                    answer = task(item)
                except Exception as error:
                    answer = error
                _send(connection, answer)


def _send(connection: Connection, answer: object) -> None:
    try:
        connection.send(answer)
    except (pickle.PicklingError, TypeError, AttributeError):
        connection.send(RuntimeError(f"{type(answer).__name__} cannot be sent"))


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    main(int(sys.argv[1]))
