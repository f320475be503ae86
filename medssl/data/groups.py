"""Patients who share a pixel-identical image are taken for one: they are never divided by a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

# An image that more patients than this share is a test pattern or a blank exposure, not one person under several keys.
MOST_SHARED = 5


def link_patients(manifest: pd.DataFrame) -> np.ndarray:
    """(N,) int32: the group of each row, numbered in the order of the manifest. Union-find over patients and exact hashes."""
    parent: dict[str, str] = {patient: patient for patient in manifest["patient"].unique()}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for _, patients in manifest.groupby("exact_hash", sort=False)["patient"]:
        shared = patients.unique()
        if 1 < len(shared) <= MOST_SHARED:
            for other in shared[1:]:
                parent[root(other)] = root(shared[0])
    return pd.factorize(manifest["patient"].map(root))[0].astype(np.int32)


def content_order(seed: int, name: str, hashes: Iterable[str]) -> str:
    """The place of a group in a draw: a hash of its images' content, so that another site, with other keys, draws alike."""
    digest = hashlib.sha256(f"{seed}/{name}".encode())
    for value in sorted(hashes):
        digest.update(value.encode())
    return digest.hexdigest()


def order_groups(frame: pd.DataFrame, seed: int, name: str) -> pd.Series:
    """The content order of each group of `frame` (columns group, exact_hash): index group, values to sort by."""
    return frame.groupby("group")["exact_hash"].agg(lambda hashes: content_order(seed, name, hashes))
