from __future__ import annotations

import math

import pytest
import torch

from medssl.augment import views as views_module
from medssl.augment.evaluate import eval_view
from medssl.augment.policies import POLICIES, build_policy, policy_settings
from medssl.augment.transform import Transform
from medssl.augment.views import ViewSettings
from medssl.errors import DataError
from medssl.seeds import torch_generator

TRANSFORMS = [
    name
    for name, field in ViewSettings.model_fields.items()
    if any(isinstance(part, type) and issubclass(part, Transform) for part in getattr(field.annotation, "__args__", ()))
]


def transform_class(name: str) -> type[Transform]:
    return next(part for part in ViewSettings.model_fields[name].annotation.__args__ if issubclass(part, Transform))


def generator(*name) -> torch.Generator:
    return torch_generator(0, "views", *name)


def pixels_of(policy, n: int, sides: tuple[int, ...] | None = None) -> torch.Tensor:
    channels = 3 if policy.channels == "rgb" else 1
    sides = sides or ((14, 16, 18) if policy.dims == 3 else (37, 37))
    return torch.rand(n, channels, *sides, generator=generator("pixels")) * 255


@pytest.fixture
def batch_of(make_batch):
    """Makes a batch that fits a policy; every second image has padding, and spacings differ."""

    def make(policy, n: int = 8, sides: tuple[int, ...] | None = None):
        pixels = pixels_of(policy, n, sides)
        box = torch.tensor([0.0] * policy.dims + [float(side) for side in pixels.shape[2:]]).repeat(n, 1)
        box[::2, 1] = 3
        box[::2, policy.dims] -= 2
        spacing = 0.5 + 8 * torch.rand(n, policy.dims, generator=generator("spacing"))
        return make_batch(pixels, center=127.5, width=255.0, box=box, spacing=spacing)

    return make


every_policy = pytest.mark.parametrize("name", list(POLICIES))


def build(name: str, **changes):
    return build_policy(policy_settings({"policy": name, **changes}))


def test_every_transform_of_the_settings_is_looked_at_here():
    assert len(TRANSFORMS) == 22
    assert set(TRANSFORMS) | {"policy", "strength", "geometry", "window"} == set(ViewSettings.model_fields)


@every_policy
def test_views_are_in_the_unit_range_and_a_function_of_their_parameters(batch_of, name):
    policy, views = POLICIES[name], build(name)
    batch = batch_of(policy)
    stored = batch.pixels.clone()
    parameters = views.sample(8, generator())
    given = {key: value.clone() for key, value in parameters.items()}
    out = views.apply(batch, parameters, 16)
    assert out.shape == (8, batch.pixels.shape[1], *[16] * policy.dims)
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.std() > 0.05
    torch.manual_seed(5)
    assert torch.equal(views.apply(batch, parameters, 16), out)
    assert torch.equal(batch.pixels, stored)
    assert all(torch.equal(parameters[key], value) for key, value in given.items())
    again = views.sample(8, generator())
    assert all(torch.equal(parameters[key], again[key]) for key in parameters)
    if not name.startswith("plain"):
        assert not torch.equal(views.apply(batch, views.sample(8, generator(1)), 16), out)


@every_policy
def test_a_rank_that_takes_its_slice_sees_the_same_views(batch_of, name):
    """Bitwise, but for matrix products over whole batches, whose last bit may depend on their size: the elastic deformation."""
    views, batch = build(name), batch_of(POLICIES[name], sides=(60, 60, 60) if name == "ct_volume" else None)
    parameters = views.sample(8, generator())
    assert all(len(value) == 8 and value.device.type == "cpu" for value in parameters.values())
    out = views.apply(batch, parameters, 16)
    for part in (slice(2, 5), slice(7, 8)):
        sliced = views.apply(batch.part(part), {key: value[part] for key, value in parameters.items()}, 16)
        if views.settings.geometry.elastic:
            torch.testing.assert_close(sliced, out[part], atol=1e-6, rtol=0)
        else:
            assert torch.equal(sliced, out[part])


