"""From settings to a run: recipes, views of each method, related images, what is done about a collapse."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch
import yaml

from medssl.data.card import find_card
from medssl.errors import CheckpointError, CollapseError, DataError, StudyError
from medssl.methods import METHODS, build_method
from medssl.methods.simsiam import SimSiam
from medssl.models.encoder import build_encoder
from medssl.models.encoder_file import load_encoder_folder
from medssl.stages.index import index
from medssl.stages.pretrain import encoder_folder, pretrain
from medssl.stages.pretraining import merged, plan_of, view_plans
from medssl.stages.workspace import check_components, open_workspace
from medssl.study import read_study
from medssl.tracking import lines
from medssl.tracking.locks import locked
from medssl.training.divergence import REPORT

QUICK = {"backbone": "resnet18", "input_size": 32}  # collapses sooner, and a step takes half the time
SMALL = {
    "simsiam": {"projector_dim": 32, "projector_hidden": 32},
    "simtriplet": {"projector_dim": 32, "projector_hidden": 32},
    "byol": {"projector_dim": 16, "projector_hidden": 32},
    "moco": {"projector_dim": 16, "queue_size": 64, "bn_group": 8},
    "simclr": {"projector_dim": 16, "projector_hidden": 32},
    "swav": {
        "projector_dim": 16,
        "projector_hidden": 32,
        "prototypes": 20,
        "freeze_steps": 2,
        "small_views": 1,
        "small_size": 0.5,
    },
    "barlow_twins": {"projector_widths": [32, 32]},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, write_study):
    """A study's folder whose archive is indexed once for the tests of this file."""
    folder = tmp_path_factory.mktemp("pretraining")
    study = write_study(folder, finetune={"budgets": [8], "seeds": 1}, tracking={"enabled": False})
    index(open_workspace(study))
    return study


def records(work, arm: str) -> list[dict]:
    return [record for _, record in lines.read(work.folder / "tracking" / f"pretrain-{arm}" / "001" / "metrics.jsonl")]


def opened(study, tmp_path, name: str, *sets: str):
    """The study with another method; its archive is the shared one, its pretraining a folder of its own."""
    method = json.dumps({"name": name} | SMALL[name])
    return open_workspace(study, [f"pretrain.method={method}", "pretrain.knn_images=0", *sets])


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_pretrains_an_encoder_that_loads(name, tmp_path, write_study):
    study = write_study(tmp_path, tracking={"enabled": False}, finetune={"budgets": [8], "seeds": 1})
    work = opened(study, tmp_path, name, "pretrain.epochs=1")
    pretrain(work, arms=["in_domain"])
    encoder, card = load_encoder_folder(encoder_folder(work, "in_domain"))
    assert card.method.name == name
    assert card.init.source == "random"
    assert all(tensor.isfinite().all() for tensor in encoder.state_dict().values())
    last = records(work, "in_domain")[-1]
    assert {"pretrain/loss", "pretrain/grad_norm", "pretrain/z_effective_rank", "pretrain/features_effective_rank"} <= last.keys()
    assert ("pretrain/pair_fallback" in last) == (name == "simtriplet")
    figure = (work.folder / "pretrain" / "in_domain" / "collapse.svg").read_text()
    assert figure.startswith("<svg")


def test_accumulated_and_warm_started(tmp_path, write_study):
    """Two parts a batch, from ImageNet weights; the log says with which weights it began."""
    study = write_study(tmp_path, tracking={"enabled": False})
    work = opened(study, tmp_path, "simsiam", "pretrain.epochs=1", "pretrain.accumulate=2")
    pretrain(work, arms=["imagenet_in_domain"])
    card = load_encoder_folder(encoder_folder(work, "imagenet_in_domain"))[1]
    assert card.init.source.startswith("imagenet: efficientnet-lite0")
    assert card.init.sha256.startswith("57934424")
    assert card.samples_seen == records(work, "imagenet_in_domain")[-1]["step"] * 16


