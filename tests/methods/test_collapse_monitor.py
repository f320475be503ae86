from __future__ import annotations

import math

import pytest
import torch

from medssl.methods import Output
from medssl.methods.collapse import (
    CollapseMonitor,
    alignment,
    check_interval,
    correlation,
    effective_rank,
    gaussian_rank,
    mean_and_residual,
    singular_value_auc,
    std_sqrt_d,
    uniformity,
)

DIM, FEATURES = 8, 12


def made(n: int, seed: int = 0, views: int = 2, predictor: bool = True) -> Output:
    generator = torch.Generator().manual_seed(seed)
    z, p, features = (torch.randn(views, n, width, generator=generator) for width in (DIM, DIM, FEATURES))
    return Output(torch.zeros(()), z, features, p if predictor else None)


def parts(output: Output, sizes: list[int]) -> list[Output]:
    """An output in several, one after the other."""
    z, p, features = (x.split(sizes, dim=1) for x in (output.z, output.p, output.features))
    return [Output(output.loss, *part) for part in zip(z, features, p, strict=True)]


def report_of(*outputs: Output, rows: int = 1024) -> dict[str, float]:
    monitor = CollapseMonitor(DIM, FEATURES, rows)
    for output in outputs:
        monitor.update(output)
    return monitor.report()


def test_the_report_says_each_figure_of_the_first_view():
    output = made(100)
    z, p, features = output.z[0], output.p[0], output.features[0]
    expected = {"rows": 100.0, "z_alignment": alignment(output.z[0], output.z[1]), "z_uniformity": uniformity(z)}
    for name, x in (("z", z), ("p", p), ("features", features)):
        expected[f"{name}_std_sqrt_d"], expected[f"{name}_effective_rank"] = std_sqrt_d(x), effective_rank(x)
        expected[f"{name}_rank_share"] = effective_rank(x) / gaussian_rank(*x.shape)
    for name, x in (("z", z), ("p", p)):
        expected[f"{name}_mean"], expected[f"{name}_residual"] = mean_and_residual(x)
    for name, x in (("z", z), ("features", features)):
        expected[f"{name}_correlation"], expected[f"{name}_auc"] = correlation(x), singular_value_auc(x)
    report = report_of(output)
    assert report == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)
    assert all(type(value) is float for value in report.values())


def test_other_views_change_nothing_but_the_alignment():
    output, other = made(50), made(50)
    other.z[1] = made(50, seed=1).z[1]
    other.p[1], other.features[1] = 0, 0
    first, second = report_of(output), report_of(other)
    assert first.pop("z_alignment") != second.pop("z_alignment")
    assert first == second


def test_without_predictor_or_second_view_their_figures_are_absent():
    report = report_of(made(20, views=1, predictor=False))
    assert not [name for name in report if name.startswith("p_") or name == "z_alignment"]
    assert report["z_effective_rank"] > 1


@pytest.mark.parametrize("sizes", [[7] * 14 + [2], [30, 40, 30], [100], [1] * 100])
def test_the_last_rows_are_held_however_they_came(sizes):
    output = made(100)
    expected = report_of(*parts(output, [68, 32])[1:], rows=32)
    assert report_of(*parts(output, sizes), rows=32) == pytest.approx(expected, rel=1e-5)


def test_rows_of_z_and_alignment_are_of_the_same_images():
    same, unlike = made(32), made(32, seed=1)
    same.z[1] = same.z[0]
    assert report_of(unlike, same, rows=32)["z_alignment"] == pytest.approx(0, abs=1e-6)
    assert report_of(same, unlike, rows=32)["z_alignment"] > 1


def test_what_is_put_in_may_change_afterwards():
    output = made(20)
    monitor = CollapseMonitor(DIM, FEATURES)
    monitor.update(output)
    before = monitor.report()
    output.z.zero_()
    assert monitor.report() == before


def test_before_it_is_full_the_monitor_reports_what_it_has():
    monitor = CollapseMonitor(DIM, FEATURES)
    with pytest.raises(ValueError, match="n >= 2"):
        monitor.report()
    monitor.update(made(10))
    assert monitor.report()["rows"] == 10


@pytest.mark.parametrize("name", ["z", "p", "features"])
def test_a_value_that_is_not_finite_shows(name):
    output = made(50)
    getattr(output, name)[0, 3, 2] = math.nan
    report = report_of(output)
    assert all(math.isnan(value) for key, value in report.items() if key.startswith(f"{name}_") and key != "z_alignment")


def test_a_resumed_monitor_reports_the_same(tmp_path):
    first, second = made(50), made(40, seed=1)
    before, straight, resumed = (CollapseMonitor(DIM, FEATURES, 32) for _ in range(3))
    before.update(first)
    torch.save(before.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.report() == before.report()
    resumed.update(second)
    straight.update(first)
    straight.update(second)
    assert resumed.report() == straight.report()
    assert before.state_dict()["seen"] == 50


def test_a_saved_state_does_not_follow_the_monitor():
    monitor = CollapseMonitor(DIM, FEATURES)
    monitor.update(made(20))
    state = monitor.state_dict()
    held = state["z"].clone()
    monitor.update(made(20, seed=1))
    assert torch.equal(state["z"], held)


def test_other_shapes_are_refused():
    monitor = CollapseMonitor(DIM, FEATURES)
    good = made(6)
    for name, value in (("z", torch.zeros(2, 6, 9)), ("p", torch.zeros(2, 5, DIM)), ("features", torch.zeros(6, FEATURES))):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            monitor.update(Output(good.loss, **{"z": good.z, "features": good.features, "p": good.p} | {name: value}))
    with pytest.raises(ValueError, match="z: expected a buffer"):
        monitor.load_state_dict(CollapseMonitor(DIM + 1, FEATURES).state_dict())
    with pytest.raises(ValueError, match="state of a collapse monitor"):
        monitor.load_state_dict({"buffer": torch.zeros(1024, DIM), "seen": torch.tensor(0)})


def test_wide_vectors_are_judged_by_some_channels_and_rows():
    """Means over pairs of every fourth channel and of half the rows are those of all within chance."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 1024, 40, generator=generator) @ torch.randn(40, 2048, generator=generator)
    monitor = CollapseMonitor(2048, FEATURES)
    monitor.update(Output(torch.zeros(()), z, torch.randn(1, 1024, FEATURES, generator=generator)))
    report = monitor.report()
    assert report["z_correlation"] == pytest.approx(float(correlation(z[0])), rel=0.02)
    assert report["z_uniformity"] == pytest.approx(float(uniformity(z[0])), abs=0.02)


@pytest.mark.parametrize(
    ("batch", "total", "expected"),
    [(256, 1_000, 50), (32, 1_000, 50), (16, 1_000, 64), (256, 100_000, 500), (256, 60, 15), (4, 3, 1), (2048, 10_000, 50)],
)
def test_the_interval_follows_from_settings(batch, total, expected):
    assert check_interval(batch, total) == expected


def test_an_interval_needs_samples_and_steps():
    with pytest.raises(ValueError, match="at least one"):
        check_interval(0, 10)
