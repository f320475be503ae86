from __future__ import annotations

import pytest
import torch

from medssl.augment.geometry import GeometryRanges, apply_geometry, crop_transform, sample_geometry


def identity(n: int = 1, **changes) -> dict[str, torch.Tensor]:
    values = {
        "scale": torch.ones(n),
        "ratio": torch.ones(n),
        "place": torch.full((n, 2), 0.5),
        "rotation": torch.zeros(n),
        "shear": torch.zeros(n),
        "translation": torch.zeros(n, 2),
        "flip": torch.zeros(n),
    }
    return values | {
        name: torch.as_tensor(value, dtype=torch.float32).expand(values[name].shape) for name, value in changes.items()
    }


def full_box(images: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, *images.shape[-2:]]]).repeat(len(images), 1)


@pytest.fixture
def image():
    return torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def test_the_identity(image):
    torch.testing.assert_close(apply_geometry(image, full_box(image), identity(), 24), image, atol=1e-5, rtol=0)


def test_a_flip(image):
    view = apply_geometry(image, full_box(image), identity(flip=1.0), 24)
    torch.testing.assert_close(view, image.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (180.0, 2), (-90.0, -1)])
def test_a_rotation_by_right_angles(image, degrees, turns):
    view = apply_geometry(image, full_box(image), identity(rotation=degrees), 24)
    torch.testing.assert_close(view, image.rot90(turns, (2, 3)), atol=1e-4, rtol=0)


def test_a_crop_on_the_pixel_grid(image):
    parameters = identity(scale=0.25, place=[0.0, 1.0])
    view = apply_geometry(image, full_box(image), parameters, 12)
    # 24 px to 12 px needs 2 x 2 points; half a crop of 12 px is sampled at half-pixel steps.
    expected = image[:, :, :12, 12:]
    assert view.shape == (1, 1, 12, 12)
    assert torch.nn.functional.l1_loss(view, expected) < 0.12
    exact = apply_geometry(image, full_box(image), parameters, 24)
    enlarged = torch.nn.functional.interpolate(expected, size=(24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(exact[..., 2:-2, 2:-2], enlarged[..., 2:-2, 2:-2], atol=1e-5, rtol=0)


def test_translation_moves_the_crop_over_the_edge_and_repeats_it(image):
    view = apply_geometry(image, full_box(image), identity(translation=[0.5, 0.0]), 24)
    torch.testing.assert_close(view[..., :12, :], image[..., 12:, :], atol=1e-5, rtol=0)
    torch.testing.assert_close(view[..., 12:, :], image[..., -1:, :].expand(1, 1, 12, 24), atol=1e-5, rtol=0)


def test_padding_is_never_read():
    """Padding is 1000 here, so one touch would show (rounding may give it a weight of 1e-6); views reach far over the edge."""
    n, generator = 200, torch.Generator().manual_seed(0)
    images = torch.full((n, 1, 40, 40), 1000.0)
    y0, x0 = torch.randint(0, 15, (2, n), generator=generator)
    y1, x1 = torch.randint(20, 41, (2, n), generator=generator)
    for i in range(n):
        images[i, :, y0[i] : y1[i], x0[i] : x1[i]] = 0.5
    ranges = GeometryRanges(scale=(0.1, 1.0), ratio=(0.5, 2.0), rotation=180, translation=0.5, shear=20, flip=0.5)
    box = torch.stack([y0, x0, y1, x1], 1).float()
    view = apply_geometry(images, box, sample_geometry(n, generator, ranges), 32)
    torch.testing.assert_close(view, torch.full_like(view, 0.5), atol=1e-2, rtol=0)


def test_without_rotation_the_crop_lies_in_the_box():
    n, generator = 1000, torch.Generator().manual_seed(0)
    ranges = GeometryRanges(scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3))
    box = torch.tensor([[5.0, 0.0, 35.0, 60.0]]).repeat(n, 1)
    parameters = sample_geometry(n, generator, ranges)
    matrix, center = crop_transform(box, parameters)
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    assert (center[:, 0] - width / 2 >= -1e-4).all()
    assert (center[:, 0] + width / 2 <= 60 + 1e-4).all()
    assert (center[:, 1] - height / 2 >= 5 - 1e-4).all()
    assert (center[:, 1] + height / 2 <= 35 + 1e-4).all()
    torch.testing.assert_close(width / height, parameters["ratio"])
    area = width * height / 1800
    fits = area > parameters["scale"] - 1e-4
    assert (area <= parameters["scale"] + 1e-4).all()
    assert 0.2 < fits.float().mean() < 1, "crops that are too high for the box are shrunk, the others are not"


def test_rotation_does_not_deform_an_oblong_crop():
    """Distances in the store are the same before and after turning, also for a crop of another ratio."""
    box = torch.tensor([[0.0, 0.0, 40.0, 60.0]])
    straight, _ = crop_transform(box, identity(scale=0.5, ratio=0.8))
    turned, _ = crop_transform(box, identity(scale=0.5, ratio=0.8, rotation=30.0))
    torch.testing.assert_close(straight.norm(dim=1), turned.norm(dim=1))
    torch.testing.assert_close(straight.det(), turned.det())


def test_shear_keeps_the_area():
    box = torch.tensor([[0.0, 0.0, 40.0, 60.0]])
    sheared, _ = crop_transform(box, identity(shear=20.0))
    straight, _ = crop_transform(box, identity())
    torch.testing.assert_close(sheared.det(), straight.det())
    assert sheared[0, 0, 1] > 1


def test_a_fine_pattern_turns_grey_instead_of_aliasing():
    stripes = torch.zeros(1, 1, 128, 128)
    stripes[..., ::2] = 1
    view = apply_geometry(stripes, full_box(stripes), identity(), 32)
    assert view.std() < 0.01
    assert view.mean() == pytest.approx(0.5, abs=0.01)


def test_parameters_are_in_their_ranges_and_of_the_generator_alone():
    ranges = GeometryRanges(scale=(0.3, 0.9), ratio=(0.5, 2.0), rotation=12, translation=0.1, shear=3, flip=0.25)
    draw = lambda: sample_geometry(4000, torch.Generator().manual_seed(1), ranges)  # noqa: E731
    parameters = draw()
    for name, low, high in (
        ("scale", 0.3, 0.9),
        ("ratio", 0.5, 2),
        ("rotation", -12, 12),
        ("translation", -0.1, 0.1),
        ("shear", -3, 3),
    ):
        value = parameters[name]
        assert low <= value.min() < low + 0.05 * (high - low), name
        assert high - 0.05 * (high - low) < value.max() <= high, name
    assert parameters["flip"].mean() == pytest.approx(0.25, abs=0.03)
    assert all(torch.equal(parameters[name], again) for name, again in draw().items())
