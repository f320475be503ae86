from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from medssl.augment.geometry import Geometry, crop_transform
from medssl.augment.resampling import MOST_POINTS, points_per_pixel, resample


def identity(dims: int, n: int = 1) -> dict[str, torch.Tensor]:
    return Geometry().sample(n, 0, dims) | {"place": torch.full((n, dims), 0.5)}


def full_box(images: torch.Tensor) -> torch.Tensor:
    spatial = images.shape[2:]
    return torch.tensor([[0.0] * len(spatial) + [float(side) for side in spatial]]).repeat(len(images), 1)


def view_of(images, drawn, size, points=None, **options):
    box, dims = full_box(images), images.ndim - 2
    matrix, center = crop_transform(box, torch.ones(len(images), dims), drawn, inside=False)
    return resample(images, box, matrix, center, size, points=points, elastic=drawn.get("elastic"), **options)


def smooth(*sides: int) -> torch.Tensor:
    """Waves of at least a third of the image's side."""
    lines = [torch.linspace(0, 1, side) for side in sides]
    total = torch.zeros(sides)
    for axis, line in enumerate(lines):
        shape = [1] * len(sides)
        shape[axis] = -1
        total = total + torch.sin((2 + axis) * math.pi * line + axis).view(shape)
    return (total / (2 * len(sides)) + 0.5)[None, None]


def test_points_lie_no_further_apart_than_bilinear_interpolation_reads():
    assert points_per_pixel((64, 64), (64, 64)) == (1, 1)
    assert points_per_pixel((128, 64), (64, 64)) == (2, 1)
    assert points_per_pixel((32, 300, 6400), (64, 64, 64)) == (1, 4, MOST_POINTS)


@pytest.mark.parametrize("dims", [2, 3])
def test_fine_stripes_turn_grey_instead_of_aliasing(dims):
    side, small = (128, 32) if dims == 2 else (48, 12)
    for axis in range(dims):
        stripes = torch.zeros(1, 1, *[side] * dims)
        stripes.movedim(2 + axis, 0)[::2] = 1
        size = (small,) * dims
        view = view_of(stripes, identity(dims), size, points_per_pixel((side,) * dims, size))
        assert view.std() < 0.01
        assert view.mean() == pytest.approx(0.5, abs=0.01)
    # One point a pixel would alias: where they fall between pixels all is grey by chance, so a crop of an odd size is taken.
    odd = identity(2) | {"scale": torch.tensor([0.9])}
    stripes = torch.zeros(1, 1, 128, 128)
    stripes[..., ::2] = 1
    assert view_of(stripes, odd, (32, 32)).std() > 0.1


def composed(dims: int) -> list[tuple[str, torch.Tensor]]:
    """Steps whose product is the frame of a view: rotation, then shear, then crop, then flip."""
    steps = [("rotation", torch.tensor([25.0])), ("shear", torch.tensor([10.0])), ("scale", torch.tensor([0.5**dims]))]
    return [*steps, ("flip", torch.eye(dims)[:1])]