def test_activations_that_are_computed_again_give_the_same_encoder(tmp_path, write_study, capsys):
    digests = []
    for recompute in ("false", "true"):
        folder = tmp_path / recompute
        study = write_study(folder, tracking={"enabled": False})
        work = opened(study, folder, "simsiam", "pretrain.epochs=1", f"pretrain.recompute={recompute}")
        pretrain(work, arms=["in_domain"])
        digests.append(hashlib.sha256((encoder_folder(work, "in_domain") / "encoder.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert "16 blocks compute their activations again" in capsys.readouterr().out


def test_the_recipe_is_the_methods_unless_the_study_says_otherwise(shared):
    own = plan_of(read_study(shared, ['pretrain.method={"name": "byol"}', "pretrain.epochs=100"]))
    assert own.recipe.name == "lars"
    assert own.recipe.warmup_epochs == 10
    assert own.peak_lr == pytest.approx(own.recipe.base_lr * 16 / 256)
    short = plan_of(read_study(shared, ['pretrain.method={"name": "byol"}', "pretrain.epochs=20"]))
    assert short.recipe.warmup_epochs == 2
    changed = plan_of(read_study(shared, ["pretrain.optimizer.base_lr=0.7"]))
    assert (changed.recipe.name, changed.recipe.base_lr, changed.recipe.weight_decay) == ("sgd", 0.7, 1e-4)
    with pytest.raises(StudyError, match=r"pretrain\.optimizer: (base_lr|weight_decay): is missing"):
        plan_of(read_study(shared, ["pretrain.optimizer.name=adamw"]))
    other = plan_of(read_study(shared, ["pretrain.optimizer.base_lr=0.7"]), {"name": "moco"})
    assert other.recipe == METHODS["moco"][1].recipe


def test_stock_arms_follow_the_method(shared):
    study = read_study(shared, ['pretrain.method={"name": "moco"}'])
    assert {name: arm.method for name, arm in study.arms.items()} == {
        "random": None,
        "imagenet": None,
        "in_domain": "moco",
        "imagenet_in_domain": "moco",
    }


def test_the_second_view_and_small_views_have_their_own_settings(shared):
    study = read_study(
        shared,
        [
            "pretrain.method=" + json.dumps({"name": "swav"} | SMALL["swav"]),
            "pretrain.second_view={blur: {probability: 0.1}, noise: null}",
            "pretrain.views={policy: plain, blur: {probability: 1.0}}",
            "encoder.input_size=64",
            "store.size=74",
        ],
    )
    check_components(study)
    plan = plan_of(study)
    method = build_method(plan.method, build_encoder("resnet18", "small"), seed=0)
    plans = view_plans(plan, method.view_spec().views, 64)
    assert [view.size for view in plans] == [64, 64, 32]
    blurs = [view.policy.settings.blur.probability for view in plans]
    assert blurs == [1.0, 0.1, 1.0]
    crops = [view.policy.settings.geometry.crop_scale for view in plans]
    assert crops[0] == crops[1] != crops[2]
    with pytest.raises(StudyError, match="small views would be 5 px"):
        view_plans(plan, method.view_spec().views, 10)
    in_mm = dataclasses.replace(plan, views={"policy": "plain", "geometry": {"crop_mm": [20.0, 40.0]}})
    with pytest.raises(StudyError, match=r"swav sets crop_scale .* crops in mm"):
        view_plans(in_mm, method.view_spec().views, 64)


def test_blocks_are_merged_key_by_key():
    assert merged({"policy": "plain", "noise": {"std": [0, 1]}}, {"noise": {"probability": 0.5}, "jpeg": None}) == {
        "policy": "plain",
        "noise": {"std": [0, 1], "probability": 0.5},
        "jpeg": None,
    }


def test_a_wrong_second_view_is_one_line(shared):
    with pytest.raises(StudyError, match=r"pretrain\.second_view: solarise: unknown key; did you mean 'solarize'"):
        check_components(read_study(shared, ["pretrain.second_view={solarise: {probability: 0.2}}"]))


def test_a_method_of_pairs_without_any_is_refused(tmp_path, write_study, phantom_root):
    study = write_study(tmp_path, tracking={"enabled": False})
    text = study.read_text()
    card = yaml.safe_load(find_card("phantom_cxr", study).read_text()) | {"positive_pairs": []}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(card))
    study.write_text(text.replace("phantom_cxr", "alone.yaml"))
    work = opened(study, tmp_path, "simtriplet")
    with pytest.raises(
        DataError, match=r"simtriplet needs related images, and by positive_pairs of the card \(phantom_cxr\) no image"
    ):
        pretrain(work, arms=["in_domain"])


def test_other_pairs_are_another_encoder(tmp_path, write_study):
    study = write_study(tmp_path, tracking={"enabled": False})
    card = yaml.safe_load(find_card("phantom_cxr", study).read_text())
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(card))
    study.write_text(study.read_text().replace("phantom_cxr", "own.yaml"))
    pretrain(opened(study, tmp_path, "simtriplet", "pretrain.epochs=1"), arms=["in_domain"])
    path.write_text(yaml.safe_dump(card | {"positive_pairs": [{"kind": "same_patient"}]}))
    with pytest.raises(CheckpointError, match="belongs to another study: pairs"):
        pretrain(opened(study, tmp_path, "simtriplet", "pretrain.epochs=1"), arms=["in_domain"])


def test_a_collapse_stops_the_run_where_the_study_says_so(tmp_path, write_study):
    """Without BN and stop-gradient at a high rate everything becomes one point in a few steps."""
    study = write_study(tmp_path, tracking={"enabled": False}, encoder=QUICK)
    sets = [
        "pretrain.epochs=12",
        "pretrain.method.batch_norm=none",
        "pretrain.method.stop_gradient=false",
        "pretrain.optimizer.base_lr=0.5",
        "pretrain.collapse={policy: stop, patience: 1}",
    ]
    work = opened(study, tmp_path, "simsiam", *sets)
    with pytest.raises(
        CollapseError, match=r"pretrain: in_domain: collapsed at step \d+ of \d+\. .*std x sqrt\(d\).*--fresh"
    ) as caught:
        pretrain(work, arms=["in_domain"])
    assert "\n" not in str(caught.value)
    assert not encoder_folder(work, "in_domain").exists()
    assert (work.folder / "pretrain" / "in_domain" / "collapse.svg").exists()


def test_a_loss_that_is_not_finite_leaves_a_report(shared, tmp_path, monkeypatch):
    work = opened(shared, tmp_path, "simsiam", "pretrain.epochs=20")
    forward = SimSiam.forward

    def without_a_number(self, batch):
        return (output := forward(self, batch)) and dataclasses.replace(output, loss=output.loss * torch.nan)

    monkeypatch.setattr(SimSiam, "forward", without_a_number)
    with pytest.raises(CollapseError, match=r"--fresh; .*divergence\.md has the last steps"):
        pretrain(work, arms=["in_domain"], fresh=True)
    report = (work.folder / "pretrain" / "in_domain" / REPORT).read_text()
    assert "# The loss is no longer finite" in report
    assert "weights: all of" in report
    assert "| 10 | nan | nan |" in report


def test_two_commands_never_train_the_same_arm(shared, tmp_path):
    work = opened(shared, tmp_path, "simsiam", "pretrain.epochs=1")
    (work.folder / "pretrain").mkdir(exist_ok=True)
    refused = pytest.raises(CheckpointError, match=r"pretrain/in_domain: another command is training it in this work folder")
    with locked(work.folder / "pretrain" / ".in_domain.lock", timeout=1), refused:
        pretrain(work, arms=["in_domain"], fresh=True)
    pretrain(work, arms=["in_domain"], fresh=True)


def test_a_collapse_is_said_and_the_run_goes_on(tmp_path, write_study, capsys):
    study = write_study(tmp_path, tracking={"enabled": False}, encoder=QUICK)
    sets = ["pretrain.epochs=12", "pretrain.method.batch_norm=none", "pretrain.method.stop_gradient=false"]
    work = opened(study, tmp_path, "simsiam", *sets, "pretrain.optimizer.base_lr=0.5", "pretrain.collapse.patience=1")
    pretrain(work, arms=["in_domain"])
    said = capsys.readouterr().err
    assert "in_domain: collapsed since step" in said
    receipt = json.loads((work.folder / "pretrain" / "in_domain" / "receipt.json").read_text())
    assert receipt["facts"]["verdict"] == "collapsed"


def test_parts_of_one_image_are_refused(shared):
    with pytest.raises(StudyError, match="accumulate is 16, which leaves parts of one image"):
        read_study(shared, ["pretrain.accumulate=16"])


def test_a_path_among_the_parameters_stays_on_this_machine(shared):
    work = open_workspace(shared)
    with work.open_log("paths", stage="pretrain", params={"arm": {"init": "/data/weights/net.pth"}, "seed": 1}) as log:
        events = (log.folder / "events.jsonl").read_text()
    assert "/data/weights" not in events
    assert '"init": "<local>"' in events
