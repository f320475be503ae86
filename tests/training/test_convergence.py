"""What counts as a pretraining that has come to rest."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.training.convergence import IMAGENET_IMAGES, converged


def history(losses, knn=None, steps=4, noise=0.0):
    """A log of so many steps an epoch; values of both figures by epoch."""
    rng = np.random.default_rng(0)
    records = []
    for epoch, loss in enumerate(losses):
        for step in range(steps):
            records.append(
                {"step": epoch * steps + step, "pretrain/epoch": float(epoch), "pretrain/loss": loss + rng.normal(0, noise)}
            )
        if knn is not None:
            records.append({"step": (epoch + 1) * steps, "pretrain/knn_auroc": knn[epoch]})
    return records


AT_REST = np.exp(-np.arange(100) / 12)
STILL_FALLING = np.exp(-np.arange(100) / 60)
TOLD = {"epochs": 100, "samples": 100_000}


def test_a_loss_at_rest_has_converged():
    done, why = converged(history(AT_REST, noise=0.01), **TOLD)
    assert done
    assert why.startswith("100 epochs; in the last fifth the loss falls by 0% of its range")


def test_a_loss_that_still_falls_has_not():
    done, why = converged(history(STILL_FALLING), **TOLD)
    assert not done
    assert why == "in the last fifth of 100 epochs the loss falls by 9% of its range"
    assert converged(history(STILL_FALLING), **TOLD, share=0.2)[0]


def test_a_knn_that_still_rises_has_not():
    rising = np.linspace(0.6, 0.9, 100)
    done, why = converged(history(AT_REST, rising), **TOLD)
    assert not done
    assert why == "in the last fifth of 100 epochs the kNN rises by 19% of its range"


def test_noise_is_no_movement():
    """A kNN on few images jumps by more than the share from epoch to epoch and goes nowhere."""
    called = 0
    for seed in range(40):
        jumping = 0.8 + np.random.default_rng(seed).normal(0, 0.01, 100)
        called += not converged(history(AT_REST, jumping), **TOLD)[0]
    assert called <= 6  # two standard errors: one in twenty, and then only beyond the share


def test_few_epochs_have_not_converged_whatever_they_look_like():
    assert converged(history(AT_REST), epochs=99, samples=100_000) == (False, "99 epochs, fewer than 100")
    assert converged(history(AT_REST), epochs=1, samples=1) == (False, "1 epoch, fewer than 100")
    assert converged(history(AT_REST), epochs=30, samples=100_000, least_epochs=30)[0]


def test_an_archive_larger_than_imagenet_need_not_be_gone_through_as_often():
    assert converged(history(AT_REST), epochs=50, samples=100 * IMAGENET_IMAGES)[0]
    assert not converged(history(AT_REST), epochs=50, samples=100 * IMAGENET_IMAGES - 1)[0]


@pytest.mark.parametrize(
    "records", [[], history([1.0, 0.5, 0.4, 0.4]), [{"step": 1, "pretrain/loss": "NaN", "pretrain/epoch": 0.0}] * 9]
)
def test_a_log_that_says_too_little_proves_nothing(records):
    done, why = converged(records, **TOLD)
    assert not done
    assert "too few to tell" in why


def test_numbers_may_be_words_and_are_left_out_where_they_are_not_finite():
    records = history(AT_REST)
    records.insert(7, {"step": 7, "pretrain/epoch": 1.0, "pretrain/loss": "NaN"})
    records.insert(9, {"step": 9, "pretrain/knn_auroc": "Infinity"})
    assert converged(records, **TOLD) == converged(history(AT_REST), **TOLD)
