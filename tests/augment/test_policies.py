from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from medssl.augment.policies import POLICIES, build_policy, departures, policy_settings
from medssl.augment.transform import Transform
from medssl.augment.views import ViewSettings
from medssl.errors import StudyError
from medssl.seeds import torch_generator

N = 10_000
every_policy = pytest.mark.parametrize("name", list(POLICIES))

# Settings whose parameter has another name or is drawn around 1 or 0: (parameter, lowest, highest) of a setting's value.
SPREAD = {
    "window.center_shift": lambda v: ("center_shift", -v, v),
    "depth_attenuation.strength": lambda v: ("strength", -v, v),
    "ct_kernel.amount": lambda v: ("amount", max(-v, -1), v),
    "color_jitter.brightness": lambda v: ("brightness", 1 - v, 1 + v),
    "color_jitter.contrast": lambda v: ("contrast", 1 - v, 1 + v),
    "color_jitter.saturation": lambda v: ("saturation", 1 - v, 1 + v),
    "color_jitter.hue": lambda v: ("hue", -v, v),
    "stain_jitter.scale": lambda v: ("alpha", 1 - v, 1 + v),
    "stain_jitter.shift": lambda v: ("beta", -v, v),
    "bias_field.strength": lambda v: ("coefficients", -v[1], v[1]),
    "histogram_warp.strength": lambda v: ("knots", 0, 1),
}
LOG_UNIFORM = {"window.width_factor", "gamma.exponent"}
NOT_UNIFORM = {"bias_field.strength", "histogram_warp.strength", "ghosting.ghosts", "jpeg.quality"}  # see their own tests
NOT_DRAWN = {"ghosting.spared", "cutout.value", "solarize.threshold", "window.ct", "window.anchor"}


def follows(values: torch.Tensor, low: float, high: float, name: str) -> None:
    slack = 1e-5 * max(1, abs(high))
    assert low - slack <= values.min(), name
    assert values.max() <= high + slack, name
    if high > low and name not in NOT_UNIFORM:
        if name in LOG_UNIFORM:
            values, low, high = values.log(), math.log(low), math.log(high)
        assert stats.kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-4, name


@pytest.fixture(scope="module")
def draws():
    """10,000 draws of a policy, without the large fields of the elastic deformation."""
    made = {}

    def of(name: str):
        if name not in made:
            made[name] = build_policy(policy_settings({"policy": name})).sample(N, torch_generator(1, name))
        return made[name]

    return of


@every_policy
def test_every_draw_of_every_transform_is_in_its_range_and_follows_its_distribution(draws, name):
    settings, drawn = policy_settings({"policy": name}), draws(name)
    blocks = settings.transforms()
    assert {key.split(".")[0] for key in drawn} == {"geometry", "window", *blocks}, "something is drawn for what is off"
    for block_name, block in {**blocks, "window": settings.window}.items():
        if isinstance(block, Transform):
            on = drawn[f"{block_name}.on"]
            assert on.dtype == torch.bool
            assert stats.binomtest(int(on.sum()), N, block.probability).pvalue > 1e-5, block_name
        for field, value in block:
            key = f"{block_name}.{field}"
            if field == "probability" or key in NOT_DRAWN:
                continue
            parameter, low, high = SPREAD[key](value) if key in SPREAD else (field, *value)
            values = drawn[f"{block_name}.{parameter}"]
            follows(
                values if values.ndim == 1 else values.flatten(1).flatten()[:N] if key in NOT_UNIFORM else values[:, 0],
                low,
                high,
                key,
            )
        if f"{block_name}.seed" in drawn:
            assert drawn[f"{block_name}.seed"].unique().numel() == N


