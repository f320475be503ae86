"""A network's parameters block by block, from the input up: what partial fine-tuning and layer-wise learning rates go by."""

from __future__ import annotations

from torch import nn

from medssl.errors import StudyError
from medssl.models.recompute import find_blocks


def parameter_blocks(encoder: nn.Module) -> list[list[str]]:
    """Names of the parameters of an encoder: first the stem's, then each block's.

    Blocks are those of `medssl.models.recompute.find_blocks`. What stands between two of them, and what comes after the last one, such
    as a last convolution or normalisation, goes with the block before it.

    Raises:
        StudyError: the network has no blocks.
    """
    blocks = find_blocks(encoder)
    if not blocks:
        name = getattr(getattr(encoder, "backbone", None), "name", type(encoder).__name__)
        raise StudyError(
            f"encoder.backbone: {name} has no blocks to fine-tune a part of; set finetune.partial and layer_decay to null"
        )
    owner = {id(parameter): number for number, block in enumerate(blocks, start=1) for parameter in block.parameters()}
    parts: list[list[str]] = [[] for _ in range(len(blocks) + 1)]
    at = 0
    for name, parameter in encoder.named_parameters():
        at = owner.get(id(parameter), at)
        parts[at].append(name)
    return parts


def freeze_below(encoder: nn.Module, last: int) -> list[nn.Module]:
    """Freeze all but the `last` blocks; returns the layers that must stay in eval mode: BN there keeps its statistics.

    Raises:
        StudyError: the network has no blocks, or not so many.
    """
    parts = parameter_blocks(encoder)
    if last >= len(parts):
        raise StudyError(
            f"finetune.partial.blocks: is {last}, the network has {len(parts) - 1} blocks; allowed: 1 to {len(parts) - 1}"
        )
    frozen = {name for part in parts[:-last] for name in part}
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name not in frozen)
    layers = []
    for layer in encoder.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            layers.append(layer)
    return layers
