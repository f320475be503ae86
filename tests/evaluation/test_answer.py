from __future__ import annotations

import pandas as pd

from medssl.evaluation.answer import answer, cautions
from medssl.evaluation.comparison import compare

ARMS = {"random": -0.6, "imagenet": 0.0, "copy": 0.0, "in_domain": 1.0}


def test_budgets_with_the_same_findings_share_a_sentence(predictions):
    comparison = compare(predictions(ARMS, [("40", 40), ("all", 300)], ("linear", "full"), patients=250), replicates=300)
    result = answer(comparison)
    assert list(result) == ["linear", "full"]
    assert result["full"] == [
        "With 40 and 300 labelled patients, in_domain is better than imagenet; random is worse than imagenet; "
        "the data cannot tell copy from imagenet."
    ]


def test_budgets_with_different_findings_have_sentences_of_their_own(predictions):
    table = predictions({"imagenet": 0.0, "in_domain": 1.0}, [("40", 40), ("80", 80), ("all", 300)], patients=150)
    everything = table[(table.budget == "all") & (table.arm == "imagenet")]
    table = pd.concat([table[~((table.budget == "all") & (table.arm == "in_domain"))], everything.assign(arm="in_domain")])
    assert answer(compare(table, replicates=300))["full"] == [
        "With 40 and 80 labelled patients, in_domain is better than imagenet.",
        "With 300 labelled patients, the data cannot tell in_domain from imagenet.",
    ]


def test_several_arms_are_listed(predictions):
    comparison = compare(predictions({"a": 0.8, "imagenet": 0.0, "b": 0.9, "c": 1.0}, patients=250), replicates=200)
    assert answer(comparison)["full"] == ["With 40 labelled patients, a, b and c are better than imagenet."]


def test_a_tiny_test_set_answers_nothing(predictions):
    comparison = compare(predictions(patients=14), replicates=100)
    assert answer(comparison)["full"] == [
        "With 40 labelled patients, the test set is too small to compare in_domain with imagenet."
    ]
    assert any("The test set is small: 14 patients" in text for text in cautions(comparison))


def test_a_single_arm_has_nothing_to_be_compared_with(predictions):
    comparison = compare(predictions({"imagenet": 0.0}), replicates=50)
    assert answer(comparison)["full"] == ["With 40 labelled patients, imagenet has no arm to be compared with."]


def test_cautions_name_what_the_intervals_leave_out(predictions):
    comparison = compare(predictions(ARMS, seeds=1, patients=150), replicates=100)
    text = " ".join(cautions(comparison, {"in_domain"}))
    assert "3 differences" in text
    assert "in_domain: for this one pretraining run" in text
    assert "One label draw" in text
    assert "small" not in text
    many = " ".join(cautions(compare(predictions({"imagenet": 0, "a": 1}, seeds=10, patients=150), replicates=50)))
    assert "label draw" not in many
    assert "pretraining run" not in many
