"""Keys: without identifiers, different for different secrets, and the secret closed to others."""

from __future__ import annotations

import stat

import pyarrow as pa
import pytest

from medssl.data.private import Secret, locate, normalise_patient_id, open_secret, write_locations
from medssl.errors import DataError, StoreError


@pytest.mark.parametrize("raw", [None, "", "  ", "ANONYMOUS", "anonymized", "0", "000", "^Unknown^", "N/A", "test\0"])
def test_placeholders_are_no_patient(raw):
    assert normalise_patient_id(raw) is None


@pytest.mark.parametrize(("raw", "normal"), [(" ab12 \0", "AB12"), ("a  b", "A B"), ("007", "007"), ("10", "10")])
def test_normalised(raw, normal):
    assert normalise_patient_id(raw) == normal


def test_keys_depend_on_secret_kind_and_parts():
    secret = Secret(b"s" * 32)
    assert (
        len(
            {
                secret.key("patient", "a", "b"),
                secret.key("patient", "ab", ""),
                secret.key("study", "a", "b"),
                Secret(b"t" * 32).key("patient", "a", "b"),
            }
        )
        == 4
    )
    assert secret.fingerprint not in secret.key("patient", "a")


def test_the_secret_is_made_once_and_closed(tmp_path):
    first = open_secret(tmp_path / "private", None)
    assert open_secret(tmp_path / "private", None).fingerprint == first.fingerprint
    assert stat.S_IMODE((tmp_path / "private" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700
    assert open_secret(tmp_path / "other", None).fingerprint != first.fingerprint


def test_a_named_secret_must_be_there_and_long_enough(tmp_path):
    with pytest.raises(DataError, match=r"privacy\.secret_file: there is no such file"):
        open_secret(tmp_path, str(tmp_path / "none"))
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(DataError, match="fewer than 16 bytes"):
        open_secret(tmp_path, str(tmp_path / "short"))


def test_locate(tmp_path):
    with pytest.raises(StoreError, match="nothing has been indexed"):
        locate(tmp_path, "k")
    row = {"row_key": "r1", "patient": "p1", "study": None, "series": None, "path": "a/b.dcm"}
    schema = pa.schema([(name, pa.string()) for name in row])
    with write_locations(tmp_path, schema) as writer:
        writer.write_table(pa.Table.from_pylist([row], schema=schema))
        assert not (tmp_path / "locate.parquet").exists()
    assert locate(tmp_path, "p1")["path"].tolist() == ["a/b.dcm"]
    assert stat.S_IMODE((tmp_path / "locate.parquet").stat().st_mode) == 0o600
    with pytest.raises(DataError, match="there is no key nope"):
        locate(tmp_path, "nope")
