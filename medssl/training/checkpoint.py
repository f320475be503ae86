"""The checkpoints of one run: a folder, a file a step, loadable with `weights_only=True`; the last few are kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medssl.errors import CheckpointError
from medssl.files import replacing
from medssl.intervals import Interval

VERSION = 2
_NAME = re.compile(r"step-(\d{9})\.pt")


class Clock:
    """Says when a checkpoint is due."""

    def __init__(self, every: Interval, steps_per_epoch: int) -> None:
        self._every, self._per_epoch = every, steps_per_epoch
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether one is due after `step` steps."""
        if self._every.seconds is not None:
            return time.monotonic() - self._last >= self._every.seconds
        return step % (self._every.steps or self._every.epochs * self._per_epoch) == 0

    def written(self) -> None:
        """One has been written now."""
        self._last = time.monotonic()


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read."""

    step: int  # steps done
    state: dict[str, Any]
    surroundings: dict[str, Any]  # that may differ on a resume, which is said: number of processes, versions


class Checkpoints:
    """The checkpoints of one run.

    A file is written beside its place, flushed and renamed, so one that was half written when its process died is never chosen.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, say: Callable[[str], None] = lambda text: None, force: bool = False
    ) -> None:
        """
        Args:
            folder: of this run alone; made when the first checkpoint is written.
            keep: how many of the newest stay.
            say: gets a line about each checkpoint that cannot be read, or that is resumed against its inputs.
            force: go on from a checkpoint of other inputs.
        """
        self.folder, self._keep, self._say, self._force = Path(folder), keep, say, force
        self._said: set[str] = set()

    def steps(self) -> list[int]:
        """After how many steps there are checkpoints, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(found[1]) for path in self.folder.iterdir() if (found := _NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, *, inputs: dict[str, Any], state: dict[str, Any], surroundings: dict[str, Any]) -> None:
        """Write the state after `step` steps; then older ones than the last `keep` go.

        Args:
            inputs: what the run depends on (settings, digests); `load` compares them.
            state: state dicts of tensors and plain values.

        Raises:
            StoreError: the disk is full; the checkpoints that are there are unharmed.
        """
        content = {"version": VERSION, "step": step, "state": state}
        content |= {"inputs": json.dumps(inputs, sort_keys=True), "surroundings": json.dumps(surroundings, sort_keys=True)}
        with replacing(self.path(step)) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError as problem:  # torch's own writer says so when the disk is full, and nothing else
                raise OSError(*_reason(temporary, problem)) from problem
        for old in self.steps()[: -self._keep]:
            self.path(old).unlink(missing_ok=True)

    def load(self, inputs: dict[str, Any]) -> Loaded | None:
        """The newest checkpoint that can be read, or None where there is none.

        Raises:
            CheckpointError: none of them can be read; or the newest is of a run with other inputs, which are named.
        """
        self._sweep()
        problems = []
        for step in reversed(self.steps()):
            try:
                content = _read(self.path(step))
            except CheckpointError as problem:
                problems.append(str(problem))
                continue
            for problem in problems:
                self._tell(f"{problem}; going on from the one before it, after step {step}")
            self._compare(step, json.loads(content["inputs"]), inputs)
            return Loaded(step, content["state"], json.loads(content["surroundings"]))
        if problems:
            raise CheckpointError(f"{problems[0]}, and there is no older one that can be; --fresh starts over")
        return None

    def clear(self) -> None:
        """Remove all of them: the run has ended, or starts over."""
        for step in self.steps():
            self.path(step).unlink(missing_ok=True)
        self._sweep()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _compare(self, step: int, written: dict[str, Any], inputs: dict[str, Any]) -> None:
        changed = differences(written, inputs)
        if not changed:
            return
        if self._force:
            self._tell(f"going on after step {step} although the study is another one (--force): {describe(changed)}")
            return
        raise CheckpointError(
            f"{self.folder.parent.name}: its checkpoint belongs to another study: {describe(changed)}; put the study back, choose "
            "another work_dir, go on with the new settings with --force, or start over with --fresh"
        )

    def _tell(self, text: str) -> None:
        """A line once, however often the checkpoint is looked at."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _sweep(self) -> None:
        """Remove what killed processes left half written."""
        if self.folder.is_dir():
            for path in self.folder.glob(".step-*"):
                path.unlink(missing_ok=True)


def _reason(path: Path, problem: RuntimeError) -> tuple[int, str]:
    """The number of the system's error behind torch's message, found by trying the same: to write more behind the file's end."""
    import errno

    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as error:
        return error.errno, str(error)
    return errno.EIO, " ".join(str(problem).split())[:120]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, _ = content["version"], content["inputs"]
    except Exception as problem:  # torch raises many kinds for a file that is no checkpoint; all mean the same to the user
        raise CheckpointError(f"{path.name}: cannot be read as a checkpoint of medssl ({type(problem).__name__})") from problem
    if version != VERSION:
        raise CheckpointError(f"{path.name}: is of version {version}, this medssl reads version {VERSION}")
    return content


def differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Every (key, value before, value now) in which two JSON-like values differ, keys dotted."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [item for k in keys for item in differences(before.get(k), now.get(k), f"{key}.{k}" if key else str(k))]
    return [] if json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True) else [(key, before, now)]


def describe(changed: list[tuple[str, Any, Any]], most: int = 4) -> str:
    """`pretrain.epochs was 8 and is now 10, ...`; digests are only named."""
    parts = []
    for key, before, now in changed[:most]:
        long = any(len(str(value)) > 40 for value in (before, now))
        parts.append(f"{key} has changed" if long else f"{key} was {_show(before)} and is now {_show(now)}")
    return ", ".join(parts) + (f" and {len(changed) - most} more" if len(changed) > most else "")


def _show(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
