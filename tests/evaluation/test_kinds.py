"""The whole way from a table of predictions to sentences, for every kind of task."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from medssl.errors import DataError
from medssl.evaluation.answer import answer, cautions, headline
from medssl.evaluation.calibration import calibration_table, reliability
from medssl.evaluation.comparison import compare, compare_all, sentence, verdict
from medssl.evaluation.confusion import confusion_table
from medssl.evaluation.efficiency import crossing, efficiency_sentence, label_efficiency
from medssl.evaluation.holm import holm
from medssl.evaluation.metrics import PRIMARY
from medssl.evaluation.pairs import COLUMNS as PAIR_COLUMNS
from medssl.evaluation.pooling import pool_patients
from medssl.evaluation.power import patients_needed, power_table
from medssl.evaluation.predictions import Cell, read_predictions
from medssl.evaluation.subgroups import age_bands, subgroups
from medssl.task import Outputs

OUTPUTS = {
    "binary": Outputs("binary", ("yes",)),
    "multiclass": Outputs("multiclass", ("a", "b", "c")),
    "multilabel": Outputs("multilabel", ("Effusion", "Mass")),
    "ordinal": Outputs("ordinal", ("none", "mild", "severe")),
    "regression": Outputs("regression", ("age",)),
}


def table_of(kind, gains={"imagenet": 0.0, "in_domain": 1.5}, draws=3, runs=1, patients=200, budgets=(("40", 40),), seed=0):  # noqa: B006
    """Predictions in the contract's columns; a larger gain is a better arm."""
    rng, outputs = np.random.default_rng(seed), OUTPUTS[kind]
    of = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    n = len(of)
    classes = rng.integers(0, 3, patients)[of]
    yes = rng.integers(0, 2, (patients, 2))[of].astype(float)
    number = rng.normal(60, 10, patients)[of]
    noise = rng.normal(size=(n, 3))
    unknown = rng.random((n, 2)) < 0.2
    tables = []
    for budget, size in budgets:
        for draw in range(draws):
            for arm, gain in gains.items():
                for run in range(runs):
                    mine, power = noise + 0.4 * rng.normal(size=(n, 3)), 0.5 + gain * (1 if size < 100 else 0.3)
                    table = pd.DataFrame({"row_key": [f"i{i}" for i in range(n)], "patient": [f"p{i}" for i in of]})
                    if kind == "binary":
                        table["label"], table["score"] = yes[:, 0].astype(int), expit(power * (2 * yes[:, 0] - 1) + mine[:, 0])
                        table["threshold"] = 0.5
                    elif kind == "multilabel":
                        for i, name in enumerate(outputs.names):
                            table[f"label.{name}"] = np.where(unknown[:, i], np.nan, yes[:, i])
                            table[f"score.{name}"] = expit(power * (2 * yes[:, i] - 1) + mine[:, i])
                            table[f"threshold.{name}"] = 0.4
                    elif kind == "regression":
                        table["label"], table["score"] = number, number + 6 * mine[:, 0] / (1 + gain)
                    else:
                        scores = softmax(2 * power * np.eye(3)[classes] + mine, axis=1)
                        table["label"] = classes
                        table[[f"score.{name}" for name in outputs.names]] = scores
                    if kind != "regression":
                        table["temperature"] = 1.3
                    tables.append(table.assign(arm=arm, mode="linear", budget=budget, seed=draw, run=run, split="test"))
                    tables[-1]["budget_patients"], tables[-1]["budget_images"] = size, 2 * size
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_better_arm_is_found_and_named(kind):
    found = compare_all(table_of(kind, runs=2), replicates=200, outputs=OUTPUTS[kind])
    rows = found.table[found.table["primary"]]
    assert set(rows.metric) == {PRIMARY[kind]}
    row = rows[rows.arm == "in_domain"].to_dict("records")[0]
    assert (row["n_runs"], row["n_seeds"]) == (2, 3)
    assert verdict(row) == "better"
    assert "in_domain is better than imagenet by" in sentence(row)
    assert answer(found.table)["linear"] == ["With 40 labelled patients, in_domain is better than imagenet."]
    said = headline(found.table)["linear"][0]
    assert said.startswith("in_domain beats imagenet by")
    assert said.endswith("with 40 labelled patients, validation included.")
    assert (", lower is better" in said) == (kind == "regression")
    assert list(found.pairs.columns) == list(PAIR_COLUMNS)
    pair = found.pairs.to_dict("records")[0]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("imagenet", "in_domain", "worse")
    assert pair["difference"] == pytest.approx(-row["difference"])
    assert found.table["value"].notna().all()
    inside = found.table.dropna(subset=["lower"])
    assert ((inside.lower <= inside.value) & (inside.value <= inside.upper)).all()