@every_policy
def test_geometry_draws_nothing_that_the_policy_forbids(draws, name):
    geometry = policy_settings({"policy": name}).geometry
    drawn = {key.removeprefix("geometry."): value for key, value in draws(name).items() if key.startswith("geometry.")}
    if geometry.crop_mm:
        logs = drawn["side_mm"].log()
        low, high = (math.log(side) for side in geometry.crop_mm)
        follows(logs, low, high, "crop_mm")
    else:
        follows(drawn["scale"], *geometry.crop_scale, "crop_scale")
    for axis in range(drawn["ratio"].shape[1]):
        low, high = (math.log(ratio) for ratio in geometry.crop_ratio)
        follows(drawn["ratio"][:, axis].log(), low, high, "crop_ratio")
    follows(drawn["rotation"], -geometry.rotation, geometry.rotation, "rotation")
    follows(drawn["shear"], -geometry.shear, geometry.shear, "shear")
    follows(drawn["translation"][:, 0], -geometry.translation, geometry.translation, "translation")
    follows(drawn["place"][:, 0], 0, 1, "place")
    if "tilt" in drawn:
        follows(drawn["tilt"][:, 0], -geometry.tilt, geometry.tilt, "tilt")
        follows(drawn["tilt"][:, 1], -geometry.tilt, geometry.tilt, "tilt")
    for axis, key in enumerate(("horizontal_flip", "vertical_flip", "depth_flip")[: POLICIES[name].dims]):
        flips, probability = int(drawn["flip"][:, axis].sum()), getattr(geometry, key)
        assert flips == 0 if probability == 0 else stats.binomtest(flips, N, probability).pvalue > 1e-5, key
    if geometry.quarter_turns:
        assert stats.chisquare(torch.bincount(drawn["turns"].long(), minlength=4).numpy()).pvalue > 1e-5
    else:
        assert drawn["turns"].eq(0).all()
    assert ("elastic" in drawn) == (geometry.elastic > 0)
    if geometry.elastic:
        assert drawn["elastic"].abs().max() <= geometry.elastic / geometry.elastic_points + 1e-6


@every_policy
def test_two_draws_that_follow_one_another_are_unlike(name):
    views = build_policy(policy_settings({"policy": name}))
    generator = torch_generator(0)
    first, second = views.sample(4, generator), views.sample(4, generator)
    assert not torch.equal(first["geometry.place"], second["geometry.place"])


@every_policy
def test_what_a_policy_leaves_out_exists_is_off_and_has_a_reason(name):
    policy, settings = POLICIES[name], policy_settings({"policy": name})
    for key, reason in policy.leaves_out.items():
        block, _, part = key.partition(".")
        assert block in ViewSettings.model_fields, key
        value = getattr(settings, block)
        if part:
            assert part in type(value).model_fields, key
            value = getattr(value, part)
        assert not value, key
        assert len(reason.split()) >= 2, key
    assert departures(settings) == []


def switched_on(key: str) -> dict:
    block, _, part = key.partition(".")
    if not part:
        return {block: {}}
    return {block: {part: True if part == "quarter_turns" else 0.2}}


@every_policy
def test_a_study_that_switches_on_what_is_left_out_is_told_why(name):
    policy = POLICIES[name]
    for key, reason in policy.leaves_out.items():
        value = {"policy": name, **switched_on(key)}
        # Colour transforms on grey images are refused altogether.
        if policy.channels == "grey" and key in ("grayscale", "stain_jitter"):
            with pytest.raises(StudyError, match="colour images"):
                policy_settings(value)
            continue
        settings = policy_settings(value)
        assert departures(settings) == [f"{key} is on; {name} leaves it out: {reason}"]


def test_a_transform_of_probability_0_is_no_departure():
    settings = policy_settings({"policy": "chest_xray", "blur": {"probability": 0.0}})
    assert departures(settings) == []
    assert "blur" not in settings.transforms()


def test_a_block_of_a_study_changes_its_keys_and_keeps_the_others():
    settings = policy_settings({"policy": "chest_xray", "geometry": {"rotation": 5.0}, "noise": None, "blur": {}})
    assert settings.geometry.rotation == 5
    assert settings.geometry.crop_scale == [0.3, 1.0]
    assert settings.noise is None
    assert settings.blur is not None
    assert settings.blur.probability == 1
    assert settings.gamma == policy_settings({"policy": "chest_xray"}).gamma
    assert POLICIES["chest_xray"].settings["geometry"]["rotation"] == 12, "the policy itself was changed"


