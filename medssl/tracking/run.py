"""A tracked run: the local log, the samples of the machine's use and the thread that shows them in MLflow."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from medssl.tracking.live import LiveSink
from medssl.tracking.log import RunLog, Status
from medssl.tracking.mlflow_sink import Sink
from medssl.tracking.mlflow_store import prepare_mlflow
from medssl.tracking.settings import TrackingSettings
from medssl.tracking.system import SystemSampler

_LAST_SECONDS_REMOTE = 10.0  # how long the end of a run waits for its last transfer
_LAST_SECONDS_LOCAL = 60.0  # a database on this machine does answer: a busy machine takes this long to make its tables


def _stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make_sink(folder: Path, settings: TrackingSettings, *, experiment: str | None = None) -> Sink:
    """The sink of one log in the store that `settings` names."""
    return Sink(
        settings.store_uri,
        experiment or settings.experiment,
        folder,
        artifact_location=settings.artifact_location,
        images=settings.images,
    )


@contextlib.contextmanager
def open_run(
    folder: Path,
    *,
    settings: TrackingSettings,
    name: str,
    stage: str,
    parent: Path | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    resume: bool = False,
    warn: Callable[[str], None] = _stderr,
    every: float = 3.0,
    system_every: float = 10.0,
) -> Iterator[RunLog]:
    """Track the block as one run; yields its log.

    The run ends as finished, as failed after an exception, or as killed after KeyboardInterrupt and SystemExit (which signal
    handlers raise); the exception goes on. In a program of several processes rank 0 alone opens the run.

    Args:
        folder: of the log, below `settings.work_dir`.
        name, stage, tags, params: see `RunLog.start`.
        parent: folder of the log of the run that this one is shown below.
        resume: go on with the log in `folder` if there is one.
        warn: gets the one line that says that the store fails.
        every, system_every: seconds between two transfers and two samples of the machine's use.

    Raises:
        StoreError: the local log cannot be written. Trouble with MLflow is never raised.
    """
    log = RunLog(folder, resume=resume, root=settings.work_dir)
    log.start(name=name, stage=stage, experiment=settings.experiment, parent=parent, tags=tags, params=params)
    sampler = SystemSampler(log.folder, interval=system_every)
    live = _live(log.folder, settings, warn, every) if settings.enabled else None
    sampler.start()
    status: Status = "finished"
    error: str | None = None
    try:
        yield log
    except BaseException as raised:
        status = "failed" if isinstance(raised, Exception) else "killed"
        error = type(raised).__name__
        raise
    finally:
        sampler.stop()
        try:
            log.end(status, error=error)
        finally:
            if live is not None:
                live.close(timeout=_LAST_SECONDS_REMOTE if settings.artifact_location is None else _LAST_SECONDS_LOCAL)


def _live(folder: Path, settings: TrackingSettings, warn: Callable[[str], None], every: float) -> LiveSink | None:
    try:
        # In this thread: two threads that import large libraries at once can see each other's half-made modules.
        prepare_mlflow()
    except ImportError as error:
        warn(f"tracking: mlflow cannot be imported ({error}); the run goes on with its local log")
        return None
    live = LiveSink(make_sink(folder, settings), warn=warn, every=every)
    live.start()
    return live