@pytest.mark.parametrize("kind", OUTPUTS)
def test_patients_are_pooled_into_rows_of_their_own(kind):
    table, outputs = table_of(kind), OUTPUTS[kind]
    pooled = pool_patients(table, outputs)
    test = read_predictions(pooled, outputs)
    assert len(test.labels) == test.n_patients == 200
    cell = table[(table.arm == "in_domain") & (table.seed == 1) & (table.patient == "p7")]
    scores = test.scores[Cell("in_domain", "linear", "40", 1)][list(test.keys).index("p7")]
    columns = [name for name in table.columns if name.startswith("score")]
    np.testing.assert_allclose(scores, cell[columns].mean(), atol=1e-12)
    if kind in ("multiclass", "ordinal"):
        largest = pool_patients(table, outputs, "max")[columns].to_numpy()
        np.testing.assert_allclose(largest.sum(axis=1), 1)
    elif kind == "regression":
        with pytest.raises(ValueError, match="but for regression"):
            pool_patients(table, outputs, "max")
    else:
        assert (pool_patients(table, outputs, "max")[columns].to_numpy() >= pooled[columns].to_numpy() - 1e-12).all()


def test_pooled_labels_are_positive_where_one_image_is_and_unknown_where_all_are():
    table = table_of("multilabel").query("seed == 0 and arm == 'imagenet'")
    column, first = "label.Mass", table.patient.isin(["p0"])
    table.loc[first, column] = np.nan
    table.loc[table.patient == "p1", column] = 0.0
    table.loc[table.index[table.patient == "p1"][0], column] = 1.0
    pooled = pool_patients(table, OUTPUTS["multilabel"]).set_index("patient")
    assert np.isnan(pooled.loc["p0", column])
    assert pooled.loc["p1", column] == 1


def test_patients_with_images_of_several_classes_have_no_class_of_their_own():
    table = table_of("multiclass")
    several = table.groupby("patient")["row_key"].nunique()
    patient = several.index[several > 1][0]
    first = table.loc[table.patient == patient, "row_key"].iloc[0]
    table.loc[table.row_key == first, "label"] = (table.loc[table.row_key == first, "label"] + 1) % 3
    with pytest.raises(DataError, match="1 patients have images of different classes"):
        pool_patients(table, OUTPUTS["multiclass"])


def test_copies_are_not_told_apart_and_holm_covers_all_pairs():
    table = table_of("binary", {"imagenet": 0.0, "copy": 0.0, "in_domain": 1.5})
    found = compare_all(table, replicates=200)
    pairs = found.pairs.set_index(["a", "b"])
    assert pairs.loc[("imagenet", "copy"), "verdict"] == "unclear"
    np.testing.assert_array_equal(pairs.p_holm, holm(pairs.p))
    assert (pairs.p_holm > pairs.p).any()
    assert (pairs.p_holm >= pairs.p).all()
    rows = found.table[found.table.primary & (found.table.arm == "in_domain")].to_dict("records")[0]
    assert rows["p_holm"] == pairs.loc[("imagenet", "in_domain"), "p_holm"]


def test_an_interval_that_excludes_0_names_nobody_where_holm_does_not():
    table = compare(table_of("binary"), replicates=100)
    row = table[table.primary & (table.arm == "in_domain")].to_dict("records")[0]
    assert verdict(row) == "better"
    assert verdict(row | {"p_holm": 0.06}) == "unclear"
    assert "cannot tell" in sentence(row | {"p_holm": 0.06})
    assert verdict(row | {"metric": "mae"}) == "worse"


def test_delong_stands_beside_a_single_draw_and_only_there():
    single = compare_all(table_of("binary", draws=1), replicates=200)
    rows = single.table[single.table.metric == "auroc"]
    assert ((rows.delong_lower < rows.value) & (rows.value < rows.delong_upper)).all()
    assert single.table[single.table.metric != "auroc"].delong_lower.isna().all()
    assert single.pairs.p_delong.iloc[0] < 0.05
    several = compare_all(table_of("binary"), replicates=50)
    assert several.table.delong_lower.isna().all()
    assert several.pairs.p_delong.isna().all()


