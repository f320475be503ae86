"""One MLflow tracking store: how mlflow is imported, how a store is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import TrackingError, UserError
from medssl.files import replacing
from medssl.tracking.locks import locked
from medssl.tracking.settings import sqlite_path, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

# No retries inside a request: a repeated POST could create a run twice, and the sink repeats with a back-off of its own.
_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8", "MLFLOW_DISABLE_AGENT_HINT": "true"}
_AGAIN_LATER = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
_LOCK_SECONDS = 30.0
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class UnreachableError(Exception):
    """The store cannot be reached now; trying again later may help. One line."""


class BusyError(UnreachableError):
    """Another process is at the same work; the store itself may be well."""


class SendingError(BusyError):
    """Another process is sending the same log: the run itself, as a rule, which then lacks nothing."""


def prepare_mlflow() -> None:
    """Import mlflow (2 s): no telemetry, short time-outs unless the user set them, nothing but our own lines on the screen."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        # Errors reach the caller as exceptions; mlflow prints their tracebacks besides.
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


class Store:
    """An MLflow tracking store. Connects on first use; safe in several threads and processes.

    Args:
        uri: absolute uri of the store.
        artifact_location: where a new experiment keeps its artifacts; None: the store decides.
    """

    def __init__(self, uri: str, *, artifact_location: str | None = None) -> None:
        self.uri = uri
        self.shown = without_credentials(uri)
        self._artifact_location = artifact_location
        self._database = sqlite_path(uri)
        self._client: MlflowClient | None = None

    @contextlib.contextmanager
    def calls(self, *, exclusive: bool = True) -> Iterator[MlflowClient]:
        """The client, for a few calls.

        Args:
            exclusive: writes to a SQLite file are made by one process at a time, since concurrent ones fail as "locked".

        Raises:
            UnreachableError: the store is down, busy or in trouble.
            TrackingError: the store refuses, or the request is wrong.
        """
        try:
            with self._alone() if exclusive else contextlib.nullcontext():
                yield self._connect()
        except (UnreachableError, UserError):
            raise
        except Exception as error:
            raise self._translate(error) from error

    def experiment_id(self, name: str) -> str:
        """The id of the experiment `name`, created if missing, also when another process creates it at the same time.

        Raises:
            UnreachableError, TrackingError: see `calls`; a deleted experiment is a TrackingError.
        """
        with self.calls() as client:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                from mlflow.exceptions import MlflowException

                try:
                    return client.create_experiment(name, artifact_location=self._artifact_location)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    experiment = client.get_experiment_by_name(name)
            if experiment.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"tracking.experiment: {name!r} is deleted in {self.shown}; restore it there "
                    f"(mlflow experiments restore -x {experiment.experiment_id}) or choose another name"
                )
            return experiment.experiment_id

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._database is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._database.with_name(self._database.name + ".lock"), timeout=_LOCK_SECONDS))
            except TimeoutError as error:
                raise BusyError(f"{self.shown}: {error}") from error
            yield

    def _connect(self) -> MlflowClient:
        if self._client is None:
            prepare_mlflow()
            from mlflow import MlflowClient

            if self._database is not None:
                self._open_database(self._database)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _open_database(self, path: Path) -> None:
        """Create the tables of a new database beside its place, so that a kill leaves no half-made one; check an old one."""
        if path.exists() and path.stat().st_size:
            with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()  # raises at once where mlflow tries for 100 s
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with replacing(path) as temporary:
            root = self._artifact_location or (path.parent / "mlartifacts").as_uri()
            SqlAlchemyStore(f"sqlite:///{temporary}", root).engine.dispose()

    def _translate(self, error: Exception) -> Exception:
        code = getattr(error, "error_code", None)
        text = _CREDENTIALS.sub("//", " ".join(str(error).split()))[:300] or type(error).__name__
        locked_out = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
        if code in _AGAIN_LATER or isinstance(error, ConnectionError | TimeoutError) or locked_out or _is_network(error):
            return UnreachableError(f"{self.shown} is out of reach ({_innermost(error)})")
        return TrackingError(f"{self.shown} refuses: {text}")


def _innermost(error: BaseException) -> str:
    """What went wrong at the bottom, such as `Connection refused`: HTTP libraries wrap it in their own words, several times over."""
    seen = [error]
    while (cause := seen[-1].__cause__ or seen[-1].__context__) is not None and cause not in seen:
        seen.append(cause)
    for problem in reversed(seen):
        if isinstance(problem, OSError) and problem.strerror:
            return problem.strerror
        if isinstance(problem, sqlite3.Error):
            return str(problem)
    return _CREDENTIALS.sub("//", " ".join(str(error).split()))[:120] or type(error).__name__


def _is_network(error: BaseException) -> bool:
    """Whether an HTTP library's connection error or time-out stands behind `error` (artifact stores raise their own)."""
    import requests

    while error is not None:
        if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
            return True
        if isinstance(error, requests.exceptions.HTTPError):
            return error.response is not None and error.response.status_code >= 500
        error = error.__cause__ or error.__context__
    return False
