"""Group normalisation made batch normalisation: Lu, Jha, Huo, Contrastive Learning Meets Transfer Learning (2103.03166).

Networks that were pretrained with group normalisation (Big Transfer's) do not go together with methods that live on batch statistics,
such as SimSiam; the paper calls the difference "the key hurdle".
"""

from __future__ import annotations

from torch import nn


def group_norm_to_batch_norm(network: nn.Module) -> int:
    """Put a fresh BatchNorm2d in the place of each GroupNorm of `network`; returns how many.

    Everything else keeps its weights. Scale and shift start at 1 and 0: those of the group normalisation were learnt for other
    statistics, and the paper's code leaves them out too. An activation that is part of a layer (timm's) stays.
    """
    from timm.layers import BatchNormAct2d, GroupNormAct

    replaced = 0
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.GroupNorm):
                continue
            if isinstance(layer, GroupNormAct):
                new = BatchNormAct2d(layer.num_channels)
                new.drop, new.act = layer.drop, layer.act
            else:
                new = nn.BatchNorm2d(layer.num_channels)
            setattr(parent, name, new)
            replaced += 1
    return replaced
