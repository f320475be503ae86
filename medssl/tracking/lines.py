"""Append-only files of JSON objects, one a line: what a killed process leaves behind is whole lines and at most a part of one.

JSON has no NaN and no infinities: they are written as the strings "NaN", "Infinity" and "-Infinity", which `float()` reads back.
Every other float is written as Python's shortest repr, which reads back exactly.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medssl.errors import StoreError


def plain(value: Any) -> Any:
    """`value` as strictly valid JSON values; mappings get string keys, tuples become lists.

    Raises:
        TypeError: something that has no JSON form (a Path, an array): the caller says how it is to be written.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def encode(record: Mapping[str, Any]) -> bytes:
    """One line, keys in the order given."""
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The complete lines from byte `offset` on, each with the offset behind it; a line without its newline is not there yet.

    Raises:
        StoreError: a complete line is not a JSON object.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise StoreError(f"{path.name}: the line that ends at byte {offset} is not a JSON object; remove that line")
            yield offset, record


class LineFile:
    """Appends to one file of lines. A line is one write, so a reader or a kill never sees two half lines."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made if missing; a half-written last line is cut off."""
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._end = 0
            for self._end, _ in read(path):
                pass
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise self._error(error) from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line at the end and hand it to the operating system.

        Raises:
            StoreError: the disk is full or gone; the file still ends with a whole line.
        """
        line = encode(record)
        with self._lock:
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(self._file, line[written:], self._end + written)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._end)
                raise self._error(error) from error
            self._end += len(line)

    def close(self) -> None:
        """Flush to the disk and close; harmless when repeated."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1

    def _error(self, error: OSError) -> StoreError:
        reason = os.strerror(error.errno) if error.errno else error
        return StoreError(f"{self.path.name}: could not be written ({reason}); make room or mend the permissions and run again")
