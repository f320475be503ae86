"""Opening a file below the root, or a member of a .zip or .tar there, at a cost that the file cannot choose."""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medssl.data.formats.finding import resolve_inside
from medssl.data.formats.items import RefusedError

ARCHIVES = (".zip", ".tar")
SEPARATOR = "!/"
MAX_MEMBER = 2**28
"""Most bytes that a compressed member may unpack to: 256 MiB, since it is held in memory."""
MAX_MEMBERS = 2**20


@contextlib.contextmanager
def open_inside(root: Path, path: str) -> Iterator[BinaryIO]:
    """The bytes of a file or archive member, open for reading and seeking; nothing is ever unpacked to the disk.

    Raises:
        RefusedError: "outside_root", "unreadable", "archive_member", "too_large" or "truncated".
    """
    outer, separator, member = path.partition(SEPARATOR)
    real = resolve_inside(root, outer)
    if not separator:
        with real.open("rb") as file:
            yield file
        return
    if _leads_outside(member):
        raise RefusedError("outside_root", "a name in an archive")
    status = real.stat()
    archive = _open_archive(str(real), status.st_mtime_ns, status.st_size)
    if not member:
        raise RefusedError("archive_member", "the archive has no files in it")
    try:
        with archive.open(member) as file:
            yield file
    except KeyError as error:
        raise RefusedError("unreadable", "no such member in the archive") from error


def members_of(root: Path, path: str) -> list[str]:
    """The paths (`archive!/member`) of the regular files in an archive, sorted.

    Of one that is damaged or has none, `archive!/`: reading that gives the reject.
    """
    try:
        real = resolve_inside(root, path)
        status = real.stat()
        names = _open_archive(str(real), status.st_mtime_ns, status.st_size).names()
    except (RefusedError, OSError):
        names = []
    shown = (name for name in names if not _is_hidden(name))
    return sorted(f"{path}{SEPARATOR}{name}" for name in shown) or [path + SEPARATOR]


def _is_hidden(member: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in member.replace("\\", "/").split("/"))


def _leads_outside(member: str) -> bool:
    return member.startswith(("/", "\\")) or ".." in member.replace("\\", "/").split("/") or ":" in member.split("/")[0][:2]


# Items of one archive come one after another, and its directory is parsed once for all of them.
@functools.lru_cache(maxsize=2)
def _open_archive(path: str, modified: int, size: int) -> _Zip | _Tar:
    """`modified` and `size` tell an archive that has changed."""
    try:
        return _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, OverflowError, NotImplementedError) as error:
        raise RefusedError("archive_member", f"the archive's directory is damaged: {type(error).__name__}") from error


class _Zip:
    def __init__(self, path: str) -> None:
        self._zip = zipfile.ZipFile(path)
        if len(self._zip.infolist()) > MAX_MEMBERS:
            raise RefusedError("too_large", f"an archive of {len(self._zip.infolist())} members")

    def names(self) -> list[str]:
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    @contextlib.contextmanager
    def open(self, member: str) -> Iterator[BinaryIO]:
        info = self._zip.getinfo(member)
        if info.flag_bits & 1:
            raise RefusedError("archive_member", "encrypted")
        if info.external_attr >> 16 & 0o170000 == 0o120000:
            raise RefusedError("outside_root", "a link in an archive")
        if info.file_size > MAX_MEMBER:
            raise RefusedError("too_large", f"a member of {info.file_size} bytes")
        try:
            with self._zip.open(info) as packed:
                # What the directory says of the size may be a lie; one byte more than it tells.
                data = packed.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise RefusedError("archive_member", type(error).__name__) from error
        if len(data) != info.file_size:
            raise RefusedError("archive_member", "its size is not what the archive says")
        yield io.BytesIO(data)


class _Tar:
    def __init__(self, path: str) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isreg() and not info.issparse():
                    self._places[info.name] = (info.offset_data, info.size)
                if len(self._places) > MAX_MEMBERS:
                    raise RefusedError("too_large", f"an archive of more than {MAX_MEMBERS} members")
                archive.members = []  # tarfile keeps every header that it has met

    def names(self) -> list[str]:
        return list(self._places)

    @contextlib.contextmanager
    def open(self, member: str) -> Iterator[BinaryIO]:
        offset, size = self._places[member]
        if offset + size > Path(self._path).stat().st_size:
            raise RefusedError("truncated", "the archive ends before its member does")
        with Path(self._path).open("rb") as file:
            yield io.BufferedReader(_Window(file, offset, size))


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("negative seek position")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
