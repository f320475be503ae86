"""Fine-tuning on a budget: every kind of task, the best epoch is a copy, early stopping, the same search for all, a stop that stops."""

from __future__ import annotations

import copy
import signal

import numpy as np
import pytest
import torch

from medssl.augment.evaluate import eval_view
from medssl.augment.policies import build_policy, policy_settings
from medssl.data.batches import PixelSource
from medssl.data.budgets import LabelDraw
from medssl.errors import DataError
from medssl.evaluation.linear_probe import fit_head
from medssl.evaluation.primary import primary_metric
from medssl.models.encoder import build_encoder
from medssl.models.features import extract_features
from medssl.task import Outputs
from medssl.training import supervised
from medssl.training.classifier import Classifier, parameter_groups, predict
from medssl.training.stop import StopFlag, Stopped
from medssl.training.supervised import NetworkRecipe, Trial, epochs_of, fit_network, trials_of

OUTPUTS = {
    "binary": Outputs("binary", ("ill",)),
    "multiclass": Outputs("multiclass", ("a", "b", "c")),
    "multilabel": Outputs("multilabel", ("one", "two")),
    "ordinal": Outputs("ordinal", ("none", "mild", "severe")),
    "regression": Outputs("regression", ("age",)),
}
ROWS = 22


def labels_of(kind: str) -> np.ndarray:
    place = np.arange(ROWS, dtype=np.float64)
    labels = {
        "binary": place % 2,
        "multiclass": place % 3,
        "ordinal": place % 3,
        "regression": 40 + place,
        "multilabel": np.stack([place % 2, np.where(place % 5 == 0, np.nan, place // 2 % 2)], axis=1),
    }[kind]
    return labels.reshape(ROWS, -1)


def draw(kind: str = "binary", folds: int = 1) -> LabelDraw:
    fold = np.arange(ROWS) // 2 % max(folds, 3)
    divisions = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
    return LabelDraw("all", 0, ROWS, np.arange(ROWS), labels_of(kind), np.arange(ROWS), divisions, folds > 1)


def recipe(**changes) -> NetworkRecipe:
    settings = {"epochs": 3, "batch_size": 6, "lr": 1e-3, "head_lr": 1e-2, "weight_decay": 0.01, "size": 32} | changes
    policy = build_policy(policy_settings({"policy": "chest_xray"}))
    return NetworkRecipe(policy=policy, precision=torch.float32, device=torch.device("cpu"), **settings)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("resnet18")


@pytest.fixture
def fit(encoder, images):
    """fit(kind, folds, ...) -> NetworkFit of the 22 images; further keys are of the recipe."""

    def run(kind="binary", folds=1, stop=None, trials=None, advance=lambda n: None, prepare=lambda model: None, **changes):
        def build(positions):
            model = Classifier(copy.deepcopy(encoder), OUTPUTS[kind], seed=0)
            prepare(model)
            return model

        return fit_network(
            build,
            lambda positions: PixelSource(*images, np.arange(ROWS)[positions], "auto"),
            draw(kind, folds),
            OUTPUTS[kind],
            recipe(**changes),
            seed=1,
            stop=stop or StopFlag(),
            advance=advance,
            trials=trials,
        )

    return run


def state_of(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_every_kind_is_fitted_and_scored_on_validation_rows_alone(fit, kind):
    found = fit(kind, epochs=2)
    _, validation = draw(kind).divisions[0]
    seen = ~np.isnan(found.validation_scores).any(axis=1)
    assert np.flatnonzero(seen).tolist() == validation.tolist()
    assert found.validation_scores.shape == (ROWS, len(OUTPUTS[kind].names))
    assert len(found.curve) == 2
    value = primary_metric(found.validation_scores, draw(kind).labels, OUTPUTS[kind])
    assert value == pytest.approx(found.curve[found.epoch - 1])
    if kind in ("multiclass", "ordinal"):
        assert np.allclose(found.validation_scores[seen].sum(axis=1), 1)
    if kind == "regression":
        assert (np.abs(found.validation_scores[seen] - 51) < 40).all()  # in the label's unit


@pytest.fixture
def scripted(monkeypatch):
    """scripted(values) makes validation say these values, one an epoch, and returns the weights that were seen at each."""

    def script(values):
        left, states = list(values), []
        real = supervised.predict

        def watched(model, *args, **kwargs):
            states.append(state_of(model))
            return real(model, *args, **kwargs)

        monkeypatch.setattr(supervised, "predict", watched)
        monkeypatch.setattr(supervised, "primary_metric", lambda *args: left.pop(0))
        return states

    return script


def test_the_best_epoch_is_a_copy_and_not_the_last(fit, scripted):
    states = scripted([0.6, 0.9, 0.7])
    found = fit()
    assert (found.epoch, found.curve) == (2, [0.6, 0.9, 0.7])
    assert same(state_of(found.model), states[1])
    assert not same(states[1], states[2])


def test_of_equals_the_shorter_training(fit, scripted):
    scripted([0.9, 0.9, 0.9])
    assert fit().epoch == 1


def test_of_an_error_the_least_is_best(fit, scripted):
    scripted([9.0, 4.0, 6.0])
    assert fit("regression").epoch == 2


def test_it_ends_when_patience_has_run_out_and_the_bar_is_full(fit, scripted):
    states, steps = scripted([0.5, 0.8, 0.7, 0.6, 0.99]), []
    found = fit(epochs=5, patience=2, advance=steps.append)
    assert (found.epoch, len(states)) == (2, 4)
    assert sum(steps) == epochs_of(draw(), 5) == 5


def test_folds_choose_the_epoch_of_their_mean_and_a_new_network_is_trained_so_far(fit, scripted, monkeypatch):
    scripted([0.5, 0.9, 0.1, 0.5, 0.7, 0.9, 0.5, 0.6, 0.7])  # three folds of three epochs
    trained = []
    monkeypatch.setattr(supervised, "train", lambda run, stop, train=supervised.train: (trained.append(run), train(run, stop)))
    steps = []
    found = fit(folds=3, patience=1, advance=steps.append)
    assert found.epoch == 2
    assert found.curve == pytest.approx([0.5, 2.2 / 3, 1.7 / 3])
    assert not np.isnan(found.validation_scores).any()
    assert [len(run.source) for run in trained[:3]] == [len(rows) for rows, _ in draw(folds=3).divisions]
    assert len(trained[3].source) == ROWS
    assert trained[3].last_epoch == 2
    assert sum(steps) == epochs_of(draw(folds=3), 3) == 12


def test_a_search_has_the_same_points_for_all_and_keeps_the_best(fit, scripted):
    trials = trials_of(7, 3, [0.1, 10.0], [0.5, 2.0])
    assert trials == trials_of(7, 3, [0.1, 10.0], [0.5, 2.0])
    assert trials[:2] == trials_of(7, 2, [0.1, 10.0], [0.5, 2.0])  # more trials are further points
    assert trials[0] == Trial(1.0, 1.0)
    assert all(0.1 <= trial.lr_factor <= 10 and 0.5 <= trial.weight_decay_factor <= 2 for trial in trials)
    assert len({trial.lr_factor for trial in trials}) == 3
    states = scripted([0.5, 0.6, 0.8, 0.7, 0.1, 0.79])  # three trials of two epochs
    found = fit(epochs=2, trials=trials)
    assert found.trial == trials[1]
    assert found.tried == [0.6, 0.8, 0.79]
    assert (found.epoch, found.curve) == (1, [0.8, 0.7])
    assert same(state_of(found.model), states[2])


def test_the_same_seed_gives_the_same_bits(fit):
    first, second = fit(epochs=1), fit(epochs=1)
    assert same(state_of(first.model), state_of(second.model))
    assert np.array_equal(first.validation_scores, second.validation_scores, equal_nan=True)


def test_labels_of_validation_change_no_weight(fit, scripted, monkeypatch):
    scripted([0.5, 0.6])
    first = fit(epochs=2)
    scripted([0.5, 0.6])
    turned = draw()
    turned.labels[turned.divisions[0][1]] = 1 - turned.labels[turned.divisions[0][1]]
    monkeypatch.setitem(globals(), "draw", lambda *args: turned)
    assert same(state_of(fit(epochs=2).model), state_of(first.model))


def test_a_signal_stops_it(fit):
    stop = StopFlag()
    with pytest.raises(Stopped):
        fit(stop=stop, advance=lambda n: stop.set(signal.SIGTERM))


def test_validation_rows_of_one_class_are_refused(fit, scripted):
    scripted([float("nan")] * 3)
    with pytest.raises(DataError, match="are of one class, so no epoch can be chosen"):
        fit()


def test_frozen_blocks_keep_weights_and_statistics(fit, encoder):
    found = fit(epochs=1, prepare=lambda model: model.freeze_below(2))
    before, after = encoder.state_dict(), found.model.encoder.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(".layer4." in name for name in changed)
    assert any("running_mean" in name for name in changed)


def test_layer_decay_is_a_rate_a_block(encoder):
    groups = parameter_groups(Classifier(encoder, OUTPUTS["binary"], seed=0), lr=1e-3, head_lr=5e-3, decay=0.5)
    scales = {group["name"]: group["lr_scale"] for group in groups}
    assert scales["head"] == pytest.approx(5)
    assert scales["block8"] == scales["block8_1d"] == 0.5
    assert scales["block7"] == 0.25
    assert scales["block0"] == 0.5**9
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters())) + 2
    assert all(group["weight_decay"] is False for group in groups if group["name"].endswith("_1d"))


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_network_that_starts_from_a_probe_scores_as_the_probe(encoder, source, kind):
    model = Classifier(copy.deepcopy(encoder), OUTPUTS[kind], seed=0)
    features = extract_features(model.encoder, (eval_view(batch, 32) for batch in source.batches(64)))
    labels = labels_of(kind)
    head = fit_head(features, labels, OUTPUTS[kind], (0.1,) * labels.shape[1])
    model.standardise(labels)
    model.set_head(head)
    scores = predict(model, source, size=32, device=torch.device("cpu"))
    assert np.abs(scores - head.scores(features)).max() < (0.01 if kind == "regression" else 1e-3)
