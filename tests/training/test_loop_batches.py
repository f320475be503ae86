"""What a step gets from the loop: related images, parts of a batch, the rates of the method's groups."""

from __future__ import annotations

import signal
from collections import defaultdict

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.pair_kinds import SamePatient
from medssl.data.pairs import RelatedImages, related_images
from medssl.methods import Batch, Method, build_method
from medssl.methods.simsiam import SimSiamSettings
from medssl.methods.simtriplet import SimTripletSettings
from medssl.training.checkpoint import Checkpoints
from medssl.training.loop import Run, ViewPlan, drawn_at, train
from medssl.training.optimizers import build_optimizer
from medssl.training.stop import StopFlag, Stopped

ALONE = {20, 21}  # images of patients with one image


@pytest.fixture(scope="module")
def pairs() -> RelatedImages:
    """Five patients of four images, two of one."""
    manifest = pd.DataFrame({"source": "a", "patient": [f"p{i // 4}" for i in range(20)] + ["q", "r"]})
    return related_images(manifest, {"a": [SamePatient(kind="same_patient")]})


class Pixels:
    """A policy that shows the images as they are."""

    def sample(self, n, generator):
        return {"at": torch.arange(n)}

    def apply(self, batch, parameters, size):
        assert len(batch) == len(parameters["at"])
        return batch.pixels.float() / 255


