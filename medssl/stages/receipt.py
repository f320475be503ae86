"""A receipt says from which inputs a folder was made; the same inputs again mean that there is nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssl.files import digest_of, read_json, write_json
from medssl.tracking.lines import plain

NAME = "receipt.json"


def read_receipt(folder: Path) -> dict[str, Any] | None:
    """The receipt of `folder`, or None where it was never finished."""
    path = folder / NAME
    return read_json(path) if path.exists() else None


def is_made_from(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether `folder` is finished and was made from exactly these inputs."""
    receipt = read_receipt(folder)
    return receipt is not None and receipt["inputs_digest"] == digest_of(inputs)


def write_receipt(folder: Path, inputs: dict[str, Any], **facts: Any) -> None:
    """Written last: a folder without a receipt is unfinished. JSON has no NaN and no infinities: facts have words for them."""
    write_json(folder / NAME, {"inputs_digest": digest_of(inputs), "inputs": inputs, "facts": plain(facts)})
