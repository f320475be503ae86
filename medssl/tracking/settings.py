"""Where a run is tracked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from medssl.errors import TrackingError

_SQLITE = "sqlite:///"
_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


def without_credentials(uri: str) -> str:
    """`uri` as it may be shown and stored: without user, password and query."""
    if uri.startswith("sqlite:"):
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def sqlite_path(uri: str) -> Path | None:
    """The database file of a SQLite uri; None for every other store."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


@dataclass(frozen=True)
class TrackingSettings:
    """Where a run is tracked.

    Attributes:
        uri: an MLflow server or database; None = `mlflow.db` in the work folder. A relative SQLite path is taken from the
            current folder, as MLflow does.
        experiment: the MLflow experiment.
        work_dir: the study's work folder.
        enabled: False = the local log only; it can still be sent later.
        images: artifacts that show pixels of the data may be sent.

    Raises:
        TrackingError: `uri` is none that MLflow 3 serves.
    """

    uri: str | None
    experiment: str
    work_dir: Path
    enabled: bool = True
    images: bool = False

    def __post_init__(self) -> None:
        scheme = re.split(r"[+:]", self.uri or "sqlite:///", maxsplit=1)[0]
        if scheme != "databricks" and "://" not in (self.uri or "sqlite:///"):
            scheme = ""
        if scheme == "sqlite" and self.uri is not None and not self.uri.removeprefix(_SQLITE).strip("/"):
            scheme = ""
        if scheme not in (*_SERVERS, "sqlite"):
            raise TrackingError(
                f"tracking.uri: {without_credentials(self.uri or '')!r} is no store that MLflow writes; give http(s)://host:port, "
                "sqlite:///file.db, postgresql://…, or leave it out for mlflow.db in the work folder (file stores ended with MLflow 3.13)"
            )

        database = sqlite_path(self.store_uri)
        if database is not None and set("%?") & set(str(database)):
            raise TrackingError(
                "tracking.uri: MLflow cannot keep a SQLite database in a folder whose name has '%' or '?'; "
                "choose another work_dir or another tracking.uri"
            )

    @property
    def store_uri(self) -> str:
        """The uri, absolute."""
        if self.uri is None:
            return f"{_SQLITE}{Path(self.work_dir).absolute() / 'mlflow.db'}"
        path = sqlite_path(self.uri)
        return self.uri if path is None else f"{_SQLITE}{os.path.abspath(path)}"  # noqa: PTH100 - '..' must go without links followed

    @property
    def artifact_location(self) -> str | None:
        """Where artifacts of a SQLite store go, as a uri; None: the server decides."""
        if sqlite_path(self.store_uri) is None:
            return None
        return (Path(self.work_dir).absolute() / "mlartifacts").as_uri()
