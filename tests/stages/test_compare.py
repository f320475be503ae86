"""The comparison of a small real study of every kind of task: its numbers against scikit-learn's, its tables, page and tracked runs."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn

from medssl.errors import StudyError
from medssl.evaluation.answer import headline
from medssl.evaluation.metrics import PRIMARY
from medssl.evaluation.verdicts import verdict
from medssl.report.page import render
from medssl.report.table import markdown
from medssl.stages.compare import compare
from medssl.stages.comparison_facts import collect_facts
from medssl.stages.comparison_tables import Tables, make_tables
from medssl.stages.evaluate import evaluate
from medssl.stages.index import index
from medssl.stages.prediction_rows import read_outputs
from medssl.stages.workspace import open_workspace
from medssl.task import Outputs

ARMS = ["random", "imagenet"]
BLOCKS = {
    ("linear", "8"): 2,
    ("linear", "all"): 1,
    ("linear_recalibrated", "8"): 2,
    ("linear_recalibrated", "all"): 1,
    ("full", "8"): 1,
}
TASKS = {
    "binary": {"target": "finding", "positive": "yes"},
    "multiclass": {"target": "grade"},
    "ordinal": {"target": "grade", "level": "patient"},
    "multilabel": {"targets": ["finding", "mass"], "positive": "yes", "negative": "no"},
    "regression": {"target": "age"},
}
FINETUNE = {
    "budgets": [8, "all"],
    "seeds": 2,
    "folds": 2,
    "linear": {"regularization": [0.01, 1.0]},
    "linear_recalibrated": {"regularization": [0.01, 1.0]},
    "full": {"budgets": [8], "seeds": 1, "epochs": 1, "search": {"trials": 1}},
}
PIXELS = re.compile(r"data:image/(?!svg)")
every_kind = pytest.mark.parametrize("kind", TASKS)


@dataclass(frozen=True)
class Compared:
    """A study that has been compared, and what was said of it."""

    kind: str
    study: Path
    work: Path
    said: str

    @cached_property
    def tables(self) -> Tables:
        return Tables.read(self.work / "compare")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self.work / "evaluate" / "predictions.parquet")

    @property
    def outputs(self) -> Outputs:
        return read_outputs(self.work / "evaluate")

    @property
    def page(self) -> str:
        return (self.work / "compare" / "report.html").read_text()

    @property
    def scored(self) -> pd.DataFrame:
        """What is judged: images, or of the task at patient level its patients, pooled here once more by hand."""
        if self.kind != "ordinal":
            return self.predictions
        cell = ["arm", "mode", "budget", "seed", "patient"]
        scores = [f"score.{name}" for name in self.outputs.names]
        return self.predictions.groupby(cell, sort=False)[["label", *scores]].mean().reset_index()


def write_clinic(folder, clinics, clinic, write_study, task, **changes) -> Path:
    """A study of the clinic whose card has a sex among its targets, since its files say none."""
    folder.mkdir(parents=True, exist_ok=True)
    sex = {"description": "d", "classes": {"F": ["1"], "M": ["0"]}, "source": [{"csv": "labels.csv", "column": "finding"}]}
    card = clinics.CARD | {"targets": clinics.CARD["targets"] | {"sex": sex}, "subgroups": ["sex", "age"]}
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    data = {"clinic": {"card": "card.yaml", "root": str(clinic)}}
    task = {"data": "clinic", "split": {"validation": 0.0, "test": 0.6}} | task
    study = {"arms": {name: {"init": name} for name in ARMS}, "finetune": FINETUNE, "tracking": {"enabled": False}} | changes
    return write_study(folder, data=data, task=task, **study)


def compare_and_listen(study: Path, overrides=(), **how) -> str:
    """What `compare` says, in one line."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        compare(open_workspace(study, list(overrides)), **how)
    return " ".join(said.getvalue().split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory, clinics, clinic, write_study):
    """compared(kind): made when it is first asked for; that of several targets is tracked."""
    made: dict[str, Compared] = {}

    def of(kind: str) -> Compared:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            tracking = {"enabled": kind == "multilabel"}
            study = write_clinic(folder, clinics, clinic, write_study, {"kind": kind, **TASKS[kind]}, tracking=tracking)
            if tracking["enabled"]:  # the runs of the other stages take their time, and test_road.py looks at them
                evaluate(open_workspace(study, ["tracking.enabled=false"]))
            made[kind] = Compared(kind, study, folder / "work", compare_and_listen(study))
        return made[kind]

    return of