@pytest.mark.parametrize(("dims", "side"), [(2, 96), (3, 48)])
def test_one_resampling_equals_the_steps_one_after_another_within_interpolation_error_of_a_hundredth(dims, side):
    """The middle half of the view: further out the steps' own edges were repeated."""
    image, size = smooth(*[side] * dims), (side,) * dims
    everything = view_of(image, identity(dims) | dict(composed(dims)), size)
    steps = image
    for name, value in composed(dims):
        steps = view_of(steps, identity(dims) | {name: value}, size)
    middle = (..., *[slice(side // 4, -side // 4)] * dims)
    assert image[middle].std() > 0.1
    torch.testing.assert_close(everything[middle], steps[middle], atol=0.01, rtol=0)
    unlike = view_of(image, identity(dims) | dict(composed(dims)[:-1]), size)
    assert (unlike[middle] - steps[middle]).abs().max() > 0.1, "the test would not see a missing flip"


@pytest.mark.parametrize("box", [(3, 5, 30, 40), (0, 0, 64, 64), (10, 20, 33, 34)])
def test_enlarging_agrees_with_torchvision_within_1e_5_apart_from_the_border(box):
    """torchvision cuts the crop out and repeats its edge; here the neighbours beyond the crop count, which is sharper."""
    top, left, height, width = box[0], box[1], box[2] - box[0], box[3] - box[1]
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = tv.resized_crop(image, top, left, height, width, [96, 96], antialias=True)
    matrix = torch.diag(torch.tensor([float(width), float(height)]))[None]
    center = torch.tensor([[left + width / 2, top + height / 2]])
    view = resample(image, full_box(image), matrix, center, (96, 96))
    rim = math.ceil(96 / min(width, height) / 2)
    inner = (..., slice(rim, -rim), slice(rim, -rim))
    torch.testing.assert_close(view[inner], expected[inner], atol=1e-5, rtol=0)


def test_shrinking_by_2_agrees_with_torchvision_within_a_mean_of_0_001_for_smooth_images_and_0_07_for_white_noise():
    """Its filter is a triangle two stored pixels wide to each side; ours is the mean of four points."""
    image = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    expected = tv.resized_crop(image, 0, 0, 128, 128, [64, 64], antialias=True)
    view = view_of(image, identity(2), (64, 64), (2, 2))
    assert (view - expected).abs().mean() < 0.07
    image = smooth(128, 128)
    expected = tv.resized_crop(image, 0, 0, 128, 128, [64, 64], antialias=True)
    assert (view_of(image, identity(2), (64, 64), (2, 2)) - expected).abs().mean() < 0.001


@pytest.mark.parametrize("dims", [2, 3])
def test_the_deformation_is_a_cubic_b_spline_through_its_control_points(dims):
    """An image that is its own coordinate shows the displacement; scipy has the spline."""
    from scipy.interpolate import BSpline

    side, spans = 24, 3
    generator = torch.Generator().manual_seed(0)
    elastic = (torch.rand(1, dims, *[spans + 3] * dims, generator=generator) - 0.5) * 0.1
    ramp = ((torch.arange(side) + 0.5) / side).expand(1, 1, *[side] * dims).contiguous()
    drawn = identity(dims) | {"elastic": elastic, "scale": torch.tensor([0.5**dims])}  # far from the edge
    view = view_of(ramp, drawn, (side,) * dims)[0, 0].numpy()
    at = (np.arange(side) + 0.5) / side * spans
    knots = np.arange(-3, spans + 4, dtype=float)
    weights = np.stack([BSpline(knots, np.eye(spans + 3)[i], 3)(at) for i in range(spans + 3)], 1)
    field = elastic[0, 0].numpy()
    for axis in range(dims):
        field = np.moveaxis(np.tensordot(field, weights, axes=(axis, 1)), -1, axis)
    expected = 0.5 + 0.5 * ((np.arange(side) + 0.5) / side - 0.5 + field)
    assert np.abs(field).max() > 0.005
    np.testing.assert_allclose(view, expected, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_constant_control_points_are_a_shift(dims):
    image = smooth(*[32] * dims)
    elastic = torch.zeros(1, dims, *[7] * dims)
    elastic[:, 0] = 4 / 32 / 0.5  # shares of a view that is half of the image
    half = identity(dims) | {"scale": torch.tensor([0.5**dims])}
    view = view_of(image, half | {"elastic": elastic}, (16,) * dims)
    middle = (..., *[slice(8, 24)] * (dims - 1), slice(12, 28))
    torch.testing.assert_close(view, image[middle], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_nearest_gives_the_pixel_that_a_point_lies_in(dims):
    image = torch.rand(2, 1, *[12] * dims, generator=torch.Generator().manual_seed(0))
    drawn = Geometry(rotation=180.0, crop_scale=[0.3, 0.9], elastic=0.3).sample(2, 4, dims)
    view = view_of(image, drawn, (20,) * dims, points=(2,) * dims, nearest=True)
    assert view.shape == (2, 1, *[20] * dims)
    assert all(set(v.flatten().tolist()) <= set(i.flatten().tolist()) for v, i in zip(view, image, strict=True))
    exact = view_of(image, identity(dims, 2), (12,) * dims, nearest=True)
    assert torch.equal(exact, image)


def test_a_known_full_box_changes_nothing():
    image = torch.rand(5, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    drawn = Geometry(rotation=180.0, crop_scale=[0.3, 1.0]).sample(5, 4, 2)
    a, b = (view_of(image, drawn, (24, 24), full_box=known) for known in (True, False))
    assert torch.equal(a, b)
