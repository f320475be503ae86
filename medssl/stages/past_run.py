"""A run of the past, as its log or the tracker remembers it."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medssl.errors import TrackingError
from medssl.files import read_json
from medssl.stages.record import FOLDER, records
from medssl.stages.workspace import Workspace
from medssl.strict import near_miss
from medssl.tracking import lines
from medssl.tracking.log import EVENTS, STATE, read_start
from medssl.tracking.mlflow_sink import LOG_TAG
from medssl.tracking.mlflow_store import Store, UnreachableError
from medssl.tracking.settings import sqlite_path
from medssl.tracking.sync import find_logs

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class PastRun:
    """What is known of a run.

    Attributes:
        name: as in `pretrain-in_domain/001`; of a run that only the tracker has, its name there.
        stage: the stage that made it.
        arm: the arm of the study; None for a stage of all arms.
        part_of: the run that it was a part of; None for one of its own.
        study: its study file with all defaults; places of its machine are "<local>".
        version: of medssl.
        data_digest: of the data it read; None where it did not say.
        records: what it was made with, a record for each kind of machine it ran on; see `medssl.stages.record`.
    """

    name: str
    stage: str
    arm: str | None
    part_of: str | None
    study: dict[str, Any]
    version: str | None
    data_digest: str | None
    records: list[dict[str, Any]]


def find_run(work: Workspace, run: str) -> PastRun:
    """Look for a run in the logs of the work folder, then in the tracker.

    Args:
        run: the id of an MLflow run, the id of a log, a folder of tracking/ as `pretrain-in_domain/001`, or that without its
            number for the last one.

    Raises:
        TrackingError: there is no such run, it kept no study file, or the tracker does not answer.
    """
    base = work.folder / "tracking"
    logs = {folder.relative_to(base).as_posix(): folder for folder in find_logs(base)}
    wanted = run.strip("/").removeprefix("tracking/")
    found = [name for name, folder in logs.items() if wanted in (name, name.rpartition("/")[0]) or run in _ids(folder)]
    if found:
        return _from_log(found[-1], logs[found[-1]])
    shown = _from_tracker(work, run) if _ID.fullmatch(run) else None
    if shown is None:
        known = f"the last runs are: {', '.join(list(logs)[-8:])}" if logs else "no run has been logged in it yet"
        raise TrackingError(f"{run}: is no run of this work folder or its tracker{near_miss(run, list(logs))}; {known}")
    return shown


def _ids(folder: Path) -> set[str]:
    start = read_start(folder)
    remembered = read_json(folder / STATE) if (folder / STATE).exists() else {}
    return {known for known in (start and start["id"], remembered.get("run_id")) if known}


def _from_log(name: str, folder: Path) -> PastRun:
    events = [event for _, event in lines.read(folder / EVENTS)]
    if not events or events[0]["event"] != "start":
        raise TrackingError(f"{name}: was stopped before it began; there is nothing to repeat")
    if not (folder / "study.yaml").exists():
        raise TrackingError(f"{name}: its study file is gone; it cannot be repeated")
    start = events[0]
    parent = start["parent"] and (folder / start["parent"]).resolve()
    return PastRun(
        name=name,
        stage=start["stage"],
        arm=start["tags"].get("medssl.arm"),
        part_of=f"{parent.parent.name}/{parent.name}" if parent else None,
        study=yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8")),
        version=start["tags"].get("medssl.version"),
        data_digest=next((event["digest"] for event in events if event["event"] == "dataset"), None),
        records=[read_json(path) for path in records(folder)],
    )


def _from_tracker(work: Workspace, run_id: str) -> PastRun | None:
    settings = work.tracking_settings()
    database = sqlite_path(settings.store_uri)
    if database is not None and not database.exists():
        return None
    store = Store(settings.store_uri, artifact_location=settings.artifact_location)
    try:
        run = _lookup(store, settings.experiment, run_id)
        if run is None:
            return None
        with tempfile.TemporaryDirectory() as temporary, store.calls(exclusive=False) as client:
            parts = {part.path for part in client.list_artifacts(run.info.run_id)}
            if "study" not in parts:
                raise TrackingError(f"{run_id}: the tracker has no study file of it; it cannot be repeated")
            study = client.download_artifacts(run.info.run_id, "study/study.yaml", temporary)
            study = yaml.safe_load(Path(study).read_text(encoding="utf-8"))
            kept = [Path(client.download_artifacts(run.info.run_id, FOLDER, temporary))] if FOLDER in parts else []
            made_with = [read_json(path) for folder in kept for path in records(folder)]
    except UnreachableError as problem:
        raise TrackingError(f"{run_id}: is not in this work folder, and {problem}") from problem
    tags = run.data.tags
    profiles = [json.loads(data.dataset.profile) for data in run.inputs.dataset_inputs]
    return PastRun(
        name=run.info.run_name,
        stage=tags.get("medssl.stage", "unknown"),
        arm=tags.get("medssl.arm"),
        part_of=tags.get("mlflow.parentRunId"),
        study=study,
        version=tags.get("medssl.version"),
        data_digest=profiles[0]["digest"] if profiles else None,
        records=made_with,
    )


def _lookup(store: Store, experiment: str, run_id: str) -> Any:
    """The MLflow run of this id, or whose log has it; None where there is neither."""
    from mlflow.exceptions import MlflowException

    with store.calls() as client:
        try:
            return client.get_run(run_id)
        except MlflowException as problem:
            if problem.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        place = client.get_experiment_by_name(experiment)
        found = client.search_runs([place.experiment_id], f"tags.`{LOG_TAG}` = '{run_id}'", max_results=1) if place else []
        return found[0] if found else None
