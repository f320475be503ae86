"""Whether the parts of a split are disjoint: by patient, by study, by image to the pixel, and by near-identical image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medssl.data.groups import codes, link_patients, near_classes
from medssl.data.splits import studies_of

PAIRS = (
    ("train", "validation"),
    ("train", "test"),
    ("validation", "test"),
    ("train or validation", "test"),
    ("pretraining", "validation"),
    ("pretraining", "test"),
)
"""Parts that must share nothing."""
PATIENTS, STUDIES, IDENTICAL, NEAR, LINKED = "patients", "studies", "identical images", "near-identical images", "linked patients"
KINDS = (PATIENTS, STUDIES, IDENTICAL, NEAR, LINKED)


def audit(manifest: pd.DataFrame, parts: Mapping[str, np.ndarray], near: np.ndarray | None = None) -> pd.DataFrame:
    """What each two parts share.

    Args:
        manifest: columns row_key, patient, study and exact_hash.
        parts: positions in the manifest of the rows of train, validation, test and pretraining, those that there are. A row
            that stands in two parts is shared by them.
        near: (M, 2) near pairs; None: identical images alone are looked for.

    Returns:
        A row for each of PAIRS whose parts are given (`train or validation` where both are) and each of KINDS, also where
        nothing is shared. Columns: first, second, kind; count: of patients, of studies (placeholders that more than 5 patients
        have are none), of images different from each other, of classes of near-identical images none of which is identical to
        one on the other side, of groups of patients who share a study or an image, or are chained by such, but no patient of
        which is on both sides; first_images, second_images: images on either side that are concerned; keys: patient keys,
        study keys, or row keys of the second part (of linked patients their keys in the second part), sorted.
    """
    image = codes(manifest["exact_hash"])
    facts = _Facts(
        manifest,
        image,
        image if near is None or not len(near) else near_classes(image, near),
        link_patients(manifest, near).astype(np.int64),
    )
    given = {name: np.asarray(rows, np.int64) for name, rows in parts.items()}
    if "train" in given and "validation" in given:
        given["train or validation"] = np.union1d(given["train"], given["validation"])
    rows = [
        {"first": first, "second": second, **found}
        for first, second in PAIRS
        if first in given and second in given
        for found in facts.between(given[first], given[second])
    ]
    return pd.DataFrame(rows, columns=["first", "second", "kind", "count", "first_images", "second_images", "keys"])


def parts_of_table(splits: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows of train, validation and test of a splits table, and of those that pretraining sees."""
    parts = {name: np.flatnonzero(splits["split"] == name) for name in ("train", "validation", "test")}
    return parts | {"pretraining": np.flatnonzero(splits["pretrain"].to_numpy(bool))}


def in_words(found: pd.DataFrame) -> list[str]:
    """A line for each two parts that share something: `train and test share 3 patients (9 and 2 images), 1 studies (...)`."""
    lines = []
    for (first, second), rows in found[found["count"] > 0].groupby(["first", "second"], sort=False):
        shared = ", ".join(
            f"{row.count_:,} {row.kind} ({row.first_images:,} and {row.second_images:,} images)"
            for row in rows.rename(columns={"count": "count_"}).itertuples()
        )
        lines.append(f"{first} and {second} share {shared}")
    return lines


@dataclass(frozen=True)
class _Facts:
    manifest: pd.DataFrame
    image: np.ndarray  # (N,) code of the content
    alike: np.ndarray  # (N,) class of near-identical images
    group: np.ndarray  # (N,) linked patients

    def between(self, first: np.ndarray, second: np.ndarray) -> Iterator[dict]:
        keys = {name: self.manifest[name].to_numpy() for name in ("row_key", "patient", "study")}
        patient = codes(self.manifest["patient"])
        # An empty study has the code -1, which no two rows share.
        study = codes(studies_of(self.manifest))
        yield _shared(PATIENTS, patient, first, second, keys["patient"])
        yield _shared(STUDIES, study, first, second, keys["study"])
        yield _shared(IDENTICAL, self.image, first, second, keys["row_key"])
        yield _shared(NEAR, self.alike, first, second, keys["row_key"], but=self.image)
        yield _shared(LINKED, self.group, first, second, keys["patient"], but=patient)


def _shared(
    kind: str, code: np.ndarray, first: np.ndarray, second: np.ndarray, keys: np.ndarray, *, but: np.ndarray | None = None
) -> dict:
    """What of `code` stands on both sides, except where one of the finer codes `but` does so too."""
    both = np.intersect1d(code[first], code[second])
    if but is not None:
        finer = np.intersect1d(but[first], but[second])
        both = np.setdiff1d(both, code[second[np.isin(but[second], finer)]])
    both = both[both >= 0]
    here, there = np.isin(code[first], both), second[np.isin(code[second], both)]
    return {
        "kind": kind,
        "count": len(both),
        "first_images": int(here.sum()),
        "second_images": len(there),
        "keys": sorted(set(keys[there].tolist())),
    }
