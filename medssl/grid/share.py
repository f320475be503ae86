"""Sharing jobs between commands that do not talk to each other: each finds the same division by itself."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from medssl.grid.job import Job


def shares_of(jobs: Sequence[Job], parts: int) -> list[list[Job]]:
    """The jobs of each of `parts` commands: every job in exactly one, of loads that differ by at most the largest cost.

    The longest goes first, each to the part with the least load so far; equal ones go by key. So the division depends on keys and
    costs alone, not on the order of `jobs`; give it all of a grid's jobs, done or not, or it changes while others work.

    Returns:
        `parts` lists, each in the order of `jobs`.
    """
    loads = [(0.0, part) for part in range(parts)]
    home: dict[str, int] = {}
    for job in sorted(jobs, key=lambda job: (-job.cost, job.key)):
        load, part = loads[0]
        home[job.key] = part
        heapq.heapreplace(loads, (load + job.cost, part))
    shares: list[list[Job]] = [[] for _ in range(parts)]
    for job in jobs:
        shares[home[job.key]].append(job)
    return shares


def share_of(jobs: Sequence[Job], shard: tuple[int, int] | None) -> list[Job]:
    """The jobs of part k of n, k from 1; all of them where `shard` is None."""
    if shard is None:
        return list(jobs)
    part, parts = shard
    return shares_of(jobs, parts)[part - 1]
