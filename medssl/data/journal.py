"""What has been read so far, in segments: an interrupted index goes on where it stopped, a changed archive is read where it changed.

A segment is a Parquet file in `private/segments/` (it carries identifiers in clear) with a row for each image, reject or
empty item, and shard files of its pixels in `pixels/`. It is written when its shards are on the disk; one without its
Parquet file is no segment, and is removed. Segments are never changed.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medssl.data.formats import Header, Item, Reject
from medssl.data.formats.slice_headers import SliceHeader
from medssl.data.manifest import COLUMNS
from medssl.data.private import make_private
from medssl.data.reading import ReadImage
from medssl.data.store import ShardWriter
from medssl.errors import StoreError
from medssl.files import PRIVATE_MODE, replacing, write_atomic

ROWS = 2048
PACKED = 256
BYTES = 256 * 2**20
SECONDS = 60.0
"""A segment is closed at so many rows, bytes of pixels or seconds: what a kill can cost."""

_PIXEL_COLUMNS = (
    "kind", "rows", "columns", "depth", "channels", "slope", "intercept", "full_low", "full_high", "window_center",
    "window_width", "window_function", "modality_lut", "inverted", "padding", "p00_5", "p01", "p50", "p99", "p99_5",
    "syntax", "decoder", "affine", "exact_hash", "perceptual_hash",
)  # fmt: skip
_TYPES = {column.name: column.type for column in COLUMNS}
_SCHEMA = pa.schema(
    [
        ("item", pa.uint64()),  # `item_key`
        ("path", pa.binary()),  # a file name need not be text
        ("start", pa.int64()),
        ("members", pa.string()),  # JSON, of a volume in several files
        ("outcome", pa.string()),  # image, slice (a header alone), reject or nothing
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("header", pa.string()),  # JSON of a Header
        ("lut", pa.binary()),
        *((name, _TYPES[name]) for name in _PIXEL_COLUMNS),
        ("store_file", pa.string()),
        ("store_row", pa.int64()),
        ("store_slope", pa.float64()),
        ("store_intercept", pa.float64()),
        ("box", pa.list_(pa.int32())),
        ("mask_file", pa.string()),
        ("mask_row", pa.int64()),
    ]
)


def item_key(settings: str, item: Item, stamps: tuple[tuple[int, int], ...]) -> int:
    """64 bits of how an item is read, where it lies, and the sizes and times of change of its files.

    Args:
        settings: digest of all that the result depends on besides: format, options, store size, versions.
        stamps: (bytes, nanoseconds) of each file.
    """
    parts = (settings, item.path, item.start, item.stop, item.members, item.frames, item.mask, stamps)
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(errors="surrogateescape"), digest_size=8).digest(), "little")


class Journal:
    """The segments of a work folder. Several processes may write at a time; each writes segments of its own."""

    def __init__(self, private: Path, pixels: Path) -> None:
        self.folder, self.pixels = private / "segments", pixels
        make_private(private)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        pixels.mkdir(parents=True, exist_ok=True)
        self._since = self.folder / "since"

    def segments(self) -> list[Path]:
        """The finished segments, oldest first."""
        since = self._since.read_text() if self._since.exists() else ""
        return sorted(path for path in self.folder.glob("[0-9]*.parquet") if path.stem >= since)

    def restart(self) -> None:
        """From now on there is nothing in the journal. What lies there stays until `remove_unused`: an archive may rest on it."""
        write_atomic(self._since, _now(), mode=PRIVATE_MODE)

    def done(self) -> np.ndarray:
        """(N,) uint64, sorted: the keys of all items that have been read."""
        parts = [items_of(path) for path in self.segments()]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def writer(self) -> SegmentWriter:
        """Adds to the journal; a context manager."""
        return SegmentWriter(self)

    def remove_unused(self, keys: np.ndarray) -> None:
        """Remove segments none of whose items is among `keys`, and shards that belong to no segment."""
        current, kept = set(self.segments()), set()
        for path in self.folder.glob("[0-9]*.parquet"):
            if path in current and np.isin(items_of(path), keys).any():
                kept.add(path.stem)
            else:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.parquet"):  # half written when its process was killed
            path.unlink(missing_ok=True)
        for path in self.pixels.glob("*.bin"):
            if path.name.rsplit("-", 2)[0] not in kept:
                path.unlink(missing_ok=True)


class SegmentWriter:
    """Gathers what was read and closes a segment whenever it is full."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []  # rows before those, packed: as dictionaries they take many times the room
        self._shards: ShardWriter | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if not isinstance(kind, type) or not issubclass(kind, StoreError):
            self.flush()  # also when stopped: what has been read need not be read again

    def add(self, key: int, item: Item, found: list[ReadImage | SliceHeader | Reject]) -> None:
        """Everything that came of one item; nothing, too, is a result.

        Raises:
            StoreError: the disk is full. What was closed before stays.
        """
        with _on_disk():
            self._add(key, item, found)

    def _add(self, key: int, item: Item, found: list[ReadImage | SliceHeader | Reject]) -> None:
        if self._shards is None:
            name = f"{_now()}-{os.urandom(3).hex()}"
            self._shards = ShardWriter(self._journal.pixels, name)
            self._begun = time.monotonic()
        place = {"item": key, "path": os.fsencode(item.path), "start": item.start}
        place["members"] = json.dumps([os.fsencode(path).hex() for path in item.members]) if item.members else None
        self._rows += [place | self._row(one) for one in found] or [place | {"outcome": "nothing"}]
        if len(self._rows) >= PACKED:
            self._pack()
        old = time.monotonic() - self._begun > SECONDS
        rows = len(self._rows) + sum(table.num_rows for table in self._tables)
        if rows >= ROWS or self._shards.bytes >= BYTES or old:
            self.flush()

    def _pack(self) -> None:
        self._tables.append(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
        self._rows = []

    def flush(self) -> None:
        """Close the segment that is open: pixels first, then the table that makes it count.

        Raises:
            StoreError: as `add`.
        """
        if self._shards is None:
            return
        with _on_disk():
            shards, name = self._shards.close(), self._shards.name
        self._pack()
        table = pa.concat_tables(self._tables).replace_schema_metadata({"medssl.shards": json.dumps(shards)})
        with replacing(self._journal.folder / f"{name}.parquet", mode=PRIVATE_MODE) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        self._tables, self._shards = [], None

    def _row(self, found: ReadImage | SliceHeader | Reject) -> dict[str, Any]:
        if isinstance(found, SliceHeader):
            return {"outcome": "slice", "header": json.dumps(asdict(found))}
        if isinstance(found, Reject):
            row = {"outcome": "reject", "reason": found.reason, "detail": found.detail, "start": found.item.start}
            if found.item.path:
                row["path"] = os.fsencode(found.item.path)
            return row
        placed, writer = found.placed, self._shards
        file, at = writer.append(placed.pixels, found.kind)
        row = {
            "outcome": "image",
            "header": json.dumps(asdict(found.header), default=str),
            "lut": None if found.voi_lut is None else found.voi_lut.astype("<u2").tobytes(),
            "store_file": file,
            "store_row": at,
            "store_slope": placed.slope,
            "store_intercept": placed.intercept,
            "box": list(placed.box),
            **found.columns,
        }
        if placed.mask is not None:
            row["mask_file"], row["mask_row"] = writer.append(placed.mask, "volume" if found.kind == "volume" else "grey")
        return row


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise StoreError(
            f"store: could not be written ({problem.strerror}); what stood there before is unharmed; make room and run it again"
        ) from problem


def _now() -> str:
    return f"{time.time_ns():020d}"


def read_segment(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, int]]:
    """A segment's rows (all columns, or some), and the rows of each of its shard files.

    Raises:
        StoreError: it is damaged.
    """
    try:
        table = pq.read_table(path, columns=columns)
        return table, json.loads(table.schema.metadata[b"medssl.shards"])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as problem:
        raise StoreError(f"{path.name}: cannot be read ({type(problem).__name__}); run `medssl index --fresh`") from problem


