"""The local log of one stage run: the truth about it. MLflow is only shown what stands here.

`events.jsonl` says what the run is (start, resume, params, dataset, artifact, register, end), `metrics.jsonl` what it measured,
`system.jsonl` how the machine was used. Everything volatile is under the keys `time/…` and `system/…`, so the same study run
twice writes the same metrics.jsonl but for those keys. Times are `time/unix_ms`: milliseconds since 1970 UTC.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medssl.errors import TrackingError
from medssl.files import write_atomic
from medssl.tracking import lines

EVENTS, METRICS, SYSTEM = "events.jsonl", "metrics.jsonl", "system.jsonl"
STATE = "mlflow.json"  # what MLflow has of this log; written by the sink
TIME = "time/unix_ms"
Status = Literal["finished", "failed", "killed"]

_KEY = re.compile(r"(?!.*(^|/)\.{0,2}(/|$))[a-z0-9_./-]{1,250}")  # no empty, '.' or '..' part: MLflow refuses those
_VOLATILE = ("time/", "system/")


def now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def read_start(folder: Path) -> dict[str, Any] | None:
    """The start event of the log in `folder`; None where no run was started."""
    for _, event in lines.read(folder / EVENTS):
        return event if event.get("event") == "start" else None
    return None


class RunLog:
    """The log of one run, in a folder of its own. One process writes it (rank 0)."""

    def __init__(self, folder: Path, *, resume: bool, root: Path | None = None) -> None:
        """Open the log in `folder`.

        Args:
            folder: made if missing.
            resume: go on with the log that is there, if one is: a half-written last line is cut off and what was logged is
                not logged again. Otherwise new files take the place of old ones.
            root: the work folder; artifacts must lie below it.

        Raises:
            StoreError: a file cannot be written or an old one is damaged.
        """
        self.folder = Path(folder)
        self.root = Path(root) if root is not None else None
        self._resumed = resume and read_start(self.folder) is not None
        if not self._resumed:
            # Events first: without its start event a half-replaced log counts as not started and is replaced again.
            for name in (EVENTS, METRICS, SYSTEM):
                write_atomic(self.folder / name, b"")
            (self.folder / STATE).unlink(missing_ok=True)
        self._events = lines.LineFile(self.folder / EVENTS)
        self._metrics = lines.LineFile(self.folder / METRICS)
        self._logged: dict[str, int] = {}  # last logged step of each key
        for _, record in lines.read(self.folder / METRICS):
            self._logged.update(dict.fromkeys(record.keys() - {"step", TIME}, record["step"]))
        self._datasets = [event for _, event in lines.read(self.folder / EVENTS) if event["event"] == "dataset"]

    @property
    def last_step(self) -> int | None:
        """The highest step in the log; None before the first."""
        return max(self._logged.values(), default=None)

    def start(
        self,
        *,
        name: str,
        stage: str,
        experiment: str = "medssl",
        parent: Path | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Say what this run is; in a resumed log, that it goes on.

        Args:
            name, stage, experiment: as shown in MLflow.
            parent: the folder of the parent's log, started before this one.
            tags, params: params may be nested; JSON values only.
        """
        event: dict[str, Any] = {"event": "resume" if self._resumed else "start", TIME: now()}
        if not self._resumed:
            if parent is not None and read_start(Path(parent)) is None:
                raise ValueError(f"parent of {name}: no run was started in its folder")
            relative = None if parent is None else self._relative(Path(parent))
            event |= {"id": uuid.uuid4().hex, "name": name, "stage": stage, "experiment": experiment, "parent": relative}
        self._events.append(event | {"tags": tags or {}, "params": params or {}})

    def params(self, values: Mapping[str, object]) -> None:
        """Add params that are known only after the start; nested as in `start`. The tracker keeps the first value of each."""
        self._events.append({"event": "params", TIME: now(), "params": values})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log `values` (keys of a-z 0-9 _ . - and /) at `step` >= 0.

        Steps rise for each key: a key that has this step or a later one is not logged again, since a resumed run repeats
        steps exactly. Where all of a call but its `time/` and `system/` keys is there already, nothing is written.
        """
        for key in values:
            if key in ("step", TIME) or not _KEY.fullmatch(key):
                raise ValueError(f"metric {key!r}: use a-z, 0-9, _, -, . and / between parts; step and {TIME} are taken")
        if step < 0:
            raise ValueError(f"step {step}: must not be negative")
        fresh = {key: float(values[key]) for key in sorted(values) if step > self._logged.get(key, -1)}
        lasting = [key for key in values if not key.startswith(_VOLATILE)]
        if not fresh or (lasting and not any(key in fresh for key in lasting)):
            return
        self._metrics.append({"step": int(step), **fresh, TIME: now()})
        self._logged.update(dict.fromkeys(fresh, int(step)))

    def dataset(self, *, name: str, digest: str, source: str, context: str, profile: Mapping[str, object]) -> None:
        """Say which data the run reads: `digest` of the manifest, `source` without a path, `context` such as "training".

        Raises:
            ValueError: the same name and digest were logged with something else: MLflow would keep only the first.
        """
        event = {"name": name, "digest": digest, "source": source, "context": context, "profile": lines.plain(profile)}
        for old in self._datasets:
            if (old["name"], old["digest"]) == (name, digest):
                if any(old[key] != event[key] for key in event):
                    raise ValueError(f"dataset {name}: is logged already with another source, context or profile")
                return
        self._datasets.append(event)
        self._events.append({"event": "dataset", TIME: now(), **event})

    def artifact(self, path: Path, *, folder: str = "", pixels: bool = False) -> None:
        """Name a file or a folder as a result of the run, to be shown below `folder` in the tracker.

        Args:
            pixels: it shows pixels of the data; then it is sent only where the settings allow images.

        Raises:
            TrackingError: it is in private/ or outside the work folder, and never leaves this machine.
            FileNotFoundError: it is not there.
        """
        path = Path(path).resolve(strict=True)
        relative = self._relative(path)
        inside = Path(relative) if self.root is None else Path(os.path.relpath(path, self.root.resolve()))
        outside = self.root is not None and ".." in inside.parts
        if outside or "private" in inside.parts or any(child.is_dir() for child in path.rglob("private")):
            raise TrackingError(
                f"artifact for {folder or 'the run'}: holds private/ or lies outside the work folder; it is not logged"
            )
        self._events.append({"event": "artifact", TIME: now(), "path": relative, "folder": folder, "pixels": pixels})

    def register(self, model: str, *, folder: str, tags: Mapping[str, str] | None = None) -> None:
        """Make the artifacts below `folder`, which were named before, a version of the registered model `model` in the tracker.

        Args:
            tags: of the version.
        """
        self._events.append({"event": "register", TIME: now(), "model": model, "folder": folder, "tags": tags or {}})

    def end(self, status: Status, *, error: str | None = None) -> None:
        """Close the log. `error` is the name of an exception's class, never its text, which could name a file."""
        self._metrics.close()
        self._events.append({"event": "end", TIME: now(), "status": status, "error": error})
        self._events.close()

    def _relative(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()
