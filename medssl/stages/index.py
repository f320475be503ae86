"""index: raw files to manifest, rejects, splits and pixel store."""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import medssl
from medssl.data import manifest as tables
from medssl.data.archive import MANIFEST, NEAR, REJECTS, SUMMARY, Archive, open_archive
from medssl.data.building import Content, build_archive, refused_rows
from medssl.data.journal import Journal
from medssl.data.near import near_images
from medssl.data.rows import RowBuilder
from medssl.data.store import Store
from medssl.errors import StoreError
from medssl.files import digest_of, write_json
from medssl.grid.how import ExecutionHow
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import say, warn
from medssl.stages.sources import Source, read_missing
from medssl.stages.split_tables import split_inputs, task_of, tell_splits, write_splits
from medssl.stages.tracked import track_data
from medssl.stages.workspace import Workspace
from medssl.task import Task
from medssl.tracking.locks import locked

LOOKED_AT = 20_000
"""So many files are looked at by every command, in about a second; more by `medssl index` alone."""
ONLY_SHOWN = {"subgroups"}
"""Fields of a card that change no archive."""


def index(work: Workspace, *, fresh: bool = False, look: bool = False, how: ExecutionHow = ExecutionHow()) -> Archive:
    """Make the archive and the splits of a study where they are not there yet, or not from today's files and settings.

    What has been read once is kept in the journal: only new and changed files are read. Within one command the files are
    looked at once. An archive of more than LOOKED_AT files that was made with today's settings is taken as it is, which is said.

    Args:
        look: find out what has changed among the files, however many there are.

    Raises:
        UserError: see the errors of each part.
    """
    if work.archive is not None and not fresh:
        return work.archive
    archive, splits = work.folder / "archive", work.folder / "splits"
    trusted, remade = make_archive(work, fresh=fresh, look=look, how=how)
    drawn_from = split_inputs(work, archive)
    resplit = remade or not is_made_from(splits, drawn_from)
    if resplit:
        with _no_other(work):
            write_splits(work, archive, splits, drawn_from)
    work.archive = open_archive(archive, splits)
    if trusted is not None:
        say("index", f"{_counted(work.archive.summary)}, {trusted}")
    if trusted is None or resplit:
        _tell(work.archive, task_of(work), remade or resplit)
    return work.archive


def make_archive(
    work: Workspace, *, fresh: bool = False, look: bool = False, how: ExecutionHow = ExecutionHow()
) -> tuple[str | None, bool]:
    """Make the archive alone, without its splits, where it is not there yet or not from today's files and settings; see `index`.

    Returns:
        What is said of an archive that is taken as it is, else None; and whether it was made now.

    Raises:
        UserError: see the errors of each part.
    """
    archive = work.folder / "archive"
    _recover(archive)
    sources = [Source(work, name) for name in sorted(work.study.data)]
    settings = _settings(work, sources)
    trusted = None if fresh or look else _trusted(archive, settings)
    remade = False
    if trusted is None:
        inputs = settings | _files(sources)
        remade = fresh or not is_made_from(archive, inputs)
    if remade:
        with _no_other(work):
            if fresh or not is_made_from(archive, inputs):  # else another command has made it meanwhile
                _remake(work, sources, archive, inputs, how, fresh=fresh)
    return trusted, remade


@contextmanager
def _no_other(work: Workspace) -> Iterator[None]:
    """Wait until no other command is making the archive of this work folder, and keep the others from it."""
    with ExitStack() as stack:
        path = work.private / "index.lock"
        try:
            stack.enter_context(locked(path, timeout=0.5))
        except TimeoutError:
            say("index", "another command is indexing into this work folder; waiting for its end")
            stack.enter_context(locked(path, timeout=math.inf))
        yield


def _remake(
    work: Workspace, sources: list[Source], archive: Path, inputs: dict[str, Any], how: ExecutionHow, *, fresh: bool
) -> None:
    journal = Journal(work.private, work.folder / "pixels")
    if fresh:
        journal.restart()
    with work.open_log("index", stage="index", params=_params(work)) as log:
        log_record(work, None, log)
        _read(work, sources, journal, how)
        summary = _make_archive(work, sources, journal, archive, inputs)
        log.metrics({f"index/{key}": value for key, value in summary.items() if isinstance(value, int)}, step=0)
        track_data(work, log, summary, sorted(work.study.data), "index")


def index_part(work: Workspace, how: ExecutionHow) -> Archive | None:
    """Read one of `how.shard`'s parts of the archive; the process that finds all parts read makes the archive.

    Returns:
        The archive, or None where other parts are still to be read.

    Raises:
        UserError: see the errors of each part.
    """
    part, parts = how.shard
    sources = [Source(work, name) for name in sorted(work.study.data)]
    name = f"{digest_of(archive_inputs(work, sources))[:16]}-of-{parts}"
    _read(work, sources, Journal(work.private, work.folder / "pixels"), how)
    markers = work.private / "parts"
    markers.mkdir(exist_ok=True)
    (markers / f"{name}-{part}").touch()
    left = [number for number in range(1, parts + 1) if not (markers / f"{name}-{number}").exists()]
    if left:
        numbers = ", ".join(map(str, left[:8])) + (", ..." if len(left) > 8 else "")
        say("index", f"part {part} of {parts} is read; the archive is made by the last, still to come: {numbers}")
        return None
    made = index(work, look=True)
    for marker in markers.glob(f"{name}-*"):
        marker.unlink(missing_ok=True)
    return made


