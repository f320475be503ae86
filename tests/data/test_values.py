"""Labels and patients where a card says they stand, and a line for each way in which they do not."""

from __future__ import annotations

import pytest

from medssl.data.card import Card
from medssl.data.values import ValueReader
from medssl.errors import CardError, DataError


def card(**changes) -> Card:
    base = {
        "version": 1,
        "name": "clinic",
        "title": "t",
        "source": "s",
        "licence": "l",
        "citation": "c",
        "obtain": "o",
        "modality": "CR",
        "format": "raster",
        "patient": [{"csv": "labels.csv", "column": "patient", "optional": True}, {"pattern": r"(?P<value>p\d+)_"}],
        "targets": {
            "finding": {
                "description": "d",
                "classes": {"normal": ["0", "N"], "ill": ["1"]},
                "unknown": ["-1"],
                "source": [{"csv": "labels.csv", "column": "finding"}],
            }
        },
    }
    return Card.model_validate(base | changes)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "file,patient,finding\na/p1_1.png,X9,0\na/p2_1.png,,1\na/p3_1.png,X8,-1\na/p4_1.png,X7,\na/p5_1.png,X7,2\n"
    )
    return tmp_path


def test_values_come_from_the_first_source_that_has_one(root):
    reader = ValueReader(card(), root)
    assert reader.patient("a/p1_1.png", {}) == "X9"
    assert reader.patient("a/p2_1.png", {}) == "p2"  # the CSV's cell is empty
    assert reader.patient("a/other.png", {}) is None


def test_labels(root):
    reader = ValueReader(card(), root)
    assert [reader.label("finding", f"a/p{k}_1.png", {}) for k in (1, 2, 3, 4, 9)] == ["normal", "ill", None, None, None]
    with pytest.raises(DataError, match=r"clinic: targets\.finding: the label '2' is not in the card, which knows: 0, N, 1"):
        reader.label("finding", "a/p5_1.png", {})


def test_a_missing_column_names_those_that_are_there(root):
    wrong = card(patient=[{"csv": "labels.csv", "column": "patient_id"}])
    with pytest.raises(CardError, match=r"labels.csv has no column 'patient_id'; it has: file, patient, finding"):
        ValueReader(wrong, root)


def test_a_missing_file(tmp_path):
    with pytest.raises(CardError, match=r"the card names labels\.csv, which is not below the root"):
        ValueReader(card(), tmp_path)


def test_a_contradiction(root):
    (root / "labels.csv").write_text("file,patient,finding\na.png,p,0\na.png,p,1\n")
    with pytest.raises(CardError, match="line 3 gives another finding to an image named before"):
        ValueReader(card(), root)


def test_windows_paths_and_byte_order_marks(root):
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbffile,patient,finding\r\na\\b.png,p,1\r\n")
    assert ValueReader(card(), root).label("finding", "a/b.png", {}) == "ill"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"patient": [{"pattern": "p[0-9"}]}, "is not a regular expression"),
        ({"patient": [{"pattern": "p[0-9]+"}]}, "has no group"),
        ({"patient": [{"pattern": "(?P<value>p)", "tag": "PatientID"}]}, "exactly one of csv, pattern, tag"),
        ({"patient": [{"csv": "a.csv"}]}, "csv and column go together"),
    ],
)
def test_cards_that_cannot_work(changes, line):
    with pytest.raises(ValueError, match=line):
        card(**changes)


def numbers(root, *values: str) -> ValueReader:
    lines = "".join(f"a/p{number}.png,{value}\n" for number, value in enumerate(values))
    (root / "labels.csv").write_text("file,age\n" + lines)
    target = {"description": "d", "numeric": True, "unknown": ["-1", "N/A"], "source": [{"csv": "labels.csv", "column": "age"}]}
    return ValueReader(card(patient="image", targets={"age": target}), root)


def test_numbers(tmp_path):
    reader = numbers(tmp_path, "57", "5.70e1", " .5", "-3.", "", "-1", "N/A")
    read = [reader.label("age", f"a/p{number}.png", {}) for number in range(8)]
    assert read == ["57.0", "57.0", "0.5", "-3.0", None, None, None, None]


@pytest.mark.parametrize("value", ["old", "057Y", "1_000", "nan", "inf", "1e999", "0x10", "3 4", "\u0663"])
def test_what_is_no_number_is_named_without_its_file(tmp_path, value):
    with pytest.raises(DataError, match=r"clinic: targets\.age: the value '.*' is no finite number") as caught:
        numbers(tmp_path, value).label("age", "a/p0.png", {})
    assert repr(value) in str(caught.value)
    assert "p0" not in str(caught.value)
    assert "\n" not in str(caught.value)
