from __future__ import annotations

import pandas as pd
import pytest

from medssl.report.archive_checks import checks, keys, linked_table, oddities, reject_table, shared_table

FINE = {
    "No patient is in more than one of training, validation and test.",
    "Pretraining sees no image of a validation or test patient.",
    "No identical or nearly identical images are in two splits or under two patients.",
    "Every file that the cards ask for was read.",
}
NOTHING = pd.DataFrame({"images": [], "patients": [], "identical": [], "sources": [], "splits": [], "row_keys": []})


def _shared(identical=True, patients=2, splits="test, train") -> pd.DataFrame:
    group = {"images": 2, "patients": patients, "identical": identical, "sources": "xray", "splits": splits}
    return pd.DataFrame([group | {"row_keys": ["k1", "k2"]}])


@pytest.fixture
def archive(archive_of, ramp):
    return archive_of([(ramp, {"patient": patient}) for patient in ("a", "a", "b", "c")])


def _said(archive, shared=NOTHING, flagged=0) -> dict[str, str]:
    odd = oddities(archive.manifest, 16, "auto")
    return {
        check.said: check.verdict for check in checks(archive.manifest, archive.splits, archive.rejects, odd, shared, flagged)
    }


def _verdict(said: dict[str, str], start: str) -> str:
    found = [verdict for text, verdict in said.items() if text.startswith(start)]
    assert len(found) == 1, said
    return found[0]


def test_an_archive_without_faults_is_fine(archive):
    assert _said(archive) == dict.fromkeys(FINE, "fine")


def test_a_patient_in_two_splits_is_wrong_and_stands_first(archive):
    archive.splits.loc[1, "split"] = "test"
    said = _said(archive, flagged=1)
    assert next(iter(said)) == "In more than one of training, validation and test: 1 patient."
    assert _verdict(said, "In more than one") == "wrong"
    assert _verdict(said, "May show text or a face: 1 image,") == "look"


def test_a_patient_of_the_task_who_is_in_another_data_set_too_is_no_fault_unless_pretraining_sees_him(archive):
    archive.splits.loc[[2, 3], "split"] = ["archive", "test"]
    archive.splits.loc[[2, 3], "group"] = 7
    archive.splits.loc[[2, 3], "pretrain"] = False
    assert set(_said(archive)) >= FINE
    archive.splits.loc[2, "pretrain"] = True
    assert _verdict(_said(archive), "Pretraining may see 1 image of") == "look"


@pytest.mark.parametrize(
    ("shared", "start", "verdict"),
    [
        (None, "Identical and nearly identical images were not looked for.", "look"),
        (_shared(), "In more than one of training, validation and test: 1 group of identical", "wrong"),
        (_shared(False), "In more than one of training, validation and test: 1 group of nearly", "look"),
        (_shared(splits="train"), "Under more than one patient, but not in two splits: 1 group", "look"),
        (_shared(splits="archive, train", patients=1), "No identical or nearly identical images are in two", "fine"),
    ],
)
def test_shared_images(archive, shared, start, verdict):
    assert _verdict(_said(archive, shared), start) == verdict


def test_patients_without_an_id_and_linked_patients_are_told(archive):
    archive.manifest["patient_from"] = ["id", "study", "image", "image"]
    archive.splits["group"] = [0, 0, 0, 1]
    said = _said(archive)
    assert _verdict(said, "No patient is known: 2 images.") == "look"
    assert _verdict(said, "The patient ID is empty or a placeholder: 1 image.") == "look"
    assert _verdict(said, "Taken for one person with another key: 2 patients") == "look"
    table = linked_table(archive.splits)
    assert "<code>a</code> <code>b</code>" in table
    assert "<code>c</code>" not in table
    assert '<td class="number">3</td>' in table


def test_odd_images_are_found_by_kind(archive_of, ramp):
    window = {"window_center": 5000.0, "window_width": 100.0, "window_function": "linear"}
    archive = archive_of(
        [
            (ramp, {}),
            (ramp, {"rows": 10, "columns": 12}),
            (ramp, {"rows": 100, "columns": 251}),
            (ramp, {"p00_5": 7.0, "p99_5": 7.0}),
            (ramp, window),
            (ramp, window | {"window_function": "sigmoid"}),
            (ramp, {"padding": 0.6, "study_year": 1900}),
        ]
    )
    found = {odd.name: odd.rows.tolist() for odd in oddities(archive.manifest, 16, "auto")}
    assert found == {
        "Nearly one value": [3],
        "The window misses the pixels": [4],
        "Enlarged": [1],
        "Long and narrow": [2],
        "Implausible date": [6],
        "Mostly padding": [6],
    }
    assert "The window misses the pixels" not in {odd.name for odd in oddities(archive.manifest, 16, "percentile")}


def test_rejects_have_a_sentence_their_details_and_three_keys():
    rows = [(f"key{i}", "xray", "truncated", "100 of 200 bytes") for i in range(5)] + [("other", "ct", "colour", None)]
    table = reject_table(pd.DataFrame(rows, columns=["row_key", "source", "reason", "detail"]))
    assert "The file or its compressed stream ends before its pixels do." in table
    assert "100 of 200 bytes (5)" in table
    assert "<code>key2</code> <small>and 2 more</small>" in table
    assert "key3" not in table
    assert table.index("truncated") < table.index("colour")


def test_shared_groups_are_shown_only_where_they_cross(archive):
    inside = _shared(patients=1, splits="train")
    assert "Found: 1 group of pixel-identical images, 0 groups of nearly identical ones. None is divided" in shared_table(inside)
    both = pd.concat([inside.assign(row_keys=[["hidden", "too"]]), _shared(False)], ignore_index=True)
    table = shared_table(both)
    assert "<code>k1</code> <code>k2</code>" in table
    assert "hidden" not in table


def test_keys_are_escaped():
    assert keys(["<a>"], 3) == "<code>&lt;a&gt;</code> <small>and 2 more</small>"
