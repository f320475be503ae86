from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from medssl.augment.geometry import Geometry, crop_transform, describe
from medssl.augment.resampling import resample
from medssl.errors import DataError


def identity(dims: int = 2, n: int = 1, **changes) -> dict[str, torch.Tensor]:
    """Parameters that change nothing, apart from `changes`."""
    values = Geometry().sample(n, 0, dims) | {"place": torch.full((n, dims), 0.5)}
    given = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in changes.items()}
    elastic = {"elastic": given.pop("elastic")} if "elastic" in given else {}
    return values | elastic | {name: value.expand(values[name].shape).clone() for name, value in given.items()}


def full_box(images: torch.Tensor) -> torch.Tensor:
    spatial = images.shape[2:]
    return torch.tensor([[0.0] * len(spatial) + [float(side) for side in spatial]]).repeat(len(images), 1)


def moved(images, drawn, size, *, box=None, spacing=None, points=None, inside=True, in_mm=False):
    box = full_box(images) if box is None else box
    spacing = torch.full((len(images), images.ndim - 2), math.nan) if spacing is None else spacing
    matrix, center = crop_transform(box, spacing, drawn, in_mm=in_mm, inside=inside)
    return resample(images, box, matrix, center, size, points=points, elastic=drawn.get("elastic"))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


IMAGES = [pytest.param(noise(1, 1, 24, 24), id="2D"), pytest.param(noise(1, 1, 12, 14, 16), id="3D")]


@pytest.mark.parametrize("image", IMAGES)
def test_the_identity(image):
    dims = image.ndim - 2
    box = full_box(image)
    # A cube has equal sides: the whole of an oblong volume is reached with the ratios of its sides.
    depth, height, width = (image.shape[2:] if dims == 3 else (1, *image.shape[2:]))[-3:]
    ratio = [width / height] if dims == 2 else [width / height, depth / math.sqrt(width * height)]
    matrix, center = crop_transform(box, torch.ones(1, dims), identity(dims, ratio=ratio))
    view = resample(image, box, matrix, center, tuple(image.shape[2:]))
    torch.testing.assert_close(view, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dims", "axis"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_a_flip_mirrors_one_axis_and_twice_is_none(dims, axis):
    image = noise(1, 1, *[16] * dims)
    flip = torch.eye(dims)[axis]
    view = moved(image, identity(dims, flip=flip), (16,) * dims)
    torch.testing.assert_close(view, image.flip(-1 - axis), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved(view, identity(dims, flip=flip), (16,) * dims), image, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (180.0, 2), (-90.0, -1)])
