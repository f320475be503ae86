from __future__ import annotations

import pytest
import torch

from medssl.augment.evaluate import eval_view
from medssl.augment.policies import build_policy, policy_settings
from medssl.errors import StudyError
from medssl.seeds import torch_generator


def generator() -> torch.Generator:
    return torch_generator(0, "views", 0, 0)


@pytest.fixture
def batch(make_batch):
    return make_batch(
        torch.rand(12, 1, 37, 37, generator=generator()) * 255, center=127.5, width=255.0, box=[4.0, 0.0, 33.0, 37.0]
    )


@pytest.fixture
def policy():
    return build_policy(policy_settings({"policy": "chest_xray"}))


def test_views_are_in_the_unit_range_and_a_function_of_their_parameters(batch, policy):
    parameters = policy.sample(12, generator())
    views = policy.apply(batch, parameters, 32)
    assert (views.shape, views.dtype) == ((12, 1, 32, 32), torch.float32)
    assert views.min() >= 0
    assert views.max() <= 1
    torch.manual_seed(5)
    assert torch.equal(policy.apply(batch, parameters, 32), views)
    again = policy.sample(12, generator())
    assert all(torch.equal(parameters[name], again[name]) for name in parameters)
    assert not torch.equal(policy.apply(batch, policy.sample(12, torch_generator(1)), 32), views)


def test_a_rank_that_takes_its_slice_sees_the_same_views(batch, policy, make_batch):
    parameters = policy.sample(12, generator())
    views = policy.apply(batch, parameters, 32)
    part = {name: value[4:8] for name, value in parameters.items()}
    assert all(len(value) == 12 and value.device.type == "cpu" for value in parameters.values())
    sliced = make_batch(batch.pixels[4:8], center=127.5, width=255.0, box=[4.0, 0.0, 33.0, 37.0])
    assert torch.equal(policy.apply(sliced, part, 32), views[4:8])


def test_the_batch_is_left_as_it_was_and_no_graph_is_built(batch, policy):
    pixels = batch.pixels.clone()
    assert not policy.apply(batch, policy.sample(12, generator()), 32).requires_grad
    assert torch.equal(batch.pixels, pixels)


def test_views_of_an_inverted_image_equal_those_of_its_negative(policy, make_batch):
    pixels = torch.rand(6, 1, 37, 37, generator=generator()) * 200 + 20
    box = [0.0, 6.0, 37.0, 30.0]
    parameters = policy.sample(6, generator()) | {"center_shift": torch.zeros(6)}
    plain = make_batch(pixels, center=127.5, width=255.0, box=box)
    negative = make_batch(255 - pixels, center=127.5, width=255.0, box=box, invert=True)
    torch.testing.assert_close(policy.apply(plain, parameters, 32), policy.apply(negative, parameters, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(eval_view(plain, 32), eval_view(negative, 32), atol=1e-5, rtol=0)


def test_no_view_holds_padding(make_batch):
    """The valid pixels are mid-grey whatever the inversion; black could only come from the padding."""
    policy = build_policy(policy_settings({"policy": "chest_xray", "noise": [0.0, 0.0], "translation": 0.5, "rotation": 90.0}))
    batch = make_batch(torch.full((64, 1, 40, 40), 0.5), box=[13.0, 0.0, 27.0, 40.0], invert=[True, False] * 32)
    assert policy.apply(batch, policy.sample(64, generator()), 32).min() > 0.2


def test_the_heart_stays_on_its_side_unless_flips_are_asked_for(make_batch):
    pixels = torch.zeros(64, 1, 37, 37)
    pixels[..., 20:] = 1
    sides = {}
    for flip in (0.0, 0.5):
        policy = build_policy(policy_settings({"policy": "chest_xray", "horizontal_flip": flip, "crop_scale": [0.9, 1.0]}))
        views = policy.apply(make_batch(pixels), policy.sample(64, generator()), 32)
        sides[flip] = (views[..., 16:].mean((1, 2, 3)) > views[..., :16].mean((1, 2, 3))).float().mean()
    assert sides[0.0] == 1
    assert 0.25 < sides[0.5] < 0.75


def test_the_evaluation_view_holds_the_whole_square_and_black_padding(make_batch):
    pixels = torch.ones(2, 1, 40, 40)
    pixels[0, :, 10:30] = 0.25
    batch = make_batch(pixels, box=[[10.0, 0.0, 30.0, 40.0], [0.0, 0.0, 40.0, 40.0]], invert=[True, False])
    view = eval_view(batch, 20)
    assert view[0, 0, :4].eq(0).all()
    assert view[0, 0, -4:].eq(0).all()
    torch.testing.assert_close(view[0, 0, 7:13], torch.full((6, 20), 0.75), atol=1e-4, rtol=0)
    torch.testing.assert_close(view[1], torch.ones(1, 20, 20))


def test_the_evaluation_view_keeps_every_corner_and_does_not_alias(make_batch):
    pixels = torch.zeros(1, 1, 64, 64)
    pixels[..., 0, 0] = pixels[..., -1, -1] = 1
    view = eval_view(make_batch(pixels), 32)
    assert view[0, 0, 0, 0] > 0.1
    assert view[0, 0, -1, -1] > 0.1
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    assert eval_view(make_batch(stripes), 16)[..., 2:-2].std() < 0.02
    assert torch.equal(eval_view(make_batch(pixels), 64), pixels)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"policy": "chest_xry"}, "did you mean 'chest_xray'"),
        ({}, "allowed: chest_xray"),
        ({"policy": "chest_xray", "crop_scale": [1.0, 0.3]}, "must not be above"),
        ({"policy": "chest_xray", "crop_scale": [0.0, 1.0]}, "crop_scale"),
        ({"policy": "chest_xray", "crop_scale": 0.5}, "crop_scale"),
        ({"policy": "chest_xray", "hue": 0.1}, "hue: unknown key"),
        ({"policy": "chest_xray", "gamma": [0.0, 1.0]}, "gamma"),
    ],
)
def test_wrong_settings_are_one_line(value, words):
    with pytest.raises(StudyError, match=words) as caught:
        policy_settings(value)
    assert str(caught.value).startswith("pretrain.views")
    assert "\n" not in str(caught.value)
