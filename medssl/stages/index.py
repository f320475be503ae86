"""index: raw files to manifest, rejects, splits and pixel store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

import medssl
from medssl.data import manifest as tables
from medssl.data.archive import MANIFEST, REJECTS, SPLITS, SUMMARY, Archive, open_archive
from medssl.data.card import Phantom, find_root
from medssl.data.formats import READERS, Item
from medssl.data.private import write_locations
from medssl.data.reading import CHUNK, read_archive
from medssl.data.rows import RowBuilder
from medssl.data.splits import make_splits, summarise
from medssl.data.store import StoreWriter
from medssl.data.values import ValueReader
from medssl.errors import DataError, StoreError
from medssl.files import digest_of, write_json
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.screen import bar, say, warn
from medssl.stages.tracked import track_data
from medssl.stages.workspace import Workspace


def index(work: Workspace, *, fresh: bool = False) -> Archive:
    """Make the archive and the splits of a study where they are not there yet, or not from today's files and settings.

    Within one command the files are looked at once.

    Raises:
        UserError: see the errors of each part.
    """
    if work.archive is not None and not fresh:
        return work.archive
    archive, splits = work.folder / "archive", work.folder / "splits"
    _recover(archive)
    sources = {name: _Source(work, name) for name in sorted(work.study.data)}
    inputs = _archive_inputs(work, sources)
    remade = fresh or not is_made_from(archive, inputs)
    if remade:
        with work.open_log("index", stage="index", params=_params(work)) as log:
            summary = _make_archive(work, sources, archive, inputs)
            log.metrics({f"index/{key}": value for key, value in summary.items() if isinstance(value, int)}, step=0)
            track_data(work, log, summary, sorted(work.study.data), "index")
    split_inputs = _split_inputs(work, archive)
    resplit = remade or not is_made_from(splits, split_inputs)
    if resplit:
        _make_splits(work, archive, splits, split_inputs)
    work.archive = open_archive(archive, splits)
    _tell(work.archive, remade or resplit)
    return work.archive


class _Source:
    """One data set of the study, found on this machine."""

    def __init__(self, work: Workspace, name: str) -> None:
        self.name, self.card = name, work.cards[name]
        self.root = find_root(self.card, work.study.data[name].root, name, work.folder / "phantom" / self.card.name)
        if self.card.phantom is not None and work.study.data[name].root is None:
            _generate(self.card.phantom, self.root)
        self.reader = READERS[self.card.format]
        self.items: list[Item] = self.reader.find(self.root, self.card.files.include, self.card.files.exclude)
        if not self.items:
            raise DataError(
                f"data.{name}: no file below the root matches files.include of the card {self.card.name}; check the root and the card"
            )

    def listing(self) -> str:
        """Digest of what lies there: paths, sizes, times of change."""
        rows = []
        for item in self.items:
            status = (self.root / item.path).stat()
            rows.append((item.path, item.start, item.stop, status.st_size, status.st_mtime_ns))
        return digest_of(rows)


def _generate(phantom: Phantom, root: Path) -> None:
    from medssl.data.phantom import generate

    with bar("phantom", phantom.patients) as progress:
        summary = generate(
            root,
            patients=phantom.patients,
            seed=phantom.seed,
            size=phantom.size,
            progress=lambda done, total: progress.reach(done),
        )
        progress.reach(phantom.patients)
    if not summary.reused:
        say(
            "phantom",
            f"{summary.images:,} images of {summary.patients:,} made-up patients: synthetic, for trying the tool, never evidence",
        )


def _archive_inputs(work: Workspace, sources: dict[str, _Source]) -> dict[str, Any]:
    return {
        "format": [tables.VERSION, medssl.__version__],
        "store_size": work.study.store_size,
        "secret": work.secret.fingerprint,
        "cards": {name: source.card.model_dump(mode="json") for name, source in sources.items()},
        "files": {name: source.listing() for name, source in sources.items()},
    }


def _make_archive(work: Workspace, sources: dict[str, _Source], archive: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Read everything into a folder beside `archive`, which then takes its place: a killed run harms nothing."""
    new = archive.with_name("archive.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        writer = StoreWriter(new / "store", work.study.store_size)
        builders = [_read_source(work, source, writer) for source in sources.values()]
        locations = pd.DataFrame([row for builder in builders for row in builder.locations])
        write_locations(work.private, locations)
        manifest = pd.concat([builder.manifest() for builder in builders], ignore_index=True)
        rejects = pd.concat([builder.reject_table() for builder in builders], ignore_index=True)
        decoders = sorted(manifest["decoder"].unique())
        store_digest = writer.close(
            {"resize": "longer side, triangle filter widened by the reduction, once", "decoders": decoders}
        )
        metadata = {"medssl.version": str(tables.VERSION), "medssl.secret": work.secret.fingerprint}
        schema = tables.schema_of(tables.COLUMNS, tables.targets_of(manifest))
        tables.write_table(new / MANIFEST, manifest, schema, metadata)
        tables.write_table(new / REJECTS, rejects, tables.schema_of(tables.REJECT_COLUMNS), metadata)
    except OSError as problem:
        raise StoreError(
            f"store: could not be written ({problem.strerror}); what stood there before is unharmed; make room and run it again"
        ) from problem
    labels = {name: manifest[name].fillna("").tolist() for name in manifest if name.startswith(tables.LABEL_PREFIX)}
    summary = {
        "images": len(manifest),
        "patients": int(manifest["patient"].nunique()),
        "rejects": len(rejects),
        "reject_reasons": {reason: int(count) for reason, count in rejects["reason"].value_counts().items()},
        "patients_from": {kind: int(count) for kind, count in manifest.groupby("patient_from")["patient"].nunique().items()},
        "enlarged": int((manifest[["rows", "columns"]].max(axis=1) < work.study.store_size).sum()),
        "data_digest": digest_of([manifest["exact_hash"].tolist(), manifest["source"].tolist(), work.study.store_size]),
        "labels_digest": digest_of(labels),
        "store_digest": store_digest,
    }
    write_json(new / SUMMARY, summary)
    write_receipt(new, inputs)
    _swap(new, archive)
    return summary


def _read_source(work: Workspace, source: _Source, writer: StoreWriter) -> RowBuilder:
    values = ValueReader(source.card, source.root)
    builder = RowBuilder(source.name, source.card, values, work.secret)
    size, workers = work.study.store_size, work.study.store.workers
    with bar(f"index {source.name}", len(source.items)) as progress:
        chunks = read_archive(source.reader, source.root, source.items, values.tags(), size, workers)
        for number, found in enumerate(chunks, start=1):
            for one in found:
                if hasattr(one, "reason"):
                    builder.reject(one)
                else:
                    builder.add(one, *writer.append(one.placed.pixels))
            progress.reach(min(number * CHUNK, len(source.items)))
    return builder


def _swap(new: Path, place: Path) -> None:
    """Put `new` in the place of `place`. Killed between the two renames, `_recover` finds the old one."""
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _recover(place: Path) -> None:
    old = place.with_name(f"{place.name}.old")
    if old.exists() and not place.exists():
        old.rename(place)


def _split_inputs(work: Workspace, archive: Path) -> dict[str, Any]:
    from medssl.files import read_json

    summary = read_json(archive / SUMMARY)
    return {
        "archive": [summary["data_digest"], summary["labels_digest"], work.secret.fingerprint],
        "task": work.study.task.model_dump(mode="json"),
        "seed": work.study.seed,
        "transductive": work.study.pretrain.transductive,
    }


def _make_splits(work: Workspace, archive: Path, folder: Path, inputs: dict[str, Any]) -> None:
    manifest = tables.read_table(archive / MANIFEST)
    task = work.study.task
    splits = make_splits(manifest, task, work.study.seed, transductive=work.study.pretrain.transductive)
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_table(folder / SPLITS, splits, tables.schema_of(tables.SPLIT_COLUMNS))
    write_json(
        folder / SUMMARY,
        {"splits": summarise(splits, manifest["exact_hash"], task.data), "transductive": work.study.pretrain.transductive},
    )
    write_receipt(folder, inputs)


def _params(work: Workspace) -> dict[str, Any]:
    return {"seed": work.study.seed, "store_size": work.study.store_size, "sources": ",".join(sorted(work.study.data))}


def _tell(archive: Archive, made: bool) -> None:
    summary, splits = archive.summary, archive.summary["splits"]
    if not made:
        say("index", f"nothing has changed: {summary['images']:,} images of {summary['patients']:,} patients")
        return
    say("index", f"{summary['images']:,} images of {summary['patients']:,} patients")
    if summary["rejects"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reject_reasons"].items())
        say("index", f"{summary['rejects']:,} files set aside: {reasons} (archive/{REJECTS}; `medssl locate KEY` names a file)")
    if summary["patients_from"].get("study"):
        warn(
            f"{summary['patients_from']['study']} patients have no usable patient ID; each of their studies counts as a patient of its own"
        )
    if summary["enlarged"]:
        warn(f"{summary['enlarged']:,} images are smaller than the store's {archive.store.size} px and were enlarged")
    for name, part in splits["parts"].items():
        if part["images"]:
            counts = f"{part['labelled_images']:,} labelled, {part['positive_images']:,} positive"
            say("split", f"{name}: {part['patients']:,} patients, {part['images']:,} images, {counts}")
    dropped = splits["excluded_from_pretraining"]
    total = sum(reason["images"] for reason in dropped.values())
    if archive.summary["transductive"]:
        warn("pretrain.transductive: pretraining sees the images of validation and test patients; every result is transductive")
    else:
        parts = ", ".join(f"{reason['images']:,} {name.replace('_', ' ')}" for name, reason in dropped.items())
        say("split", f"pretraining may use {splits['pretraining_images']:,} images; {total:,} are kept from it ({parts})")