def two_sided(label: pd.Series, score: pd.Series, threshold: float) -> dict[str, float]:
    known = label.notna().to_numpy()
    label, score = label.to_numpy()[known].astype(int), score.to_numpy()[known]
    called = (score >= threshold).astype(int)
    return {
        "auroc": sklearn.roc_auc_score(label, score),
        "average_precision": sklearn.average_precision_score(label, score),
        "balanced_accuracy": sklearn.balanced_accuracy_score(label, called),
        "sensitivity": sklearn.recall_score(label, called),
        "specificity": sklearn.recall_score(label, called, pos_label=0),
        "ppv": sklearn.precision_score(label, called, zero_division=np.nan),
        "npv": sklearn.precision_score(label, called, pos_label=0, zero_division=np.nan),
        "f1": sklearn.f1_score(label, called),
        "mcc": sklearn.matthews_corrcoef(label, called),
        "accuracy": sklearn.accuracy_score(label, called),
        "accuracy_at_half": sklearn.accuracy_score(label, score > 0.5),
        "brier": sklearn.brier_score_loss(label, score),
    }


def by_scikit_learn(rows: pd.DataFrame, outputs: Outputs) -> dict[str, float]:
    """The metrics of one cell."""
    if outputs.kind == "binary":
        return two_sided(rows["label"], rows["score"], rows["threshold"].iloc[0])
    if outputs.kind == "multilabel":
        each = {
            name: two_sided(rows[f"label.{name}"], rows[f"score.{name}"], rows[f"threshold.{name}"].iloc[0])
            for name in outputs.names
        }
        found = pd.DataFrame(each).T.mean(skipna=False).to_dict()
        return found | {f"{metric}/{name}": each[name][metric] for name in each for metric in ("auroc", "average_precision")}
    if outputs.kind == "regression":
        label, score = rows["label"], rows["score"]
        return {
            "mae": sklearn.mean_absolute_error(label, score),
            "rmse": sklearn.root_mean_squared_error(label, score),
            "r2": sklearn.r2_score(label, score),
            "pearson": np.corrcoef(label, score)[0, 1],
        }
    scores = rows[[f"score.{name}" for name in outputs.names]].to_numpy()
    label, called = rows["label"].to_numpy().astype(int), scores.argmax(axis=1)
    found = {
        "auroc": sklearn.roc_auc_score(label, scores, multi_class="ovr"),
        "accuracy": sklearn.accuracy_score(label, called),
        "balanced_accuracy": sklearn.balanced_accuracy_score(label, called),
    }
    if outputs.kind == "ordinal":
        kappa = sklearn.cohen_kappa_score(label, called, weights="quadratic")
        return found | {"quadratic_kappa": kappa, "mae": sklearn.mean_absolute_error(label, called)}
    return found | {
        "f1": sklearn.f1_score(label, called, average="macro"),
        "mcc": sklearn.matthews_corrcoef(label, called),
        "brier": ((np.eye(len(outputs.names))[label] - scores) ** 2).sum(axis=1).mean(),
    }


@every_kind
def test_every_value_is_the_mean_over_the_draws_of_scikit_learns(compared, kind):
    made = compared(kind)
    cells = made.scored.groupby(["arm", "mode", "budget", "seed"], sort=False)
    each = [dict(zip(("arm", "mode", "budget"), key, strict=False)) | by_scikit_learn(rows, made.outputs) for key, rows in cells]
    expected = pd.DataFrame(each).groupby(["arm", "mode", "budget"]).agg(lambda values: values.mean(skipna=False))
    found = made.tables.comparison.pivot(index=["arm", "mode", "budget"], columns="metric", values="value")
    assert set(found) - set(expected) <= {"ece", "ece_scaled", "brier_scaled"}
    for metric in expected:
        np.testing.assert_allclose(found[metric], expected[metric].loc[found.index], atol=1e-6, err_msg=metric)


