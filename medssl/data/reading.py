"""From files to rows and store squares, in worker processes. What leaves here still carries identifiers: only `index` sees it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.formats import Header, Image, Item, Reader, Reject
from medssl.data.store import Placed, place

CHUNK = 16  # items a task: enough to hide the cost of passing it, few enough for an even end
PERCENTILES = {"p00_5": 0.5, "p01": 1.0, "p50": 50.0, "p99": 99.0, "p99_5": 99.5}


@dataclass
class ReadImage:
    """One image, read and placed."""

    item: Item
    header: Header
    placed: Placed
    columns: dict[str, Any] = field(default_factory=dict)  # manifest columns that follow from the pixels alone


def describe(image: Image) -> dict[str, Any]:
    """The manifest's columns that follow from the decoded pixels and how they are to be shown."""
    rows, columns = image.pixels.shape
    # Percentiles of stored values, mapped: a negative slope turns their order around.
    values = np.percentile(image.pixels, list(PERCENTILES.values())) * image.slope + image.intercept
    full = image.full_range or (float(image.pixels.min()), float(image.pixels.max()))
    window = image.window or (None, None)
    return {
        "rows": rows,
        "columns": columns,
        "slope": image.slope,
        "intercept": image.intercept,
        "full_low": min(full),
        "full_high": max(full),
        "window_center": window[0],
        "window_width": window[1],
        "window_function": image.window_function if image.window else None,
        "inverted": image.inverted,
        "syntax": image.syntax,
        "decoder": image.decoder,
        "exact_hash": exact_hash(image.pixels),
        **dict(zip(PERCENTILES, np.sort(values).tolist(), strict=True)),
    }


def exact_hash(pixels: np.ndarray) -> str:
    """SHA-256 of the shape and values of decoded pixels: the same for the same image in another container or integer type."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype="<i4").tobytes())
    return digest.hexdigest()


def usable_cores() -> int:
    """CPU cores that this process may use: fewer than the machine has under a SLURM allocation or a container's limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_archive(
    reader: Reader, root: Path, items: list[Item], tags: list[str], size: int, workers: int | None
) -> Iterator[list[ReadImage | Reject]]:
    """Read every item, in order, a chunk at a time, by `workers` processes (None: one a core); memory stays flat.

    A file on which a decoder brings its process down is set aside like any other bad file, and the work goes on. (With one
    worker this process reads, and goes down with it.)

    Yields:
        What came of up to CHUNK items.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    workers = min(workers or usable_cores(), len(chunks))
    if workers <= 1:
        yield from (_read_chunk(reader, root, chunk, tags, size) for chunk in chunks)
        return
    done = 0
    while done < len(chunks):
        with _pool(workers) as pool:
            for found in _in_order(pool, reader, root, chunks[done:], tags, size, ahead=4 * workers):
                done += 1
                yield found
        if done < len(chunks):  # the pool broke: what of this chunk can be read is read, an item a process
            yield [found for item in chunks[done] for found in _read_alone(reader, root, item, tags, size)]
            done += 1


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy locks that a decoder's or torch's threads hold.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _in_order(
    pool: ProcessPoolExecutor, reader: Reader, root: Path, chunks: list[list[Item]], tags: list[str], size: int, *, ahead: int
) -> Iterator[list[ReadImage | Reject]]:
    """The chunks' results until all are read or a process dies; at most `ahead` results are waiting at a time."""
    left = iter(chunks)
    try:
        waiting = deque(pool.submit(_read_chunk, reader, root, chunk, tags, size) for chunk in islice(left, ahead))
        while waiting:
            found = waiting.popleft().result()
            waiting += [pool.submit(_read_chunk, reader, root, chunk, tags, size) for chunk in islice(left, 1)]
            yield found
    except BrokenProcessPool:
        return


def _read_alone(reader: Reader, root: Path, item: Item, tags: list[str], size: int) -> list[ReadImage | Reject]:
    with _pool(1) as pool:
        try:
            return pool.submit(_read_chunk, reader, root, [item], tags, size).result()
        except BrokenProcessPool:
            return [Reject(item, "unreadable", "the process that read it died")]


def _read_chunk(reader: Reader, root: Path, items: list[Item], tags: list[str], size: int) -> list[ReadImage | Reject]:
    out: list[ReadImage | Reject] = []
    for item in items:
        for found in reader.read(root, item, tags):
            if isinstance(found, Reject):
                out.append(found)
            else:
                placed = place(found.pixels, found.slope, found.intercept, size)
                out.append(ReadImage(item, found.header, placed, describe(found)))
    return out
