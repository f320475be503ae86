"""The journal: what has been read is found again, in the order that is asked for; an unfinished segment does not count."""

from __future__ import annotations

import datetime
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest

from medssl.data import journal as module
from medssl.data.formats import Header, Item, Reject
from medssl.data.journal import Journal, header_from, item_key, ordered_rows, read_segment
from medssl.data.reading import ReadImage
from medssl.data.store import Placed
from medssl.errors import StoreError

STAMPS = ((10, 20),)


def image(name: str, value: int = 1, frame: int = 0) -> ReadImage:
    header = Header(
        frame=frame, patient_id="Doe", study_date=datetime.date(2020, 2, 3), position=(1.0, 2.0, 3.0), tags={"a": "b"}
    )
    placed = Placed(np.full((4, 4), value, np.uint8), 1.0, 0.0, (0, 0, 4, 4))
    return ReadImage(Item(name), header, "grey", placed, {"kind": "image", "rows": 4, "columns": 4, "exact_hash": name})


def key(name: str) -> int:
    return item_key("settings", Item(name), STAMPS)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "private", tmp_path / "pixels")


def test_what_was_written_comes_back_in_the_order_asked_for(journal):
    names = [f"{number:03}" for number in range(10)]
    for part in (names[5:], names[:5]):
        with journal.writer() as writer:
            for name in part:
                writer.add(key(name), Item(name), [image(name, 1), image(name, 2, frame=1)])
    assert len(journal.segments()) == 2
    keys = np.array([key(name) for name in names], np.uint64)
    assert np.array_equal(journal.done(), np.sort(keys))
    chunks = list(ordered_rows(journal.segments(), keys, chunk=7))
    rows = [row for part, _ in chunks for row in part]
    assert [row["exact_hash"] for row in rows] == [name for name in names for _ in range(2)]
    assert [row["path"] for row in rows[:2]] == [b"000", b"000"]
    assert np.concatenate([at for _, at in chunks]).tolist() == [at for at in range(10) for _ in range(2)]
    header = header_from(rows[1]["header"])
    assert header == image("000", frame=1).header
    assert [len(part) for part, _ in chunks] == [7, 7, 6]


def test_pixels_stand_where_the_rows_say(journal):
    with journal.writer() as writer:
        for number in range(5):
            writer.add(key(str(number)), Item(str(number)), [image(str(number), value=number)])
    (segment,) = journal.segments()
    table, shards = read_segment(segment)
    ((file, rows),) = shards.items()
    pixels = np.fromfile(journal.pixels / file, np.uint8).reshape(rows, 4, 4)
    assert [int(pixels[row["store_row"]].max()) for row in table.to_pylist()] == [0, 1, 2, 3, 4]


def test_rejects_and_nothing_are_results_too(journal):
    with journal.writer() as writer:
        writer.add(key("a"), Item("a"), [Reject(Item("a", 3), "truncated", "1 of 2 bytes")])
        writer.add(key("b"), Item("b"), [])
    rows = [row for part, _ in ordered_rows(journal.segments(), np.array([key("b"), key("a")], np.uint64)) for row in part]
    assert [(row["outcome"], row["reason"], row["start"]) for row in rows] == [("nothing", None, 0), ("reject", "truncated", 3)]
    assert journal.done().size == 2


def test_a_changed_file_is_another_item():
    assert (
        len({item_key("s", Item("a"), ((1, 2),)), item_key("s", Item("a"), ((1, 3),)), item_key("s", Item("a"), ((2, 2),))}) == 3
    )
    assert item_key("s", Item("a"), STAMPS) != item_key("t", Item("a"), STAMPS)
    assert item_key("s", Item("a", 0, 1), STAMPS) != item_key("s", Item("a", 1, 2), STAMPS)


def test_of_two_readings_the_later_counts(journal):
    for value in (1, 2):
        with journal.writer() as writer:
            writer.add(key("a"), Item("a"), [image("a", value), image("b", value)][: 3 - value])
    rows = [row for part, _ in ordered_rows(journal.segments(), np.array([key("a")], np.uint64)) for row in part]
    assert len(rows) == 1
    assert rows[0]["store_file"].startswith(journal.segments()[1].stem)


def test_segments_are_closed_when_full(journal, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 3)
    with journal.writer() as writer:
        for number in range(7):
            writer.add(key(str(number)), Item(str(number)), [image(str(number))])
        assert len(journal.segments()) == 2  # a kill would cost what is not in them
    assert len(journal.segments()) == 3


def test_what_was_read_before_an_exception_is_kept(journal):
    def interrupted() -> None:
        with journal.writer() as writer:
            writer.add(key("a"), Item("a"), [image("a")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert journal.done().tolist() == [key("a")]


def test_shards_without_a_segment_and_segments_without_use_are_removed(journal):
    for name in ("a", "b"):
        with journal.writer() as writer:
            writer.add(key(name), Item(name), [image(name)])
    (journal.pixels / "00000000000000000001-aaaaaa-grey-uint8.bin").write_bytes(b"left behind by a kill")
    journal.remove_unused(np.array([key("b")], np.uint64))
    (segment,) = journal.segments()
    assert [path.name.rsplit("-", 2)[0] for path in journal.pixels.iterdir()] == [segment.stem]
    assert journal.done().tolist() == [key("b")]


def test_after_a_restart_the_old_stays_until_it_is_replaced(journal):
    with journal.writer() as writer:
        writer.add(key("a"), Item("a"), [image("a")])
    journal.restart()
    assert journal.done().size == 0
    assert len(list(journal.pixels.iterdir())) == 1
    with journal.writer() as writer:
        writer.add(key("a"), Item("a"), [image("a")])
    journal.remove_unused(np.array([key("a")], np.uint64))
    assert len(journal.segments()) == len(list(journal.pixels.iterdir())) == 1


def test_identifiers_are_closed_to_others(journal):
    with journal.writer() as writer:
        writer.add(key("a"), Item("a"), [image("a")])
    assert stat.S_IMODE(journal.segments()[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.folder.parent.stat().st_mode) == 0o700


def test_a_damaged_segment_is_named(journal):
    with journal.writer() as writer:
        writer.add(key("a"), Item("a"), [image("a")])
    (segment,) = journal.segments()
    segment.write_bytes(segment.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"parquet: cannot be read .*--fresh"):
        read_segment(segment)


def test_a_file_name_that_is_no_text_survives(journal):
    name = b"caf\xe9".decode(errors="surrogateescape")
    with journal.writer() as writer:
        writer.add(key(name), Item(name), [image("x")])
    assert pq.read_table(journal.segments()[0])["path"].to_pylist() == [b"caf\xe9"]
