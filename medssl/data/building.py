"""From the journal to an archive: manifest, rejects, locations, LUTs and store.json, written as they come; memory stays flat."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medssl.data import manifest as tables
from medssl.data.archive import MANIFEST, REJECTS
from medssl.data.formats import Reject
from medssl.data.journal import Journal, items_of, ordered_rows, read_segment
from medssl.data.private import write_locations
from medssl.data.rows import RowBuilder
from medssl.data.store import LUT_LENGTH, LUTS, write_store

LOCATION_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("row_key", "patient", "study", "series", "source", "path")]
    + [("frame", pa.int32())]
    + [(name, pa.string()) for name in ("patient_id", "study_uid", "series_uid", "instance_uid")]
)


@dataclass
class Content:
    """One data set: its row builder and the keys of its items in the order of the archive."""

    builder: RowBuilder
    keys: np.ndarray  # (N,) uint64
    rejects: list[dict[str, Any]] = field(default_factory=list)  # raw rows of what was refused without being read


def build_archive(
    folder: Path, private: Path, journal: Journal, contents: list[Content], size: int, metadata: dict[str, str]
) -> dict[str, Any]:
    """Write the archive of what the journal holds into `folder`; returns its summary.

    Raises:
        DataError: see `RowBuilder`.
        StoreError: a segment is damaged, or the disk is full.
    """
    # Arrow's own pool keeps what it once had, apart from everyone else's; malloc's is used again by what comes next.
    pa.set_memory_pool(pa.system_memory_pool())
    folder.mkdir(parents=True, exist_ok=True)
    # Those alone that hold something of this archive: the others, such as those of another store.size, are removed once it stands.
    keys = np.concatenate([content.keys for content in contents])
    segments = [path for path in journal.segments() if np.isin(items_of(path), keys).any()]
    shards = {file: rows for path in segments for file, rows in read_segment(path, [])[1].items()}
    targets = sorted({target for content in contents for target in content.builder.card.targets})
    schema = tables.schema_of(tables.COLUMNS, targets)
    label_columns = [f"{tables.LABEL_PREFIX}{target}" for target in targets]
    with write_locations(private, LOCATION_SCHEMA) as locations, ExitStack() as stack:
        rows = stack.enter_context(_Gathering(pq.ParquetWriter(folder / "rows.parquet", schema, compression="zstd"), schema))
        rejects_schema = tables.schema_of(tables.REJECT_COLUMNS).with_metadata(metadata)
        rejects_writer = pq.ParquetWriter(folder / REJECTS, rejects_schema, compression="zstd")
        rejects = stack.enter_context(_Gathering(rejects_writer, rejects_schema))
        located = stack.enter_context(_Gathering(locations, LOCATION_SCHEMA))
        luts = stack.enter_context(_LutWriter(folder))
        numbers = {file: number for number, file in enumerate(shards)}
        digest, labels, reasons = hashlib.sha256(), hashlib.sha256(), Counter()
        for content in contents:
            for made, refused, placed in _converted(content, segments, numbers, luts):
                digest.update("".join(f"{row['source']} {row['exact_hash']}\n" for row in made).encode())
                labels.update(json.dumps([[row.get(name) for name in label_columns] for row in made]).encode())
                reasons.update(row["reason"] for row in refused)
                for writer, part in ((rows, made), (rejects, refused), (located, placed)):
                    writer.write(part)
            content.builder.check()
    luts.finish()
    facts = _finish_manifest(folder, schema.with_metadata(metadata), size)
    digest.update(str(size).encode())
    description = {"resize": "longer side, triangle filter widened by the reduction, once", "decoders": facts.pop("decoders")}
    store = write_store(folder / "store", journal.pixels, size, shards, description | {"data": digest.hexdigest()})
    return {
        **facts,
        "rejects": sum(reasons.values()),
        "reject_reasons": dict(reasons.most_common()),
        "data_digest": digest.hexdigest(),
        "labels_digest": labels.hexdigest(),
        "store_digest": store,
    }


def _converted(
    content: Content, segments: list[Path], numbers: dict[str, int], luts: _LutWriter
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Manifest rows, reject rows and locations, a chunk at a time, in the order of the content's keys."""
    builder = content.builder
    read = (rows for rows, _ in ordered_rows(segments, content.keys))
    for raws in chain([content.rejects], read):
        made: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        placed: list[dict[str, Any]] = []
        for raw in raws:
            if raw["outcome"] == "reject":
                row, where = builder.reject(raw)
                refused.append(row)
                placed += where
            elif raw["outcome"] == "image":
                row, where = builder.image(raw)
                placed += where
                if row is not None:
                    row["store_shard"] = numbers[raw["store_file"]]
                    row["mask_shard"] = numbers.get(raw["mask_file"])
                    row["lut"] = luts.add(raw["lut"])
                    made.append(row)
        yield made, refused, placed