def test_a_rotation_by_right_angles(degrees, turns):
    image = noise(1, 1, 24, 24)
    view = moved(image, identity(rotation=degrees), (24, 24))
    torch.testing.assert_close(view, image.rot90(turns, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_quarter_turns_are_exact(dims, turns):
    image = noise(1, 1, *[16] * dims)
    view = moved(image, identity(dims, turns=float(turns)), (16,) * dims)
    torch.testing.assert_close(view, image.rot90(turns, (-2, -1)), atol=1e-5, rtol=0)


def test_a_tilt_by_a_right_angle_exchanges_slices_and_rows():
    image = noise(1, 1, 16, 16, 16)
    view = moved(image, identity(3, tilt=[90.0, 0.0]), (16,) * 3)
    torch.testing.assert_close(view, image.rot90(1, (-3, -2)), atol=1e-4, rtol=0)


def test_a_crop_on_the_pixel_grid():
    image = noise(1, 1, 24, 24)
    parameters = identity(scale=0.25, place=[0.0, 1.0])
    torch.testing.assert_close(moved(image, parameters, (12, 12)), image[:, :, 12:, :12], atol=1e-5, rtol=0)


def test_a_crop_of_a_volume_is_placed_x_y_z():
    image = noise(1, 1, 16, 16, 16)
    view = moved(image, identity(3, scale=0.125, place=[0.0, 1.0, 0.5]), (8, 8, 8))
    torch.testing.assert_close(view, image[:, :, 4:12, 8:, :8], atol=1e-5, rtol=0)


def test_translation_moves_the_crop_over_the_edge_and_repeats_it():
    image = noise(1, 1, 24, 24)
    view = moved(image, identity(translation=[0.5, 0.0]), (24, 24), inside=False)
    torch.testing.assert_close(view[..., :12], image[..., 12:], atol=1e-5, rtol=0)
    torch.testing.assert_close(view[..., 12:], image[..., -1:].expand(1, 1, 24, 12), atol=1e-5, rtol=0)
    kept = moved(image, identity(translation=[0.5, 0.0]), (24, 24), inside=True)
    torch.testing.assert_close(kept, image, atol=1e-5, rtol=0)


WIDE = {
    "crop_scale": [0.05, 1.0],
    "crop_ratio": [0.5, 2.0],
    "rotation": 180.0,
    "quarter_turns": True,
    "translation": 0.5,
    "shear": 30.0,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
}


@pytest.mark.parametrize("elastic", [0.0, 0.4])
@pytest.mark.parametrize("dims", [2, 3])
def test_inside_no_point_of_a_view_lies_outside_of_the_box(dims, elastic):
    """By the coordinates themselves: an image whose values are the position, resampled without any keeping inside."""
    n, side, generator = 300, 16, torch.Generator().manual_seed(0)
    more = {"tilt": 180.0, "depth_flip": 0.5} if dims == 3 else {}
    drawn = Geometry(**WIDE, **more, elastic=elastic).sample(n, 1, dims)
    low = torch.rand(n, dims, generator=generator) * 20
    box = torch.cat([low, low + 5 + torch.rand(n, dims, generator=generator) * 30], dim=1)
    spacing = 0.3 + 3 * torch.rand(n, dims, generator=generator)
    matrix, center = crop_transform(box, spacing, drawn)
    lines = [(torch.arange(side) / (side - 1)) - 0.5] * dims  # both edges of the view, not only the centres of its pixels
    u = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1).reshape(-1, dims)
    if elastic:
        u = (
            u
            + (2 * torch.rand(n, len(u), dims, generator=generator) - 1)
            * drawn["elastic"].abs().flatten(1).amax(1)[:, None, None]
        )
    at = (matrix[:, None] @ u.expand(n, -1, dims)[..., None]).squeeze(-1) + center[:, None]
    assert (at - box[:, None, :dims].flip(-1)).min() > -1e-3
    assert (box[:, None, dims:].flip(-1) - at).min() > -1e-3


def test_padding_is_never_read():
    """Padding is 1000 here, so one touch would show (rounding may give it a weight of 1e-6); views reach far over the edge."""
    n, generator = 200, torch.Generator().manual_seed(0)
    images = torch.full((n, 1, 40, 40), 1000.0)
    y0, x0 = torch.randint(0, 15, (2, n), generator=generator)
    y1, x1 = torch.randint(20, 41, (2, n), generator=generator)
    for i in range(n):
        images[i, :, y0[i] : y1[i], x0[i] : x1[i]] = 0.5
    box = torch.stack([y0, x0, y1, x1], 1).float()
    drawn = Geometry(**WIDE, elastic=0.3).sample(n, 0, 2)
    for inside in (True, False):
        view = moved(images, drawn, (32, 32), box=box, inside=inside)
        torch.testing.assert_close(view, torch.full_like(view, 0.5), atol=1e-2, rtol=0)


def test_without_rotation_the_crop_lies_in_the_box_and_keeps_size_and_ratio_where_it_fits():
    n = 1000
    box = torch.tensor([[5.0, 0.0, 35.0, 60.0]]).repeat(n, 1)
    drawn = Geometry(crop_scale=[0.3, 1.0], crop_ratio=[3 / 4, 4 / 3]).sample(n, 0, 2)
    matrix, center = crop_transform(box, torch.full((n, 2), math.nan), drawn)
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    assert (center[:, 0] - width / 2 >= -1e-4).all()
    assert (center[:, 0] + width / 2 <= 60 + 1e-4).all()
    assert (center[:, 1] - height / 2 >= 5 - 1e-4).all()
    assert (center[:, 1] + height / 2 <= 35 + 1e-4).all()
    torch.testing.assert_close(width / height, drawn["ratio"][:, 0])
    area = width * height / 1800
    fits = area > drawn["scale"] - 1e-4
    assert (area <= drawn["scale"] + 1e-4).all()
    assert 0.2 < fits.float().mean() < 1, "crops that are too high for the box are shrunk, the others are not"


def test_the_ratios_of_a_volume_keep_its_volume():
    box = torch.tensor([[0.0, 0.0, 0.0, 100.0, 100.0, 100.0]])
    matrix, _ = crop_transform(box, torch.ones(1, 3), identity(3, scale=0.1, ratio=[1.2, 0.7]))
    width, height, depth = matrix[0].diagonal().tolist()
    assert width * height * depth == pytest.approx(1e5, rel=1e-4)
    assert width / height == pytest.approx(1.2, rel=1e-4)
    assert depth / math.sqrt(width * height) == pytest.approx(0.7, rel=1e-4)


def test_rotation_does_not_deform_an_oblong_crop():
    """Distances in the store are the same before and after turning, also for a crop of another ratio."""
    box, spacing = torch.tensor([[0.0, 0.0, 40.0, 60.0]]), torch.ones(1, 2)
    straight, _ = crop_transform(box, spacing, identity(scale=0.2, ratio=0.8))
    turned, _ = crop_transform(box, spacing, identity(scale=0.2, ratio=0.8, rotation=30.0))
    torch.testing.assert_close(straight.norm(dim=1), turned.norm(dim=1))
    torch.testing.assert_close(straight.det(), turned.det())


def test_shear_keeps_the_area():
    box, spacing = torch.tensor([[0.0, 0.0, 60.0, 60.0]]), torch.ones(1, 2)
    sheared, _ = crop_transform(box, spacing, identity(scale=0.25, shear=20.0))
    straight, _ = crop_transform(box, spacing, identity(scale=0.25))
    torch.testing.assert_close(sheared.det(), straight.det())
    assert sheared[0, 0, 1] / sheared[0, 1, 1] == pytest.approx(math.tan(math.radians(20)), rel=1e-4)


@pytest.mark.parametrize("rotation", [0.0, 30.0, 75.0])
def test_a_circle_in_mm_stays_a_circle_in_views_of_anisotropic_pixels(rotation):
    """Pixels of 2 x 0.8 mm; the second moments of a disc about its centre are equal along every direction."""
    spacing = torch.tensor([[2.0, 0.8]])
    y, x = (torch.arange(60) + 0.5) * 2.0 - 60, (torch.arange(150) + 0.5) * 0.8 - 60
    disc = torch.sigmoid((20 - (y[:, None] ** 2 + x**2).sqrt()) / 1.5)[None, None]
    view = moved(disc, identity(scale=0.4, rotation=rotation, place=[0.5, 0.5]), (64, 64), spacing=spacing)[0, 0]
    line = (torch.arange(64) + 0.5) / 64 - 0.5
    total = view.sum()
    xx, yy = (view * line**2).sum() / total, (view * line[:, None] ** 2).sum() / total
    xy = (view * line * line[:, None]).sum() / total
    assert float(xx / yy) == pytest.approx(1, abs=0.01)
    assert float(xy / xx) == pytest.approx(0, abs=0.01)
    # In pixels it would be an ellipse: the moments then differ by the square of 2 / 0.8.
    ellipse = moved(disc, identity(scale=0.4, rotation=rotation), (64, 64))[0, 0]
    moments = (ellipse * line**2).sum() / (ellipse * line[:, None] ** 2).sum(), (ellipse * line * line[:, None]).sum()
    assert abs(float(moments[0]) - 1) > 0.3 or abs(float(moments[1] / (ellipse * line**2).sum())) > 0.3


def test_a_sphere_in_mm_stays_a_sphere_when_tilted():
    spacing = torch.tensor([[3.0, 1.0, 1.5]])
    z, y, x = (
        (torch.arange(side) + 0.5) * mm - side * mm / 2 for side, mm in zip((20, 60, 40), spacing[0].tolist(), strict=True)
    )
    ball = torch.sigmoid((14 - (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2).sqrt()) / 2)[None, None]
    drawn = identity(3, scale=0.4, rotation=20.0, tilt=[35.0, 25.0])
    view = moved(ball, drawn, (32, 32, 32), spacing=spacing)[0, 0]
    line = (torch.arange(32) + 0.5) / 32 - 0.5
    coordinates = torch.stack(torch.meshgrid(line, line, line, indexing="ij")).flatten(1)
    moments = (coordinates * view.flatten()) @ coordinates.T / view.sum()
    torch.testing.assert_close(moments / moments.diagonal().mean(), torch.eye(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_crop_mm_is_the_side_in_mm(dims):
    spacing = torch.tensor([[0.5, 2.0, 1.0][:dims], [1.0, 1.0, 4.0][:dims]])
    box = torch.tensor([[0.0] * dims + [300.0] * dims]).repeat(2, 1)
    drawn = identity(dims, n=2, side_mm=[40.0, 90.0])
    matrix, _ = crop_transform(box, spacing, drawn, in_mm=True)
    sides_mm = matrix.diagonal(dim1=1, dim2=2) * spacing.flip(1)
    torch.testing.assert_close(sides_mm, torch.tensor([[40.0], [90.0]]).expand(2, dims))


def test_unknown_spacing_counts_as_square_pixels():
    box = torch.tensor([[0.0, 0.0, 40.0, 60.0]])
    some, none = torch.ones(1, 2), torch.tensor([[math.nan, 2.0]])
    drawn = identity(scale=0.3, rotation=33.0)
    for known, unknown in zip(crop_transform(box, some, drawn), crop_transform(box, none, drawn), strict=True):
        torch.testing.assert_close(known, unknown)


DRAWN = {
    "crop_scale": [0.3, 0.9],
    "crop_ratio": [0.5, 2.0],
    "rotation": 12.0,
    "tilt": 7.0,
    "translation": 0.1,
    "shear": 3.0,
    "horizontal_flip": 0.25,
    "vertical_flip": 0.6,
    "depth_flip": 0.1,
    "quarter_turns": True,
}


@pytest.mark.parametrize("dims", [2, 3])
def test_draws_follow_their_distributions(dims):
    n = 10_000
    drawn = Geometry(**DRAWN).sample(n, 1, dims)
    ratio = drawn["ratio"].log()
    spread = {
        "scale": (drawn["scale"], 0.3, 0.9),
        "ratio": (ratio[:, 0], math.log(0.5), math.log(2)),
        "rotation": (drawn["rotation"], -12, 12),
        "shear": (drawn["shear"], -3, 3),
    }
    spread |= {f"place {i}": (drawn["place"][:, i], 0, 1) for i in range(dims)}
    spread |= {f"translation {i}": (drawn["translation"][:, i], -0.1, 0.1) for i in range(dims)}
    if dims == 3:
        spread |= {f"tilt {i}": (drawn["tilt"][:, i], -7, 7) for i in range(2)}
        spread |= {"depth ratio": (ratio[:, 1], math.log(0.5), math.log(2))}
    else:
        assert "tilt" not in drawn
    for name, (values, low, high) in spread.items():
        assert low - 1e-5 <= values.min(), name
        assert values.max() <= high + 1e-5, name
        assert stats.kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-4, name
    for axis, probability in enumerate([0.25, 0.6, 0.1][:dims]):
        assert stats.binomtest(int(drawn["flip"][:, axis].sum()), n, probability).pvalue > 1e-4
    counts = torch.bincount(drawn["turns"].long(), minlength=4).tolist()
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-4


def test_crop_mm_is_log_uniform():
    drawn = Geometry(crop_mm=[50.0, 200.0]).sample(10_000, 1, 3)
    logs = drawn["side_mm"].log().numpy()
    assert stats.kstest(logs, "uniform", (math.log(50), math.log(4))).pvalue > 1e-4


def test_draws_are_of_the_seed_alone_and_no_range_moves_the_draws_of_another():
    some, again = Geometry(**DRAWN).sample(50, 1, 3), Geometry(**DRAWN).sample(50, 1, 3)
    assert all(torch.equal(some[name], again[name]) for name in some)
    assert not torch.equal(some["scale"], Geometry(**DRAWN).sample(50, 2, 3)["scale"])
    others = Geometry(**DRAWN | {"rotation": 0.0, "quarter_turns": False, "horizontal_flip": 0.0, "elastic": 0.2}).sample(
        50, 1, 3
    )
    for name in some.keys() - {"rotation", "turns", "flip"}:
        assert torch.equal(some[name], others[name]), name
    assert torch.equal(some["flip"][:, 1:], others["flip"][:, 1:])


def test_elastic_displacements_are_in_their_range_and_cannot_fold():
    """Where control points move by less than the bound of Choi and Lee, the deformation is a bijection: its determinant is positive."""
    drawn = Geometry(elastic=0.4, elastic_points=4).sample(200, 1, 2)
    assert drawn["elastic"].shape == (200, 2, 7, 7)
    assert drawn["elastic"].abs().max() <= 0.4 / 4
    assert stats.kstest(drawn["elastic"].flatten().numpy()[::5], "uniform", (-0.1, 0.2)).pvalue > 1e-4
    side = 64
    line = (torch.arange(side) + 0.5) / side
    ramp = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1])[None].repeat(200, 1, 1, 1)  # x and y, in shares
    drawn |= identity(n=200, scale=0.3, elastic=drawn["elastic"])
    at = moved(ramp, drawn, (side, side), inside=True)
    dx = (at[..., 1:-1, 2:] - at[..., 1:-1, :-2]) / 2
    dy = (at[..., 2:, 1:-1] - at[..., :-2, 1:-1]) / 2
    assert (dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]).min() > 0


