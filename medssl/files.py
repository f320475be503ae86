"""How medssl writes files: beside their place, flushed, then renamed, so that a killed run leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medssl.errors import StoreError

PRIVATE_MODE = 0o600


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """A temporary path in the folder of `path`; when the block ends well, its file takes the place of `path`.

    The file is flushed to the disk before it is renamed. On any error the temporary file is removed and `path` is as it was.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path.name}: could not be written ({os.strerror(error.errno) if error.errno else error}); what stood there "
            "before is unharmed; make room or mend the permissions and run the same command again"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write `content` (text as UTF-8) to `path`; see `replacing`."""
    with replacing(path, mode=mode) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write `value` as indented JSON that a person can read; see `replacing`."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n", mode=mode)


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        StoreError: the file is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{Path(path).name}: is not valid JSON; remove it and run the same command again") from error


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