def test_antialiasing_is_by_the_spacing_of_each_image_alone(make_batch):
    """Beside a volume of fine voxels one of coarse voxels keeps its view: 160 mm are 16 of its voxels, and 64 of the fine ones."""
    views = build("plain_volume", geometry={"crop_mm": [160.0, 160.0]})
    pixels = torch.rand(2, 1, 64, 64, 64, generator=generator())
    batch = make_batch(pixels, spacing=[[10.0] * 3, [2.5] * 3])
    parameters = views.sample(2, generator())
    together = views.apply(batch, parameters, 16)
    for i in range(2):
        alone = views.apply(batch.part(slice(i, i + 1)), {key: value[i : i + 1] for key, value in parameters.items()}, 16)
        assert torch.equal(alone[0], together[i])
    assert together[1].std() < together[0].std() / 3, "the fine one is the mean of many voxels"


@every_policy
def test_chunks_give_the_same_views(batch_of, name, monkeypatch):
    views, batch = build(name), batch_of(POLICIES[name])
    parameters = views.sample(8, generator())
    out = views.apply(batch, parameters, 16)
    calls = []
    inner = views._views
    monkeypatch.setattr(views, "_views", lambda part, *rest: calls.append(len(part)) or inner(part, *rest))
    monkeypatch.setattr(views_module, "CPU_PIXELS", 3 * max(batch.pixels[0].numel(), out[0].numel()))
    torch.testing.assert_close(views.apply(batch, parameters, 16), out, atol=1e-6, rtol=0)
    assert sum(calls) == 8
    assert len(calls) > 1
    assert max(calls) <= 3


@pytest.mark.parametrize(("name", "sides"), [("plain", (32, 32)), ("plain_volume", (12, 12, 12))])
def test_the_plain_policy_gives_the_image_as_it_is(make_batch, name, sides):
    pixels = torch.rand(3, 1, *sides, generator=generator())
    views = build(name)
    out = views.apply(make_batch(pixels), views.sample(3, generator()), sides)
    torch.testing.assert_close(out, pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["chest_xray", "mr_slice", "ct_slice"])