def test_captions_say_what_was_drawn():
    settings = Geometry(**DRAWN, elastic=0.2)
    text = " ".join(describe(settings.sample(1, 3, 3), 0, settings))
    for word in ("of it", "ratio", "turn", "tilt", "shear", "elastic"):
        assert word in text
    assert describe(Geometry().sample(1, 0, 2), 0, Geometry()) == ["100% of it"]
    assert "mm" in describe(Geometry(crop_mm=[50.0, 50.0]).sample(1, 0, 2), 0, Geometry(crop_mm=[50.0, 50.0]))[0]


def test_unknown_spacing_is_an_error_where_sizes_are_in_mm(make_batch):
    from medssl.augment.policies import build_policy, policy_settings

    policy = build_policy(policy_settings({"policy": "plain", "geometry": {"crop_mm": [10.0, 20.0]}}))
    pixels = noise(2, 1, 16, 16)
    batch = make_batch(pixels, spacing=[[1.0, 1.0], [math.nan, 1.0]], masks=torch.ones(2, 1, 16, 16, dtype=torch.uint8))
    for what in (policy.apply, policy.masks):
        with pytest.raises(DataError, match="crop_mm needs the spacing of every image"):
            what(batch, policy.sample(2, torch.Generator().manual_seed(0)), 16)
