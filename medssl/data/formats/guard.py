"""What every reader does around its decoders: nothing they say is shown, nothing they raise gets out.

Libraries quote file names and values of headers in their warnings, log lines and exceptions; any of them may be a patient's name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from medssl.data.formats.finding import resolve_inside
from medssl.data.formats.items import Image, Item, RefusedError, Reject
from medssl.errors import UserError

LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "PIL")

# Filters of warnings belong to the process: two threads that set and restore them at once would leave each other's.
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings and the log lines of `LIBRARIES` are dropped in this block. Threads take turns."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What libraries in C write to the process's stderr in this block; the list is filled when the block ends.

    Call it inside `quiet`, since the file descriptor is the process's own. Where stderr is closed nothing is captured.
    """
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a process may have no stderr
            sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:
            yield lines
            return
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def read_guarded(root: Path, item: Item, load: Callable[[Path], list[Image | Reject]]) -> list[Image | Reject]:
    """`load` of the item's file, quietly; whatever goes wrong becomes one reject of the whole item.

    Of an exception that no reader expected only the class is told: its text may quote the file.
    """
    try:
        with quiet():
            return load(resolve_inside(root, item.path))
    except UserError:
        raise
    except RefusedError as refusal:
        return [Reject(item, refusal.reason, refusal.detail)]
    except MemoryError:
        return [Reject(item, "too_large", "does not fit into memory")]
    except Exception as error:
        return [Reject(item, "unreadable", type(error).__name__)]