class Encoder(nn.Sequential):
    feature_dim = 8

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(nn.Conv2d(1, 8, 3, 2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def simtriplet(*, bn: bool = True) -> Method:
    torch.manual_seed(0)
    settings = SimTripletSettings(projector_dim=8, projector_hidden=8, batch_norm="default" if bn else "none")
    return build_method(settings, Encoder(nn.BatchNorm2d(8) if bn else nn.Identity()), seed=0)


def simsiam() -> Method:
    torch.manual_seed(0)
    return build_method(SimSiamSettings(projector_dim=8, projector_hidden=8), Encoder(nn.BatchNorm2d(8)), seed=0)


def make_run(source, method: Method, **changes) -> Run:
    policy = build_policy(policy_settings({"policy": "chest_xray"}))
    values = {
        "module": method,
        "forward": lambda module, drawn: module(Batch(drawn.views, drawn.related)),
        "optimizer": build_optimizer(method.recipe, method.parameter_groups(), 0.05),
        "source": source,
        "views": [ViewPlan(policy, 12, view.related) for view in method.view_spec().views],
        "epochs": 3,
        "batch_size": 4,
        "seed": 1,
        "device": torch.device("cpu"),
        "inputs": {"data": "d" * 64},
    }
    return Run(**values | changes)


def tensors(run: Run) -> list[Tensor]:
    momenta = [v for s in run.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [*run.module.state_dict().values(), *momenta]


def shown(source, pairs, **changes) -> dict[int, dict[int, tuple[int, bool]]]:
    """For each epoch and image, which image its related view showed, and whether the step was told that it is another one."""
    whole = source.batch(torch.arange(len(source)).numpy()).pixels.float() / 255
    seen, epoch = defaultdict(dict), []
    method = simtriplet()

    def forward(module, drawn):
        for i, row in enumerate(drawn.pixels.row.tolist()):
            assert torch.equal(drawn.views[0][i], whole[row])
            assert torch.equal(drawn.views[2][i], whole[row])
            (other,) = [j for j in range(len(whole)) if torch.equal(drawn.views[1][i], whole[j])]
            seen[len(epoch)][row] = (other, bool(drawn.related[i]))
        return method(Batch(drawn.views, drawn.related))

    views = [ViewPlan(Pixels(), 16, view.related) for view in method.view_spec().views]
    changes |= {"forward": forward, "views": views, "pairs": pairs, "batch_size": 11}
    train(make_run(source, method, on_epoch=lambda *_: epoch.append(0), **changes), StopFlag())
    return dict(seen)


def test_a_related_view_shows_the_partner_that_was_drawn(source, pairs):
    """It shows the image that `partners(seed, epoch)` names, of the same patient; without a mate the image itself, marked as such."""
    seen = shown(source, pairs)
    assert sorted(seen) == [0, 1, 2]
    for epoch, of_image in seen.items():
        partners = pairs.partners(1, epoch).tolist()
        assert sorted(of_image) == list(range(22))
        for image, (other, related) in of_image.items():
            assert related is (image not in ALONE)
            assert other == (partners[image] if related else image)
            assert not related or (other != image and other // 4 == image // 4)


def test_partners_are_drawn_anew_for_each_epoch(source, pairs):
    seen = shown(source, pairs)
    changed = [image for image in range(20) if len({seen[epoch][image][0] for epoch in seen}) > 1]
    assert len(changed) > 10
    assert shown(source, pairs) == seen


def test_parts_of_a_batch_get_their_own_partners(source, pairs):
    assert shown(source, pairs, accumulate=3) == shown(source, pairs)


@pytest.mark.parametrize("at", [2, 5, 8])
def test_with_related_views_a_stopped_run_ends_bitwise_the_same(source, pairs, tmp_path, at):
    whole = make_run(source, simtriplet(), pairs=pairs)
    train(whole, StopFlag())

    stop = StopFlag()
    first = make_run(source, simtriplet(), pairs=pairs, checkpoints=Checkpoints(tmp_path / "c"))
    first.on_step = lambda progress: progress.step == at and stop.set(signal.SIGTERM)
    with pytest.raises(Stopped):
        train(first, stop)
    second = make_run(source, simtriplet(), pairs=pairs, checkpoints=Checkpoints(tmp_path / "c"))
    train(second, StopFlag())
    assert all(torch.equal(*both) for both in zip(tensors(whole), tensors(second), strict=True))

    nobody = related_images(pd.DataFrame({"source": "a", "patient": [str(i) for i in range(22)]}), {})
    without = make_run(source, simtriplet(), pairs=nobody)
    train(without, StopFlag())
    assert not torch.equal(whole.module.encoder[0].weight, without.module.encoder[0].weight)


def both_ways(source, pairs, *, bn: bool) -> tuple[Run, Run, list[list[Tensor]]]:
    """A run of whole batches, one of halves, and the losses of their steps."""
    runs, losses = [], []
    for accumulate in (1, 2):
        steps: list[Tensor] = []

        def on_step(progress, steps=steps, accumulate=accumulate):
            assert len(progress.outputs) == accumulate
            steps.append(progress.loss)

        run = make_run(source, simtriplet(bn=bn), pairs=pairs, accumulate=accumulate, on_step=on_step)
        train(run, StopFlag())
        runs.append(run)
        losses.append(steps)
    return *runs, losses


def test_without_bn_a_batch_in_parts_trains_as_a_whole_one(source, pairs):
    """Views are those of the whole batch, the step is taken once: the same weights, within 1e-6."""
    whole, halves, losses = both_ways(source, pairs, bn=False)
    assert len(losses[0]) == len(losses[1]) == 15
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    torch.testing.assert_close(tensors(whole), tensors(halves), atol=1e-6, rtol=0)
    start = simtriplet(bn=False).encoder[0].weight
    assert (whole.module.encoder[0].weight - start).abs().max() > 1e-4


def test_with_bn_a_batch_in_parts_is_another_one(source, pairs):
    """BN sees one part at a time."""
    whole, halves, _ = both_ways(source, pairs, bn=True)
    assert not torch.allclose(whole.module.encoder[0].weight, halves.module.encoder[0].weight, atol=1e-6)


@pytest.mark.parametrize("at", [1, 7])
def test_a_resumed_run_goes_on_with_the_same_rates(source, tmp_path, at):
    """Encoder and projector follow the cosine to nearly 0, SimSiam's predictor keeps its rate, through a stop too: to the last bit."""
    whole, parts = [], []
    train(make_run(source, simsiam(), on_step=lambda progress: whole.append(progress.learning_rates)), StopFlag())

    stop = StopFlag()

    def on_step(progress):
        parts.append(progress.learning_rates)
        if progress.step == at:
            stop.set(signal.SIGTERM)

    with pytest.raises(Stopped):
        train(make_run(source, simsiam(), checkpoints=Checkpoints(tmp_path / "c"), on_step=on_step), stop)
    last = make_run(source, simsiam(), checkpoints=Checkpoints(tmp_path / "c"), on_step=lambda p: parts.append(p.learning_rates))
    train(last, StopFlag())
    assert parts == whole
    assert [rates["predictor"] for rates in whole] == [0.05] * 15
    assert whole[0]["encoder"] == 0.05
    assert whole[-1]["encoder"] == whole[-1]["projector"] < 0.05 * 0.02


def test_what_a_step_will_draw_is_what_it_draws(source, pairs):
    seen = []
    method = simtriplet()

    def forward(module, drawn):
        seen.append(drawn)
        return method(Batch(drawn.views, drawn.related))

    run = make_run(source, method, pairs=pairs, accumulate=2, forward=forward, epochs=2)
    foretold = [part for step in range(run.total_steps) for part in drawn_at(run, step)]
    train(run, StopFlag())
    assert len(foretold) == len(seen) == 2 * run.total_steps
    for one, other in zip(foretold, seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
        assert torch.equal(one.related, other.related)


def test_warm_up_ends_before_a_short_schedule_does(source):
    whole = make_run(source, simsiam(), epochs=10, warmup_epochs=2)
    assert whole.warmup_steps == 2 * whole.steps_per_epoch
    assert make_run(source, simsiam(), epochs=10, warmup_epochs=2, max_steps=30).warmup_steps == 3