def test_views_of_an_inverted_image_equal_those_of_its_negative(make_batch, name):
    """Without noise, and with the window's centre where it is: a shift is one of the stored values, towards black or white."""
    views = build(name, window={"center_shift": 0.0}, **dict.fromkeys(("noise", "ct_noise", "ct_kernel")))
    pixels = torch.rand(6, 1, 37, 37, generator=generator()) * 200 + 20
    columns = {"center": 127.5, "width": 255.0, "box": [0.0, 6.0, 37.0, 30.0]}
    parameters = views.sample(6, generator())
    plain, negative = make_batch(pixels, **columns), make_batch(255 - pixels, **columns, invert=True)
    torch.testing.assert_close(views.apply(plain, parameters, 32), views.apply(negative, parameters, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(eval_view(plain, 32), eval_view(negative, 32), atol=1e-5, rtol=0)


WIDE = {"rotation": 180.0, "shear": 25.0, "translation": 0.5, "elastic": 0.35, "crop_scale": [0.1, 1.0], "crop_ratio": [0.6, 1.6]}


@every_policy
def test_no_view_holds_padding(make_batch, name):
    """All valid pixels are 0.5 and the padding is 10^4: one touch would show through any geometry, also one far wider."""
    policy = POLICIES[name]
    n, sides = 24, (14, 16, 18) if policy.dims == 3 else (40, 40)
    low = torch.tensor([3.0, 5.0, 0.0] if policy.dims == 3 else [13.0, 0.0])
    high = torch.tensor([11.0, 16.0, 13.0] if policy.dims == 3 else [27.0, 36.0])
    pixels = torch.full((n, 3 if policy.channels == "rgb" else 1, *sides), 1e4)
    pixels[(..., *[slice(int(a), int(b)) for a, b in zip(low, high, strict=True)])] = 0.5
    spacing = 0.5 + 3 * torch.rand(n, policy.dims, generator=generator())
    batch = make_batch(pixels, box=torch.cat([low, high]), spacing=spacing, invert=[True, False] * (n // 2))
    own = {key: value for key, value in policy.settings.get("geometry", {}).items() if key == "crop_mm"}
    wide = WIDE | ({"tilt": 180.0} if policy.dims == 3 else {})
    for geometry in (policy.settings.get("geometry", {}), wide | own):
        views = build_policy(ViewSettings.model_validate({"policy": name, "geometry": geometry}))
        out = views.apply(batch, views.sample(n, generator()), 24)
        # A weight of 1e-6 of the padding is what float32 coordinates leave.
        assert out.min() > 0.45
        assert out.max() < 0.55


def test_the_heart_stays_on_its_side_unless_flips_are_asked_for(make_batch):
    pixels = torch.zeros(64, 1, 37, 37)
    pixels[..., 20:] = 1
    sides = {}
    for flip in (0.0, 0.5):
        views = build("chest_xray", geometry={"horizontal_flip": flip, "crop_scale": [0.9, 1.0]})
        out = views.apply(make_batch(pixels), views.sample(64, generator()), 32)
        sides[flip] = (out[..., 16:].mean((1, 2, 3)) > out[..., :16].mean((1, 2, 3))).float().mean()
    assert sides[0.0] == 1
    assert 0.25 < sides[0.5] < 0.75


@every_policy
def test_switching_one_thing_off_or_on_leaves_all_other_draws(name):
    settings = policy_settings({"policy": name})
    drawn = build_policy(settings).sample(20, generator())
    dims = POLICIES[name].dims
    for other in TRANSFORMS:
        on = getattr(settings, other) is not None
        changed = ViewSettings.model_validate({**dict(settings), other: None if on else transform_class(other)()})
        again = views_module.Views(changed, dims).sample(20, generator())
        assert {key.split(".")[0] for key in again.keys() ^ drawn.keys()} == {other}
        for key in drawn.keys() & again.keys():
            assert torch.equal(drawn[key], again[key]), f"{key} without {other}" if on else f"{key} with {other}"
    off = ViewSettings.model_validate({**dict(settings), "noise": transform_class("noise")(probability=0.0)})
    assert not any(key.startswith("noise.") for key in views_module.Views(off, dims).sample(2, generator()))


HARD = {
    "constant": lambda *shape: torch.full(shape, 0.37),
    "black": torch.zeros,
    "white": torch.ones,
    "one bright pixel": lambda *shape: (torch.arange(math.prod(shape)).view(shape) % math.prod(shape[1:]) == 77).float(),
    "noise": lambda *shape: torch.rand(shape, generator=generator()),
}
WIDEST = {
    "gamma": {"exponent": [0.1, 10.0]},
    "noise": {"std": [0.5, 0.5]},
    "rician_noise": {"std": [0.5, 0.5]},
    "bias_field": {"strength": [1.0, 1.0]},
    "gibbs": {"alpha": [0.0, 1.0]},
    "ghosting": {"strength": [1.0, 1.0], "ghosts": [2, 32], "spared": 0.0},
    "blur": {"sigma": [0.0, 8.0]},
    "low_resolution": {"factor": [0.01, 1.0]},
    "speckle": {"std": [1.0, 1.0]},
    "depth_attenuation": {"strength": 3.0},
    "sector_shadow": {"strength": [1.0, 1.0], "width": [0.0, 1.0]},
    "histogram_warp": {"strength": 1.0},
    "color_jitter": {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5},
    "stain_jitter": {"scale": 0.5, "shift": 0.2},
    "illumination": {"strength": [1.0, 1.0]},
    "vignetting": {"strength": [1.0, 1.0]},
    "jpeg": {"quality": [5, 100]},
    "cutout": {"area": [0.0, 1.0]},
    "solarize": {},
    "grayscale": {"probability": 1.0},
    "ct_noise": {"std": [0.0, 500.0]},
    "ct_kernel": {"amount": 2.0, "sigma": [0.3, 4.0]},
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(6, 1, 20, 24), (6, 3, 20, 24), (6, 1, 8, 9, 10)], ids=["grey", "rgb", "3D"])
def test_every_transform_at_its_widest_keeps_any_image_in_the_unit_range(name, shape):
    transform = transform_class(name)(**WIDEST[name])
    if (transform.colour and shape[1] == 1) or (name == "jpeg" and len(shape) == 5):
        pytest.skip("views do not apply it to such images")
    for kind, make in HARD.items():
        for seed in range(3):
            images = make(*shape)
            drawn = transform.sample(6, generator(seed))
            given = {key: value.clone() for key, value in drawn.items()}
            ends = {"low": torch.full((6,), -1000.0), "width": torch.full((6,), 2000.0)} if transform.stage == "units" else {}
            out = transform.apply(images.clone(), drawn | ends)
            assert out.shape == images.shape, kind
            assert out.isfinite().all(), kind
            if transform.stage == "display":
                assert out.min() >= -1e-6, kind
                assert out.max() <= 1 + 1e-6, kind
            assert all(torch.equal(drawn[key], value) for key, value in given.items()), "parameters were written to"


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_changes_the_views_that_it_is_on_for_and_no_others(make_batch, name):
    """With probability a half; through the whole pipeline, against the views without it."""
    pixels = torch.rand(16, 3, 24, 24, generator=generator()) * 0.8 + 0.1
    batch = make_batch(pixels * 2000 - 1000, center=0.0, width=2000.0)
    options = {"probability": 0.5} | ({"sigma": [1.0, 1.0]} if name == "blur" else {})
    views = build("plain", **{name: options})
    parameters = views.sample(16, generator())
    out, without = views.apply(batch, parameters, 24), build("plain").apply(batch, build("plain").sample(16, generator()), 24)
    changed = (out - without).abs().flatten(1).amax(1) > 1e-6
    on = parameters[f"{name}.on"]
    assert 2 < on.sum() < 14
    assert torch.equal(changed, on)
    shown = views.describe(parameters, int(on.nonzero()[0]))
    assert any(line.startswith(name.replace("_", " ")) for line in shown)
    assert len(views.describe(parameters, int((~on).nonzero()[0]))) == len(shown) - 1


def test_colour_transforms_leave_grey_images_alone(make_batch):
    pixels = torch.rand(4, 1, 16, 16, generator=generator())
    changes = {"stain_jitter": {}, "grayscale": {"probability": 1.0}}
    views = build("plain", **changes)
    torch.testing.assert_close(views.apply(make_batch(pixels), views.sample(4, generator()), 16), pixels, atol=1e-5, rtol=0)


def test_what_a_scanner_does_comes_before_the_window(make_batch):
    """Noise in HU on tissue beyond the window's end: added after the clamp it would show, before it does not."""
    views = build("plain", ct_noise={"std": [20.0, 20.0]})
    far = make_batch(torch.full((2, 1, 24, 24), 2000.0), center=40.0, width=400.0)
    assert views.apply(far, views.sample(2, generator()), 24).eq(1).all()
    near = make_batch(torch.zeros(2, 1, 48, 48), center=0.0, width=400.0)
    out = views.apply(near, views.sample(2, generator()), 48)[..., 4:-4, 4:-4]
    assert float(out.std() * 400) == pytest.approx(20, rel=0.06)


MASKED = [
    pytest.param(
        "plain", {"rotation": 180.0, "horizontal_flip": 0.5, "vertical_flip": 0.5, "elastic": 0.3, "crop_scale": [0.3, 1.0]}
    ),
    pytest.param("plain_volume", {"rotation": 90.0, "tilt": 20.0, "depth_flip": 0.5, "elastic": 0.3, "crop_scale": [0.3, 1.0]}),
]


@pytest.mark.parametrize(("name", "geometry"), MASKED, ids=["2D", "3D"])
def test_masks_move_with_their_images(make_batch, name, geometry):
    dims, n = POLICIES[name].dims, 6
    side, size = (64, 48) if dims == 2 else (24, 20)
    lines = torch.meshgrid(*[torch.linspace(-1, 1, side)] * dims, indexing="ij")
    shapes = [(lines[0] - 0.3) ** 2 + lines[1] ** 2 * 2 < 0.3, lines[-1] > 0.4]
    masks = torch.zeros(n, 1, *[side] * dims, dtype=torch.uint8)
    masks[:, :, shapes[1]] = 255
    masks[:, :, shapes[0]] = 7
    views = build(name, geometry=geometry)
    parameters = views.sample(n, generator())
    for label in (7, 255):
        batch = make_batch((masks == label).float(), masks=masks)
        moved = views.masks(batch, parameters, size)
        assert moved.shape == (n, 1, *[size] * dims)
        assert moved.dtype == torch.uint8
        assert set(moved.unique().tolist()) == {0, 7, 255}
        shown = views.apply(batch, parameters, size) > 0.5
        # Half a pixel of the outline is a matter of rounding.
        assert ((moved == label) != shown).float().mean() < 0.03
        assert shown.float().mean() > 0.05
    assert torch.equal(batch.masks, masks)


def test_intensity_does_not_touch_masks(make_batch):
    masks = (torch.rand(2, 1, 20, 20, generator=generator()) > 0.5).to(torch.uint8) * 3
    batch = make_batch(torch.rand(2, 1, 20, 20), masks=masks)
    views = build("plain", noise={}, gamma={}, cutout={}, geometry={"horizontal_flip": 1.0})
    assert torch.equal(views.masks(batch, views.sample(2, generator()), 20), masks.flip(3))


def test_a_batch_without_masks_has_none_to_move(make_batch):
    views = build("plain")
    with pytest.raises(ValueError, match="no masks"):
        views.masks(make_batch(torch.rand(2, 1, 8, 8)), views.sample(2, generator()), 8)


@pytest.mark.parametrize(("name", "shape"), [("mr_volume", (2, 1, 8, 8)), ("chest_xray", (2, 1, 8, 8, 8))])
def test_a_batch_of_other_dimensions_is_an_error_of_one_line(make_batch, name, shape):
    views = build(name)
    with pytest.raises(DataError, match=f"the policy {name} is for") as caught:
        views.apply(make_batch(torch.rand(shape)), views.sample(2, generator()), 8)
    assert "\n" not in str(caught.value)


def test_a_view_may_be_oblong(make_batch):
    pixels = torch.rand(1, 1, 20, 20, generator=generator())
    views = build("plain")
    out = views.apply(make_batch(pixels), views.sample(1, generator()), (20, 10))
    torch.testing.assert_close(out, pixels.view(1, 1, 20, 10, 2).mean(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", ["chest_xray", *(pytest.param(name, marks=pytest.mark.long) for name in ("ct_slice", "mr_slice", "dermatology"))]
)
def test_a_traced_graph_gives_the_same_views(batch_of, name):
    changes = {"jpeg": None}  # a step function of the pixels
    views, batch = build(name, **changes), batch_of(POLICIES[name], 4)
    parameters = views.sample(4, generator())
    expected = views.apply(batch, parameters, 16)
    torch.compiler.reset()
    traced = torch.compile(views.apply, backend="aot_eager", fullgraph=False)
    torch.testing.assert_close(traced(batch, parameters, 16), expected, atol=1e-5, rtol=0)


@pytest.mark.long
def test_a_compiled_graph_gives_the_same_views(batch_of):
    views, batch = build("chest_xray"), batch_of(POLICIES["chest_xray"], 4)
    parameters = views.sample(4, generator())
    expected = views.apply(batch, parameters, 24)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(views.apply)(batch, parameters, 24), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_policy
def test_the_same_on_cpu_and_gpu(batch_of, name):
    """Apart from JPEG, which is a step function: see there."""
    on = policy_settings({"policy": name}).jpeg is not None
    views, batch = build(name, **({"jpeg": None} if on else {})), batch_of(POLICIES[name])
    batch.masks = torch.randint(0, 3, (8, 1, *batch.pixels.shape[2:]), dtype=torch.uint8)
    parameters = views.sample(8, generator())
    cpu, gpu = views.apply(batch, parameters, 16), views.apply(batch.to("cuda"), parameters, 16)
    assert gpu.is_cuda
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-4, rtol=0)
    masks = views.masks(batch.to("cuda"), parameters, 16).cpu() != views.masks(batch, parameters, 16)
    assert masks.float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_policy
def test_views_never_wait_for_the_gpu(batch_of, name):
    """A training step makes them while the GPU is busy with the step before."""
    views = build(name)
    batch, parameters = batch_of(POLICIES[name]).pinned().to("cuda"), views.sample(8, generator())
    expected = views.apply(batch, parameters, 16)  # tables are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = views.apply(batch, parameters, 16)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, expected)
