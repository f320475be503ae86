"""Artifacts of an MLflow store that a study or a notebook starts from: `runs:/RUN_ID/path` and the registry's `models:/NAME/…`.

Only files are fetched. No MLflow flavour is loaded: those run code (pickles) on loading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.errors import TrackingError
from medssl.tracking.mlflow_store import Store, UnreachableError
from medssl.tracking.settings import sqlite_path

SCHEMES = ("runs:/", "models:/")
FORMS = "runs:/RUN_ID/path, models:/NAME/VERSION or models:/NAME@ALIAS"
_RUN = re.compile(r"runs:/(?P<run>[0-9a-fA-F]{32})/(?P<path>[^/].*)")
_MODEL = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))(?:/(?P<path>.+))?")


@dataclass(frozen=True)
class Remote:
    """Where an artifact is. Either `run` or `name` is set; of a model `version` once it is resolved."""

    run: str | None = None
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    path: str = ""  # below the run's or the version's artifacts

    def __str__(self) -> str:
        """For people and logs: no uri, which a report would take for a folder."""
        if self.run is not None:
            return f"{self.path} of the MLflow run {self.run}"
        alias = f", alias {self.alias}" if self.alias else ""
        inside = f"{self.path} of " if self.path else ""
        version = f"version {self.version} of " if self.version else ""
        return f"{inside}{version}the registered model {self.name}{alias}"


def is_remote(uri: str) -> bool:
    """Whether `uri` names an artifact of an MLflow store."""
    return str(uri).startswith(SCHEMES)


def parse(uri: str) -> Remote:
    """What a uri names.

    Raises:
        TrackingError: it is of no form that is read.
    """
    if found := _RUN.fullmatch(uri.rstrip("/")):
        return Remote(run=found["run"], path=_inside(found["path"], uri))
    if found := _MODEL.fullmatch(uri.rstrip("/")):
        return Remote(name=found["name"], version=found["version"], alias=found["alias"], path=_inside(found["path"] or "", uri))
    raise TrackingError(f"{uri}: is no artifact of an MLflow store; allowed: {FORMS}")


def fetch(uri: str, store: Store, folder: Path) -> tuple[Path, Remote]:
    """Copy an artifact into `folder`.

    Args:
        store: that has the run or the model.
        folder: made if missing; nothing else should be in it.

    Returns:
        The file or folder that came, and where it was: an alias is resolved to its version.

    Raises:
        TrackingError: the uri is wrong, the store has no such run, version, alias or artifact, or it is out of reach.
    """
    remote = parse(uri)
    database = sqlite_path(store.uri)
    if database is not None and not database.exists():
        raise TrackingError(f"{uri}: there is no MLflow store at {store.shown}; set tracking.uri to the one that has it")
    try:
        with store.calls(exclusive=False) as client:
            remote, source = _resolve(client, remote)
            from mlflow.artifacts import download_artifacts

            folder.mkdir(parents=True, exist_ok=True)
            place = download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=store.uri)
    except UnreachableError as error:
        raise TrackingError(f"{uri}: cannot be fetched: {error}; run again when it answers") from error
    except TrackingError as error:
        raise TrackingError(f"{uri}: cannot be fetched: {error}; name an artifact that the store has ({FORMS})") from error
    except OSError as error:
        raise TrackingError(
            f"{uri}: cannot be fetched: {store.shown} has no such artifact ({error.strerror or type(error).__name__})"
        ) from error
    if not Path(place).exists():
        raise TrackingError(f"{uri}: cannot be fetched: {store.shown} has no such artifact; name one that it has")
    return Path(place), remote


def _resolve(client, remote: Remote) -> tuple[Remote, str]:
    """The remote with its version, and the uri that its files are at."""
    if remote.run is not None:
        client.get_run(remote.run)  # says that there is no such run, where the download would speak of a folder
        return remote, f"runs:/{remote.run}/{remote.path}"
    if remote.alias is not None:
        version = client.get_model_version_by_alias(remote.name, remote.alias).version
        remote = replace(remote, version=str(version))
    source = client.get_model_version_download_uri(remote.name, remote.version).rstrip("/")
    return remote, f"{source}/{remote.path}" if remote.path else source


def _inside(path: str, uri: str) -> str:
    if ".." in path.split("/"):
        raise TrackingError(f"{uri}: leads out of the artifacts with '..'; allowed: {FORMS}")
    return path
