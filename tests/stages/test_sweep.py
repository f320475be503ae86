"""The search without labels: the same budget for every method, exact when it goes on, printed in the report when labels chose."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medssl.errors import DataError, StudyError
from medssl.stages.index import index
from medssl.stages.pretraining import plan_of
from medssl.stages.smallest_budget import SmallestBudget
from medssl.stages.sweep import UNLEARNT, _is_ranked, sweep
from medssl.stages.trial import trial_inputs
from medssl.stages.workspace import open_workspace

METHODS = [
    {"name": "simsiam", "projector_dim": 32, "projector_hidden": 32},
    {"name": "simclr", "projector_dim": 16, "projector_hidden": 32},
]
SWEEP = {"methods": METHODS, "trials": 2, "samples": 70, "images": 64, "lr_factor": [0.5, 2.0]}


@pytest.fixture(scope="module")
def anything_counts():
    """So few steps teach nothing, which a ranking without labels refuses; here they count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medssl.stages.sweep.UNLEARNT", 10.0)
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, write_study, anything_counts):
    study = write_study(tmp_path_factory.mktemp("sweep"), sweep=SWEEP)
    work = open_workspace(study)
    return study, work.folder, sweep(work)


def receipts(folder) -> dict[str, dict]:
    return {
        f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text())
        for path in sorted(folder.glob("sweep/*/*/receipt.json"))
    }


def test_every_method_has_the_same_trials_samples_and_ranges(swept):
    found = receipts(swept[1])
    assert list(found) == ["simclr/000", "simclr/001", "simsiam/000", "simsiam/001"]
    for number in ("000", "001"):
        one, other = found[f"simclr/{number}"], found[f"simsiam/{number}"]
        assert one["facts"]["drawn"] == other["facts"]["drawn"]
        assert one["inputs"]["plan"]["max_steps"] == other["inputs"]["plan"]["max_steps"] == 70 // 16
    simsiam = found["simsiam/000"]["facts"]
    assert simsiam["base_lr"] == pytest.approx(0.05 * simsiam["drawn"]["lr_factor"])
    assert found["simsiam/000"]["facts"]["drawn"] != found["simsiam/001"]["facts"]["drawn"]


def test_the_best_is_the_healthy_trial_of_highest_rank(swept):
    for name, best in swept[2].items():
        trials = [value["facts"] for key, value in receipts(swept[1]).items() if key.startswith(f"{name}/")]
        ranked = [trial for trial in trials if _is_ranked(trial)]
        assert best["score"] == max(trial["rankme"] for trial in ranked)
        assert best["labels"] is None
        assert json.loads((swept[1] / "sweep" / name / "result.json").read_text())["score"] == best["score"]


def test_only_trials_that_have_learnt_without_collapsing_are_ranked(monkeypatch):
    monkeypatch.setattr("medssl.stages.sweep.UNLEARNT", UNLEARNT)
    trial = {"state": "healthy", "score": 1.0, "auroc": None, "nearness": [0.9, 0.5]}
    unlearnt = trial | {"nearness": [0.9, 0.85]}
    assert _is_ranked(trial)
    assert not _is_ranked(unlearnt)
    assert _is_ranked(unlearnt | {"auroc": 0.6})
    assert not _is_ranked(trial | {"state": "dimensional collapse"})
    assert not _is_ranked(trial | {"state": "diverged", "auroc": 0.6})
    assert not _is_ranked(trial | {"score": None})


def test_a_sweep_in_which_nothing_learns_is_refused(tmp_path, write_study, monkeypatch):
    monkeypatch.setattr("medssl.stages.sweep.UNLEARNT", UNLEARNT)
    study = write_study(tmp_path, sweep=SWEEP | {"methods": METHODS[:1], "trials": 1, "lr_factor": [1e-6, 1e-6]})
    with pytest.raises(DataError, match=r"none of 1 trials has learnt anything without collapsing; raise sweep\.samples"):
        sweep(open_workspace(study))


