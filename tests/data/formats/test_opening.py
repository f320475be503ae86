"""Members of archives in place: the right bytes, at a cost that the archive cannot choose, and never a path out of the root."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image as PillowImage

from medssl.data.formats import READERS, Image, Item
from medssl.data.formats.finding import find_files
from medssl.data.formats.items import RefusedError
from medssl.data.formats.opening import MAX_MEMBER, members_of, open_inside

CONTENT = bytes(range(256)) * 40


def read(root, path: str) -> bytes:
    with open_inside(root, path) as file:
        return file.read()


def reason(root, path: str) -> str:
    with pytest.raises(RefusedError) as caught, open_inside(root, path) as file:
        file.read()
    return caught.value.reason


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path, members: dict[str, bytes], **settings) -> None:
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_members_are_found_and_read_in_place(tmp_path, write):
    name = f"exam.{'tar' if write is write_tar else 'zip'}"
    write(tmp_path / name, {"b/IM2": CONTENT[::-1], "IM1": CONTENT, ".hidden/x": b"", "b/.DS_Store": b""})
    (tmp_path / "plain").write_bytes(b"plain")
    assert find_files(tmp_path, archives=True) == [f"{name}!/IM1", f"{name}!/b/IM2", "plain"]
    assert find_files(tmp_path, [f"{name}!/b/*"], archives=True) == [f"{name}!/b/IM2"]
    assert find_files(tmp_path) == [name, "plain"]
    assert read(tmp_path, f"{name}!/IM1") == CONTENT
    assert read(tmp_path, f"{name}!/b/IM2") == CONTENT[::-1]
    assert read(tmp_path, "plain") == b"plain"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "plain"])  # nothing is unpacked


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_a_member_can_be_sought_in(tmp_path, write):
    name = f"exam.{'tar' if write is write_tar else 'zip'}"
    write(tmp_path / name, {"a": b"before", "m": CONTENT, "z": b"after"})
    with open_inside(tmp_path, f"{name}!/m") as file:
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        assert file.read(5) == b""
        assert file.seek(-7, io.SEEK_END) == len(CONTENT) - 7
        assert file.read() == CONTENT[-7:]
        assert file.seek(300) == 300
        assert file.seek(11, io.SEEK_CUR) == 311
        assert file.read(3) == CONTENT[311:314]
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)


def test_a_nested_archive_is_a_file_like_any_other(tmp_path):
    write_zip(tmp_path / "inner.zip", {"IM1": CONTENT})
    write_zip(tmp_path / "outer.zip", {"inner.zip": (tmp_path / "inner.zip").read_bytes()})
    (tmp_path / "inner.zip").unlink()
    assert find_files(tmp_path, archives=True) == ["outer.zip!/inner.zip"]  # and no reader takes it for an image


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "..\\secret", "C:/secret"])
def test_a_name_that_leads_outside_is_not_followed(tmp_path, name):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    write_tar(root / "a.tar", {name: CONTENT})
    write_zip(root / "a.zip", {name: CONTENT})
    for archive in ("a.tar", "a.zip"):
        (found,) = members_of(root, archive)
        assert reason(root, found) == "outside_root"


def test_links_in_archives_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert members_of(tmp_path, "a.tar") == ["a.tar!/"]
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert reason(tmp_path, "a.zip!/link") == "outside_root"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("IM1", "w") as file,
    ):
        for _ in range(MAX_MEMBER // 2**24 + 1):
            file.write(bytes(2**24))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**20
    assert reason(tmp_path, "bomb.zip!/IM1") == "too_large"


def test_a_size_that_lies_is_found_out(tmp_path):
    write_zip(tmp_path / "a.zip", {"IM1": bytes(1000)}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 10)
    (tmp_path / "lies.zip").write_bytes(content)
    assert reason(tmp_path, "lies.zip!/IM1") == "archive_member"


def test_damaged_and_encrypted_members_are_named(tmp_path):
    write_zip(tmp_path / "a.zip", {"IM1": CONTENT}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(content)
    assert reason(tmp_path, "damaged.zip!/IM1") == "archive_member"
    content = bytearray((tmp_path / "a.zip").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[directory + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    assert reason(tmp_path, "locked.zip!/IM1") == "archive_member"


def test_damaged_archives_are_one_reject(tmp_path):
    write_tar(tmp_path / "cut.tar", {"IM1": CONTENT, "IM2": CONTENT})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:-12000])
    (tmp_path / "page.zip").write_text("<html>")
    write_zip(tmp_path / "empty.zip", {})
    assert find_files(tmp_path, archives=True) == ["cut.tar!/", "empty.zip!/", "page.zip!/"]
    for name in ("page.zip!/", "empty.zip!/", "cut.tar!/"):
        assert reason(tmp_path, name) == "archive_member"
        assert [one.reason for one in READERS["dicom"].read(tmp_path, Item(name))] == ["archive_member"]
    assert reason(tmp_path, "empty.zip!/IM1") == "unreadable"


def test_a_changed_archive_is_opened_anew(tmp_path):
    write_zip(tmp_path / "a.zip", {"IM1": b"first"})
    assert read(tmp_path, "a.zip!/IM1") == b"first"
    write_zip(tmp_path / "a.zip", {"IM1": b"second time"})
    assert read(tmp_path, "a.zip!/IM1") == b"second time"


def test_an_image_in_an_archive_is_that_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    write_zip(tmp_path / "a.zip", {"deep/folder/b.png": (tmp_path / "a.png").read_bytes()}, compression=zipfile.ZIP_DEFLATED)
    items = READERS["raster"].find(tmp_path)
    assert [item.path for item in items] == ["a.png", "a.zip!/deep/folder/b.png"]
    for item in items:
        (found,) = READERS["raster"].read(tmp_path, item)
        assert isinstance(found, Image)
        assert np.array_equal(found.pixels, pixels)
