"""What a policy is: the settings that views of one kind of image start from, and what it leaves out for a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Policy:
    """A view policy.

    Attributes:
        name: as in the study file.
        channels: what the images must be: grey, rgb or any.
        dims: 2 for images and slices, 3 for volumes.
        settings: of `medssl.augment.views.ViewSettings`; what is not named is off.
        leaves_out: keys that stay off, with the reason. A study may switch one on; the command then prints the reason.
    """

    name: str
    channels: Literal["grey", "rgb", "any"]
    dims: Literal[2, 3]
    settings: dict[str, Any]
    leaves_out: dict[str, str] = field(default_factory=dict)


GREY = {"color_jitter": "the image has no colour", "grayscale": "the image has no colour", "stain_jitter": "it is for H&E stains"}
"""Left out of every grey policy."""
