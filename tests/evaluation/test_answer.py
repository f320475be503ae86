from __future__ import annotations

import pandas as pd

from medssl.evaluation.answer import answer, cautions, headline
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


def rows(*findings: tuple[str, int, float, float, float], draws: int = 5) -> pd.DataFrame:
    """Rows of the primary metric of one arm: budget, patients, difference and its ends."""
    made = [
        {
            "arm": arm,
            "mode": "linear",
            "budget": budget,
            "budget_patients": patients,
            "metric": "auroc",
            "value": 0.8,
            "primary": True,
        }
        | {
            "reference": "imagenet",
            "difference": gap,
            "difference_lower": low,
            "difference_upper": high,
            "level": 0.95,
            "n_seeds": draws,
        }
        | {"n_runs": 1, "n_runs_reference": 1, "p_holm": 0.001 if low * high > 0 else 0.5, "test_patients": 500}
        | {"test_patients_positive": 200, "test_patients_negative": 300, "test_patients_fewest": 200, "replicates_used": 2000}
        for budget, patients, gap, low, high in findings
        for arm in ("imagenet", "in_domain")
    ]
    return pd.DataFrame(made)


def test_the_headline_names_the_winner_and_where_nothing_can_be_told():
    table = rows(("47", 47, 0.031, 0.012, 0.049), ("all", 300, 0.001, -0.01, 0.012))
    assert headline(table)["linear"] == [
        "in_domain beats imagenet by 0.031 AUROC (0.012 to 0.049) with 47 labelled patients, validation included; "
        "with all labels the data cannot tell them apart."
    ]


def test_the_headline_repeats_the_arm_where_it_would_be_unclear():
    table = rows(
        ("20", 20, 0.0, -0.1, 0.1), ("60", 60, 0.0, -0.1, 0.1), ("80", 80, -0.2, -0.3, -0.1), ("all", 300, -0.3, -0.4, -0.2)
    )
    assert headline(table, {"in_domain"}, {"in_domain"})["linear"] == [
        "With 20 and 60 labelled patients, validation included, the data cannot tell in_domain and imagenet apart; in_domain loses by 0.200 "
        "AUROC (0.100 to 0.300) with 80 labelled patients; it loses by 0.300 AUROC (0.200 to 0.400) with all labels; for this one "
        "pretraining run; pretraining not converged."
    ]


def test_all_labels_are_no_draw():
    assert not any("label draw" in text for text in cautions(rows(("all", 300, 0.0, -0.1, 0.1), draws=1)))
    some = pd.concat([rows(("20", 20, 0.0, -0.1, 0.1), draws=1).assign(mode="full"), rows(("20", 20, 0.0, -0.1, 0.1), draws=10)])
    assert any("One label draw in Full fine-tuning" in text for text in cautions(some))


def test_one_draw_at_some_budgets_is_said_of_these():
    table = pd.concat([rows(("1%", 20, 0.0, -0.1, 0.1), draws=3), rows(("10%", 200, 0.0, -0.1, 0.1), draws=1)])
    assert any("One label draw in Linear probe (budget 10%):" in text for text in cautions(table))
