"""The splits table of a study: drawn from the archive, written, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medssl.data import manifest as tables
from medssl.data.archive import MANIFEST, NEAR, SPLITS, SUMMARY, Archive
from medssl.data.split_summary import in_words, summarise
from medssl.data.splits import columns_of, make_splits
from medssl.files import write_json
from medssl.stages.receipt import read_receipt, write_receipt
from medssl.stages.screen import say, warn
from medssl.stages.workspace import Workspace
from medssl.task import MultilabelTask, Task


def task_of(work: Workspace) -> Task | None:
    """The study's task with its classes filled in, or None where it has none."""
    return work.task if work.study.task else None


def split_inputs(work: Workspace, archive: Path) -> dict[str, Any]:
    """What the splits are drawn from."""
    receipt, task = read_receipt(archive), task_of(work)
    return {
        "format": SPLIT_VERSION,
        # All that the archive was made from: patients and published splits, which the content does not show, among it.
        "archive": receipt["inputs_digest"],
        "task": task and task.model_dump(mode="json"),
        "seed": work.study.seed,
        "transductive": work.study.pretrain.transductive,
    }


SPLIT_VERSION = 2
"""One more when the same inputs give another table."""


def drawn_splits(work: Workspace, archive: Path, task: Task | None) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The splits of `task`, the columns of the manifest that they are drawn from, and the near pairs.

    Raises:
        DataError: see `make_splits`.
    """
    manifest = tables.read_table(archive / MANIFEST, columns_of(task))
    near = np.load(archive / NEAR, allow_pickle=False)
    splits = make_splits(manifest, task, work.study.seed, transductive=work.study.pretrain.transductive, near=near)
    return splits, manifest, near


def write_splits(work: Workspace, archive: Path, folder: Path, inputs: dict[str, Any]) -> None:
    """Draw the splits and write them to `folder`."""
    task = task_of(work)
    splits, manifest, _ = drawn_splits(work, archive, task)
    folder.mkdir(parents=True, exist_ok=True)
    targets = task.targets if isinstance(task, MultilabelTask) else []
    tables.write_table(folder / SPLITS, splits, tables.schema_of(tables.SPLIT_COLUMNS, targets, pa.float64()))
    summary = summarise(splits, manifest["exact_hash"], task)
    write_json(folder / SUMMARY, {"splits": summary, "transductive": work.study.pretrain.transductive})
    write_receipt(folder, inputs)


def tell_splits(archive: Archive, task: Task | None) -> None:
    """Say what each part holds, what pretraining may see, and what is wrong with it."""
    splits = archive.summary["splits"]
    for name, part in splits["parts"].items():
        if part["images"]:
            say("split", f"{name}: {part['patients']:,} patients, {part['images']:,} images, {in_words(part, task)}")
        if part["images"] and part["too_few"] and name in ("train", "test"):
            warn(f"split: {name} has fewer than 2 patients with {', '.join(part['too_few'])}; figures that need them are unknown")
    if splits["leaks"]["images"]:
        leaks = splits["leaks"]
        warn(
            f"task.split.collisions: allow: {leaks['images']:,} images of {leaks['patients']:,} patients in training or validation are known "
            "to validation or test; every result leaks"
        )
    dropped = splits["excluded_from_pretraining"]
    total = sum(reason["images"] for reason in dropped.values())
    if archive.summary["transductive"]:
        warn("pretrain.transductive: pretraining sees the images of validation and test patients; every result is transductive")
    else:
        parts = ", ".join(f"{reason['images']:,} {name.replace('_', ' ')}" for name, reason in dropped.items())
        kept = f"{total:,} are kept from it ({parts})" if total else "none are kept from it"
        say("split", f"pretraining may use {splits['pretraining_images']:,} images; {kept}")
