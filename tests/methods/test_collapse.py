from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from medssl.methods.collapse import CollapseMonitor, effective_rank, gaussian_rank, std_sqrt_d, verdict


def gaussian(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def report_of(z: torch.Tensor) -> dict[str, float]:
    monitor = CollapseMonitor(z.shape[1], rows=len(z))
    monitor.update(z)
    return monitor.report()


@pytest.mark.parametrize(("rows", "expected"), [(32, 0.992), (256, 0.999)])
def test_std_of_a_gaussian_is_1(rows, expected):
    values = [float(std_sqrt_d(gaussian(rows, 128, seed))) for seed in range(20)]
    assert sum(values) / 20 == pytest.approx(expected, abs=2e-3)


def test_std_and_the_mean_vector_are_the_same_signal():
    """The mean square over channels is 1 - |mean of z / |z||^2, exactly (2203.16262)."""
    z = F.normalize(gaussian(500, 64).double() + 0.7, dim=1)
    channels = z.var(dim=0, unbiased=False).mean().sqrt() * math.sqrt(64)
    assert float(channels**2 + z.mean(0).square().sum()) == pytest.approx(1, abs=1e-12)
    assert float(std_sqrt_d(z)) == pytest.approx(float(channels), abs=5e-3)


def test_std_needs_two_rows():
    with pytest.raises(ValueError, match="n >= 2"):
        std_sqrt_d(torch.zeros(1, 4))


def test_effective_rank_equals_its_definition():
    z = gaussian(90, 40).double() * torch.linspace(0.01, 1, 40)
    singular = torch.linalg.svdvals(z)
    share = singular / singular.sum() + 1e-7
    assert effective_rank(z) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-9)
    assert effective_rank(z.T) == pytest.approx(effective_rank(z), rel=1e-9)


def test_effective_rank_of_known_matrices():
    basis = torch.linalg.qr(gaussian(64, 8))[0]
    assert effective_rank(basis) == pytest.approx(8, abs=1e-3)
    assert effective_rank(torch.ones(100, 30)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(10, 3)) == 1
    assert 1 <= effective_rank(basis @ gaussian(8, 512)) <= 8.01


def test_the_gaussian_reference_is_fixed():
    first = gaussian_rank(256, 64)
    gaussian_rank.cache_clear()
    assert gaussian_rank(256, 64) == first
    assert 60 < first <= 64


def test_healthy():
    report = report_of(gaussian(1024, 128))
    assert report["std_sqrt_d"] == pytest.approx(1, abs=0.01)
    assert report["rank_share"] == pytest.approx(1, abs=0.01)
    assert verdict(report)[0] == "healthy"


@pytest.mark.parametrize(
    "z",
    [
        torch.ones(256, 64),
        torch.ones(256, 64) + 0.1 * gaussian(256, 64),
        gaussian(256, 1) @ gaussian(1, 64, 1),  # both ways along one line: std looks fine, the rank is 1
        torch.full((256, 64), float("nan")),
    ],
)
def test_collapsed(z):
    report = report_of(z.nan_to_num()) if z.isnan().any() else report_of(z)
    assert verdict(report)[0] == "collapsed"


def test_an_unknown_std_is_not_healthy():
    assert verdict({"std_sqrt_d": math.nan, "effective_rank": 50.0, "rank_share": 0.5})[0] == "collapsed"


def test_few_dimensions_are_seen_where_std_is_silent():
    z = gaussian(1024, 4) @ gaussian(4, 256, 1)
    z = (z - z.mean(0)) / z.std(0)  # what an output BN does
    report = report_of(z)
    assert report["std_sqrt_d"] > 0.9
    state, sentence = verdict(report)
    assert state == "dimensional collapse"
    assert "\n" not in sentence


def test_the_monitor_holds_the_last_rows_in_any_order_of_updates():
    z = gaussian(100, 8)
    monitor = CollapseMonitor(8, rows=32)
    for part in z.split(7):
        monitor.update(part)
    assert monitor.report() == pytest.approx(report_of(z[-32:]), rel=1e-5)
    large = CollapseMonitor(8, rows=32)
    large.update(z)
    assert large.report() == pytest.approx(report_of(z[-32:]), rel=1e-5)


def test_before_it_is_full_the_monitor_reports_what_it_has():
    monitor = CollapseMonitor(8, rows=1024)
    with pytest.raises(ValueError, match="n >= 2"):
        monitor.report()
    z = gaussian(10, 8)
    monitor.update(z)
    assert monitor.report() == pytest.approx(report_of(z))


def test_a_resumed_monitor_reports_the_same(tmp_path):
    z = gaussian(90, 8)
    straight, resumed = CollapseMonitor(8, rows=32), CollapseMonitor(8, rows=32)
    first = CollapseMonitor(8, rows=32)
    first.update(z[:50])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.update(z[50:])
    straight.update(z[:50])
    straight.update(z[50:])
    assert resumed.report() == straight.report()


def test_other_shapes_are_refused():
    monitor = CollapseMonitor(8)
    with pytest.raises(ValueError, match=r"\(n, 8\)"):
        monitor.update(torch.zeros(3, 9))
    with pytest.raises(ValueError, match="buffer"):
        monitor.load_state_dict(CollapseMonitor(9).state_dict())
