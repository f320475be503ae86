"""Replays a local log into MLflow. Repeated, interrupted or begun anew, it leaves every point there once.

What MLflow acknowledged is remembered in `mlflow.json` beside the log. Lost or late memory is harmless: a run is found by the
log's id (tag `medssl.log`), and MLflow's SQL stores keep one of identical points (key, step, time and value are their primary key).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medssl.errors import TrackingError
from medssl.files import read_json, write_json
from medssl.tracking import entries, lines
from medssl.tracking.locks import locked
from medssl.tracking.log import EVENTS, METRICS, STATE, SYSTEM, TIME, read_start
from medssl.tracking.mlflow_store import SendingError, Store
from medssl.tracking.registry import register

if TYPE_CHECKING:
    from mlflow.entities import Metric

LOG_TAG = "medssl.log"
_LOCK_SECONDS = 30.0
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


@dataclass
class State:
    """What a store has of a log."""

    log: str
    uri: str
    experiment: str
    run_id: str | None = None
    offsets: dict[str, int] = field(default_factory=lambda: {EVENTS: 0, METRICS: 0, SYSTEM: 0})
    withheld: list[str] = field(default_factory=list)  # artifacts not sent, each with the reason


@dataclass(frozen=True)
class Replayed:
    """What one replay sent: metric points and events."""

    points: int = 0
    events: int = 0


class Sink:
    """Shows the log in `folder` in one MLflow experiment.

    Args:
        uri: absolute uri of the store.
        experiment: its name; created if missing.
        folder: of a `RunLog`.
        artifact_location: of a new experiment; None: the store decides.
        images: send artifacts that show pixels of the data.
    """

    def __init__(
        self, uri: str, experiment: str, folder: Path, *, artifact_location: str | None = None, images: bool = False
    ) -> None:
        self.store = Store(uri, artifact_location=artifact_location)
        self.experiment = experiment
        self.folder = Path(folder)
        self.images = images
        self._artifact_location = artifact_location
        self._state = State("", "", "")
        self._attached: str | None = None  # the run that this object has seen in the store

    @property
    def run_id(self) -> str | None:
        """The MLflow run of this log; None before it is created in this store."""
        start = read_start(self.folder)
        return None if start is None else self._load(start["id"]).run_id

    @property
    def behind(self) -> bool:
        """Whether the log holds anything that this store has not acknowledged."""
        start = read_start(self.folder)
        if start is None:
            return False
        state = self._load(start["id"])
        return any(_size(self.folder / name) > offset for name, offset in state.offsets.items())

    def replay(self) -> Replayed:
        """Send what the store does not have yet.

        Raises:
            UnreachableError: the store is out of reach, or (SendingError) another process replays this log.
            TrackingError: the store refuses.
            StoreError: the log or its memory is damaged or cannot be written.
        """
        start = read_start(self.folder)
        if start is None:
            return Replayed()
        with self._alone():
            self._state = self._load(start["id"])
            if not self.behind and self._attached == self._state.run_id is not None:
                return Replayed()
            try:
                return self._replay(start)
            except Exception:
                self._attached = None  # look again next time: the run may be gone
                raise

    def _replay(self, start: dict[str, Any]) -> Replayed:
        self._attach(start)
        # Events are read before and sent after the points: no run is shown as finished before its last point is there.
        events = list(lines.read(self.folder / EVENTS, self._state.offsets[EVENTS]))
        points = self._points(METRICS) + self._points(SYSTEM)
        for offset, event in events:
            self._event(event)
            self._acknowledge(EVENTS, offset)
        return Replayed(points, len(events))

    def ensure_run(self) -> str:
        """The id of this log's MLflow run, created if missing. Raises as `replay`."""
        start = read_start(self.folder)
        if start is None:
            raise TrackingError(f"log of {self.folder.name}: no run was started in it")
        self._state = self._load(start["id"])
        if self._state.run_id is None:
            with self._alone():
                self._state = self._load(start["id"])
                self._attach(start)
        return self._state.run_id

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "mlflow.lock", timeout=_LOCK_SECONDS))
            except TimeoutError as error:
                raise SendingError("another process is sending the same log") from error
            yield

    def _load(self, log: str) -> State:
        """The memory of this log in this store; a new one where there is none or it speaks of another log or store."""
        path = self.folder / STATE
        if path.exists():
            with contextlib.suppress(TypeError):
                state = State(**read_json(path))
                if (state.log, state.uri, state.experiment) == (log, self.store.shown, self.experiment):
                    return state
        return State(log, self.store.shown, self.experiment)

    def _save(self) -> None:
        write_json(self.folder / STATE, asdict(self._state))

    def _acknowledge(self, name: str, offset: int) -> None:
        self._state.offsets[name] = offset
        self._save()

    def _attach(self, start: dict[str, Any]) -> None:
        """Find or create the run, once for this object."""
        if self._state.run_id is not None and self._attached == self._state.run_id:
            return
        experiment = self.store.experiment_id(self.experiment)
        if self._state.run_id is None or not self._exists(self._state.run_id):
            self._state = State(start["id"], self.store.shown, self.experiment)
            parent = self._parent(start)
            with self.store.calls() as client:
                found = client.search_runs([experiment], f"tags.`{LOG_TAG}` = '{start['id']}'", max_results=1)
                if found:
                    self._state.run_id = found[0].info.run_id
                else:
                    tags = entries.run_tags(start, parent) | {LOG_TAG: start["id"]}
                    run = client.create_run(experiment, start_time=start[TIME], tags=tags, run_name=start["name"])
                    self._state.run_id = run.info.run_id
            self._save()
        self._attached = self._state.run_id

    def _exists(self, run_id: str) -> bool:
        """False where the store was made anew since; then the whole log is replayed."""
        from mlflow.exceptions import MlflowException

        with self.store.calls() as client:
            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
        if run.info.lifecycle_stage == "deleted":
            raise TrackingError(
                f"run {run_id} is deleted in {self.store.shown}; restore it there (mlflow runs restore --run-id {run_id})"
            )
        return True

    def _parent(self, start: dict[str, Any]) -> str | None:
        """The parent's run, created if its own sink has not come to it; None for a run without parent or whose log is gone."""
        if start["parent"] is None or read_start(folder := self.folder / start["parent"]) is None:
            return None
        return Sink(self.store.uri, self.experiment, folder, artifact_location=self._artifact_location).ensure_run()

    def _points(self, name: str) -> int:
        """Send the new lines of one file of metrics, in batches as MLflow limits them."""
        sent, end = 0, None
        pending: list[Metric] = []
        for end, record in lines.read(self.folder / name, self._state.offsets[name]):
            pending += entries.points(record)
            if len(pending) >= entries.POINTS:
                sent += self._send(pending)
                self._acknowledge(name, end)
                pending = []
        if end is not None and end != self._state.offsets[name]:
            sent += self._send(pending)
            self._acknowledge(name, end)
        return sent

    def _send(self, points: list[Metric]) -> int:
        for first in range(0, len(points), entries.POINTS):
            with self.store.calls() as client:
                client.log_batch(self._state.run_id, metrics=points[first : first + entries.POINTS], synchronous=True)
        return len(points)

    def _event(self, event: dict[str, Any]) -> None:
        kind, run_id = event["event"], self._state.run_id
        if kind in ("start", "resume", "params"):
            self._describe(event)
        elif kind == "dataset":
            self._dataset(event)
        elif kind == "artifact":
            self._artifact(event)
        elif kind == "register":
            register(self.store, run_id, event)
        elif kind == "end":
            with self.store.calls() as client:
                if event["error"]:
                    client.set_tag(run_id, "medssl.error", event["error"], synchronous=True)
                client.set_terminated(run_id, _STATUS[event["status"]], end_time=event[TIME])

    def _describe(self, event: dict[str, Any]) -> None:
        """Params and tags. A param is written once in MLflow: what a resumed run changed becomes a tag `changed/<param>`."""
        params, params_cut = entries.fit(entries.flatten(event["params"]), entries.PARAM_LENGTH)
        tags, tags_cut = entries.fit(event.get("tags", {}), entries.TAG_LENGTH)
        with self.store.calls() as client:
            from mlflow.entities import Param, RunTag

            known = client.get_run(self._state.run_id).data.params
            fresh = {key: value for key, value in params.items() if key not in known}
            changed = {f"changed/{key}": value for key, value in params.items() if known.get(key, value) != value}
            for part in entries.pairs(fresh):
                client.log_batch(self._state.run_id, params=[Param(*pair) for pair in part.items()], synchronous=True)
            for part in entries.pairs(tags | entries.fit(changed, entries.TAG_LENGTH)[0]):
                client.log_batch(self._state.run_id, tags=[RunTag(*pair) for pair in part.items()], synchronous=True)
            if event["event"] == "resume":
                client.update_run(self._state.run_id, status="RUNNING")
        suffix = "" if event["event"] == "start" else f"_{event[TIME]}"
        for name, cut in (("params", params_cut), ("tags", tags_cut)):
            if cut:
                self._text(yaml.safe_dump(event[name], allow_unicode=True, sort_keys=False), f"{name}_full{suffix}.yaml")

    def _text(self, text: str, name: str) -> None:
        with self.store.calls(exclusive=False) as client:
            client.log_text(self._state.run_id, text, name)

    def _dataset(self, event: dict[str, Any]) -> None:
        try:
            with self.store.calls() as client:
                client.log_inputs(self._state.run_id, [entries.dataset(event)])
        except TrackingError:
            # Two runs that name a new dataset at the same time: the server refuses one; now the dataset is there.
            time.sleep(0.2)
            with self.store.calls() as client:
                client.log_inputs(self._state.run_id, [entries.dataset(event)])

    def _artifact(self, event: dict[str, Any]) -> None:
        path = self.folder / event["path"]
        if event["pixels"] and not self.images:
            self._withhold(event, "shows pixels; tracking.images is off")
        elif not path.exists():
            self._withhold(event, "was gone before it could be sent")
        else:
            with self.store.calls(exclusive=False) as client:
                client.log_artifact(self._state.run_id, str(path.resolve()), event["folder"] or None)

    def _withhold(self, event: dict[str, Any], reason: str) -> None:
        line = f"{event['path']}: {reason}"
        if line not in self._state.withheld:
            self._state.withheld.append(line)
        text = entries.fit({"medssl.withheld": "\n".join(self._state.withheld)}, entries.TAG_LENGTH)[0]
        with self.store.calls() as client:
            for key, value in text.items():
                client.set_tag(self._state.run_id, key, value, synchronous=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
