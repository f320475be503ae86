"""Views milder or stronger by one number."""

from __future__ import annotations

import pytest
import torch

from medssl.augment.policies import POLICIES, build_policy, policy_settings
from medssl.augment.views import ViewSettings
from medssl.errors import StudyError


@pytest.mark.parametrize("name", list(POLICIES))
def test_strength_1_is_the_policy(name):
    assert policy_settings({"policy": name, "strength": 1.0}) == policy_settings({"policy": name})


@pytest.mark.parametrize("name", list(POLICIES))
@pytest.mark.parametrize("strength", [0.3, 0.7, 1.5, 3.0])
def test_settings_of_any_strength_are_allowed_ones_and_draw(name, strength):
    settings = policy_settings({"policy": name, "strength": strength})
    assert ViewSettings.model_validate(settings.model_dump()) == settings
    drawn = build_policy(settings).sample(50, torch.Generator().manual_seed(0))
    assert all(value.float().isfinite().all() for value in drawn.values())


def test_everything_goes_one_way():
    mild, own, strong = (policy_settings({"policy": "chest_xray", "strength": s}) for s in (0.5, 1.0, 1.5))
    for a, b in ((mild, own), (own, strong)):
        assert a.geometry.crop_scale[0] > b.geometry.crop_scale[0]
        assert a.geometry.rotation < b.geometry.rotation
        assert a.window.width_factor[1] <= b.window.width_factor[1]
        assert all(x.probability <= y.probability for x, y in zip(a.transforms().values(), b.transforms().values(), strict=True))
    low = own.geometry.crop_scale[0]
    assert mild.geometry.crop_scale == pytest.approx([1 - (1 - low) / 2, own.geometry.crop_scale[1]])
    assert mild.geometry.horizontal_flip == own.geometry.horizontal_flip


def test_what_a_study_sets_itself_is_scaled_too():
    settings = policy_settings({"policy": "plain", "strength": 0.5, "geometry": {"rotation": 30.0, "crop_ratio": [0.25, 4.0]}})
    assert settings.geometry.rotation == 15
    assert settings.geometry.crop_ratio == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize("strength", [0, -1, 4])
def test_other_strengths_are_one_line(strength):
    with pytest.raises(StudyError, match=r"pretrain\.views: strength: is"):
        policy_settings({"policy": "plain", "strength": strength})
