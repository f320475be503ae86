"""The mates of each image as ranges of one sorted order, so that neither memory nor time grows with the number of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Mates:
    """Who may stand for whom, by one kind.

    The mates of `rows[i]` are `order[low[j, i] : high[j, i]]` for all J ranges j. Ranges of one image never overlap.
    """

    rows: np.ndarray  # (M,) int64: images that take part, positions in the table
    order: np.ndarray  # (K,) int64: positions in the table, sorted so that mates stand together
    low: np.ndarray  # (J, M) int64
    high: np.ndarray  # (J, M) int64

    def counts(self) -> np.ndarray:
        """(M,) int64: how many mates each image has."""
        return (self.high - self.low).sum(axis=0)

    def only(self, keep: np.ndarray) -> Mates:
        """The same for some of the images, (M,) bool."""
        return Mates(self.rows[keep], self.order, self.low[:, keep], self.high[:, keep])

    def pick(self, which: np.ndarray) -> np.ndarray:
        """(M,) int64: of each image the mate with the number `which`, (M,) int64 from 0 to less than its count."""
        left, at = which.copy(), np.full(len(which), -1, np.int64)
        for low, high in zip(self.low, self.high, strict=True):
            here = (at < 0) & (left < high - low)
            at[here] = low[here] + left[here]
            left -= high - low
        return self.order[at]


def within_group(rows: np.ndarray, groups: np.ndarray) -> Mates:
    """All others of an image's group.

    Args:
        rows: (M,) int64: positions in the table.
        groups: (M,) int64: the group of each.
    """
    return other_part(rows, groups, np.arange(len(rows)))


def other_part(rows: np.ndarray, groups: np.ndarray, parts: np.ndarray) -> Mates:
    """All of an image's group that are of another part of it than the image.

    Args:
        rows: (M,) int64: positions in the table.
        groups, parts: (M,) int64, 0 or more.
    """
    group = pd.factorize(groups)[0].astype(np.int64)
    part = pd.factorize(parts)[0].astype(np.int64)
    key = group * (int(part.max(initial=0)) + 1) + part
    at = np.argsort(key, kind="stable")
    ordered_key, ordered_group = key[at], group[at]
    left, right = (np.searchsorted(ordered_group, group, side) for side in ("left", "right"))
    own_left, own_right = (np.searchsorted(ordered_key, key, side) for side in ("left", "right"))
    return Mates(rows, rows[at], np.stack([left, own_right]), np.stack([own_left, right]))


def within_reach(rows: np.ndarray, groups: np.ndarray, places: np.ndarray, reach: int) -> Mates:
    """The others of an image's group whose place is at most `reach` from its own; images at one place reach each other.

    Args:
        rows: (M,) int64: positions in the table.
        groups: (M,) int64, 0 or more.
        places: (M,) int64.
    """
    group = pd.factorize(groups)[0].astype(np.int64)
    least = places.min(initial=0)
    # One number for group and place; the margin of `reach` keeps the end of a group apart from the beginning of the next.
    key = group * (int(places.max(initial=0) - least) + reach + 1) + (places - least)
    at = np.argsort(key, kind="stable")
    ordered = key[at]
    own = np.empty(len(rows), np.int64)
    own[at] = np.arange(len(rows))
    low, high = np.searchsorted(ordered, key - reach, "left"), np.searchsorted(ordered, key + reach, "right")
    return Mates(rows, rows[at], np.stack([low, own + 1]), np.stack([own, high]))


def codes(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """(M,) int64: equal where all `columns` are equal; an empty value is a value of its own."""
    return table.groupby(columns, sort=False, dropna=False).ngroup().to_numpy(np.int64)
