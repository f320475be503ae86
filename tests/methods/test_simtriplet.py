"""SimTriplet: the sum of two SimSiam losses that share a view."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medssl.errors import StudyError
from medssl.methods import Batch, View, ViewSpec, build_method, method_settings
from medssl.methods.simsiam import SimSiam, SimSiamSettings
from medssl.methods.simtriplet import SimTriplet, SimTripletSettings

WIDTHS = {"projector_dim": 16, "projector_hidden": 20}
N = 16


class TinyEncoder(nn.Sequential):
    feature_dim = 24

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__(nn.Conv2d(1, 24, 3, 2), norm(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class NoNorm(nn.Identity):
    """In place of a BN, with its argument."""


def tiny(norm: type[nn.Module] = nn.BatchNorm2d, **settings) -> SimTriplet:
    torch.manual_seed(0)
    return build_method(SimTripletSettings(**WIDTHS | settings), TinyEncoder(norm), seed=0).train()


def simsiam() -> SimSiam:
    torch.manual_seed(0)
    return build_method(SimSiamSettings(**WIDTHS), TinyEncoder(), seed=0).train()


@pytest.fixture
def views() -> list[Tensor]:
    return list(torch.rand(3, N, 1, 12, 12, generator=torch.Generator().manual_seed(0)))


def batch(views: list[Tensor], paired: int = N) -> Batch:
    return Batch(views, related=torch.arange(len(views[0])) < paired)


def test_two_views_of_the_sample_and_one_of_a_related_image_are_asked_for():
    assert tiny().view_spec() == ViewSpec((View(), View(related=True), View()))
    assert SimTriplet.pairs


def test_loss_is_the_sum_of_two_simsiam_losses(views):
    """L(x1, x2, x3) = SimSiam(x1, x2) + SimSiam(x1, x3)."""
    output, one = tiny()(batch(views)), simsiam()
    inter, intra = one(Batch(views[:2])).loss, one(Batch(views[::2])).loss
    torch.testing.assert_close(output.loss, inter + intra)
    torch.testing.assert_close(output.logs["loss_inter"], inter.detach())
    torch.testing.assert_close(output.logs["loss_intra"], intra.detach())
    assert not torch.isclose(inter, intra, atol=1e-4)


def test_with_the_same_view_twice_it_is_twice_simsiam(views):
    """x3 = x2: 2 SimSiam(x1, x2)."""
    loss = tiny()(batch([views[0], views[1], views[1]])).loss
    torch.testing.assert_close(loss, 2 * simsiam()(Batch(views[:2])).loss)


@pytest.mark.parametrize("sign", [1, -1])
def test_loss_lies_between_minus_and_plus_two(views, sign):
    """Both ends are reached: a predictor that gives z, and one that gives -z, of three times the same view."""
    method = tiny(predictor="none")
    assert -2 < method(batch(views)).loss < 2
    method.predictor = nn.Linear(16, 16, bias=False)
    nn.init.eye_(method.predictor.weight).data.mul_(sign)
    torch.testing.assert_close(method(batch([views[0]] * 3)).loss, torch.tensor(-2.0 * sign))


def test_the_related_view_and_the_second_one_may_change_places(views):
    method = tiny()
    swapped = method(batch([views[0], views[2], views[1]])).loss
    torch.testing.assert_close(method(batch(views)).loss, swapped)
    other_anchor = method(batch([views[1], views[0], views[2]])).loss
    assert not torch.isclose(swapped, other_anchor, atol=1e-4)


@pytest.mark.parametrize("changed", [1, 2])
def test_no_term_joins_the_related_view_and_the_second_one(views, changed):
    """The gradient at x2 is the same whatever x3 is, and the other way round; that at x1 is not."""
    method, watched = tiny(), 3 - changed

    def gradients(last: Tensor) -> list[Tensor]:
        inputs = [view.clone().requires_grad_() for view in views]
        inputs[changed] = last
        loss = method(batch(inputs)).loss
        return list(torch.autograd.grad(loss, [inputs[0], inputs[watched]]))

    first, second = gradients(views[changed]), gradients(views[changed].flip(0) * 2)
    assert first[1].abs().max() > 0
    torch.testing.assert_close(first[1], second[1], atol=1e-9, rtol=0)
    assert not torch.allclose(first[0], second[0], atol=1e-9)


@pytest.mark.parametrize(("paired", "fallback"), [(N, 0.0), (4, 0.75), (0, 1.0)])
def test_the_share_without_a_related_image_is_logged(views, paired, fallback):
    logs = tiny()(batch(views, paired)).logs
    assert float(logs["pair_fallback"]) == fallback
    assert {"loss_inter", "loss_intra", "pair_fallback", "p_norm"} <= set(logs)
    assert all(value.ndim == 0 and not value.requires_grad for value in logs.values())


def test_the_monitor_gets_all_three_views(views):
    output = tiny()(batch(views))
    assert output.z.shape == output.p.shape == (3, N, 16)
    assert output.features.shape == (3, N, 24)


def test_bfloat16_autocast_changes_the_loss_by_less_than_a_hundredth(views):
    method = tiny()
    expected = method(batch(views)).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch(views))
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected, atol=1e-2, rtol=0)


def gradient(method: SimTriplet, views: list[Tensor], parts: int) -> Tensor:
    """That of the batch's loss, gathered over `parts` micro-batches of one size."""
    method.zero_grad()
    for part in zip(*(view.chunk(parts) for view in views), strict=True):
        (method(batch(list(part))).loss / parts).backward()
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])


def test_micro_batches_are_one_batch_up_to_bn(views):
    """Where BN is removed or takes its running statistics, gathered gradients are those of the whole batch; else they are not."""
    views = [view.double() for view in views]
    for method, same in ((tiny(NoNorm, batch_norm="none"), True), (tiny().eval(), True), (tiny(), False)):
        method.double()
        whole, parts = gradient(method, views, 1), gradient(method, views, 4)
        assert whole.abs().max() > 1e-6
        assert torch.allclose(whole, parts, atol=1e-12, rtol=1e-9) is same


def test_other_views_are_refused(views):
    with pytest.raises(ValueError, match="expected three views"):
        tiny()(batch(views[:2]))
    with pytest.raises(ValueError, match="which samples are paired"):
        tiny()(Batch(views))


def test_its_settings_are_simsiams_with_the_symmetric_loss():
    settings = method_settings({"name": "simtriplet", "projector_layers": 2})
    assert isinstance(settings, SimTripletSettings)
    with pytest.raises(StudyError, match=r"pretrain\.method: loss: is 'asymmetric'") as caught:
        method_settings({"name": "simtriplet", "loss": "asymmetric"})
    assert "\n" not in str(caught.value)


def test_recipe_and_groups_are_simsiams():
    assert SimTriplet.recipe == SimSiam.recipe
    names = [(group["name"], group["schedule"]) for group in tiny().parameter_groups()]
    assert names == [("encoder", "cosine"), ("projector", "cosine"), ("predictor", "constant")]