@every_kind
def test_the_comparison_has_every_block_with_paired_differences(compared, kind):
    table, outputs = compared(kind).tables.comparison, compared(kind).outputs
    assert table.drop_duplicates(["mode", "budget"]).set_index(["mode", "budget"])["n_seeds"].to_dict() == BLOCKS
    assert set(table["arm"]) == set(ARMS)
    assert len(table) == len(ARMS) * len(BLOCKS) * table["metric"].nunique()
    assert set(table.loc[table["primary"], "metric"]) == {PRIMARY[outputs.kind]}
    known = table[table["value"].notna()]
    assert (known["lower"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["upper"] + 1e-9).all()
    values = table.pivot(index=["mode", "budget", "metric"], columns="arm", values="value")
    gaps = table[table["arm"] == "random"].set_index(["mode", "budget", "metric"])["difference"]
    np.testing.assert_allclose(gaps, (values["random"] - values["imagenet"]).loc[gaps.index], atol=1e-9)
    assert table.loc[table["arm"] == "imagenet", ["difference", "difference_lower", "p", "p_holm"]].isna().all(axis=None)
    assert table.loc[table["primary"] & (table["arm"] == "random"), ["p", "p_holm"]].notna().all(axis=None)
    scored = compared(kind).scored
    tested = scored.drop_duplicates("patient" if kind == "ordinal" else "row_key")
    assert set(table["test_images"]) == {len(tested)}
    assert set(table["test_patients"]) == {tested["patient"].nunique()}


@every_kind
def test_pairs_matches_and_power_agree_with_the_comparison(compared, kind):
    tables = compared(kind).tables
    own = tables.comparison[tables.comparison["primary"] & (tables.comparison["arm"] == "random")].set_index(["mode", "budget"])
    pairs = tables.pairs.set_index(["mode", "budget"])
    assert set(zip(pairs["a"], pairs["b"], strict=True)) == {("random", "imagenet")}
    names = {"difference": "difference", "lower": "difference_lower", "upper": "difference_upper", "p": "p", "p_holm": "p_holm"}
    for name, other in names.items():
        np.testing.assert_allclose(pairs[name], own.loc[pairs.index, other], err_msg=name)
    assert pairs["p_delong"].notna().tolist() == [kind == "binary" and BLOCKS[block] == 1 for block in pairs.index]
    assert pairs["verdict"].tolist() == [verdict(row) for row in own.loc[pairs.index].reset_index().to_dict("records")]
    matches = tables.matches.set_index("mode")
    assert set(matches.index) == {"linear", "linear_recalibrated"}  # full has one budget: no curve
    np.testing.assert_allclose(matches["value"], [own.loc[(mode, "8"), "value"] for mode in matches.index])
    assert (matches["needed"] > 7.999).all()  # no further down than the smallest budget
    power = tables.power.pivot(index=["mode", "budget"], columns="difference", values="patients")
    assert set(power.index) == set(BLOCKS)
    assert (power[0.01] >= power[0.02]).all()
    assert (power[0.02] >= power[0.05]).all()


@every_kind
def test_every_known_label_stands_in_the_bins_and_in_the_confusion(compared, kind):
    made = compared(kind)
    reliability, confusion = made.tables.reliability, made.tables.confusion
    if kind == "regression":
        assert reliability.empty
        assert confusion.empty
        return
    once = made.scored.drop_duplicates("patient" if kind == "ordinal" else "row_key")
    columns = [f"label.{name}" for name in made.outputs.names] if kind == "multilabel" else ["label"]
    known = once[columns].notna().sum().tolist()
    if kind == "multilabel":
        assert known[1] < known[0] == len(once)
    in_bins = reliability[~reliability["scaled"]].groupby(["mode", "budget", "arm", "target"], sort=False)["n"].sum()
    in_cells = confusion.groupby(["mode", "budget", "arm", "target"], sort=False)["images"].sum()
    assert len(in_bins) == len(in_cells) == len(BLOCKS) * len(ARMS) * len(known)
    for block, draws in BLOCKS.items():
        assert in_bins.loc[block].tolist() == [draws * count for count in known] * len(ARMS)
        np.testing.assert_allclose(in_cells.loc[block], known * len(ARMS))
    cell = made.scored.query("arm == 'random' and mode == 'full'")
    table = confusion.query("arm == 'random' and mode == 'full'")
    for at, (target, own) in enumerate(table.groupby("target", sort=False)):
        names = list(dict.fromkeys(own["truth"]))
        if kind in ("multiclass", "ordinal"):
            label, called = cell["label"], cell[[f"score.{name}" for name in names]].to_numpy().argmax(axis=1)
        else:
            end = f".{target}" if kind == "multilabel" else ""
            label, called = cell[columns[at]], (cell[f"score{end}"] >= cell[f"threshold{end}"]).astype(int).to_numpy()
        there = label.notna().to_numpy()
        expected = sklearn.confusion_matrix(label[there], called[there], labels=range(len(names)))
        assert own["images"].tolist() == expected.ravel().tolist()


@every_kind
def test_the_groups_of_the_card_divide_the_test_patients(compared, kind):
    """Sex and age stand in the clinic's own table: its files say neither."""
    made = compared(kind)
    table, scored = made.tables.subgroups, made.scored
    primary = table[table["metric"] == PRIMARY[made.outputs.kind]]
    assert set(primary["column"]) == {"sex", "age"}
    assert set(primary.loc[primary["column"] == "sex", "group"]) == {"F", "M"}
    assert {"18-39", "40-64"} <= set(primary.loc[primary["column"] == "age", "group"]) <= {"18-39", "40-64", "65+", "unknown"}
    blocks = primary.groupby(["column", "mode", "arm"])
    assert (blocks["images"].sum() == scored.drop_duplicates("patient" if kind == "ordinal" else "row_key").shape[0]).all()
    assert primary.drop_duplicates("mode").set_index("mode")["budget"].to_dict() == {
        "linear": "all", "linear_recalibrated": "all", "full": "8",
    }  # fmt: skip
    small = primary["too_small"].to_numpy(bool)
    assert primary.loc[small, ["value", "gap", "difference"]].isna().all(axis=None)
    assert small.any() if kind != "ordinal" else not small[primary["column"] == "sex"].any()
    manifest = pd.read_parquet(made.work / "archive" / "manifest.parquet")
    sexes = manifest.set_index("patient")["label.sex"].to_dict()
    for row in primary[~small & (primary["column"] == "sex")].to_dict("records"):
        inside = scored[scored["patient"].map(sexes) == row["group"]]
        inside = inside[(inside["arm"] == row["arm"]) & (inside["mode"] == row["mode"]) & (inside["budget"] == row["budget"])]
        assert row["patients"] == inside["patient"].nunique()
        assert row["value"] == pytest.approx(by_scikit_learn(inside, made.outputs)[row["metric"]], abs=1e-6)


@every_kind
def test_the_page_needs_nothing_and_shows_no_pixel(compared, kind):
    made = compared(kind)
    page, text = made.page, re.sub(r"<[^>]+>", " ", made.page)
    assert "https://" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!['\"]?data:)", page)
    assert not PIXELS.search(page)
    assert not re.search(r"\bnan\b|\bNone\b", text)
    assert str(made.work) not in page
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    expected = {"Every pair of arms", "How many patients it takes", "Subgroups", "The worst errors", "All numbers"}
    expected |= {"Control: BatchNorm recalibrated", "What the embeddings are arranged by"}
    assert expected <= set(headings)
    assert ("Confusion matrices" in headings) == (kind != "regression")
    assert "method.name" not in text  # no arm was pretrained, so there are no settings of it
    table = made.tables.comparison
    for row in table[table["primary"]].to_dict("records"):
        assert f"{row['value']:.3f}".replace("-", "−") in page
    patients = table["test_patients"].iloc[0]
    assert (f"Tested on {patients} patients" in text) == (kind == "ordinal")
    assert (f"Tested on {table['test_images'].iloc[0]} images" in text) == (kind != "ordinal")
    lines = (made.work / "compare" / "comparison.md").read_text().splitlines()
    assert len(lines) == 2 + len(ARMS) * len(BLOCKS)


@every_kind
def test_the_worst_errors_are_errors_and_their_pixels_stay_here(compared, kind):
    made = compared(kind)
    local = (made.work / "compare" / "worst.html").read_text()
    assert PIXELS.search(local)
    assert "not to be passed on" in local
    keys = set(re.findall(r"\b[0-9a-f]{16}\b", local))
    assert keys
    assert keys <= set(re.findall(r"\b[0-9a-f]{16}\b", made.page))
    cell = made.predictions[made.predictions["mode"] == "full"]
    assert keys <= set(cell["row_key"])
    if kind == "binary":
        wrong = (cell["score"] >= cell["threshold"]) != (cell["label"] == 1)
        assert keys <= set(cell.loc[wrong, "row_key"])
        said = cell["score"].where(cell["score"] >= cell["threshold"], 1 - cell["score"])
        surest = cell.loc[said.where(wrong & (cell["arm"] == "random")).idxmax(), "row_key"]
        assert re.search(r"\b[0-9a-f]{16}\b", local)[0] == surest


@every_kind
def test_no_winner_is_named_where_the_interval_holds_0(compared, kind):
    made, named = compared(kind), re.compile(r"beats|loses|wins|better|worse")
    table = made.tables.comparison
    rows = table[table["primary"] & (table["arm"] == "random")]
    enough = kind != "multiclass"  # whose three classes have 8 patients each
    assert ((rows["test_patients_fewest"] >= 10) == enough).all()
    said = headline(table)
    for mode, own in rows.groupby("mode"):
        holds = (own["difference_lower"] <= 0) & (own["difference_upper"] >= 0)
        sentence = said[mode][0]
        assert sentence in made.said
        assert sentence in made.page
        assert bool(named.search(sentence)) == (enough and bool((~holds & (own["p_holm"] < 0.05)).any())), sentence
    crossing = rows[(rows["difference_lower"] <= 0) & (rows["difference_upper"] >= 0)]
    assert len(crossing)
    assert all(verdict(row) in ("unclear", "too few") for row in crossing.to_dict("records"))


def lacking(made: Compared) -> tuple[pd.DataFrame, str]:
    """The predictions of a test part without one class, and the metric of that class alone, if there is one."""
    table = made.predictions
    if made.kind == "multilabel":
        return table.assign(**{"label.mass": table["label.mass"].where(table["label.mass"] != 1)}), "auroc/mass"
    return table[table["label"] != 2], ""


@pytest.mark.parametrize("kind", ["multiclass", "ordinal", "multilabel"])
def test_a_class_that_the_test_part_lacks_makes_its_metrics_unknown(compared, kind):
    made = compared(kind)
    work = open_workspace(made.study)
    archive = index(work)
    predictions, of_class = lacking(made)
    table = make_tables(work, archive, predictions, made.outputs).comparison
    numbers = ["value", "lower", "upper", "difference", "difference_lower", "difference_upper"]
    unknown = {
        "multiclass": ["auroc", "balanced_accuracy", "f1"],
        "ordinal": ["auroc", "balanced_accuracy"],
        "multilabel": ["auroc", "average_precision", "balanced_accuracy", "sensitivity", "mcc", of_class],
    }[kind]
    assert table.loc[table["metric"].isin(unknown), numbers].isna().all(axis=None)
    known = {"multiclass": "accuracy", "ordinal": "quadratic_kappa", "multilabel": "auroc/finding"}[kind]
    assert table.loc[table["metric"] == known, "value"].notna().all()
    text = markdown(table) + re.sub(r"<[^>]+>", " ", render(table, collect_facts(work, archive, ARMS)))
    assert "nan" not in re.findall(r"[a-z]+", text)
    if kind == "ordinal":
        return  # kappa needs no class: there is a verdict
    assert "? [?, ?]" in text
    assert "The AUROC is unknown: the test set lacks a class that it needs" in text
    assert not re.search(r"random (beats|loses to|is better|is worse)", text)
    assert {verdict(row) for row in table[table["primary"] & (table["arm"] == "random")].to_dict("records")} == {"too few"}


def test_a_target_without_a_positive_label_to_learn_from_has_no_decisions(tmp_path, clinics, clinic, write_study):
    root = tmp_path / "changed"
    shutil.copytree(clinic, root)
    lines = clinics.lines_of(root)
    for line in lines:
        line["mass"] = line["mass"] if line["split"] == "test" else "0"
    clinics.write(root, lines)
    task = {"kind": "multilabel", **TASKS["multilabel"], "split": {"kind": "official"}}
    finetune = {"budgets": ["all"], "seeds": 1, "folds": 2, "linear": {"regularization": [1.0]}, "full": None}
    study = write_clinic(tmp_path, clinics, root, write_study, task, finetune=finetune)
    compare_and_listen(study)
    folder = tmp_path / "work"
    assert pd.read_parquet(folder / "evaluate" / "predictions.parquet")["threshold.mass"].isna().all()
    tables = Tables.read(folder / "compare")
    values = tables.comparison.pivot(index="arm", columns="metric", values="value")
    assert values[["sensitivity", "specificity", "balanced_accuracy", "f1", "mcc"]].isna().all(axis=None)
    assert (values["auroc/mass"] == 0.5).all()  # the same for every image
    assert values["auroc/finding"].notna().all()
    assert set(tables.confusion["target"]) == {"finding"}
    assert "mass" in (folder / "compare" / "report.html").read_text()


def test_every_pretraining_run_of_an_arm_is_fine_tuned_and_counted(tmp_path, clinics, clinic, write_study):
    arms = {"imagenet": {"init": "imagenet"}, "in_domain": {"method": "simsiam"}}
    pretrain = {
        "method": {"name": "simsiam", "projector_dim": 16, "projector_hidden": 16},
        "epochs": 1,
        "batch_size": 16,
        "seeds": 2,
    }
    finetune = {"budgets": ["all"], "folds": 2, "linear": {"regularization": [1.0]}, "full": None}
    changes = {"arms": arms, "pretrain": pretrain, "finetune": finetune}
    study = write_clinic(tmp_path, clinics, clinic, write_study, {"kind": "binary", **TASKS["binary"]}, **changes)
    said = compare_and_listen(study)
    made = Compared("binary", study, tmp_path / "work", said)
    assert made.predictions.groupby("arm")["run"].unique().map(list).to_dict() == {"imagenet": [0], "in_domain": [0, 1]}
    found = made.tables.comparison[made.tables.comparison["primary"]].set_index("arm")
    assert found["n_runs"].to_dict() == {"imagenet": 1, "in_domain": 2}
    runs = made.predictions.query("arm == 'in_domain'").groupby("run")
    each = [sklearn.roc_auc_score(rows["label"], rows["score"]) for _, rows in runs]
    assert each[0] != each[1]
    assert found.loc["in_domain", "value"] == pytest.approx(np.mean(each))
    assert made.tables.pairs["p_delong"].isna().all()  # there is more than one model
    assert "for this one pretraining run" not in said + made.page
    assert "Pretraining of in_domain-run1: not converged" in made.page
    card = (made.work / "compare" / "model_cards" / "in_domain.md").read_text()
    assert f"{found.loc['in_domain', 'value']:.3f} [" in card


def test_the_arms_are_runs_below_the_comparison(compared):
    from mlflow import MlflowClient

    made = compared("multilabel")
    client = MlflowClient(f"sqlite:///{made.work / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "compare")
    children = {run.data.tags["medssl.arm"]: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert sorted(children) == sorted(ARMS)
    table = made.tables.comparison
    counts = {f"compare/{name}": table[name].iloc[0] for name in ("test_patients", "test_images", "replicates_used")}
    assert {name: value for name, value in parent.data.metrics.items() if name.startswith("compare/")} == counts
    files = {item.path for item in client.list_artifacts(parent.info.run_id, "comparison")}
    made_files = {f"comparison/{path.name}" for path in (made.work / "compare").iterdir()}
    assert files == made_files - {"comparison/worst.html", "comparison/receipt.json"}
    ends = {"value": "", "lower": "_lower", "upper": "_upper", "p": "_p", "p_holm": "_p_holm"}
    ends |= {f"difference{end}": f"_difference{end}" for end in ("", "_lower", "_upper")}
    for arm, run in children.items():
        assert run.data.params["arm"] == arm
        assert run.data.params["init"] == arm
        rows = table[table["arm"] == arm].to_dict("records")
        expected = {
            f"test/{row['mode']}/{row['budget']}/{row['metric']}{end}": row[name]
            for row in rows
            for name, end in ends.items()
            if row[name] == row[name]
        }
        assert {name: value for name, value in run.data.metrics.items() if name.startswith("test/")} == pytest.approx(expected)
        assert "test/linear/all/auroc/mass" in expected
        assert ("test/full/8/auroc_p_holm" in expected) == (arm == "random")


def test_a_second_time_nothing_has_changed(compared):
    made = compared("regression")
    before = {path: path.stat().st_mtime_ns for path in made.work.rglob("*") if path.is_file()}
    said = compare_and_listen(made.study)
    assert "compare nothing has changed" in said
    assert said.endswith(made.said[-200:])  # the answer is given again
    assert {path: path.stat().st_mtime_ns for path in made.work.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def again(compared, tmp_path_factory):
    """(page, tables, said): the test labels scored a second time, images let go, and the card asked for other subgroups."""
    made, folder = compared("regression"), tmp_path_factory.mktemp("again")
    shutil.copytree(made.study.parent, folder, dirs_exist_ok=True)
    card = yaml.safe_load((folder / "card.yaml").read_text())
    (folder / "card.yaml").write_text(yaml.safe_dump(card | {"subgroups": ["grade"]}, sort_keys=False))
    changes, said = [f"work_dir={folder / 'work'}", "tracking.images=true"], io.StringIO()
    with contextlib.redirect_stdout(said):
        evaluate(open_workspace(folder / "study.yaml", changes), fresh=True)
    told = " ".join(said.getvalue().split()) + compare_and_listen(folder / "study.yaml", changes)
    return (folder / "work" / "compare" / "report.html").read_text(), Tables.read(folder / "work" / "compare"), told


def test_scoring_the_test_labels_again_is_counted_and_told(compared, again):
    page, tables, said = again
    assert "of them had been scored before, which the report says" in said
    assert "The test labels were scored twice" in page
    assert "The test labels were scored once" in compared("regression").page
    pd.testing.assert_frame_equal(tables.comparison, compared("regression").tables.comparison)


def test_images_stand_on_the_page_where_the_study_lets_them(again):
    page, _, _ = again
    assert PIXELS.search(page)
    assert "https://" not in page


def test_other_subgroups_need_no_new_index(again):
    _, tables, said = again
    assert set(tables.subgroups["column"]) == {"grade"}
    assert set(tables.subgroups["group"]) == {"none", "mild", "severe"}
    assert "index clinic" not in said


def test_arms_without_the_reference_are_refused_before_any_work(compared):
    made = compared("binary")
    before = sorted(path for path in made.work.rglob("*") if path.is_file())
    with pytest.raises(StudyError, match=r"--arm: leaves out imagenet, .* add --arm imagenet, or set evaluate\.reference=random"):
        compare(open_workspace(made.study), arms=["random"])
    assert sorted(path for path in made.work.rglob("*") if path.is_file()) == before
