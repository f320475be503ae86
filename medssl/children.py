"""Child processes that are spoken to over a socket: started as `python -m MODULE DESCRIPTOR`, ended without asking.

Not by multiprocessing: a program that has no `__main__` guard, or is itself a daemonic worker (as dask's are), can then have
children too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection


def start_child(module: str, task: bytes, environment: Mapping[str, str]) -> tuple[subprocess.Popen, Connection]:
    """A child that runs `module`'s main(descriptor), with the same import path as this process.

    Args:
        task: the pickled task; it is sent after the import path.
        environment: all variables of the child.

    Returns:
        The process and our end of the connection. Where the child dies at once, the connection's next use finds out.
    """
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    connection = Connection(ours.detach())
    with contextlib.suppress(OSError):
        connection.send(list(sys.path))
        connection.send_bytes(task)
    return process, connection


def end_child(process: subprocess.Popen, connection: Connection) -> None:
    """End a child that holds nothing that must be saved."""
    connection.close()
    process.kill()
    process.wait()


def how_it_ended(process: subprocess.Popen) -> str:
    """`exit code 3`, or `signal 9` and what that often means."""
    code = process.wait()
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}" + (", often a lack of memory" if code == -9 else "")


def environment_with(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's variables with `changes`."""
    return dict(os.environ) | dict(changes)
