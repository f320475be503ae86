"""Strict YAML: what is refused, and how the line reads."""

from __future__ import annotations

import pytest

from medssl.errors import StudyError
from medssl.strict import near_miss, parse_yaml, read_yaml


def test_scientific_notation_without_a_point_is_a_number():
    assert parse_yaml("lr: 1e-3\nname: e3\nversion: 12", "f", StudyError) == {"lr": 0.001, "name": "e3", "version": 12}


def test_a_repeated_key_is_an_error_with_its_line():
    with pytest.raises(StudyError, match=r"^f: line 3: key 'a' stands twice$"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "f", StudyError)


def test_nested_repeated_keys_are_found():
    with pytest.raises(StudyError, match="stands twice"):
        parse_yaml("x:\n  a: 1\n  a: 2\n", "f", StudyError)


def test_tags_that_could_run_code_are_refused():
    with pytest.raises(StudyError, match="could not determine a constructor"):
        parse_yaml("a: !!python/object/apply:os.system ['true']", "f", StudyError)


def test_missing_and_binary_files_get_one_line(tmp_path):
    with pytest.raises(StudyError, match="there is no such study file"):
        read_yaml(tmp_path / "none.yaml", StudyError, "study file")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="cannot be read"):
        read_yaml(tmp_path / "b.yaml", StudyError, "study file")


def test_near_miss():
    assert near_miss("epoch", ["epochs", "batch_size"]) == "; did you mean 'epochs'?"
    assert near_miss("xyz", ["epochs"]) == ""
