"""Which files are found, in which order, and that links do not lead out of the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medssl.data.formats import READERS, Item, Reject
from medssl.data.formats.finding import find_files
from medssl.errors import DataError


def _touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"content")


def test_lists_every_file_sorted_without_hidden_ones(tmp_path):
    _touch(tmp_path, "b/2", "b/10", "a", "é/x", ".hidden", ".git/config", "b/.DS_Store")
    assert find_files(tmp_path) == ["a", "b/10", "b/2", "é/x"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("*.png", ["a.png"]),
        ("**/*.png", ["a.png", "x/a.png", "x/y/b.png"]),
        ("x/**", ["x/[1].png.txt", "x/a.png", "x/y/b.png"]),
        ("x/*/b.png", ["x/y/b.png"]),
        ("**/y/*", ["x/y/b.png"]),
        ("?.png", ["a.png"]),
        ("x/[ab].png", ["x/a.png"]),
        ("x/[!b].png", ["x/a.png"]),
        ("x/[a-c].png", ["x/a.png"]),
        ("x/[[]1].*", ["x/[1].png.txt"]),
        ("x/[]]", []),
        ("x/[", []),
        ("*.PNG", []),
        ("a.p.g", []),
    ],
)
def test_globs(tmp_path, pattern, matching):
    _touch(tmp_path, "a.png", "x/a.png", "x/y/b.png", "x/[1].png.txt")
    assert find_files(tmp_path, [pattern]) == matching


def test_exclude_wins_over_include(tmp_path):
    _touch(tmp_path, "a.png", "old/a.png")
    assert find_files(tmp_path, ["**/*.png"], ["old/**"]) == ["a.png"]


def test_a_missing_root_is_named_as_such_without_its_path(tmp_path):
    with pytest.raises(DataError, match="not a folder") as caught:
        find_files(tmp_path / "SECRET")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["dicom", "raster"])
def test_links_out_of_the_root_are_rejected_by_name(tmp_path, name):
    root, outside = tmp_path / "root", tmp_path / "outside"
    _touch(root, "inside.png")
    _touch(outside, "other.png", "folder/more.png")
    (root / "link.png").symlink_to(outside / "other.png")
    (root / "folder.png").symlink_to(outside / "folder", target_is_directory=True)
    (root / "within.png").symlink_to(root / "inside.png")
    (root / "to_nothing.png").symlink_to(root / "nothing")
    reader = READERS[name]
    items = reader.find(root)
    assert [item.path for item in items] == ["folder.png", "inside.png", "link.png", "to_nothing.png", "within.png"]
    reasons = {item.path: next(reader.read(root, item)).reason for item in items}
    assert reasons["folder.png"] == reasons["link.png"] == "outside_root"
    assert reasons["to_nothing.png"] == "unreadable"
    assert reasons["within.png"] == reasons["inside.png"] != "outside_root"


def test_a_path_with_dots_cannot_leave_the_root(tmp_path):
    _touch(tmp_path, "root/x", "secret.png")
    assert next(READERS["raster"].read(tmp_path / "root", Item("../secret.png"))).reason == "outside_root"


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    assert READERS["dicom"].find(tmp_path) == []
    assert list(READERS["dicom"].read(tmp_path, Item("pipe.dcm"))) == [
        Reject(Item("pipe.dcm"), "unreadable", "not a regular file")
    ]


def test_a_folder_that_cannot_be_listed_is_seen(tmp_path, monkeypatch):
    _touch(tmp_path, "open/a", "closed/b")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert find_files(tmp_path) == ["closed", "open/a"]
