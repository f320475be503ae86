"""The collapse experiments on a small study: a table, a figure, runs in the tracker; a second time nothing."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from medssl.errors import DataError, StudyError
from medssl.stages.diagnose import VARIANTS, diagnose
from medssl.stages.workspace import open_workspace


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory, write_study):
    folder = tmp_path_factory.mktemp("diagnose")
    study = write_study(folder)
    out = folder / "figure.svg"
    diagnose(open_workspace(study), steps=6, out=out)
    return study, out


def test_the_figure_shows_every_variant(diagnosed):
    study, out = diagnosed
    work = open_workspace(study)
    text = out.read_text()
    ElementTree.fromstring(text)
    assert text == (work.folder / "diagnose" / "diagnose.svg").read_text()
    assert all(variant.name in text for variant in VARIANTS)


def test_the_tracker_has_a_child_for_each_variant(diagnosed):
    from mlflow import MlflowClient

    folder = open_workspace(diagnosed[0]).folder
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "diagnose")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(VARIANTS)
    assert all("pretrain/z_effective_rank" in child.data.metrics for child in children)


def test_a_second_time_nothing_is_trained(diagnosed, capsys):
    before = {path: path.stat().st_mtime_ns for path in open_workspace(diagnosed[0]).folder.glob("diagnose/*/trial.json")}
    assert len(before) == len(VARIANTS)
    diagnose(open_workspace(diagnosed[0]), steps=6)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    said = capsys.readouterr().out
    assert said.count("nothing has changed") >= len(VARIANTS)
    assert "no stop-gradient" in said


def test_what_cannot_be_diagnosed_is_one_line(diagnosed):
    with pytest.raises(DataError, match="fewer than one batch of 500"):
        diagnose(open_workspace(diagnosed[0], ["pretrain.batch_size=500"]), steps=6)
    with pytest.raises(StudyError, match="none is pretrained"):
        diagnose(open_workspace(diagnosed[0], ["arms={imagenet: {init: imagenet}}"]), steps=6)
    with pytest.raises(StudyError, match="--arm in_domian: is no arm of the study; did you mean 'in_domain'"):
        diagnose(open_workspace(diagnosed[0]), steps=6, arm="in_domian")


def test_a_diverged_run_is_a_result_also_a_second_time(tmp_path, write_study, capsys):
    study = write_study(tmp_path)
    for _ in range(2):
        assert not diagnose(open_workspace(study, ["pretrain.optimizer.base_lr=1.0e+30"]), steps=4)
    assert "nothing has changed" in capsys.readouterr().out
