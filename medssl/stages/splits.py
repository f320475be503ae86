"""splits audit: what is in each part, and the proof that the parts, and the pretraining set, share nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from medssl.data.archive import MANIFEST, NEAR
from medssl.data.audit import audit, in_words, parts_of_table
from medssl.data.manifest import LABEL_PREFIX, read_table
from medssl.data.split_kinds import colliding
from medssl.data.split_summary import count
from medssl.data.targets import label_columns
from medssl.errors import DataError
from medssl.files import replacing
from medssl.stages.index import index, make_archive
from medssl.stages.screen import say, show_table, warn
from medssl.stages.split_csv import read_split_csv
from medssl.stages.split_tables import drawn_splits, task_of
from medssl.stages.workspace import Workspace
from medssl.task import OfficialSplit, RegressionTask, Task

FOUND = "splits_audit.csv"
LOOKED_AT = ("row_key", "source", "patient", "study", "exact_hash", "official_split")


def audit_splits(work: Workspace, table: Path | None = None) -> None:
    """Audit the study's split, or a table of the user's own, and write the keys of what is shared to splits_audit.csv.

    Args:
        table: a CSV with the columns split and one of row_key, patient (keys) or file; see `split_csv`.

    Raises:
        DataError: the parts share something, and neither `collisions: allow` nor `pretrain.transductive` says that they may.
        StudyError: the study has no task, and no table is given.
    """
    if table is not None:
        _audit_table(work, table)
        return
    task = work.task
    make_archive(work)
    archive = work.folder / "archive"
    published = _tell_published(archive, task)
    splits, refused = _as_used(work, archive, task)
    manifest, near = _manifest_of(archive)
    _show_counts(splits, task)
    found = audit(manifest, parts_of_table(splits), near)
    path = _write(work, found, published)
    _judge(work, task, found, refused, path)


def _tell_published(archive: Path, task: Task) -> pd.DataFrame | None:
    """Of an official split what its parts share as it was published."""
    if not isinstance(task.split, OfficialSplit):
        return None
    manifest, near = _manifest_of(archive)
    mine = manifest["source"] == task.data
    parts = {name: np.flatnonzero(mine & (manifest["official_split"] == name)) for name in ("train", "validation", "test")}
    found = audit(manifest, parts, near)
    if task.split.collisions == "remove_from_training":  # else it is used as it was published
        for line in in_words(found) or ["no two parts share a patient, a study or an image"]:
            say("splits", f"as published: {line}")
    return found


def _as_used(work: Workspace, archive: Path, task: Task) -> tuple[pd.DataFrame, bool]:
    """The splits table, and whether it is one that indexing refuses: then as it would be with `collisions: allow`."""
    if isinstance(task.split, OfficialSplit) and task.split.collisions == "refuse":
        allowed = task.model_copy(update={"split": OfficialSplit(collisions="allow")})
        splits, manifest, _ = drawn_splits(work, archive, allowed)
        mine = manifest["source"] == task.data
        if colliding(splits[mine].join(manifest.loc[mine, ["official_split"]])).any():
            return splits, True
    return index(work).splits, False


def _judge(work: Workspace, task: Task, found: pd.DataFrame, refused: bool, path: Path) -> None:
    pretraining = found["first"] == "pretraining"
    between, seen = found[~pretraining], found[pretraining]
    allowed = isinstance(task.split, OfficialSplit) and task.split.collisions == "allow"
    for line in in_words(found):
        say("splits", line)
    if not found["count"].any():
        parts = "train, validation and test share no patient, no study, no identical and no near-identical image"
        say("splits", f"{parts}, and pretraining sees none of validation and test")
        return
    say("splits", f"the keys of what is shared are in {path.name} of the work folder; `medssl locate KEY` names a file")
    if refused or (between["count"].any() and not allowed):
        raise DataError(f"task.split: the split of {task.data} leaks: {_short(between)}; {_remedy(task)}")
    if seen["count"].any() and not work.study.pretrain.transductive:
        raise DataError(f"splits: pretraining sees held-out images: {_short(seen)}; run `medssl index --fresh`")
    if between["count"].any():
        say("splits", "the split leaks, and task.split.collisions: allow lets it; every table says so")
    if seen["count"].any():
        say("splits", "pretraining sees held-out images, and pretrain.transductive lets it; every table says so")


def _remedy(task: Task) -> str:
    if isinstance(task.split, OfficialSplit):
        return "set task.split.collisions: remove_from_training (or allow, which every table then says), or use kind: patient"
    return "run `medssl index --fresh`"


def _short(found: pd.DataFrame) -> str:
    """The widest pair of parts, in words."""
    lines = in_words(found)
    return next((line for line in lines if line.startswith("train or validation")), lines[0])


def _audit_table(work: Workspace, table: Path) -> None:
    make_archive(work)
    archive, task = work.folder / "archive", task_of(work)
    manifest, near = _manifest_of(archive, task)
    parts, missing = read_split_csv(table, manifest, work.private)
    if missing:
        warn(f"{table}: {missing:,} of its lines name nothing in the archive, and were not audited")
    labels = label_columns(manifest, task) if task else pd.DataFrame({"label": np.full(len(manifest), np.nan)})
    frame = pd.concat([manifest[["row_key", "patient", "study"]], labels], axis=1)
    _show_parts({name: frame.iloc[rows] for name, rows in parts.items()}, task)
    found = audit(manifest, parts, near)
    path = _write(work, found, None)
    if not found["count"].any():
        say("splits", f"{table}: no two parts share a patient, a study, an identical or a near-identical image")
        return
    for line in in_words(found):
        say("splits", line)
    say("splits", f"the keys of what is shared are in {path.name} of the work folder; `medssl locate KEY` names a file")
    raise DataError(f"{table}: the split leaks: {_short(found)}; divide by patient, and keep identical images together")


def _manifest_of(archive: Path, task: Task | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    labels = [f"{LABEL_PREFIX}{target}" for target in task.targets] if task else []
    return read_table(archive / MANIFEST, [*LOOKED_AT, *labels]), np.load(archive / NEAR, allow_pickle=False)


def _show_counts(splits: pd.DataFrame, task: Task) -> None:
    mine = splits[splits["source"] == task.data]
    parts = {name: mine[mine["split"] == name] for name in ("train", "validation", "test", "removed")}
    _show_parts({name: part for name, part in parts.items() if len(part)} | {"pretraining": splits[splits["pretrain"]]}, task)


def _show_parts(parts: dict[str, pd.DataFrame], task: Task | None) -> None:
    """A table, part by part; of a class its images and patients."""
    counts = {name: count(part, task) for name, part in parts.items()}
    shown = Table("part", title="What is in each part")
    for heading in ("patients", "studies", "images", "labelled"):
        shown.add_column(heading, justify="right")
    classes = list(next(iter(counts.values()))["classes"])
    for name in classes:
        shown.add_column(f"{name} (patients)", justify="right")
    if isinstance(task, RegressionTask):
        shown.add_column("mean (least to greatest)", justify="right")
    for name, part in counts.items():
        cells = [f"{part[key]:,}" for key in ("patients", "studies", "images", "labelled_images")]
        cells[1] = cells[1] if part["studies"] else "unknown"
        cells += [f"{part['classes'][one]['images']:,} ({part['classes'][one]['patients']:,})" for one in classes]
        if isinstance(task, RegressionTask):
            values = part["values"]
            cells.append(f"{values['mean']:.4g} ({values['least']:g} to {values['greatest']:g})" if values else "unknown")
        shown.add_row(name, *cells)
    show_table(shown)


def _write(work: Workspace, found: pd.DataFrame, published: pd.DataFrame | None) -> Path:
    """A line for each key that two parts share: keys alone, no names."""
    path = work.folder / FOUND
    tables = {"as used": found} | ({} if published is None else {"as published": published})
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "first", "second", "kind", "key"])
        for split, table in tables.items():
            for row in table.itertuples():
                writer.writerows([split, row.first, row.second, row.kind, key] for key in row.keys)
    return path
