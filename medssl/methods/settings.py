"""What the settings of the methods have in common."""

from __future__ import annotations

from pydantic import Field

from medssl.strict import StrictModel


class MethodSettings(StrictModel):
    """Base of a method's settings."""

    encoder_lr_scale: float = Field(
        default=1.0, gt=0, le=1, description="Below 1, a pretrained encoder learns more slowly than its fresh heads"
    )
