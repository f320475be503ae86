"""Look-up tables of DICOM (PS3.3 C.11.1.1.1, C.11.2.1.1): descriptors and data as writers write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medssl.data.formats.dicom_header import element
from medssl.data.formats.items import RefusedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Table:
    """A look-up table: input values from `first` on."""

    values: np.ndarray  # (n,) uint16
    first: int
    bits: int  # of its values: 1 to 16

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Values beyond the ends get those of the ends; uint8 where the table has 8 bits, else uint16."""
        kind = np.uint8 if self.bits <= 8 else np.uint16
        return self.values.astype(kind)[np.clip(stored.astype(np.int32) - self.first, 0, len(self.values) - 1)]


def table_of(item: Dataset, little_endian: bool, signed: bool, reason: str) -> Table:
    """The table in an item of a LUT sequence; `signed`: its input may be negative.

    Raises:
        RefusedError: `reason`: descriptor or data are absent, or do not fit each other.
    """
    count, first, bits = descriptor_of(item, "LUTDescriptor", signed, reason)
    values = entries_of(item, "LUTData", count, little_endian, reason)
    needed = int(values.max()).bit_length()
    # PS3.3 allows 8 and 10 to 16 bits. Where data exceed what the descriptor says, the data are right.
    if not 8 <= bits <= 16 or needed > bits:
        bits = max(8, needed)
    return Table(values, first, bits)


def descriptor_of(dataset: Dataset, keyword: str, signed: bool, reason: str) -> tuple[int, int, int]:
    """Number of entries, first input value and bits an entry.

    The three are US or SS whatever the data; parsers and writers disagree, so only their 16 bits count.
    """
    value = element(dataset, keyword)
    if isinstance(value, bytes):
        value = np.frombuffer(value[: len(value) // 2 * 2], "<u2").tolist()
    try:
        count, first, bits = (int(part) & 0xFFFF for part in value)
    except (TypeError, ValueError) as error:
        raise RefusedError(reason, f"{keyword} is not three numbers") from error
    return count or 2**16, first - 2**16 if signed and first >= 2**15 else first, bits


def entries_of(dataset: Dataset, keyword: str, count: int, little_endian: bool, reason: str) -> np.ndarray:
    """(count,) uint16. Entries of 8 bits stand in words or, two to a word, in bytes; the length tells which."""
    data = bytes_of(dataset, keyword, little_endian)
    packed = len(data) in (count, count + 1) and count > 1
    if len(data) < 2 * count and not packed:
        raise RefusedError(reason, f"{keyword}: {len(data)} bytes for {count} entries")
    return words_of(data, little_endian, packed=packed)[:count].astype(np.uint16)


def words_of(data: bytes, little_endian: bool, *, packed: bool) -> np.ndarray:
    """The words of a value as it stands in the file, or the bytes packed into them, the first in the low half (PS3.5 8.1.1)."""
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2")
    if not packed:
        return words
    return np.append(words.astype("<u2").view(np.uint8), np.frombuffer(data[len(words) * 2 :], np.uint8))


def bytes_of(dataset: Dataset, keyword: str, little_endian: bool) -> bytes:
    """An element's value as it stands in the file, whether parsed as words or as bytes; empty if absent."""
    value = element(dataset, keyword)
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    words = value if hasattr(value, "__len__") else [value]
    try:
        return (np.array([int(word) for word in words], np.int64) & 0xFFFF).astype("<u2" if little_endian else ">u2").tobytes()
    except (TypeError, ValueError, OverflowError):
        return b""
