"""The monitor on runs that train and on runs that collapse, judged as pretraining judges them: what must ring rings, in time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

from medssl.methods import METHODS, Batch, Method, Output, build_method, method_settings
from medssl.methods.collapse import Alarm, CollapseMonitor, Judge
from medssl.methods.collapse.verdict import COLLAPSED_STD
from medssl.methods.simsiam import SimSiam, negative_cosine, output
from medssl.models.weights import init_stream
from medssl.training.optimizers import build_optimizer

EVERY = 25  # steps from one check to the next
HIGH_RATE = 0.1  # at which collapse comes within a hundred steps


class Watched(NamedTuple):
    alarms: list[Alarm]
    reports: dict[int, dict[str, float]]  # by step


def watched(
    toy: ModuleType, seed: int, steps: int, rate: float | None = None, *, predictor_on_both: bool = False, **settings
) -> Watched:
    """A run of SimSiam. `rate`: of the optimiser; None: that of the paper."""
    method = toy.build(seed, **settings)
    return watch(toy, method, seed, steps, rate, functools.partial(on_both_sides, method) if predictor_on_both else None)


def watch(
    toy: ModuleType,
    method: Method,
    seed: int,
    steps: int,
    rate: float | None = None,
    forward: Callable[[Batch], Output] | None = None,
) -> Watched:
    """A run at a constant rate, checked more often than pretraining does it, so that more may ring wrongly. `forward`: None: the method's own."""
    generator = torch.Generator().manual_seed(seed)
    pool, views = toy.images(generator), len(method.view_spec().views)
    optimizer = build_optimizer(method.recipe, method.parameter_groups(), rate or method.recipe.peak_lr(toy.BATCH))
    monitor, judge = CollapseMonitor(method.dim, toy.ToyEncoder.feature_dim), Judge(steps * toy.BATCH)
    alarms, reports = [], {}
    with toy.one_thread():
        method.train()
        for step in range(steps):
            method.before_step(step, steps)
            batch = pool[torch.randint(toy.IMAGES, (toy.BATCH,), generator=generator)]
            out = (forward or method)(Batch([toy.view(batch, generator) for _ in range(views)]))
            optimizer.zero_grad()
            out.loss.backward()
            method.after_backward(step, steps)
            optimizer.step()
            method.after_step(step, steps)
            monitor.update(out)
            if (step + 1) % EVERY == 0:
                norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
                report = monitor.report() | {"loss": float(out.loss.detach()), "grad_norm": float(norm)}
                reports[step + 1] = report
                alarms += [alarm] if (alarm := judge.update(step + 1, report)) else []
    return Watched(alarms, reports)


def on_both_sides(method: SimSiam, batch: Batch) -> Output:
    """The symmetric predictor of 2203.16262, section 3.2: both sides go through it, so that nothing pulls p off its centre."""
    first, second = (method.embed(view) for view in batch.views)
    loss = (negative_cosine(first[2], second[2].detach()) + negative_cosine(second[2], first[2].detach())) / 2
    return output(loss, [first, second])


@pytest.mark.parametrize("seed", [0])
def test_a_healthy_run_raises_no_alarm(toy, seed):
    run = watched(toy, seed, 1200, HIGH_RATE)
    assert run.alarms == []
    assert run.reports[1200]["loss"] < -0.8  # it has learnt
    assert run.reports[1200]["z_rank_share"] < 0.5  # and is no longer the random network


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 20))  # one more seed is in the test above
def test_no_healthy_run_raises_an_alarm_however_long(toy, seed):
    assert watched(toy, seed, 1200, HIGH_RATE).alarms == []


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in METHODS if name != "simtriplet"])  # the toy has no related images
def test_no_method_raises_an_alarm_as_its_paper_has_it(toy, name):
    with init_stream(0):
        encoder = toy.ToyEncoder()
    # The paper's 8192 channels would take an hour here.
    settings = {"name": name} | ({"projector_widths": [1024, 1024, 1024]} if name == "barlow_twins" else {})
    assert watch(toy, build_method(method_settings(settings), encoder, seed=0), 0, 200).alarms == []


def test_a_healthy_run_without_output_bn_raises_no_alarm(toy):
    """z and p have a long common mean here, p's for a while longer than in some collapses."""
    run = watched(toy, 0, 150, batch_norm="hidden")
    assert run.alarms == []
    assert min(report["p_std_sqrt_d"] for report in run.reports.values()) < 0.5


def without_predictor(toy, seed: int, steps: int, rate: float | None) -> None:
    run = watched(toy, seed, steps, rate, predictor="none")
    assert run.alarms
    assert run.alarms[0].state == "dimensional collapse"
    assert min(report["z_std_sqrt_d"] for report in run.reports.values()) > COLLAPSED_STD  # its own alarm stays silent


@pytest.mark.parametrize(("seed", "steps", "rate"), [(0, 250, None), (1, 150, HIGH_RATE)])
def test_without_a_predictor_the_rank_rings_while_std_is_silent(toy, seed, steps, rate):
    without_predictor(toy, seed, steps, rate)


@pytest.mark.long
@pytest.mark.parametrize("rate", [None, HIGH_RATE])
@pytest.mark.parametrize("seed", range(10))
def test_without_a_predictor_the_rank_always_rings(toy, seed, rate):
    without_predictor(toy, seed, 250, rate)


def test_without_stop_gradient_and_output_bn_all_images_become_one_point(toy):
    run = watched(toy, 0, 125, batch_norm="hidden", stop_gradient=False)
    assert run.alarms[-1].state == "collapsed"
    assert "z's std" in run.alarms[-1].sentence
    assert run.reports[125]["z_effective_rank"] > 5  # the rank alone would call it something milder


def test_without_stop_gradient_behind_output_bn_the_rank_rings(toy):
    run = watched(toy, 0, 125, HIGH_RATE, stop_gradient=False)
    assert run.alarms[0].state == "dimensional collapse"


def test_with_a_predictor_on_both_sides_the_predictions_ring_first(toy):
    run = watched(toy, 1, 300, predictor_on_both=True)
    assert run.alarms[-1].state == "collapsed"
    assert "p's std" in run.alarms[-1].sentence
    assert run.reports[300]["z_std_sqrt_d"] > 0.9


def test_a_rate_a_thousand_times_too_high_is_told(toy):
    """Such a run has one point or no numbers left; either is said, and soon."""
    run = watched(toy, 0, 100, 50.0, batch_norm="none")
    assert run.alarms
    assert run.alarms[-1].state in ("collapsed", "diverged")
