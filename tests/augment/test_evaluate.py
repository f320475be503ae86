from __future__ import annotations

import torch

from medssl.augment.evaluate import eval_view


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


def test_the_evaluation_view_of_an_inverted_image_equals_that_of_its_negative(make_batch):
    pixels = torch.rand(6, 1, 37, 37) * 200 + 20
    columns = {"center": 127.5, "width": 255.0, "box": [0.0, 6.0, 37.0, 30.0]}
    plain, negative = make_batch(pixels, **columns), make_batch(255 - pixels, **columns, invert=True)
    torch.testing.assert_close(eval_view(plain, 32), eval_view(negative, 32), atol=1e-5, rtol=0)


def test_colour_keeps_its_channels(make_batch):
    pixels = torch.rand(2, 3, 16, 16)
    assert torch.equal(eval_view(make_batch(pixels), 16), pixels)
    assert eval_view(make_batch(pixels), 8).shape == (2, 3, 8, 8)
