"""How a network is optimised: the optimiser, its rates and their schedule. Imports no torch, so that methods can name theirs."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from medssl.errors import StudyError
from medssl.strict import StrictModel, check


class Recipe(StrictModel):
    """`pretrain.optimizer` of a study file. What a study leaves out is the method's own, that of its paper."""

    name: Literal["sgd", "lars", "adamw"]
    base_lr: float = Field(gt=0, description="Learning rate before scaling with the batch")
    scaling: Literal["linear", "sqrt", "none"] = Field(
        default="linear", description="linear: base_lr x batch_size / 256; sqrt: base_lr x sqrt(batch_size); none: base_lr"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD and LARS; AdamW has its own")
    weight_decay: float = Field(ge=0, description="Of SGD and LARS part of the gradient, of AdamW apart from it")
    trust_coefficient: float = Field(default=0.001, gt=0, description="Of LARS: eta in 1708.03888, equation 6")
    warmup_epochs: int = Field(
        default=0, ge=0, description="Epochs in which the rate rises linearly; the method's own is cut to a tenth of all epochs"
    )
    final_lr: float = Field(default=0.0, ge=0, lt=1, description="Where the cosine ends, share of the highest rate")

    def peak_lr(self, batch_size: int) -> float:
        """The highest rate of the schedule, for batches of `batch_size` samples."""
        factors = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size), "none": 1.0}
        return self.base_lr * factors[self.scaling]


def chosen_recipe(own: Recipe, value: dict[str, Any], epochs: int, where: str = "pretrain.optimizer") -> Recipe:
    """The recipe `own` of a method, with what a study says otherwise.

    Args:
        value: keys of `Recipe`, as they stand in the study. Another optimiser than the method's takes none of its numbers: a rate
            for one means nothing to another, so `base_lr` and `weight_decay` must then be given.
        epochs: of the study.

    Raises:
        StudyError: a key is wrong or missing, or is none of the optimiser's.
    """
    base = own.model_dump() if value.get("name", own.name) == own.name else {}
    if "warmup_epochs" not in value:
        base["warmup_epochs"] = min(own.warmup_epochs, epochs // 10)
    recipe = check(Recipe, base | value, where, StudyError)
    for key, of in (("momentum", ("sgd", "lars")), ("trust_coefficient", ("lars",))):
        if key in value and recipe.name not in of:
            raise StudyError(f"{where}.{key}: is of {' and '.join(of)}, but the optimiser is {recipe.name}; leave it out")
    return recipe
