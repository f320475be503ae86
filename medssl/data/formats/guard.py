"""What every reader does around its decoders: nothing they say is shown, nothing they raise gets out.

Libraries quote file names and values of headers in their warnings, log lines and exceptions; any of them may be a patient's name.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from medssl.data.formats.items import Image, Item, RefusedError, Reject, Volume
from medssl.data.formats.opening import open_inside
from medssl.errors import UserError

LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "PIL", "nibabel", "tifffile")
_LOGGERS = tuple(logging.getLogger(name) for name in LIBRARIES)

# Filters of warnings belong to the process: two threads that set and restore them at once would leave each other's.
_one_at_a_time = threading.RLock()
_NOWHERE: list[logging.Handler] = [logging.NullHandler()]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings and the log lines of `LIBRARIES` are dropped in this block. Threads take turns."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = [(logger.handlers, logger.propagate) for logger in _LOGGERS]
        try:
            # Not their levels: to change one costs the cache of every logger, and this is done for every image.
            for logger in _LOGGERS:
                logger.handlers, logger.propagate = _NOWHERE, False
            yield
        finally:
            for logger, (handlers, propagate) in zip(_LOGGERS, kept, strict=True):
                logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What libraries in C write to the process's stderr in this block; the list is filled when the block ends.

    Call it inside `quiet`, since the file descriptor is the process's own. Where stderr is closed nothing is captured.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a process may have no stderr
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        yield lines
        return
    file = _said()
    os.dup2(file.fileno(), 2)
    try:
        yield lines
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if file.seek(0, os.SEEK_END):
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
            file.seek(0)
            file.truncate()


@functools.cache
def _said() -> BinaryIO:
    """One file for as long as the process lives: to make one for each image would cost more than many an image."""
    return tempfile.TemporaryFile()


def read_guarded(
    root: Path, item: Item, load: Callable[[BinaryIO], Iterable[Image | Volume | Reject]]
) -> Iterator[Image | Volume | Reject]:
    """What `load` makes of the item's opened file, quietly, one after another; whatever goes wrong becomes one reject, the last.

    Of an exception that no reader expected only the class is told: its text may quote the file.
    """
    yield from guarded(item, lambda: _load_open(root, item, load))


def guarded(item: Item, load: Callable[[], Iterable[Image | Volume | Reject]]) -> Iterator[Image | Volume | Reject]:
    """As `read_guarded`, for what opens its files itself."""
    try:
        with quiet():
            found = iter(load())
            one = next(found, None)
        while one is not None:
            yield one
            with quiet():
                one = next(found, None)
    except UserError:
        raise
    except RefusedError as refusal:
        yield Reject(item, refusal.reason, refusal.detail)
    except MemoryError:
        yield Reject(item, "too_large", "does not fit into memory")
    except Exception as error:
        yield Reject(item, "unreadable", type(error).__name__)


def _load_open(
    root: Path, item: Item, load: Callable[[BinaryIO], Iterable[Image | Volume | Reject]]
) -> Iterator[Image | Volume | Reject]:
    with open_inside(root, item.path) as file:
        yield from load(file)
