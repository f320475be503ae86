"""Policies: what a random view may do to an image, one file a modality. A new one is one new file and one line in POLICIES."""

from __future__ import annotations

from typing import Any

from medssl.augment.policies.base import Policy
from medssl.augment.policies.chest_xray import CHEST_XRAY
from medssl.augment.policies.ct import CT_SLICE, CT_VOLUME
from medssl.augment.policies.dermatology import DERMATOLOGY
from medssl.augment.policies.fundus import FUNDUS
from medssl.augment.policies.mammography import MAMMOGRAPHY
from medssl.augment.policies.mr import MR_SLICE, MR_VOLUME
from medssl.augment.policies.pathology import PATHOLOGY
from medssl.augment.policies.plain import PLAIN, PLAIN_VOLUME
from medssl.augment.policies.simclr_natural import SIMCLR_NATURAL
from medssl.augment.policies.ultrasound import ULTRASOUND
from medssl.augment.strength import strengthened
from medssl.augment.transform import Transform
from medssl.augment.views import Views, ViewSettings
from medssl.errors import StudyError
from medssl.strict import check, near_miss

__all__ = ["POLICIES", "Policy", "build_policy", "departures", "policy_settings"]

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        CHEST_XRAY, CT_SLICE, CT_VOLUME, MR_SLICE, MR_VOLUME, PATHOLOGY, ULTRASOUND, MAMMOGRAPHY, FUNDUS, DERMATOLOGY,
        SIMCLR_NATURAL, PLAIN, PLAIN_VOLUME,
    )
}  # fmt: skip


def policy_settings(value: dict[str, Any], where: str = "pretrain.views") -> ViewSettings:
    """The checked settings of views: those of the policy that `value["policy"]` names, overridden by what else stands there.

    A block such as `noise: {std: [0, 0.01]}` changes these keys of the policy's block, or switches the transform on with its
    defaults where the policy has it off; `noise: null` switches it off. `strength` then makes all of it milder or stronger.

    Raises:
        StudyError: there is no such policy, one of its settings is wrong, or is for volumes or colour and the policy is not.
    """
    name = value.get("policy")
    if name not in POLICIES:
        raise StudyError(f"{where}.policy: is {name!r}{near_miss(str(name), list(POLICIES))}; allowed: {', '.join(POLICIES)}")
    policy = POLICIES[name]
    merged = dict(policy.settings)
    for key, own in value.items():
        base = merged.get(key)
        merged[key] = {**base, **own} if isinstance(base, dict) and isinstance(own, dict) else own
    settings = check(ViewSettings, merged, where, StudyError)
    _fits(policy, settings, where)
    return strengthened(settings, settings.strength)


def _fits(policy: Policy, settings: ViewSettings, where: str) -> None:
    for key, transform in settings.transforms().items():
        if transform.colour and policy.channels == "grey":
            raise StudyError(f"{where}.{key}: is for colour images, and {policy.name} is for grey ones; allowed: null")
        if key == "jpeg" and policy.dims == 3:
            raise StudyError(f"{where}.{key}: is for images, and {policy.name} is for volumes; allowed: null")
    if policy.dims == 2:
        for key in ("tilt", "depth_flip"):
            if getattr(settings.geometry, key):
                raise StudyError(f"{where}.geometry.{key}: is for volumes, and {policy.name} is for images; allowed: 0")


def departures(settings: ViewSettings) -> list[str]:
    """What a study switched on that its policy leaves out for a reason, one sentence each."""
    policy, found = POLICIES[settings.policy], []
    for key, reason in policy.leaves_out.items():
        block, _, part = key.partition(".")
        value = getattr(settings, block)
        value = getattr(value, part) if part else value
        on = value.probability > 0 if isinstance(value, Transform) else bool(value)
        if on:
            found.append(f"{key} is on; {policy.name} leaves it out: {reason}")
    return found


def build_policy(settings: ViewSettings) -> Views:
    """The views of checked settings."""
    return Views(settings, POLICIES[settings.policy].dims)