def test_what_a_reader_must_know_is_said():
    table = compare(table_of("binary", patients=60), replicates=100)
    text = " ".join(cautions(table, {"in_domain"}, {"in_domain"}))
    assert "for this one pretraining run" in text
    assert "pretraining not converged" in text
    assert "60 patients" in text
    said = headline(table, {"in_domain"}, {"in_domain"})["linear"][0]
    assert said.endswith("; for this one pretraining run; pretraining not converged.")
    repeated = compare(table_of("binary", runs=2), replicates=100)
    assert "one pretraining run" not in " ".join(cautions(repeated, {"in_domain"}))
    row = repeated[repeated.primary & (repeated.arm == "in_domain")].to_dict("records")[0]
    assert "one pretraining run" not in sentence(row, {"in_domain"})
    assert "pretraining not converged (in_domain)" in sentence(row, {"in_domain"}, {"in_domain"})


def test_the_headline_goes_over_the_budgets():
    table = table_of("binary", budgets=(("47", 47), ("all", 400)))
    same = table[(table.budget == "all") & (table.arm == "imagenet")].assign(arm="in_domain")
    table = pd.concat([table[~((table.budget == "all") & (table.arm == "in_domain"))], same])
    said = headline(compare(table, replicates=200))["linear"][0]
    assert said.startswith("in_domain beats imagenet by 0.")
    assert said.endswith("with 47 labelled patients, validation included; with all labels the data cannot tell them apart.")


def test_a_test_set_without_a_class_answers_nothing():
    table = table_of("multiclass")
    table["label"] = table["label"].clip(upper=1)
    found = compare(table, replicates=50, outputs=OUTPUTS["multiclass"])
    row = found[found.primary & (found.arm == "in_domain")].to_dict("records")[0]
    assert np.isnan(row["value"])
    assert verdict(row) == "too few"
    assert any("unknown" in text for text in cautions(found))


def test_crossings_are_on_the_logarithm_of_patients():
    sizes = np.array([10.0, 100.0, 1000.0])
    curves = np.array([[0.6, 0.7, 0.8]] * 5)
    got = crossing(sizes, curves, np.array([0.65, 0.7, 0.5, 0.9, np.nan]))
    np.testing.assert_allclose(got, [10**1.5, 100, 10, np.inf, np.nan])
    # The first crossing counts where a curve falls again.
    assert crossing(sizes, np.array([[0.6, 0.8, 0.7]]), np.array([0.7]))[0] == pytest.approx(10**1.5)


def test_label_efficiency_and_what_it_says():
    budgets = (("20", 20), ("80", 80), ("all", 400))
    table = table_of("binary", budgets=budgets)
    found = label_efficiency(compare_all(table, replicates=200))
    assert found.to_dict("records")[0]["found"] == "not reached"
    assert "does not reach with any of the budgets" in efficiency_sentence(found.to_dict("records")[0])
    row = {
        "arm": "a",
        "reference": "b",
        "patients": 20,
        "needed": 63.2,
        "lower": 41.0,
        "upper": np.inf,
        "level": 0.95,
        "found": "reached",
    }
    assert (
        efficiency_sentence(row)
        == "What a reaches with 20 labelled patients, b reaches with about 63 (95% interval 41 to not reached)."
    )
    assert label_efficiency(compare_all(table_of("binary"), replicates=20)).empty


def test_patients_needed_is_the_textbook_formula():
    # A paired difference whose SD over one patient is 1: (1.96 + 0.8416)^2 / 0.1^2 = 785.
    assert patients_needed(1 / 250, 250, 0.1) == 785
    assert patients_needed(1 / 1000, 1000, 0.1) == 785
    with pytest.raises(ValueError, match="difference"):
        patients_needed(0.01, 100, 0)
    table = power_table(compare_all(table_of("binary"), replicates=100))
    assert list(table.difference) == [0.01, 0.02, 0.05]
    assert table.patients.iloc[0] == pytest.approx(25 * table.patients.iloc[2], rel=0.05)


def test_reliability_by_hand_and_wider_for_patients_than_for_images():
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    table = reliability(np.array([0.0, 1.0, 1.0, np.nan]), scores, np.arange(4), bins=2)
    assert table[["bin", "n"]].to_numpy().tolist() == [[0, 1], [1, 2]]
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 5)
    truth = rng.integers(0, 2, 100)[patients].astype(float)
    clustered, apart = (reliability(truth, np.full(500, 0.5), groups).iloc[0] for groups in (patients, np.arange(500)))
    assert clustered["n"] == apart["n"] == 500
    assert clustered.upper - clustered.lower > 2 * (apart.upper - apart.lower)
    assert clustered.lower < clustered.share < clustered.upper