def _finish_manifest(folder: Path, schema: pa.Schema, size: int) -> dict[str, Any]:
    """rows.parquet with days instead of dates, as the manifest; counts for the summary."""
    raw = pq.ParquetFile(folder / "rows.parquet")
    few = raw.read(["source", "patient", "patient_from", "days_since_first", "decoder", "kind", "rows", "columns"])
    days = _days(few)
    with pq.ParquetWriter(folder / MANIFEST, schema, compression="zstd") as writer:
        at = 0
        for group in range(raw.num_row_groups):
            table = raw.read_row_group(group)
            column = schema.get_field_index("days_since_first")
            part = days.slice(at, table.num_rows)
            writer.write_table(table.set_column(column, schema.field(column), part).cast(schema))
            at += table.num_rows
    raw.close()
    (folder / "rows.parquet").unlink()
    longer = pc.max_element_wise(few["rows"], few["columns"])
    kinds = few.select(["patient_from", "patient"]).group_by("patient_from").aggregate([("patient", "count_distinct")])
    return {
        "images": few.num_rows,
        "volumes": pc.sum(pc.equal(few["kind"], "volume")).as_py() or 0,
        "patients": pc.count_distinct(few["patient"]).as_py(),
        "patients_from": dict(
            sorted(zip(kinds["patient_from"].to_pylist(), kinds["patient_count_distinct"].to_pylist(), strict=True))
        ),
        "decoders": sorted(pc.unique(few["decoder"]).to_pylist()),
        "enlarged": pc.sum(pc.and_(pc.less(longer, size), pc.equal(few["kind"], "image"))).as_py() or 0,
    }


def _days(few: pa.Table) -> pa.Array:
    """Days since the first dated study of the patient in the data set; null without a date."""
    day = few["days_since_first"].combine_chunks()
    known = day.is_valid().to_numpy(zero_copy_only=False)
    patient, source = (few[name].combine_chunks().dictionary_encode() for name in ("patient", "source"))
    codes = patient.indices.to_numpy().astype(np.int64) * max(len(source.dictionary), 1) + source.indices.to_numpy()
    values = day.fill_null(0).to_numpy()
    first = np.full(len(patient.dictionary) * max(len(source.dictionary), 1), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(first, codes[known], values[known])
    return pa.array(values - first[codes], mask=~known, type=pa.int32())


class _Gathering:
    """Writes rows as they come, in row groups of a size that is quick to read."""

    ROWS = 2048

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._tables: list[pa.Table] = []

    def __enter__(self) -> _Gathering:
        return self

    def __exit__(self, *exception: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add rows."""
        if rows:
            self._tables.append(pa.Table.from_pylist(rows, schema=self._schema))
        if sum(table.num_rows for table in self._tables) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._tables:
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=2 * self.ROWS)
        self._tables = []


class _LutWriter:
    """VOI LUTs, each once, numbered as they come; `luts.npy` (L, LUT_LENGTH) uint16 where there is any."""

    def __init__(self, folder: Path) -> None:
        self._raw, self._path = folder / "luts.raw", folder / "store" / LUTS
        self._numbers: dict[bytes, int] = {}

    def __enter__(self) -> _LutWriter:
        self._file = self._raw.open("wb")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, table: bytes | None) -> int | None:
        """The number of a table."""
        if table is None:
            return None
        key = hashlib.sha256(table).digest()
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._file.write(table)
        return self._numbers[key]

    def finish(self) -> None:
        """Give the file its header."""
        if self._numbers:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            raw = np.memmap(self._raw, "<u2", "r", shape=(len(self._numbers), LUT_LENGTH))
            np.save(self._path, raw)
        self._raw.unlink()


def refused_rows(rejects: list[Reject]) -> list[dict[str, Any]]:
    """Raw rows of items that were refused before reading, such as label maps without an image."""
    return [
        {
            "outcome": "reject",
            "path": os.fsencode(one.item.path),
            "start": one.item.start,
            "members": json.dumps([os.fsencode(path).hex() for path in one.item.members]) if one.item.members else None,
            "reason": one.reason,
            "detail": one.detail,
        }
        for one in rejects
    ]
