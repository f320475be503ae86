"""Arms by every kind of init, and several pretraining runs of one, on the phantom with a real SQLite tracker."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from medssl.errors import CheckpointError, StudyError, TrackingError, WeightsError
from medssl.models.encoder_file import read_card
from medssl.stages.arms import load_arm
from medssl.stages.encoders import initial_encoder
from medssl.stages.index import index
from medssl.stages.pretrain import encoder_folder, pretrain, pretrain_facts
from medssl.stages.starts import start_of
from medssl.stages.workspace import open_workspace
from medssl.tracking.locks import locked
from medssl.tracking.mlflow_store import Store
from medssl.tracking.sync import sync_all

CPU = torch.device("cpu")
QUICK = ["pretrain.epochs=1", "pretrain.knn_images=0"]


def opened(study, arms: dict | None = None, *sets: str):
    return open_workspace(study, [*QUICK, *([f"arms={json.dumps(arms)}"] if arms else []), *sets])


def said(capsys) -> str:
    out, err = capsys.readouterr()
    return " ".join((out + err).split())


@pytest.fixture(scope="module")
def twice(tmp_path_factory, write_study):
    """A study file, and its work folder in which one arm was pretrained two times and registered."""
    study = write_study(tmp_path_factory.mktemp("twice"), evaluate={"reference": "in_domain"}, finetune={"budgets": [8]})
    work = opened(study, {"in_domain": {"method": "simsiam"}}, "pretrain.seeds=2", "tracking.register=phantom-encoder")
    pretrain(work)
    sync_all(work.folder / "tracking", work.tracking_settings())
    return study, work


def test_each_run_has_a_seed_a_folder_a_log_and_a_receipt_of_its_own(twice):
    work = twice[1]
    assert [work.study.runs_of("in_domain"), encoder_folder(work, "in_domain").parent.name] == [2, "in_domain"]
    assert encoder_folder(work, "in_domain", 1).parent.name == "in_domain-run1"
    cards = [read_card(encoder_folder(work, "in_domain", run)) for run in range(2)]
    assert [card.run for card in cards] == [0, 1]
    assert cards[0].seed == work.study.seed != cards[1].seed == work.study.seed_of_run(1)
    archive = index(work)
    encoders = [load_arm(work, archive, "in_domain", run, CPU) for run in range(2)]
    assert encoders[0].sha256 != encoders[1].sha256
    assert [arm.run for arm in encoders] == [0, 1]
    assert [arm.name for arm in encoders] == ["in_domain", "in_domain-run1"]
    starts = [initial_encoder(work, "in_domain", run)[0].backbone.network.conv_stem.weight for run in range(2)]
    assert not torch.equal(*starts), "random weights are drawn anew for each run"
    for run, name in enumerate(("pretrain-in_domain", "pretrain-in_domain-run1")):
        event = json.loads((work.folder / "tracking" / name / "001" / "events.jsonl").read_text().splitlines()[0])
        assert event["tags"]["medssl.run"] == str(run)
        facts = pretrain_facts(work, "in_domain", run)
        assert (facts["run"], facts["init_saw"]) == (run, "nothing")
        assert (facts["converged"], facts["convergence"]) == (False, "1 epoch, fewer than 100")


def test_the_first_run_is_that_of_a_study_with_one(twice, tmp_path, write_study):
    study = write_study(tmp_path, evaluate={"reference": "in_domain"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    work = opened(study, {"in_domain": {"method": "simsiam"}})
    pretrain(work)
    one, two = (read_card(encoder_folder(w, "in_domain")).weights_sha256 for w in (work, twice[1]))
    assert one == two


def test_asked_again_nothing_is_done_and_a_lost_run_alone_is_made_again(twice, capsys):
    study, before = twice
    again = opened(study, {"in_domain": {"method": "simsiam"}}, "pretrain.seeds=2")
    sha = read_card(encoder_folder(before, "in_domain", 1)).weights_sha256
    capsys.readouterr()
    pretrain(again)
    text = said(capsys)
    assert "in_domain: nothing has changed" in text
    assert "in_domain-run1: nothing has changed" in text
    shutil.rmtree(encoder_folder(before, "in_domain", 1).parent)
    pretrain(again)
    text = said(capsys)
    assert "in_domain: nothing has changed" in text
    assert "in_domain-run1: the encoder is in" in text
    assert read_card(encoder_folder(before, "in_domain", 1)).weights_sha256 == sha


def test_a_third_run_is_added_and_the_cost_of_all_is_said(twice, capsys, tmp_path, write_study):
    study = write_study(tmp_path, evaluate={"reference": "in_domain"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    work = opened(study, {"in_domain": {"method": "simsiam"}, "random": {}}, "pretrain.seeds=2")
    assert work.study.runs_of("random") == 1
    pretrain(work)
    text = said(capsys)
    assert "2 times: " in text
    assert "samples in all" in text
    assert "arm in_domain: " in text
    assert "tensors drawn at random" in text
    assert "pretraining has not converged: 1 epoch, fewer than 100" in text


def test_registered_encoders_are_arms_and_a_moved_alias_is_noticed(twice, capsys):
    study, work = twice
    uri = work.tracking_settings().store_uri
    store = Store(uri)
    with store.calls() as client:
        versions = client.search_model_versions("name = 'phantom-encoder'")
        runs = {version.tags["medssl.run"]: str(version.version) for version in versions}
        assert set(runs) == {"0", "1"}
        client.set_registered_model_alias("phantom-encoder", "best", runs["0"])
        run_id = next(version.run_id for version in versions if str(version.version) == runs["0"])
    arms = {
        "in_domain": {"method": "simsiam"},
        "version": {"init": f"models:/phantom-encoder/{runs['0']}"},
        "alias": {"init": "models:/phantom-encoder@best"},
        "run": {"init": f"runs:/{run_id}/encoder"},
        "folder": {"init": str(encoder_folder(work, "in_domain"))},
    }
    now = opened(study, arms)
    archive = index(now)
    capsys.readouterr()
    loaded = {name: load_arm(now, archive, name, 0, CPU) for name in arms}
    assert len({arm.sha256 for arm in loaded.values()}) == 1
    assert loaded["alias"].source == f"encoder: version {runs['0']} of the registered model phantom-encoder, alias best"
    assert loaded["run"].source == f"encoder: encoder of the MLflow run {run_id}"
    assert all(loaded[name].saw.startswith("proven") for name in ("version", "alias", "run", "folder"))
    text = said(capsys)
    assert "arm alias: 294 matched, 0 missing, 0 unexpected, from encoder: version" in text
    assert "warning" not in text
    first = start_of(now, "alias").sha256
    with store.calls() as client:
        client.set_registered_model_alias("phantom-encoder", "best", runs["1"])
    moved = opened(study, arms)
    assert start_of(moved, "alias").sha256 != first == start_of(moved, "version").sha256
    assert load_arm(moved, archive, "alias", 0, CPU).sha256 != loaded["alias"].sha256


def test_an_encoder_of_another_split_is_warned_of(twice, tmp_path, write_study, capsys):
    work = twice[1]
    study = write_study(tmp_path, seed=7, evaluate={"reference": "other"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    other = opened(study, {"other": {"init": str(encoder_folder(work, "in_domain"))}})
    archive = index(other)
    capsys.readouterr()
    arm = load_arm(other, archive, "other", 0, CPU)
    assert arm.saw == "its pretraining may have seen these test patients: not checked"
    load_arm(other, archive, "other", 0, CPU)
    assert said(capsys).count("arm other: its pretraining may have seen these test patients: not checked") == 1


def test_the_statistics_arm_alone_and_pretrained(tmp_path, write_study, capsys):
    study = write_study(tmp_path, evaluate={"reference": "control"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    arms = {"control": {"init": "imagenet_statistics"}, "pretrained": {"init": "imagenet_statistics", "method": "simsiam"}}
    work = opened(study, arms)
    pretrain(work)
    archive = index(work)
    arm = load_arm(work, archive, "control", 0, CPU)
    assert arm.source == "imagenet_statistics: efficientnet-lite0-57934424.pth"
    assert "tensors drawn with the means and variances of theirs" in said(capsys)
    card = read_card(encoder_folder(work, "pretrained"))
    assert (card.init.source, card.init.saw) == (arm.source, "imagenet")
    assert not torch.equal(
        initial_encoder(work, "pretrained", 1)[0].backbone.network.conv_head.weight, arm.encoder.backbone.network.conv_head.weight
    )


def test_a_pretraining_that_began_from_an_alias_is_refused_when_it_has_moved(tmp_path, write_study):
    study = write_study(tmp_path, evaluate={"reference": "first"}, finetune={"budgets": [8]})
    first = {"first": {"method": "simsiam"}}
    pretrain(opened(study, first, "pretrain.seeds=2"))
    late = opened(study, first, "pretrain.seeds=2", "tracking.register=late")
    for _ in range(2):  # set after they were trained, each becomes a version, once
        pretrain(late)
    sync_all(late.folder / "tracking", late.tracking_settings())
    with Store(late.tracking_settings().store_uri).calls() as client:
        assert len(client.search_model_versions("name = 'late'")) == 2
        client.set_registered_model_alias("late", "best", "1")
    arms = first | {"further": {"init": "models:/late@best", "method": "simsiam"}}
    pretrain(opened(study, arms), arms=["further"])
    card = read_card(encoder_folder(late, "further"))
    assert (card.init.source, card.init.saw) == ("encoder: version 1 of the registered model late, alias best", "proven")
    with Store(late.tracking_settings().store_uri).calls() as client:
        client.set_registered_model_alias("late", "best", "2")
    with pytest.raises(CheckpointError, match=r"pretrain/further: its encoder belongs to another study: arm\.init_sha256"):
        pretrain(opened(study, arms), arms=["further"])


def test_a_further_run_is_locked_by_itself_and_comes_out_the_same_again(tmp_path, write_study):
    study = write_study(tmp_path, evaluate={"reference": "first"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    work = opened(study, {"first": {"method": "simsiam"}}, "pretrain.seeds=2", "pretrain.checkpoint.every=1 steps")
    (work.folder / "pretrain").mkdir(parents=True)
    refused = pytest.raises(CheckpointError, match="pretrain/first-run1: another command is training it")
    with locked(work.folder / "pretrain" / ".first-run1.lock", timeout=1), refused:
        pretrain(work)
    assert encoder_folder(work, "first").exists()
    assert not encoder_folder(work, "first", 1).exists()
    pretrain(work)
    shas = [read_card(encoder_folder(work, "first", run)).weights_sha256 for run in range(2)]
    shutil.rmtree(encoder_folder(work, "first", 1))
    (encoder_folder(work, "first", 1).parent / "receipt.json").unlink()
    pretrain(work)
    assert [read_card(encoder_folder(work, "first", run)).weights_sha256 for run in range(2)] == shas


def test_an_encoder_that_is_not_there_is_one_line(tmp_path, write_study):
    study = write_study(tmp_path, evaluate={"reference": "mine"}, finetune={"budgets": [8]}, tracking={"enabled": False})
    with pytest.raises(StudyError, match=r"arms\.mine\.init: models:/x/latest: is no artifact"):
        opened(study, {"mine": {"init": "models:/x/latest"}})
    with pytest.raises(TrackingError, match="there is no MLflow store"):
        start_of(opened(study, {"mine": {"init": "models:/x/1"}}), "mine")
    with pytest.raises(WeightsError, match="neither a folder"):
        start_of(opened(study, {"mine": {"init": str(tmp_path / "none.pth")}}), "mine")
    with pytest.raises(StudyError, match=r"tracking: register is set, but enabled is false"):
        opened(study, {"mine": {"init": "random"}}, "tracking.register=x")
