"""Policies: what a random view may do to an image, one file a modality. A new one is one new file and one line in POLICIES."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from medssl.augment.policies.chest_xray import ChestXray, ChestXraySettings
from medssl.data.batches import PixelBatch
from medssl.errors import StudyError
from medssl.strict import StrictModel, check, near_miss

__all__ = ["POLICIES", "Policy", "build_policy", "policy_settings"]


class Policy(Protocol):
    """Draws parameters, and applies them."""

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one view of each of n samples: CPU tensors whose first dimension is n, so that ranks take slices."""

    def apply(self, batch: PixelBatch, parameters: dict[str, Tensor], size: int) -> Tensor:
        """Views (N, 1, size, size), float32 in [0, 1], on the device of the batch; a function of its arguments alone."""


POLICIES: dict[str, tuple[type[StrictModel], type[Policy]]] = {"chest_xray": (ChestXraySettings, ChestXray)}


def policy_settings(value: dict[str, Any], where: str = "pretrain.views") -> StrictModel:
    """The checked settings of the policy that `value["policy"]` names.

    Raises:
        StudyError: there is no such policy, or one of its settings is wrong.
    """
    name = value.get("policy")
    if name not in POLICIES:
        raise StudyError(f"{where}.policy: is {name!r}{near_miss(str(name), list(POLICIES))}; allowed: {', '.join(POLICIES)}")
    return check(POLICIES[name][0], value, where, StudyError)


def build_policy(settings: StrictModel) -> Policy:
    """The policy of checked settings."""
    return POLICIES[settings.policy][1](settings)
