"""The whole road on one small study: raw DICOM in, a tracked comparison out; a second time it does nothing."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import medssl
from medssl.cli import app
from medssl.stages.pipeline import run_pipeline
from medssl.stages.workspace import open_workspace
from medssl.tracking import lines

REPOSITORY = Path(__file__).parents[2]
PIPELINE = REPOSITORY / "pipelines" / "imagenet_vs_in_domain.yaml"
ARMS = ["random", "imagenet", "in_domain", "imagenet_in_domain"]


@pytest.fixture(scope="module")
def road(tmp_path_factory, write_study):
    """(study file, work folder) after the whole pipeline."""
    study = write_study(tmp_path_factory.mktemp("road"))
    work = open_workspace(study)
    run_pipeline(work, PIPELINE)
    return study, work.folder


@pytest.fixture(scope="module")
def client(road):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{road[1] / 'mlflow.db'}")


def runs(client):
    experiment = client.get_experiment_by_name("small")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_the_manifest_fits_its_schema_and_the_archive(road, phantom_root):
    from medssl.data.manifest import COLUMNS

    manifest = pd.read_parquet(road[1] / "archive" / "manifest.parquet")
    assert list(manifest.columns) == [column.name for column in COLUMNS] + ["label.opacity"]
    assert len(manifest) == len(list(phantom_root.rglob("*.dcm")))
    assert manifest["patient"].nunique() == 40
    assert set(manifest["patient_from"]) == {"id"}
    assert set(manifest["vendor"]) == {"phantom_a", "phantom_b"}
    assert set(manifest["inverted"]) == {True, False}
    never_empty = [column.name for column in COLUMNS if column.empty == "never"]
    assert not manifest[never_empty].isna().any().any()


def test_predictions_hold_every_test_image_of_every_cell_once(road):
    splits = pd.read_parquet(road[1] / "splits" / "splits.parquet")
    test = set(splits.loc[(splits["split"] == "test") & splits["label"].notna(), "row_key"])
    predictions = pd.read_parquet(road[1] / "evaluate" / "predictions.parquet")
    cells = predictions.groupby(["arm", "mode", "budget", "seed"])
    assert len(cells) == 4 * (2 + 1 + 1)
    assert all(set(cell["row_key"]) == test and len(cell) == len(test) for _, cell in cells)
    assert predictions["score"].between(0, 1).all()


def test_validation_predictions_stay_inside_the_budget(road):
    splits = pd.read_parquet(road[1] / "splits" / "splits.parquet").set_index("row_key")
    files = sorted((road[1] / "finetune" / "cells").rglob("validation.parquet"))
    assert len(files) == 4 * (2 + 1 + 1)
    for path in files:
        rows = splits.loc[pd.read_parquet(path)["row_key"]]
        assert set(rows["split"]) == {"train"}


def test_the_comparison_has_every_arm_with_intervals(road):
    table = pd.read_parquet(road[1] / "compare" / "comparison.parquet")
    auroc = table[table["metric"] == "auroc"]
    assert set(auroc["arm"]) == set(ARMS)
    assert (auroc["lower"] <= auroc["value"]).all()
    assert (auroc["value"] <= auroc["upper"]).all()
    others = auroc[auroc["arm"] != "imagenet"]
    assert others[["difference", "difference_lower", "difference_upper"]].notna().all().all()
    page = (road[1] / "compare" / "report.html").read_text()
    assert all(arm in page for arm in ARMS)
    assert "ynthetic" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_every_pair_of_arms_is_compared_in_every_block(road):
    table = pd.read_parquet(road[1] / "compare" / "comparison.parquet")
    pairs = pd.read_parquet(road[1] / "compare" / "pairs.parquet")
    blocks = pairs.groupby(["mode", "budget"])
    assert set(blocks.groups) == {("linear", "8"), ("linear", "all"), ("full", "8")}
    every = {frozenset(pair) for pair in itertools.combinations(ARMS, 2)}
    for block, own in blocks:
        assert {frozenset(pair) for pair in zip(own["a"], own["b"], strict=True)} == every
        assert len(own) == len(every)
        assert (own["p_holm"] >= own["p"]).all()
        values = table[(table["mode"] == block[0]) & (table["budget"] == block[1]) & table["primary"]].set_index("arm")["value"]
        np.testing.assert_allclose(own["difference"], values[own["a"]].to_numpy() - values[own["b"]].to_numpy(), atol=1e-9)


def test_the_groups_that_the_card_names_divide_the_test_images(road):
    subgroups = pd.read_parquet(road[1] / "compare" / "subgroups.parquet")
    manifest = pd.read_parquet(road[1] / "archive" / "manifest.parquet").set_index("row_key")
    predictions = pd.read_parquet(road[1] / "evaluate" / "predictions.parquet")
    tested = manifest.loc[predictions["row_key"].unique()]
    assert set(subgroups["column"]) == {"sex", "age", "vendor", "view"}
    assert set(subgroups["arm"]) == set(ARMS)
    own = subgroups[(subgroups["arm"] == "in_domain") & (subgroups["mode"] == "linear") & (subgroups["metric"] == "auroc")]
    for column in ("sex", "vendor", "view"):
        found = own[own["column"] == column].set_index("group")["images"].to_dict()
        assert found == tested[column].fillna("unknown").value_counts().to_dict()
    ages = own[own["column"] == "age"].set_index("group")["images"]
    assert set(ages.index) <= {"0-17", "18-39", "40-64", "65+", "unknown"}
    assert ages.get("65+", 0) == (tested["age"] >= 65).sum()


def test_each_pretrained_encoder_has_a_model_card_with_the_numbers_of_the_table(road):
    table = pd.read_parquet(road[1] / "compare" / "comparison.parquet")
    cards = {path.stem: path.read_text() for path in (road[1] / "compare" / "model_cards").iterdir()}
    assert set(cards) == {"in_domain", "imagenet_in_domain"}
    for arm, card in cards.items():
        names = {name.replace("_", r"\_") for name in ARMS} - {arm.replace("_", r"\_")}
        assert all(f"| {name} | " in card for name in names)  # against every other arm
        for row in table[(table["arm"] == arm) & ~table["metric"].str.contains("/") & table["value"].notna()].to_dict("records"):
            assert f"{row['value']:.3f} [{row['lower']:.3f}, {row['upper']:.3f}]" in card, row["metric"]
        assert "Synthetic data" in card
        assert "| sex |" in card
        assert "simsiam" in card
        encoder = json.loads((road[1] / "pretrain" / arm / "encoder" / "encoder.json").read_text())
        assert encoder["weights_sha256"] in card
        assert str(road[1]) not in card
    assert "photographs" in cards["imagenet_in_domain"].partition("## Limits")[2]


def test_the_worst_errors_are_kept_beside_the_report(road):
    local, page = ((road[1] / "compare" / name).read_text() for name in ("worst.html", "report.html"))
    assert "data:image/png" in local or "data:image/jpeg" in local
    assert "data:image/png" not in page
    assert "data:image/jpeg" not in page


def test_a_second_time_does_nothing_and_says_so(road, capsys):
    before = {path: path.stat().st_mtime_ns for path in road[1].rglob("*") if path.is_file()}
    run_pipeline(open_workspace(road[0]), PIPELINE)
    said = capsys.readouterr().out
    for stage in ("index", "pretrain", "finetune", "evaluate", "compare"):
        assert f"{stage} nothing has changed" in said or f"{stage} in_domain: nothing has changed" in said, stage
    after = {path: path.stat().st_mtime_ns for path in road[1].rglob("*") if path.is_file()}
    assert after == before


def test_reading_the_test_labels_again_is_counted(road):
    reads = json.loads((road[1] / "evaluate" / "test_reads.json").read_text())
    assert set(reads.values()) == {1}
    assert len(reads) == 4 * (2 + 1 + 1)


def test_every_stage_is_a_run_with_its_parameters_and_data(road, client):
    found = runs(client)
    assert {"index", "pretrain-in_domain", "pretrain-imagenet_in_domain", "evaluate", "compare"} <= set(found)
    assert {f"finetune-{arm}" for arm in ARMS} <= set(found)
    pretraining = found["pretrain-in_domain"]
    assert pretraining.info.status == "FINISHED"
    assert pretraining.data.params["pretrain.epochs"] == "2"
    assert [(item.dataset.name, len(item.dataset.digest) > 10) for item in pretraining.inputs.dataset_inputs] == [
        ("archive (phantom_cxr)", True)
    ]
    assert all(run.inputs.dataset_inputs for run in found.values() if "mlflow.parentRunId" not in run.data.tags)
    steps = [metric.step for metric in client.get_metric_history(pretraining.info.run_id, "pretrain/loss")]
    logged = [json.loads(line) for line in (road[1] / "tracking/pretrain-in_domain/001/metrics.jsonl").read_text().splitlines()]
    assert steps == [line["step"] for line in logged if "pretrain/loss" in line]
    names = {item.path for item in client.list_artifacts(pretraining.info.run_id)}
    assert {"study", "encoder"} <= names


def test_what_the_views_look_like_is_kept_with_each_pretrained_arm(road, client):
    """As pixels, which the tracker does not get unless the study says so."""
    for arm in ("in_domain", "imagenet_in_domain"):
        assert (road[1] / "pretrain" / arm / "views.png").stat().st_size > 10_000
        log = road[1] / "tracking" / f"pretrain-{arm}" / "001" / "events.jsonl"
        sheets = [event for _, event in lines.read(log) if event.get("folder") == "views"]
        assert [event["pixels"] for event in sheets] == [True]
        run = runs(client)[f"pretrain-{arm}"]
        assert "views" not in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_the_arms_are_children_of_the_comparison(road, client):
    found = runs(client)
    parent = found["compare"].info.run_id
    children = [run for run in found.values() if run.data.tags.get("mlflow.parentRunId") == parent]
    assert {run.data.tags["medssl.arm"] for run in children} == set(ARMS)
    table = pd.read_parquet(road[1] / "compare" / "comparison.parquet")
    for run in children:
        arm = run.data.tags["medssl.arm"]
        for row in table[(table["arm"] == arm) & table["primary"]].to_dict("records"):
            name = f"test/{row['mode']}/{row['budget']}/auroc"
            ends = {"": "value", "_lower": "lower", "_upper": "upper"}
            ends |= {"_difference": "difference", "_p_holm": "p_holm"} if arm != "imagenet" else {}
            for end, column in ends.items():
                assert run.data.metrics[name + end] == pytest.approx(row[column]), name + end
        cards = [item.path for item in client.list_artifacts(run.info.run_id, "comparison")]
        assert cards == ([f"comparison/{arm}.md"] if arm.endswith("in_domain") else [])
    files = {item.path for item in client.list_artifacts(parent, "comparison")}
    assert {"comparison/report.html", "comparison/comparison.md", "comparison/pairs.parquet"} <= files
    assert "comparison/worst.html" not in files
    positives = found["compare"].data.metrics["compare/test_positives"]
    assert positives == table["test_positives"].iloc[0]


def test_the_encoder_loads_and_turns_files_and_arrays_into_features(road, phantom_root, client):
    encoder = medssl.load_encoder(str(road[1] / "pretrain" / "in_domain" / "encoder"))
    files = sorted(phantom_root.rglob("*.dcm"))[:3]
    features = encoder.features(files)
    assert features.shape == (3, encoder.feature_dim)
    assert np.isfinite(features).all()
    grey = np.random.default_rng(0).integers(0, 255, (50, 40)).astype(np.uint8)
    assert float((encoder.prepare(grey) - encoder.prepare(grey / 255.0)).abs().max()) <= 1 / 255  # 8 bits are stored for bytes
    assert encoder.card.synthetic
    assert encoder.card.method.name == "simsiam"
    run_id = runs(client)["pretrain-in_domain"].info.run_id
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{road[1] / 'mlflow.db'}")
    again = medssl.load_encoder(f"runs:/{run_id}/encoder")
    assert np.array_equal(again.features(files), features)


def test_embed_equals_the_features_that_were_fine_tuned_on(road, phantom_root):
    from medssl.stages.embed import embed

    path = embed(open_workspace(road[0]), str(road[1] / "pretrain" / "in_domain" / "encoder"))
    table = pd.read_parquet(path)
    assert len(table) == len(list(phantom_root.rglob("*.dcm")))
    one = pd.read_parquet(road[1] / "private" / "locate.parquet").set_index("row_key").loc[table["row_key"][0], "path"]
    encoder = medssl.load_encoder(str(road[1] / "pretrain" / "in_domain" / "encoder"))
    assert np.abs(encoder.features(phantom_root / one)[0] - table["features"][0]).max() < 1e-4


def test_finetuning_reads_no_test_label(road, tmp_path, write_study, phantom_root):
    """With every test and validation label turned around, the fitted heads are the same to the last bit."""
    import shutil

    from medssl.stages.finetune import finetune

    study = write_study(tmp_path)
    shutil.copytree(road[1], tmp_path / "work")
    work = open_workspace(study)
    path = work.folder / "splits" / "splits.parquet"
    splits = pd.read_parquet(path)
    held = splits["split"].isin(["test", "validation"]) & splits["label"].notna()
    splits.loc[held, "label"] = 1 - splits.loc[held, "label"]
    splits.to_parquet(path)
    shutil.rmtree(work.folder / "finetune" / "cells")
    finetune(work)
    heads = sorted((road[1] / "finetune" / "cells").rglob("head.safetensors"))
    assert len(heads) == 4 * (2 + 1 + 1)
    for head in heads:
        assert head.read_bytes() == (work.folder / head.relative_to(road[1])).read_bytes()


def test_locate_names_the_file(road, phantom_root):
    key = pd.read_parquet(road[1] / "archive" / "manifest.parquet")["row_key"][0]
    out = subprocess.run(
        [sys.executable, "-m", "medssl", "locate", key, "-c", str(road[0])], capture_output=True, text=True, check=True
    ).stdout
    assert (phantom_root / out.split()[2]).is_file()


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys, medssl, medssl.cli; print(sorted({'torch', 'numpy', 'pandas', 'mlflow', 'sklearn', 'pydicom', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert app.info.help
