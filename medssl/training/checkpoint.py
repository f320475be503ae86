"""One checkpoint, one file: written beside its place and renamed, loadable with `weights_only=True`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from medssl.errors import CheckpointError
from medssl.files import replacing

VERSION = 1


def save_checkpoint(path: Path, *, step: int, inputs: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the state after `step` steps.

    Args:
        path: the file; a former one is replaced only when this one is complete.
        step: steps done.
        inputs: what the run depends on (settings, digests); `load_checkpoint` compares them.
        state: state dicts of tensors and plain values.
    """
    with replacing(path) as temporary:
        torch.save({"version": VERSION, "step": step, "inputs": json.dumps(inputs, sort_keys=True), "state": state}, temporary)


def load_checkpoint(path: Path, inputs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """(steps done, state) of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, is of another version, or was written by a run with other inputs, which are named.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, written = content["version"], json.loads(content["inputs"])
    except Exception as problem:  # torch raises many kinds for a file that is no checkpoint; all mean the same to the user
        raise CheckpointError(
            f"{path.name}: is not a checkpoint of medssl ({type(problem).__name__}); --fresh starts over"
        ) from problem
    if version != VERSION:
        raise CheckpointError(f"{path.name}: is of version {version}, this medssl reads version {VERSION}; --fresh starts over")
    if changed := differences(written, inputs):
        raise CheckpointError(
            f"{path.parent.name}/{path.name}: belongs to another study: {describe(changed)}; put the study back, "
            "choose another work_dir, or start over with --fresh"
        )
    return content["step"], content["state"]


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
