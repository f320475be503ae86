"""The data sets of a study as they lie on this machine: what there is to read, and which of it has been read."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.card import Phantom, find_root
from medssl.data.formats import READERS, Item, Reject
from medssl.data.formats.opening import SEPARATOR
from medssl.data.formats.series import group
from medssl.data.formats.slice_headers import SliceHeader
from medssl.data.journal import Journal, item_key, ordered_rows, slice_header_from
from medssl.data.pool import Answer, Task
from medssl.data.reading import ReadTask, ScanTask, read_archive
from medssl.data.values import ValueReader, sources_of, tags_of
from medssl.errors import DataError, StudyError
from medssl.files import digest_of
from medssl.grid.how import ExecutionHow, shard_of
from medssl.stages.screen import bar, say
from medssl.stages.workspace import Workspace

READING = 2
"""Version of what the readers make of a file: one more when any of them would make something else of the same file."""


def part_of(text: str | None, *, fresh: bool) -> tuple[int, int] | None:
    """(k, n) of `--shard k/n`.

    Raises:
        StudyError: it is not of that form, or everything is to be read again besides.
    """
    if text is not None and fresh:
        raise StudyError(
            "--shard and --fresh: each process would throw away what the others have read; remove the work folder instead, but for "
            "private/secret, and leave out --fresh"
        )
    return shard_of(text)


class Source:
    """One data set of the study, found on this machine; what lies in it is not known before `look`."""

    def __init__(self, work: Workspace, name: str) -> None:
        self.name, self.card = name, work.cards[name]
        self.root = find_root(self.card, work.study.data[name].root, name, work.folder / "phantom" / self.card.name)
        if self.card.phantom is not None and work.study.data[name].root is None:
            _generate(self.card.phantom, self.root)
        self.reader = READERS[self.card.format]
        self.items: list[Item] = []
        self.refused: list[Reject] = []
        self.files = 0  # that `look` found
        tags = tags_of(self.card)
        self._settings = digest_of(
            {
                "reading": READING,
                "root": str(self.root.resolve()),
                "format": self.card.format,
                "options": self.card.read.model_dump(mode="json"),
                "tags": tags,
                "size": work.study.store_size,
            }
        )
        self.task = ReadTask(self.reader.name, self.root, tuple(tags), self.card.read, work.study.store_size)
        # Slices know their series, but no file knows its volume: headers are read first.
        self.scans = self.card.format == "dicom" and self.card.read.units != "images"
        self.scan_keys: np.ndarray | None = None
        self._stamp = functools.lru_cache(maxsize=1024)(self._stamp_of)

    def look(self) -> None:
        """Find what there is to read.

        Raises:
            DataError: no file matches the card.
            CardError: see `ValueReader`.
        """
        found = self.reader.find(self.root, self.card.files.include, self.card.files.exclude, self.card.read)
        self.refused = [one for one in found if isinstance(one, Reject)]
        self.items = [one for one in found if isinstance(one, Item)]
        if not found:
            raise DataError(
                f"data.{self.name}: no file below the root matches files.include of the card {self.card.name}; check the root and the card"
            )
        self.files = len({item.path for item in (*self.items, *(one.item for one in self.refused))})
        _ = self.values  # a table that is wrong is refused before hours of reading

    @functools.cached_property
    def values(self) -> ValueReader:
        """Labels, patients and splits by the card."""
        return ValueReader(self.card, self.root)

    def settings(self) -> list[Any]:
        """What its rows depend on besides the files: the card's settings, and the size and time of change of each of its tables."""
        tables = sorted({source.csv for source in sources_of(self.card) if source.csv is not None})
        return [self._settings, [[table, *self._stamp(table)] for table in tables]]

    @property
    def scan_task(self) -> Task:
        """Reading the headers of a file's slices."""
        return ScanTask(self.root, self.card.read)

    def group(self, journal: Journal, keys: np.ndarray) -> None:
        """Put volumes in the place of the files: `items` are volumes from now on, and `refused` has what makes none."""
        headers: list[SliceHeader] = []
        for rows, _ in ordered_rows(journal.segments(), keys):
            for row in rows:
                if row["outcome"] == "slice":
                    headers.append(slice_header_from(row["header"]))
                elif row["outcome"] == "reject":
                    self.refused.append(Reject(Item(os.fsdecode(row["path"]), row["start"]), row["reason"], row["detail"]))
        grouped = group(headers, self.card.read)
        self.refused += [one for one in grouped if isinstance(one, Reject)]
        self.items = [one for one in grouped if isinstance(one, Item)]
        self.scan_keys = keys

    def keys(self, items: list[Item], purpose: str = "") -> np.ndarray:
        """(N,) uint64: see `medssl.data.journal.item_key`; items of different keys have different content."""
        settings = self._settings + purpose
        return np.fromiter((item_key(settings, item, self._stamps(item)) for item in items), np.uint64, len(items))

    def listing(self) -> str:
        """Digest of what lies there: paths, sizes, times of change."""
        refused = [(one.item.path, one.reason) for one in self.refused]
        return digest_of([self.keys(self.items).tobytes().hex(), refused, self._settings])

    def _stamps(self, item: Item) -> tuple[tuple[int, int], ...]:
        paths = [*(item.members or (item.path,)), *([item.mask] if item.mask else [])]
        return tuple(self._stamp(path.partition(SEPARATOR)[0]) for path in paths)

    def _stamp_of(self, path: str) -> tuple[int, int]:
        try:
            status = (self.root / path).stat()
        except OSError:
            return (-1, -1)  # reading it gives the reject
        return status.st_size, status.st_mtime_ns


def read_missing(
    source: Source,
    items: list[Item],
    keys: np.ndarray,
    journal: Journal,
    how: ExecutionHow,
    limit: float,
    *,
    headers: bool = False,
) -> None:
    """Read the items that the journal does not have (their headers alone, if asked for), and add what comes of them.

    Args:
        limit: seconds that one item may take.
    """
    title = f"{source.name} headers" if headers else source.name
    missing = np.flatnonzero(~np.isin(keys, journal.done()))
    if how.shard is not None and len(missing):
        part, parts = how.shard
        missing = missing[[_share(items[at], parts) == part - 1 for at in missing.tolist()]]
    if not len(missing):
        return
    if len(missing) < len(items) and how.shard is None:
        say(
            "index",
            f"{title}: {len(items) - len(missing):,} of {len(items):,} are known and unchanged, {len(missing):,} are read",
        )
    left = [items[at] for at in missing.tolist()]
    # A volume is as large as hundreds of images: one is handed out at a time.
    settings = {"time_limit": limit} | ({"chunk": 1} if source.card.read.units != "images" and not headers else {})
    task = source.scan_task if headers else source.task
    with bar(f"index {title}", len(left)) as progress, journal.writer() as writer:
        at = 0
        for answers in _reading(task, left, how, settings):
            for item, found in answers:
                writer.add(int(keys[missing[at]]), item, found)
                at += 1
            progress.reach(at)


def _reading(task: Task, items: list[Item], how: ExecutionHow, settings: dict[str, Any]) -> Iterator[list[Answer]]:
    if how.scheduler is None:
        return read_archive(task, items, how.workers, **settings)
    from medssl.data.cluster import read_on_cluster

    return read_on_cluster(task, items, how.scheduler, **settings)


def _share(item: Item, parts: int) -> int:
    """Which of `parts` processes reads an item: all items of one file, or of one archive, go to the same."""
    return zlib.crc32(item.path.partition(SEPARATOR)[0].encode(errors="surrogateescape")) % parts


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
