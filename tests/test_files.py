"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from medssl.errors import StoreError
from medssl.files import digest_of, read_json, replacing, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def killed_in_the_middle():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("killed here")

    with pytest.raises(KeyError):
        killed_in_the_middle()
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    with (
        pytest.raises(StoreError, match=r"^a\.bin: could not be written \(No space left on device\); .* unharmed") as caught,
        replacing(path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"


def test_modes(tmp_path):
    write_atomic(tmp_path / "secret", b"x", mode=0o600)
    write_atomic(tmp_path / "open", "x")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2, 3]}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_broken_json_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(StoreError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
