"""A job, what is done for it, and what came of it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medssl.errors import UserError
from medssl.tracking.locks import locked
from medssl.training.stop import StopFlag, Stopped


@dataclass(frozen=True)
class Job:
    """One piece of work, known by its key."""

    key: str
    cost: float  # estimated seconds on one core; jobs are ordered and shared out by it
    needs_gpu: bool = False
    group: str = ""  # jobs of one group share what takes long to load, such as an encoder
    after: str = ""  # key of a job that must be finished first, if it is among those to do


@dataclass(frozen=True)
class Work:
    """What is done for a job. It is pickled once for each process, so functions must be of a module that can be imported there."""

    function: Callable[[Any, str], Any]  # (context, key) -> a small result that can be pickled
    context: Any
    is_done: Callable[[Any, str], bool] | None = None  # another command may have done it meanwhile
    lock_of: Callable[[Any, str], Path] | None = None  # the file that keeps two commands from the same job


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt at a job.

    done: its result is `result`. taken: another command has done it. busy: another command is at it. stopped: asked to end.
    failed: `error` says why in one line, `detail` at length. died: its process did, as `error` says; it may be tried again.
    """

    kind: Literal["done", "taken", "busy", "stopped", "failed", "died"]
    result: Any = None
    error: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Failure:
    """A job that came to nothing."""

    key: str
    error: str  # one line
    detail: str  # the traceback, if there is one


@dataclass
class Summary:
    """What came of a grid."""

    done: int = 0  # by this command
    taken: int = 0  # meanwhile by another
    failures: list[Failure] = field(default_factory=list)


_flag = StopFlag()


def stop_flag() -> StopFlag:
    """The flag by which this process is asked to stop: for functions whose jobs take longer than a person waits."""
    return _flag


@contextlib.contextmanager
def stopping_by(flag: StopFlag):
    """Within the block `stop_flag` gives `flag`."""
    global _flag
    before, _flag = _flag, flag
    try:
        yield
    finally:
        _flag = before


def attempt(work: Work, key: str) -> Outcome:
    """Do one job in this process, unless another command does it or has done it. Never raises an Exception."""
    try:
        with contextlib.ExitStack() as held:
            if work.lock_of is not None:
                try:
                    held.enter_context(locked(work.lock_of(work.context, key), timeout=0))
                except TimeoutError:
                    return Outcome("busy")
            if work.is_done is not None and work.is_done(work.context, key):
                return Outcome("taken")
            return Outcome("done", work.function(work.context, key))
    except Stopped:
        return Outcome("stopped")
    except UserError as error:
        return Outcome("failed", error=str(error))
    except Exception as error:
        return _unforeseen(error)


def _unforeseen(error: Exception) -> Outcome:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    detail = traceback.format_exc()
    if type(error).__name__ == "OutOfMemoryError":  # torch's; with fewer neighbours, or alone, it may fit
        return Outcome("died", error="the GPU's memory was full; lower finetune.parallel", detail=detail)
    return Outcome("failed", error=f"{type(error).__name__}: {said[:200]}".removesuffix(": "), detail=detail)