def archive_inputs(work: Workspace, sources: list[Source]) -> dict[str, Any]:
    """What the archive is made from: the cards and their tables, the size of the store, today's files."""
    return _settings(work, sources) | _files(sources)


def _settings(work: Workspace, sources: list[Source]) -> dict[str, Any]:
    return {
        "format": [tables.VERSION, medssl.__version__],
        "store_size": work.study.store_size,
        "secret": work.secret.fingerprint,
        "cards": {source.name: source.card.model_dump(mode="json", exclude=ONLY_SHOWN) for source in sources},
        "settings": {source.name: source.settings() for source in sources},
    }


def _files(sources: list[Source]) -> dict[str, Any]:
    for source in sources:
        source.look()
    return {"files": {source.name: source.listing() for source in sources}}


def _trusted(archive: Path, settings: dict[str, Any]) -> str | None:
    """Of an archive of these settings and so many files that to look at each takes long: what it is, for people; else None."""
    receipt = read_receipt(archive)
    if receipt is None or receipt["facts"].get("files", 0) <= LOOKED_AT:
        return None
    if digest_of({name: receipt["inputs"].get(name) for name in settings}) != digest_of(settings):
        return None
    files, made = receipt["facts"]["files"], receipt["facts"]["made"]
    return f"as indexed on {made} UTC from {files:,} files; `medssl index` finds what has changed among them since"


def _read(work: Workspace, sources: list[Source], journal: Journal, how: ExecutionHow) -> None:
    """Read what the journal does not have, a data set after another."""
    how = ExecutionHow(how.workers or work.study.store.workers, how.scheduler, how.shard)
    limit = work.study.store.time_limit
    for source in sources:
        if source.scans:
            keys = source.keys(source.items, "scan")
            read_missing(source, source.items, keys, journal, _alone(how), limit, headers=True)
            source.group(journal, keys)
        read_missing(source, source.items, source.keys(source.items), journal, how, limit)


def _alone(how: ExecutionHow) -> ExecutionHow:
    """Slices of a series may lie anywhere, so every process of --shard needs all headers; the journal shares them."""
    return ExecutionHow(how.workers, how.scheduler)


def _make_archive(
    work: Workspace, sources: list[Source], journal: Journal, archive: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Build the archive in a folder beside its place, which it then takes: a killed run harms nothing."""
    new = archive.with_name("archive.new")
    shutil.rmtree(new, ignore_errors=True)
    contents = [
        Content(
            RowBuilder(source.name, source.card, source.values, work.secret),
            source.keys(source.items),
            refused_rows(source.refused),
        )
        for source in sources
    ]
    metadata = {"medssl.version": str(tables.VERSION), "medssl.secret": work.secret.fingerprint}
    try:
        summary = build_archive(new, work.private, journal, contents, work.study.store_size, metadata)
        near = near_images(Store(new / "store"), tables.read_table(new / MANIFEST, tables.LIKENESS))
        np.save(new / NEAR, near.pairs)
    except OSError as problem:
        raise StoreError(
            f"store: could not be written ({problem.strerror}); what stood there before is unharmed; make room and run it again"
        ) from problem
    summary["near"] = near.report
    write_json(new / SUMMARY, summary)
    made = datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes")[:16]
    write_receipt(new, inputs, files=sum(source.files for source in sources), made=made)
    _swap(new, archive)
    scans = [source.scan_keys for source in sources if source.scan_keys is not None]
    journal.remove_unused(np.concatenate([*(content.keys for content in contents), *scans]))
    return summary


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


def _params(work: Workspace) -> dict[str, Any]:
    return {"seed": work.study.seed, "store_size": work.study.store_size, "sources": ",".join(sorted(work.study.data))}


def _counted(summary: dict[str, Any]) -> str:
    volumes, images = summary["volumes"], summary["images"] - summary["volumes"]
    parts = [f"{count:,} {name}" for count, name in ((images, "images"), (volumes, "volumes")) if count]
    return f"{' and '.join(parts)} of {summary['patients']:,} patients"


def _tell(archive: Archive, task: Task | None, made: bool) -> None:
    summary = archive.summary
    if not made:
        say("index", f"nothing has changed: {_counted(summary)}")
        return
    say("index", _counted(summary))
    if summary["rejects"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reject_reasons"].items())
        say("index", f"{summary['rejects']:,} files set aside: {reasons} (archive/{REJECTS}; `medssl locate KEY` names a file)")
    if summary["patients_from"].get("study"):
        warn(
            f"{summary['patients_from']['study']} patients have no usable patient ID; each of their studies counts as a patient of its own"
        )
    if summary["enlarged"]:
        warn(f"{summary['enlarged']:,} images are smaller than the store's {archive.store.size} px and were enlarged")
    near = summary["near"]
    if near["confirmed"]:
        say(
            "index",
            f"{near['confirmed']:,} pairs of images of different patients are nearly identical; these patients count as one",
        )
    if near["not_compared"] or near["dropped"]:
        warn(
            f"so many images are alike that {near['not_compared'] + near['dropped']:,} pairs were not compared; near-identical images "
            "may have been missed"
        )
    tell_splits(archive, task)
