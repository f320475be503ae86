"""One process (or thread) at a time: a lock that its holder's death releases."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL = 0.05  # seconds
_STALE = 120.0  # seconds after which a lock made by creating a file counts as left behind by a killed process


@contextlib.contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock `path`, waiting at most `timeout` seconds for another holder.

    Uses flock(2); where the system or the file system has none, the exclusive creation of a file beside `path`.

    Raises:
        TimeoutError: another holder kept it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + timeout
    release = _flock(path, end) or _create(path.with_name(path.name + ".held"), end)
    try:
        yield
    finally:
        release.close()


def _flock(path: Path, end: float) -> contextlib.ExitStack | None:
    """What releases the lock; None where flock does not exist."""
    if fcntl is None:
        return None
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    stack = contextlib.ExitStack()
    stack.callback(os.close, file)  # closing releases the lock
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stack
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                stack.close()
                return None  # ENOLCK, ENOTSUP, ENOSYS: a file system without locks
        if time.monotonic() > end:
            stack.close()
            raise TimeoutError(f"{path.name} is held by another process")
        time.sleep(_POLL)


def _create(path: Path, end: float) -> contextlib.ExitStack:
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()
                    continue
        if time.monotonic() > end:
            raise TimeoutError(f"{path.name} is held by another process")
        time.sleep(_POLL)
    stack = contextlib.ExitStack()
    stack.callback(path.unlink, missing_ok=True)
    return stack
