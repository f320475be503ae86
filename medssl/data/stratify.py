"""Stratified draws of groups of patients: into parts of given shares, into folds, nested.

Groups are taken in the order of a hash of their content, so the draws are the same wherever the same images lie. Where a group
has one class (binary, multiclass, ordinal; of a number: a range of values), each class is divided by itself. With several labels
at once the groups are divided by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1), with
the content's hash in the place of its random choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.data.groups import order_groups
from medssl.data.targets import class_members, class_names, targets_of
from medssl.task import BinaryTask, MultilabelTask, RegressionTask, Task

MOST_RANGES = 10
PATIENTS_A_RANGE = 20  # fewer ranges where they would have fewer


@dataclass(frozen=True)
class Strata:
    """Labelled groups in the order of the draw, and what each is stratified by."""

    groups: np.ndarray  # (G,) groups, sorted by their digest
    digest: list[str]  # of the content of each, in hex
    members: np.ndarray  # (G, L) bool: the group has an image of each of `targets.class_names`
    stratum: np.ndarray | None  # (G,) int64 from 0; None: several labels at once
    names: list[str]  # of the strata, else of the labels
    ranges: bool = False  # the strata are ranges of a number: what rounding takes from one the next gives back

    @property
    def marks(self) -> np.ndarray:
        """(G, 3 T) bool: positive, negative, unknown for each target: without the last, parts would be small with all known or
        large with much unknown."""
        positive, negative = self.members[:, 0::2], self.members[:, 1::2]
        return np.concatenate([positive, negative, ~positive & ~negative], axis=1)

    def of(self, chosen: np.ndarray) -> Strata:
        """Those at the sorted positions `chosen`."""
        digest = [self.digest[at] for at in chosen]
        stratum = None if self.stratum is None else self.stratum[chosen]
        return Strata(self.groups[chosen], digest, self.members[chosen], stratum, self.names, self.ranges)


def strata_of(part: pd.DataFrame, task: Task, seed: int, name: str) -> Strata:
    """The labelled groups of `part`.

    Args:
        part: columns group, exact_hash and the labels (see `targets.targets_of`); rows without a label take no part.
        task: with its classes filled in. A group of images of several classes counts as the rarest of them; of a binary task as
            positive. Of a regression it is the mean of its values that counts.
        seed: the study's.
        name: of the draw: draws of other names are independent.
    """
    labels = targets_of(part, task)
    known = ~np.isnan(labels).all(axis=1)
    order = order_groups(part, seed, name)  # all of a group's images decide where it stands, also those without a label
    part, labels = part[known], labels[known]
    order = order[part["group"].unique()].sort_values(kind="stable")
    at = pd.Index(order.index).get_indexer(part["group"])
    members = np.zeros((len(order), len(class_names(task))), bool)
    np.logical_or.at(members, at, class_members(labels, task))
    names = class_names(task)
    if isinstance(task, MultilabelTask):
        # A target's images of one patient can be positive and negative: the patient is positive then.
        members[:, 1::2] &= ~members[:, 0::2]
        stratum = None
    elif isinstance(task, RegressionTask):
        values = np.bincount(at, labels[:, 0], len(order)) / np.maximum(np.bincount(at, minlength=len(order)), 1)
        stratum = _ranges(values)
        names = [f"range {number + 1}" for number in range(stratum.max(initial=0) + 1)]
    elif isinstance(task, BinaryTask):
        stratum, names = members[:, 0].astype(np.int64), names[::-1]
    else:
        rarity = np.argsort(np.argsort(members.sum(axis=0), kind="stable"), kind="stable")
        stratum = np.where(members, rarity, len(rarity)).argmin(axis=1) if len(order) else np.zeros(0, np.int64)
    return Strata(order.index.to_numpy(), order.tolist(), members, stratum, names, isinstance(task, RegressionTask))


def _ranges(values: np.ndarray) -> np.ndarray:
    count = int(np.clip(len(values) // PATIENTS_A_RANGE, 1, MOST_RANGES))
    bounds = np.unique(np.quantile(values, np.arange(1, count) / count)) if len(values) else np.zeros(0)
    return np.unique(np.searchsorted(bounds, values, side="right"), return_inverse=True)[1]


def divide(strata: Strata, shares: list[float]) -> np.ndarray:
    """(G,) int64: 0, 1, ... for the parts with `shares` of the groups, and the number of shares for the rest."""
    parts = np.full(len(strata.groups), len(shares))
    if strata.stratum is None:
        return iterative(strata.marks, [*shares, 1 - sum(shares)], strata.digest)
    owed = [0.0] * len(shares)
    for stratum in range(len(strata.names)):
        places, start = np.flatnonzero(strata.stratum == stratum), 0
        for part, share in enumerate(shares):
            wanted = len(places) * share + owed[part]
            end = start + round(wanted)
            if strata.ranges:
                owed[part] = wanted - round(wanted)
            parts[places[start:end]] = part
            start = end
    return parts


def deal(strata: Strata, folds: int) -> np.ndarray:
    """(G,) int64: the fold of each group; every fold has its share of every class, as nearly as can be."""
    if strata.stratum is None:
        return iterative(strata.marks, [1 / folds] * folds, strata.digest)
    fold = np.zeros(len(strata.groups), np.int64)
    fold[np.argsort(strata.stratum, kind="stable")] = np.arange(len(fold)) % folds
    return fold


def first(strata: Strata, count: int) -> np.ndarray:
    """(count,) sorted positions of the first groups of an order whose every beginning has the shares of the whole, as nearly as
    can be: a smaller count is inside every larger one."""
    if strata.stratum is None:
        return np.sort(_halved(strata, np.arange(len(strata.groups)), count))
    sizes = np.bincount(strata.stratum, minlength=len(strata.names))
    place = np.zeros(len(strata.groups))
    for stratum, size in enumerate(sizes):
        place[strata.stratum == stratum] = (np.arange(size) + 0.5) / max(size, 1)
    order = np.lexsort((np.arange(len(place)), place))  # the groups stand in the order of their content already
    return np.sort(order[:count])


def _halved(strata: Strata, among: np.ndarray, count: int) -> np.ndarray:
    """Halves of halves, each like the whole; only the half in which the count ends is divided further."""
    chosen, depth, marks = [np.zeros(0, np.int64)], 0, strata.marks
    while 0 < count < len(among):
        half = iterative(marks[among], [0.5, 0.5], [strata.digest[at] for at in among], depth)
        depth += 1
        left, right = among[half == 0], among[half == 1]
        if not len(left) or not len(right):
            break
        if count < len(left):
            among = left
        else:
            chosen.append(left)
            among, count = right, count - len(left)
    return np.concatenate([*chosen, among[:count]])


def iterative(members: np.ndarray, shares: list[float], digest: list[str], depth: int = 0) -> np.ndarray:
    """(G,) int64: the part of each group, by iterative stratification: the rarest label that is left is dealt first.

    Args:
        members: (G, L) bool.
        shares: of the parts, summing to 1.
        digest: of each group, in hex; decides where parts want a group equally.
        depth: of a division inside a division: it decides by other bits, or a lucky group would be so at every depth.
    """
    part = np.full(len(members), -1)
    wanted = members.sum(axis=0)[:, None] * np.asarray(shares)  # (L, P) groups of each label that each part still wants
    room = len(members) * np.asarray(shares, float)
    lots = [int(one[-16:], 16) >> depth for one in digest]  # the digest's beginning is its place in the order already
    left = members.sum(axis=0)
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(left.dtype).max).argmin())
        for at in np.flatnonzero(members[:, rarest] & (part < 0)).tolist():
            part[at] = taker = _taker(wanted[rarest], room, lots[at])
            wanted[members[at], taker] -= 1
            room[taker] -= 1
            left = left - members[at]
    for at in np.flatnonzero(part < 0).tolist():
        part[at] = taker = _taker(room, room, lots[at])
        room[taker] -= 1
    return part


def _taker(wanted: np.ndarray, room: np.ndarray, lot: int) -> int:
    """The part that wants most, then the one with most room, then by lot."""
    best = np.flatnonzero(wanted >= wanted.max() - 1e-9)
    if len(best) > 1:
        best = best[room[best] >= room[best].max() - 1e-9]
    return int(best[lot % len(best)])