@every_policy
def test_settings_written_down_are_read_again_as_they_were(name):
    settings = policy_settings({"policy": name})
    assert policy_settings(settings.model_dump(mode="json")) == settings


def test_no_two_policies_of_one_name_and_every_grey_one_has_no_colour():
    assert all(policy.name == key for key, policy in POLICIES.items())
    for name, policy in POLICIES.items():
        transforms = policy_settings({"policy": name}).transforms()
        if policy.channels == "grey":
            assert not any(transform.colour for transform in transforms.values()), name


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"policy": "chest_xry"}, "did you mean 'chest_xray'"),
        ({}, "allowed: chest_xray"),
        ({"policy": 3}, "allowed: chest_xray"),
        ({"policy": "chest_xray", "geometry": {"crop_scale": [1.0, 0.3]}}, "crop_scale: is .*must not be above"),
        ({"policy": "chest_xray", "geometry": {"crop_scale": [0.0, 1.0]}}, "crop_scale"),
        ({"policy": "chest_xray", "geometry": {"crop_scale": 0.5}}, "crop_scale"),
        ({"policy": "chest_xray", "geometry": {"crop_scale": [0.5]}}, "crop_scale"),
        ({"policy": "chest_xray", "geometry": {"rotation": 181.0}}, "geometry.rotation"),
        ({"policy": "chest_xray", "geometry": {"rotaton": 10.0}}, "geometry.rotaton: unknown key; did you mean 'rotation'"),
        ({"policy": "chest_xray", "geometry": {"elastic": 0.5}}, "geometry.elastic"),
        ({"policy": "chest_xray", "geometry": None}, "geometry"),
        ({"policy": "chest_xray", "geometry": {"edge": "wrap"}}, "geometry.edge: is 'wrap'; allowed"),
        ({"policy": "chest_xray", "hue": 0.1}, "hue: unknown key"),
        ({"policy": "chest_xray", "noice": {}}, "did you mean 'noise'"),
        ({"policy": "chest_xray", "noise": {"std": [0.1, 0.01]}}, "noise.std: is .*must not be above"),
        ({"policy": "chest_xray", "noise": {"probability": 1.5}}, "noise.probability"),
        ({"policy": "chest_xray", "noise": 0.1}, "noise"),
        ({"policy": "chest_xray", "gamma": {"exponent": [0.0, 1.0]}}, "gamma.exponent"),
        ({"policy": "chest_xray", "gamma": {"exponent": [0.5, 11.0]}}, "gamma.exponent"),
        ({"policy": "pathology", "jpeg": {"quality": [95, 50]}}, "jpeg.quality: is .*must not be above"),
        ({"policy": "pathology", "jpeg": {"quality": [1, 50]}}, "jpeg.quality"),
        ({"policy": "pathology", "jpeg": {"quality": [50.5, 90]}}, "jpeg.quality"),
        ({"policy": "mr_slice", "ghosting": {"ghosts": [6, 2]}}, "ghosting.ghosts: is .*must not be above"),
        ({"policy": "ct_slice", "window": {"ct": ["liver"]}}, "window.ct"),
        ({"policy": "ct_slice", "window": {"ct": []}}, "window.ct"),
        ({"policy": "chest_xray", "stain_jitter": {}}, "stain_jitter: is for colour images, and chest_xray is for grey ones"),
        ({"policy": "ct_volume", "grayscale": {}}, "grayscale: is for colour images"),
        ({"policy": "ct_volume", "jpeg": {}}, "jpeg: is for images, and ct_volume is for volumes"),
        ({"policy": "chest_xray", "geometry": {"tilt": 5.0}}, "geometry.tilt: is for volumes, and chest_xray is for images"),
        ({"policy": "mr_slice", "geometry": {"depth_flip": 0.5}}, "geometry.depth_flip: is for volumes"),
    ],
)
def test_wrong_settings_are_one_line(value, words):
    with pytest.raises(StudyError, match=words) as caught:
        policy_settings(value)
    assert str(caught.value).startswith("pretrain.views")
    assert "\n" not in str(caught.value)
