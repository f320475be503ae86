from __future__ import annotations

import json
import math

import pytest
import torch

from medssl.methods import Output
from medssl.methods.collapse import STATES, Alarm, CollapseMonitor, Judge, verdict

HEALTHY = {
    "rows": 1024.0,
    "z_std_sqrt_d": 0.99,
    "z_mean": 0.1,
    "z_effective_rank": 60.0,
    "z_rank_share": 0.5,
    "z_correlation": 0.2,
    "p_std_sqrt_d": 0.9,
    "p_effective_rank": 15.0,
    "features_effective_rank": 20.0,
    "loss": -0.5,
    "grad_norm": 1.0,
}
FLAT = HEALTHY | {"z_rank_share": 0.03, "z_effective_rank": 4.0}
POINT = HEALTHY | {"z_std_sqrt_d": 0.1}
BROKEN = HEALTHY | {"loss": math.nan}


def gaussian(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def with_output_bn(z: torch.Tensor) -> torch.Tensor:
    return (z - z.mean(0)) / z.std(0)


def report_of(z: torch.Tensor, p: torch.Tensor | None = None) -> dict[str, float]:
    monitor = CollapseMonitor(z.shape[1], 16)
    monitor.update(Output(torch.zeros(()), z[None], gaussian(len(z), 16)[None], None if p is None else p[None]))
    return monitor.report()


# --- one report -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [128, 256, 2048])
def test_a_gaussian_is_healthy(dim):
    report = report_of(gaussian(1024, dim), gaussian(1024, dim, 1))
    assert report["z_rank_share"] == pytest.approx(1, abs=0.01)
    assert verdict(report).state == "healthy"


def test_a_common_mean_alone_is_healthy():
    """As of a projector without output BN behind ReLUs."""
    report = report_of(gaussian(1024, 256) + 0.7)
    assert 0.4 < report["z_mean"] < 0.7
    assert verdict(report).state == "healthy"


@pytest.mark.parametrize(
    ("z", "figure"),
    [
        (torch.ones(256, 64), "z's std"),
        (torch.ones(256, 64) + 0.1 * gaussian(256, 64), "z's std"),
        (gaussian(256, 1) @ gaussian(1, 64, 1), "z's effective rank"),  # both ways along one line
    ],
)
def test_points_and_lines_are_collapsed(z, figure):
    state, sentence = verdict(report_of(z))
    assert state == "collapsed"
    assert figure in sentence


def test_a_line_is_collapsed_while_its_std_looks_fine():
    report = report_of(gaussian(256, 1) @ gaussian(1, 64, 1))
    assert report["z_std_sqrt_d"] == pytest.approx(0.8, abs=0.05)
    assert report["z_effective_rank"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rank", [4, 8])
def test_few_dimensions_are_seen_where_std_is_silent(rank):
    report = report_of(with_output_bn(gaussian(1024, rank) @ gaussian(rank, 256, 1)))
    assert report["z_std_sqrt_d"] > 0.9
    state, sentence = verdict(report)
    assert state == "dimensional collapse"
    assert "effective rank is" in sentence


def test_channels_that_move_together_are_seen_where_the_rank_is_silent():
    """One strong direction above noise in all others: the rank counts the noise."""
    report = report_of(with_output_bn(3 * gaussian(1024, 1) @ gaussian(1, 128, 1).sign() + gaussian(1024, 128, 2)))
    assert report["z_rank_share"] > 0.5
    assert report["z_std_sqrt_d"] > 0.9
    state, sentence = verdict(report)
    assert state == "dimensional collapse"
    assert "move together" in sentence


def test_a_moderate_share_needs_the_correlation_as_a_witness():
    assert verdict(HEALTHY | {"z_rank_share": 0.12, "z_correlation": 0.4}).state == "healthy"
    assert verdict(HEALTHY | {"z_rank_share": 0.3, "z_correlation": 0.6}).state == "healthy"
    assert verdict(HEALTHY | {"z_rank_share": 0.12, "z_correlation": 0.6}).state == "dimensional collapse"


def test_predictions_that_collapse_first_are_seen():
    z = gaussian(1024, 128)
    state, sentence = verdict(report_of(z, torch.ones(1024, 128) + 0.1 * gaussian(1024, 128, 1)))
    assert state == "collapsed"
    assert "predictions" in sentence
    assert verdict(report_of(z, gaussian(1024, 1) @ gaussian(1, 128, 1))).state == "collapsed"


@pytest.mark.parametrize(
    "name", ["loss", "grad_norm", "z_std_sqrt_d", "z_correlation", "p_effective_rank", "features_effective_rank"]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_diverged(name, bad):
    state, sentence = verdict(HEALTHY | {name: bad})
    assert state == "diverged"
    assert name in sentence


def test_vectors_that_are_not_finite_have_diverged():
    z = gaussian(64, 32)
    z[5, 5] = math.nan
    assert verdict(report_of(z)).state == "diverged"


@pytest.mark.parametrize(
    ("loss", "first", "state"), [(16.0, 5.0, "diverged"), (14.0, 5.0, "healthy"), (-0.2, -0.9, "healthy"), (0.4, -0.9, "healthy")]
)
def test_only_a_positive_loss_that_has_tripled_has_diverged(loss, first, state):
    assert verdict(HEALTHY | {"loss": loss, "loss_first": first}).state == state


def test_a_network_that_has_learnt_nothing_yet_is_told():
    """Views of one image as far apart as any two: 2 (1 - m_o^2)."""
    random = report_of(gaussian(1024, 64))
    unlearnt = random | {"z_alignment": 2 * random["z_residual"] ** 2}
    assert verdict(unlearnt).state == "healthy"
    assert "hardly nearer than views of different images" in verdict(unlearnt).sentence
    assert "hardly nearer" not in verdict(random | {"z_alignment": 1.2}).sentence
    assert "hardly nearer" not in verdict(random).sentence  # one view alone says nothing about it


def test_neighbours_are_told_where_they_are_known():
    known = {"knn_auroc": 0.81, "knn_auroc_random": 0.75}
    for report in (HEALTHY, FLAT, POINT):
        assert "better than those of a random network (AUROC 0.810 against 0.750)" in verdict(report | known).sentence
    assert "no better than" in verdict(HEALTHY | known | {"knn_auroc": 0.75}).sentence
    for report in (HEALTHY | {"knn_auroc": 0.8}, HEALTHY | known | {"knn_auroc": math.nan}):
        assert verdict(report).state == "healthy"
        assert "eighbours" not in verdict(report).sentence


def test_a_verdict_is_one_line():
    assert [verdict(report).state for report in (HEALTHY, FLAT, POINT, BROKEN)] == list(STATES)
    assert not [1 for report in (HEALTHY, FLAT, POINT, BROKEN) if "\n" in verdict(report).sentence]


# --- several in a row -------------------------------------------------------------------------------------------------------------


def alarms(reports: list[dict[str, float]], judge: Judge) -> list[Alarm]:
    found = [judge.update(10 * (i + 1), report) for i, report in enumerate(reports)]
    return [alarm for alarm in found if alarm]


def test_an_alarm_needs_patience():
    assert not alarms([FLAT, FLAT, HEALTHY, FLAT, FLAT, HEALTHY], Judge(10**6))
    (alarm,) = alarms([HEALTHY, FLAT, FLAT, FLAT, FLAT, FLAT], Judge(10**6))
    assert (alarm.step, alarm.since, alarm.state) == (40, 20, "dimensional collapse")
    assert alarm.sentence == verdict(FLAT).sentence
    (alarm,) = alarms([HEALTHY, FLAT, FLAT], Judge(10**6, patience=1))
    assert alarm.step == 20


def test_a_divergence_is_said_at_once_even_before_the_buffer_is_full():
    (alarm,) = alarms([HEALTHY, BROKEN | {"rows": 3.0}, BROKEN], Judge(10**6))
    assert (alarm.step, alarm.state) == (20, "diverged")


def test_a_state_that_flickers_is_alarmed_as_the_milder_one():
    (alarm,) = alarms([FLAT, POINT, FLAT, POINT, FLAT], Judge(10**6))
    assert (alarm.step, alarm.state, alarm.sentence) == (30, "dimensional collapse", verdict(FLAT).sentence)


def test_an_alarm_is_repeated_only_when_worse_or_back():
    found = alarms([FLAT] * 4 + [POINT] * 4, Judge(10**6))
    assert [(alarm.step, alarm.state) for alarm in found] == [(30, "dimensional collapse"), (70, "collapsed")]
    found = alarms([FLAT] * 4 + [HEALTHY] + [FLAT] * 4, Judge(10**6))
    assert [(alarm.step, alarm.since) for alarm in found] == [(30, 10), (80, 60)]


def test_nothing_is_judged_before_the_buffer_is_full_unless_the_run_is_shorter():
    filling = [FLAT | {"rows": 600.0}] * 5
    assert not alarms(filling, Judge(10**6))
    assert len(alarms(filling, Judge(600))) == 1
    judge = Judge(10**6)
    judge.update(10, filling[0])
    assert judge.last.state == "dimensional collapse"


def test_a_figure_that_recovers_is_waited_for():
    """MoCo's start: all vectors near their mean, drawn apart from check to check. One that stays there is alarmed."""
    rising = [HEALTHY | {"z_std_sqrt_d": value} for value in (0.19, 0.22, 0.26, 0.32, 0.46, 0.6)]
    assert not alarms(rising, Judge(10**6))
    (alarm,) = alarms([*rising[:3], *[rising[2]] * 3], Judge(10**6))
    assert (alarm.step, alarm.state) == (50, "collapsed")
    (alarm,) = alarms(rising[2::-1], Judge(10**6))
    assert alarm.step == 30
    shares = [HEALTHY | {"z_rank_share": value} for value in (0.02, 0.03, 0.04)]
    assert not alarms(shares, Judge(10**6))


def test_a_run_that_ended_while_its_figure_rose_is_not_called_collapsed():
    judge = Judge(10**6)
    rising = [HEALTHY | {"z_std_sqrt_d": std} for std in (0.19, 0.25, 0.33)]
    assert not alarms(rising, judge)
    assert verdict(rising[-1]).state == "collapsed"
    state, sentence = judge.final(rising[-1])
    assert state == "healthy"
    assert sentence.startswith("Too short to judge, train longer")
    assert "rises, from 0.19 to 0.33" in sentence
    level = Judge(10**6)
    alarms([rising[0]] * 3, level)
    assert level.final(rising[0]) == verdict(rising[0])
    assert judge.final(BROKEN).state == "diverged"
    assert Judge(10**6).final(POINT).state == "collapsed"
    assert Judge(10**6).final(HEALTHY) == verdict(HEALTHY)


def test_the_first_loss_is_remembered():
    (alarm,) = alarms([HEALTHY | {"loss": 2.0}, HEALTHY | {"loss": 5.9}, HEALTHY | {"loss": 6.1}], Judge(10**6))
    assert (alarm.step, alarm.state) == (30, "diverged")
    assert not alarms([HEALTHY | {"loss": 2.0}, HEALTHY | {"loss": 6.1, "loss_first": 4.0}], Judge(10**6))


@pytest.mark.parametrize("at", range(9))
def test_a_resumed_judge_alarms_at_the_same_steps(at, tmp_path):
    reports = [HEALTHY | {"loss": 1.0}, FLAT, FLAT, FLAT, POINT, POINT, POINT, HEALTHY, HEALTHY | {"loss": 3.5}]
    straight = Judge(10**6)
    expected = [straight.update(step, report) for step, report in enumerate(reports)]
    assert [alarm.state for alarm in expected if alarm] == list(STATES[1:])
    first, second = Judge(10**6), Judge(10**6)
    before = [first.update(step, report) for step, report in enumerate(reports[:at])]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert json.loads(json.dumps(first.state_dict())) == second.state_dict()
    assert before + [second.update(at + i, report) for i, report in enumerate(reports[at:])] == expected


def test_patience_is_at_least_one_check():
    with pytest.raises(ValueError, match="at least 1"):
        Judge(100, patience=0)