@pytest.mark.parametrize("kind", OUTPUTS)
def test_calibration_and_confusion_of_every_kind(kind):
    test = read_predictions(table_of(kind, runs=2), OUTPUTS[kind])
    calibration, confusion = calibration_table(test), confusion_table(test)
    if kind == "regression":
        assert calibration.empty
        assert confusion.empty
        return
    assert set(calibration.scaled) == {False, True}
    whole = calibration[~calibration.scaled].groupby(["arm", "target"])["n"].sum()
    known = (~np.isnan(test.labels)).sum(axis=0) * 6
    assert sorted(set(whole)) == sorted(set(known))
    assert ((calibration.lower <= calibration.share + 1e-12) & (calibration.share <= calibration.upper + 1e-12)).all()
    per_target = confusion.groupby(["arm", "target"])["images"].sum()
    assert per_target.to_numpy() == pytest.approx(np.resize(known / 6, len(per_target)))
    np.testing.assert_allclose(confusion.groupby(["arm", "target", "truth"])["share"].sum(), 1)


def test_a_target_without_an_operating_point_has_no_decisions():
    table = table_of("multilabel")
    once = table["arm"].eq("in_domain") & table["seed"].eq(1)
    table.loc[once, "threshold.Mass"] = np.nan
    found = compare(table, replicates=50, outputs=OUTPUTS["multilabel"]).set_index(["arm", "metric"])
    for metric in ("balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "accuracy"):
        assert found.loc[("in_domain", metric), ["value", "lower", "upper", "difference"]].isna().all(), metric
        assert found.loc[("imagenet", metric), ["value", "lower", "upper"]].notna().all(), metric
    for metric in ("auroc", "average_precision", "brier", "ece", "accuracy_at_half", "auroc/Mass"):
        assert found.loc[("in_domain", metric), ["value", "lower", "upper", "difference"]].notna().all(), metric
    confusion = confusion_table(read_predictions(table, OUTPUTS["multilabel"]))
    assert set(confusion.groupby("arm")["target"].unique().map(tuple).to_dict().items()) == {
        ("imagenet", ("Effusion", "Mass")),
        ("in_domain", ("Effusion",)),
    }
    with pytest.raises(DataError, match=r"1 rows have a score\.Mass that is not a finite number"):
        read_predictions(table.assign(**{"score.Mass": [np.nan, *table["score.Mass"][1:]]}), OUTPUTS["multilabel"])


def test_ages_fall_into_bands():
    years = pd.Series([0, 17, 18, 39, 40, 64, 65, 90, np.nan, -1])
    assert age_bands(years).tolist()[:8] == ["0-17", "0-17", "18-39", "18-39", "40-64", "40-64", "65+", "65+"]
    assert age_bands(years).isna().tolist()[8:] == [True, True]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_subgroups_find_a_planted_gap_and_show_small_ones_as_too_small(kind):
    table = table_of(kind, patients=300)
    rng = np.random.default_rng(5)
    patients = {f"p{i}": rng.choice(["F", "M"]) for i in range(300)}
    patients |= {f"p{i}": None for i in range(6)}
    sex = table.drop_duplicates("row_key").set_index("row_key")["patient"].map(patients)
    men = table.row_key.map(sex) == "M"
    for column in [name for name in table.columns if name.startswith("score")]:  # the models know nothing about men
        table.loc[men, column] = rng.permutation(table.loc[men, column].to_numpy())
    columns = [name for name in table.columns if name.startswith("score.")]
    if columns and kind != "multilabel":
        table[columns] = table[columns].div(table[columns].sum(axis=1), axis=0)
    test = read_predictions(table, OUTPUTS[kind])
    found = subgroups(test, pd.DataFrame({"sex": sex}), "imagenet", replicates=200)
    own = found[(found.metric == PRIMARY[kind]) & (found.arm == "in_domain")].set_index("group")
    assert list(own.index) == ["F", "M", "unknown"]
    assert own.loc["unknown", "too_small"]
    assert np.isnan(own.loc["unknown", "value"])
    assert own.patients.sum() == 300
    better = own.loc["F", "gap_lower"] > 0 if kind != "regression" else own.loc["F", "gap_upper"] < 0
    assert better
    assert np.isnan(found[found.arm == "imagenet"].difference).all()
    alone = compare(table[table.row_key.map(sex) == "F"], replicates=20, outputs=OUTPUTS[kind])
    same = alone[alone.primary & (alone.arm == "in_domain")]
    assert own.loc["F", "value"] == pytest.approx(same["value"].iloc[0])
    assert own.loc["F", "difference"] == pytest.approx(same["difference"].iloc[0])
