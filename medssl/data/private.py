"""Keys without identifiers, and the one place where identifiers may lie: `private/` of the work folder, mode 600.

A key is an HMAC-SHA256 with a secret that stays on this machine, so nobody can try out names or numbers against a manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medssl.errors import DataError, StoreError
from medssl.files import PRIVATE_MODE, replacing, write_atomic

KEY_LENGTH = 16  # hex digits: 64 bits, a collision among a million keys has a chance of 3e-8
PLACEHOLDERS = frozenset(
    {
        "",
        "0",
        "00",
        "000",
        "0000",
        "1",
        "anon",
        "anonymous",
        "anonymized",
        "anonymised",
        "none",
        "null",
        "n/a",
        "na",
        "nan",
        "unknown",
        "test",
        "patient",
        "default",
        "deidentified",
        "removed",
        "xxx",
        "xxxx",
    }
)


class Secret:
    """The secret of a work folder, or one shared by several studies."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    @property
    def fingerprint(self) -> str:
        """Stands in the manifest: manifests of different fingerprints are never joined."""
        return hmac.new(self._value, b"medssl fingerprint", hashlib.sha256).hexdigest()[:KEY_LENGTH]

    def key(self, kind: str, *parts: str) -> str:
        """The key of an identifier; `kind` keeps the keys of patients, studies and images apart."""
        # A file name that is no UTF-8 comes with surrogates in it and goes back to the bytes that it was.
        encoded = [part.encode(errors="surrogateescape") for part in (kind, *parts)]
        message = b"".join(len(part).to_bytes(4, "little") + part for part in encoded)
        return hmac.digest(self._value, message, "sha256").hex()[:KEY_LENGTH]


def normalise_patient_id(raw: str | None) -> str | None:
    """A patient ID without padding and in upper case; None for an empty or placeholder one (ANONYMOUS, 0, ...)."""
    text = " ".join((raw or "").replace("\0", " ").split())
    bare = text.strip("^_-. ").casefold()
    return None if bare in PLACEHOLDERS else text.upper()


def open_secret(private: Path, secret_file: str | None) -> Secret:
    """The secret in `secret_file`, or in `private`/secret, which is made with 256 random bits where it is not there.

    Raises:
        DataError: `secret_file` is named but is not there, or is too short to be a secret.
    """
    path = Path(secret_file).expanduser() if secret_file else private / "secret"
    if not path.exists():
        if secret_file:
            raise DataError(
                "privacy.secret_file: there is no such file; make one with: head -c 32 /dev/urandom > FILE; chmod 600 FILE"
            )
        make_private(private)
        write_atomic(path, os.urandom(32), mode=PRIVATE_MODE)
    value = path.read_bytes()
    if len(value) < 16:
        raise DataError("privacy.secret_file: holds fewer than 16 bytes, which can be guessed; write 32 random bytes to it")
    return Secret(value)


def make_private(private: Path) -> None:
    """Make the folder, closed to other users, with a .gitignore that keeps it out of any repository."""
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    if not (private / ".gitignore").exists():
        write_atomic(private / ".gitignore", "*\n", mode=PRIVATE_MODE)


LOCATE = "locate.parquet"


@contextlib.contextmanager
def write_locations(private: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of what `medssl locate` answers from; it takes the place of the old one when the block ends well."""
    make_private(private)
    with (
        replacing(private / LOCATE, mode=PRIVATE_MODE) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        yield writer


def locate(private: Path, key: str) -> pd.DataFrame:
    """The rows of the locations table whose key, or patient's or study's key, is `key`.

    Raises:
        StoreError: nothing has been indexed in this work folder.
        DataError: there is no such key.
    """
    if not (private / LOCATE).exists():
        raise StoreError("locate: nothing has been indexed in this work folder; run `medssl index` first")
    columns = ("row_key", "patient", "study", "series")
    found = pq.read_table(private / LOCATE, filters=[[(column, "==", key)] for column in columns]).to_pandas()
    if found.empty:
        raise DataError(f"locate: there is no key {key} in this work folder")
    return found
