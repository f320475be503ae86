"""Recipes: how a study's numbers and the method's own come together."""

from __future__ import annotations

import pytest

from medssl.errors import StudyError
from medssl.training.recipe import Recipe, chosen_recipe

OWN = Recipe(name="lars", base_lr=0.3, weight_decay=1e-6, momentum=0.8, warmup_epochs=10, final_lr=0.001)


def test_peak_rate_scales_with_the_batch():
    assert OWN.peak_lr(4096) == pytest.approx(4.8)  # SimCLR's rate (2002.05709)
    assert Recipe(name="lars", base_lr=0.075, weight_decay=0.0, scaling="sqrt").peak_lr(4096) == pytest.approx(4.8)
    assert Recipe(name="adamw", base_lr=1e-3, weight_decay=0.0, scaling="none").peak_lr(4096) == 1e-3


def test_an_empty_choice_is_the_methods_own():
    assert chosen_recipe(OWN, {}, 200) == OWN
    assert chosen_recipe(OWN, {"name": "lars"}, 200) == OWN


def test_what_the_study_says_goes_before():
    chosen = chosen_recipe(OWN, {"base_lr": 0.1, "final_lr": 0.0}, 200)
    assert chosen == OWN.model_copy(update={"base_lr": 0.1, "final_lr": 0.0})


@pytest.mark.parametrize(("epochs", "warmup"), [(5, 0), (9, 0), (10, 1), (50, 5), (100, 10), (1000, 10)])
def test_own_warm_up_is_at_most_a_tenth(epochs, warmup):
    assert chosen_recipe(OWN, {}, epochs).warmup_epochs == warmup


def test_a_warm_up_of_the_study_is_taken_as_it_is():
    assert chosen_recipe(OWN, {"warmup_epochs": 7}, 10).warmup_epochs == 7
    assert chosen_recipe(OWN, {"warmup_epochs": 0}, 200).warmup_epochs == 0


def test_another_optimiser_takes_none_of_the_numbers():
    chosen = chosen_recipe(OWN, {"name": "adamw", "base_lr": 1e-3, "weight_decay": 0.05}, 200)
    assert (chosen.base_lr, chosen.weight_decay, chosen.momentum, chosen.final_lr) == (1e-3, 0.05, 0.9, 0.0)
    assert chosen.warmup_epochs == 10


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "adamw"}, "base_lr: is missing"),
        ({"name": "sgd", "base_lr": 0.1}, "weight_decay: is missing"),
        ({"name": "lasr", "base_lr": 0.1, "weight_decay": 0.0}, "did you mean 'lars'"),
        ({"base_lr": 0.0}, "base_lr"),
        ({"base_lr": "0.1"}, "base_lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"final_lr": 1.0}, "final_lr"),
        ({"lr": 0.1}, "lr: unknown key"),
    ],
)
def test_wrong_choices_are_one_line(value, words):
    with pytest.raises(StudyError, match=words) as caught:
        chosen_recipe(OWN, value, 100)
    assert str(caught.value).startswith("pretrain.optimizer")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"name": "sgd", "base_lr": 0.1, "weight_decay": 0.0, "trust_coefficient": 0.1},
            "trust_coefficient: is of lars, but the opt",
        ),
        (
            {"name": "adamw", "base_lr": 0.1, "weight_decay": 0.0, "momentum": 0.9},
            "momentum: is of sgd and lars, but the optimiser is adamw",
        ),
    ],
)
def test_what_the_optimiser_would_not_read_is_refused(value, words):
    with pytest.raises(StudyError, match=words):
        chosen_recipe(OWN, value, 200)
