"""Who does the work of a command, as its options say it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medssl.errors import StudyError


@dataclass(frozen=True)
class ExecutionHow:
    """Child processes of this one, the workers of a dask cluster, or one of several commands that share the work."""

    workers: int | None = None  # None: as many as pay off
    scheduler: str | None = None
    shard: tuple[int, int] | None = None  # k of n, k from 1


def shard_of(text: str | None) -> tuple[int, int] | None:
    """(k, n) of `k/n`.

    Raises:
        StudyError: it is not of that form, or k is not from 1 to n.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise StudyError(f"--shard {text}: is not of the form k/n with k from 1 to n, such as 3/16")
    return int(match[1]), int(match[2])
