"""The audit: planted leaks of every kind are found and counted, and nothing is found where nothing is shared."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.audit import IDENTICAL, LINKED, NEAR, PATIENTS, STUDIES, audit, in_words

TRAIN, VALIDATION, TEST, ARCHIVE = np.arange(20), np.arange(20, 30), np.arange(30, 40), np.arange(40, 50)
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "pretraining": np.concatenate([TRAIN, ARCHIVE])}


def archive() -> pd.DataFrame:
    """Fifty images of twenty-five patients, two images a patient in one study."""
    frame = pd.DataFrame({"row_key": [f"k{number}" for number in range(50)]})
    frame["patient"] = [f"p{number // 2}" for number in range(50)]
    frame["study"] = [f"s{number // 2}" for number in range(50)]
    frame["exact_hash"] = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(50)]
    return frame


def shared(frame: pd.DataFrame, near=None, parts=None) -> dict[tuple[str, str, str], int]:
    """What is shared: (first, second, kind) -> count."""
    found = audit(frame, PARTS if parts is None else parts, near)
    found = found[found["count"] > 0]
    return dict(zip(zip(found["first"], found["second"], found["kind"], strict=True), found["count"].tolist(), strict=True))


def test_nothing_is_shared():
    found = audit(archive(), PARTS)
    assert len(found) == 6 * 5
    assert not found["count"].any()
    assert in_words(found) == []


def test_one_patient_in_two_parts():
    frame = archive()
    frame.loc[30, "patient"] = "p0"
    found = audit(frame, PARTS)
    row = found[(found["first"] == "train") & (found["second"] == "test") & (found["kind"] == PATIENTS)].iloc[0]
    assert (row["count"], row["first_images"], row["second_images"], row["keys"]) == (1, 2, 1, ["p0"])
    assert shared(frame) == {
        ("train", "test", PATIENTS): 1,
        ("train or validation", "test", PATIENTS): 1,
        ("pretraining", "test", PATIENTS): 1,
    }
    assert in_words(found)[0] == "train and test share 1 patients (2 and 1 images)"


def test_the_same_pixels_under_two_keys():
    frame = archive()
    frame.loc[25, "exact_hash"] = frame.loc[35, "exact_hash"]
    found = shared(frame)
    assert found[("validation", "test", IDENTICAL)] == 1
    assert ("train", "test", IDENTICAL) not in found
    assert ("validation", "test", NEAR) not in found  # the identical ones are not counted twice
    assert found[("validation", "test", LINKED)] == 1
    table = audit(frame, PARTS)
    keys = table[(table["first"] == "validation") & (table["second"] == "test") & (table["kind"] == IDENTICAL)].iloc[0]["keys"]
    assert keys == ["k35"]


def test_a_near_copy_of_a_test_image_in_the_pretraining_source():
    frame, near = archive(), np.array([[35, 45]])
    assert shared(frame, near) == {("pretraining", "test", NEAR): 1, ("pretraining", "test", LINKED): 1}
    without = PARTS | {"pretraining": np.setdiff1d(PARTS["pretraining"], [44, 45])}
    assert shared(frame, near, without) == {}


def test_a_chain_through_an_image_of_no_part_is_found():
    frame = archive()
    frame.loc[40, "exact_hash"] = frame.loc[0, "exact_hash"]  # an archive patient has an image of a training patient
    frame.loc[41, "exact_hash"] = frame.loc[30, "exact_hash"]  # and one of a test patient
    assert shared(frame, parts={"train": TRAIN, "test": TEST}) == {("train", "test", LINKED): 1}


def test_one_study_of_two_patients_but_not_a_placeholder():
    frame = archive()
    frame.loc[[0, 30], "study"] = "one"
    assert shared(frame)[("train", "test", STUDIES)] == 1
    frame["study"] = "1.2.3"  # as some anonymisers write it into every file
    assert shared(frame) == {}
    frame["study"] = None
    assert shared(frame) == {}


def test_a_test_file_that_is_the_validation_file():
    parts = {"train": TRAIN, "validation": TEST, "test": TEST}
    found = shared(archive(), parts=parts)
    assert found[("validation", "test", PATIENTS)] == 5
    assert found[("validation", "test", IDENTICAL)] == 10
    assert ("train", "test", PATIENTS) not in found


def test_pairs_of_parts_that_are_not_given_are_left_out():
    assert set(audit(archive(), {"train": TRAIN, "test": TEST})["second"]) == {"test"}
    assert audit(archive(), {"test": TEST}).empty


@settings(max_examples=80, deadline=None)
@given(
    patient=st.lists(st.integers(0, 15), min_size=12, max_size=24),
    image=st.lists(st.integers(0, 15), min_size=24, max_size=24),
    part=st.lists(st.integers(0, 2), min_size=24, max_size=24),
)
def test_counts_are_those_of_sets(patient, image, part):
    frame = pd.DataFrame({"patient": [f"p{number}" for number in patient]})
    frame["exact_hash"] = [f"h{number}" for number in image[: len(frame)]]
    frame["row_key"], frame["study"] = [f"k{number}" for number in range(len(frame))], None
    where = np.array(part[: len(frame)])
    parts = {name: np.flatnonzero(where == number) for number, name in enumerate(("train", "validation", "test"))}
    found = audit(frame, parts).set_index(["first", "second", "kind"])
    sides = parts | {"train or validation": np.flatnonzero(where < 2)}
    for first, second in (("train", "test"), ("validation", "test"), ("train or validation", "test")):
        for kind, column in ((PATIENTS, "patient"), (IDENTICAL, "exact_hash")):
            both = set(frame[column].iloc[sides[first]]) & set(frame[column].iloc[sides[second]])
            row = found.loc[(first, second, kind)]
            assert row["count"] == len(both)
            assert row["first_images"] == frame[column].iloc[sides[first]].isin(both).sum()


def test_of_no_images():
    assert audit(archive(), dict.fromkeys(("train", "validation", "test"), np.zeros(0, int)))["count"].sum() == 0
