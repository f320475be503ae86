"""Patients who share a study or an image, pixel-identical or nearly so, are taken for one: they are never divided by a split.

Near pairs are positions of rows, (M, 2), as `near.near_images` gives them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# An image that more patients than this share is a test pattern or a blank exposure, not one person under several keys; a study
# that more share is a placeholder.
MOST_SHARED = 5


def link_patients(manifest: pd.DataFrame, near: np.ndarray | None = None) -> np.ndarray:
    """(N,) int32: the group of each row, numbered in the order of the manifest.

    Args:
        manifest: columns patient, exact_hash and, where studies are known, study.
        near: (M, 2) near pairs; images that are chained by them count as one image. None: identical images alone link.
    """
    patient, image = codes(manifest["patient"]), codes(manifest["exact_hash"])
    links = [_links(patient, image)]
    if near is not None and len(near):
        links.append(_links(patient, near_classes(image, near)))
    if "study" in manifest and manifest["study"].notna().any():
        known = manifest["study"].notna().to_numpy()
        links.append(_links(patient[known], codes(manifest["study"][known])))
    group = _components(np.concatenate(links), patient.max(initial=-1) + 1)
    return pd.factorize(group[patient])[0].astype(np.int32)


def near_classes(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(N,) int32: the same number for rows whose images are identical (`image`, (N,) codes) or chained by near pairs."""
    return _components(image[near], image.max(initial=-1) + 1)[image]


def codes(values: pd.Series) -> np.ndarray:
    """(N,) int64: a number for each distinct value, from 0 in the order of appearance."""
    return pd.factorize(values)[0].astype(np.int64)


def _links(patient: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(K, 2) patients to join: for each image that 2 to MOST_SHARED patients have, a chain through them."""
    patients = patient.max(initial=-1) + 1
    shared, owner = np.divmod(np.unique(image * patients + patient), max(patients, 1))
    few = np.bincount(shared, minlength=1)[shared] <= MOST_SHARED
    chained = np.flatnonzero((shared[1:] == shared[:-1]) & few[1:])
    return np.stack([owner[chained], owner[chained + 1]], axis=1)


def _components(edges: np.ndarray, nodes: int) -> np.ndarray:
    """(nodes,) int32: the connected component of each node."""
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1]


def content_order(seed: int, name: str, hashes: Iterable[str]) -> str:
    """The place of a group in a draw: a hash of its images' content, so that another site, with other keys, draws alike."""
    digest = hashlib.sha256(f"{seed}/{name}".encode())
    for value in sorted(hashes):
        digest.update(value.encode())
    return digest.hexdigest()


def order_groups(frame: pd.DataFrame, seed: int, name: str) -> pd.Series:
    """The `content_order` of each group of `frame` (columns group, exact_hash): index group, values to sort by."""
    hashes = pa.array(frame["exact_hash"], pa.large_string())
    group, labels = pd.factorize(frame["group"], sort=True)
    order = pa.table({"group": group, "hash": hashes}).sort_by([("group", "ascending"), ("hash", "ascending")])
    joined = pa.concat_arrays(order["hash"].chunks) if len(frame) else hashes
    # An Arrow column of strings is their bytes end to end: those of a group are one slice, hashed without a Python string.
    _, offsets, content = joined.buffers()
    ends = np.frombuffer(offsets, np.int64)[joined.offset : joined.offset + len(joined) + 1] if len(joined) else np.zeros(1, int)
    bounds = ends[np.append(0, np.cumsum(np.bincount(group, minlength=len(labels))))].tolist()
    view, start = memoryview(content or b""), hashlib.sha256(f"{seed}/{name}".encode())
    orders = []
    for low, high in pairwise(bounds):
        digest = start.copy()
        digest.update(view[low:high])
        orders.append(digest.hexdigest())
    return pd.Series(orders, index=pd.Index(labels, name="group"), name="exact_hash", dtype=object)


def shared_images(manifest: pd.DataFrame, near: np.ndarray | None = None, splits: pd.DataFrame | None = None) -> pd.DataFrame:
    """Images that stand in the archive more than once: a row for each class of identical or near-identical ones.

    Args:
        manifest: columns row_key, source, patient and exact_hash.
        near: (M, 2) near pairs; None: identical images alone.
        splits: the splits table, in the manifest's order; None: the column `splits` is empty.

    Returns:
        Columns images, patients (counts), identical (all of them, to the pixel), sources, splits (names, sorted, joined by
        ", ") and row_keys (a list, in the manifest's order); the largest classes first, then in the manifest's order.
    """
    image = codes(manifest["exact_hash"])
    shared = image if near is None or not len(near) else near_classes(image, near)
    rows = np.flatnonzero(np.bincount(shared, minlength=1)[shared] > 1)
    part = pd.DataFrame(
        {
            "class": shared[rows],
            "image": image[rows],
            "row_key": manifest["row_key"].to_numpy()[rows],
            "patient": manifest["patient"].to_numpy()[rows],
            "source": manifest["source"].to_numpy()[rows],
            "split": "" if splits is None else splits["split"].to_numpy()[rows],
        }
    )
    found = part.groupby("class", sort=False).agg(
        images=("row_key", "size"),
        patients=("patient", "nunique"),
        identical=("image", lambda column: column.nunique() == 1),
        sources=("source", _names),
        splits=("split", _names),
        row_keys=("row_key", list),
    )
    return found.sort_values("images", ascending=False, kind="stable").reset_index(drop=True)


def _names(column: pd.Series) -> str:
    return ", ".join(sorted(column.unique()))