def items_of(path: Path) -> np.ndarray:
    """(N,) uint64: the key of each row's item."""
    return read_segment(path, ["item"])[0]["item"].to_numpy()


def header_from(text: str) -> Header:
    """A header as it was before it was written to a segment."""
    values = json.loads(text)
    if values["study_date"] is not None:
        values["study_date"] = datetime.date.fromisoformat(values["study_date"])
    return Header(**_with_tuples(values))


def slice_header_from(text: str) -> SliceHeader:
    """As `header_from`."""
    return SliceHeader(**_with_tuples(json.loads(text)))


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def ordered_rows(
    segments: list[Path], keys: np.ndarray, *, chunk: int = ROWS
) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """The rows of the items `keys` in the order of `keys`, a chunk at a time; memory stays flat.

    Args:
        keys: (N,) uint64, of `item_key`; each at most once. Where two segments have an item, the later one counts.

    Yields:
        rows, and (rows,) int64: the position in `keys` of each row's item.
    """
    where = np.argsort(keys, kind="stable")
    ordered = keys[where]
    places = []  # position of the item, segment, row in it
    for number, path in enumerate(segments):
        items = items_of(path)
        at = np.minimum(np.searchsorted(ordered, items), max(len(ordered) - 1, 0))
        here = np.flatnonzero(ordered[at] == items) if len(ordered) else np.empty(0, np.int64)
        places.append(np.stack([where[at[here]], np.full(len(here), number), here], axis=1).astype(np.int64))
    table = np.concatenate(places) if places else np.empty((0, 3), np.int64)
    last = np.full(len(keys), -1, np.int64)
    np.maximum.at(last, table[:, 0], table[:, 1])
    table = table[last[table[:, 0]] == table[:, 1]]
    table = table[np.lexsort((table[:, 2], table[:, 0]))]
    loaded: dict[int, pa.Table] = {}
    for start in range(0, len(table), chunk):
        part = table[start : start + chunk]
        rows: list[Any] = [None] * len(part)
        for number in np.unique(part[:, 1]).tolist():
            if number not in loaded:
                while loaded:
                    loaded.pop(next(iter(loaded)))
                loaded[number] = read_segment(segments[number])[0]
            mine = np.flatnonzero(part[:, 1] == number)
            for place, row in zip(mine.tolist(), loaded[number].take(part[mine, 2]).to_pylist(), strict=True):
                rows[place] = row
        yield rows, part[:, 0]