def test_trials_are_children_in_the_tracker(swept):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept[1] / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    parent = next(run for run in runs if run.info.run_name == "sweep")
    children = [run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(children) == ["sweep-simclr_000", "sweep-simclr_001", "sweep-simsiam_000", "sweep-simsiam_001"]


def test_gone_on_it_draws_and_finds_the_same(swept):
    before = receipts(swept[1])
    (swept[1] / "sweep" / "simsiam" / "001" / "receipt.json").unlink()
    assert sweep(open_workspace(swept[0])) == swept[2]
    assert receipts(swept[1]) == before


def test_ranked_by_labels_only_the_smallest_budget_is_read_and_the_report_says_so(tmp_path, write_study):
    from medssl.stages.comparison_facts import _chosen_by

    study = write_study(tmp_path, sweep=SWEEP | {"methods": METHODS[:1], "rank_by": "labels"})
    best = sweep(open_workspace(study))["simsiam"]
    assert best["labels"] == "8 labelled patients, the smallest label budget"
    assert 0 <= best["auroc"] <= 1
    assert best["score"] == best["auroc"]
    sets = [f"pretrain.optimizer.base_lr={best['base_lr']:.6g}", f"pretrain.optimizer.weight_decay={best['weight_decay']:.6g}"]
    chosen = open_workspace(study, [*sets, f"pretrain.views={{policy: chest_xray, strength: {best['strength']:.4g}}}"])
    (note,) = _chosen_by(chosen)
    assert "were chosen by the labels of 8 labelled patients, the smallest label budget: 2 trials of 64 samples each" in note
    assert _chosen_by(open_workspace(study)) == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"samples": 3}, DataError, r"sweep\.samples: is 3, fewer than one batch of 16"),
        ({"methods": [METHODS[0], METHODS[0]]}, StudyError, "names a method twice"),
        ({"methods": [{"name": "simclear"}]}, StudyError, r"sweep\.methods\.0\.name: .* did you mean 'simclr'"),
        ({"methods": [METHODS[0], {}]}, StudyError, r"sweep\.methods\.1\.name: is None"),
        ({"arm": "nobody"}, StudyError, "sweep.arm is 'nobody', which is no arm"),
        ({"strength": [2.0, 1.0]}, StudyError, "the first number must not be above the second"),
    ],
)
def test_wrong_settings_are_one_line(swept, write_study, tmp_path, changes, error, words):
    study = write_study(tmp_path, sweep=SWEEP | changes)
    with pytest.raises(error, match=words) as caught:
        sweep(open_workspace(study))
    assert "\n" not in str(caught.value)


def test_trials_that_diverge_are_a_result_also_when_it_goes_on(tmp_path, write_study, capsys):
    study = write_study(tmp_path, sweep=SWEEP | {"methods": METHODS[:1], "lr_factor": [1e28, 1e30]})
    for _ in range(2):
        with pytest.raises(DataError, match="none of 2 trials has learnt anything"):
            sweep(open_workspace(study))
    assert capsys.readouterr().out.count("diverged") == 4
    assert len(list(tmp_path.glob("work/tracking/sweep-simsiam_*/*"))) == 2


def test_the_smallest_budget_is_that_of_the_modes_that_are_used(tmp_path, write_study):
    study = write_study(tmp_path, finetune={"budgets": ["all"], "linear": None, "full": {"budgets": [8], "epochs": 1}})
    work = open_workspace(study)
    assert SmallestBudget(work, index(work)).text == "8 labelled patients, the smallest label budget"


def test_a_trial_of_another_store_or_precision_is_another_trial(tmp_path, write_study):
    study = write_study(tmp_path)

    def inputs(*sets):
        work = open_workspace(study, list(sets))
        return trial_inputs(work, archive, np.arange(20), plan_of(work.study), "in_domain")

    archive = index(open_workspace(study))
    assert inputs() == inputs()
    assert inputs("store.size=64") != inputs()
    assert inputs("pretrain.precision=bfloat16") != inputs()
