"""Activations computed again in the backward pass instead of kept: Chen et al., Training Deep Nets with Sublinear Memory Cost (1604.06174).

Of each block of a network only the input stays in memory; its inside is computed a second time when its gradient is needed. One more
forward pass a step buys room for larger images or batches. Losses, gradients and buffers stay what they were.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medssl.errors import StudyError

_CHAINS = (nn.Sequential, nn.ModuleList)
# Buffers that a normalisation changes in its forward pass.
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def recompute_activations(encoder: nn.Module) -> int:
    """Let every block of a network compute its activations again in the backward pass.

    A block is what a library's stages are made of: the elements of torchvision's and MONAI's `layer1` to `layer4`, of timm's `blocks`
    and `stages`. Stem, head and a stage's own downsampling keep their activations. In eval mode and without gradients nothing is
    different. Names in the state dict stay; a deep copy of the network recomputes too, by itself.

    Args:
        encoder: an Encoder, or a network; changed in place. Blocks that recompute already are left as they are.

    Returns:
        How many blocks recompute now.

    Raises:
        StudyError: the network has no such blocks.
    """
    blocks = find_blocks(encoder)
    if not blocks:
        name = getattr(getattr(encoder, "backbone", None), "name", type(encoder).__name__)
        raise StudyError(
            f"encoder.backbone: {name} has no stages of blocks whose activations could be computed again; choose another, or keep them"
        )
    for block in blocks:
        # Another class rather than another `forward` of this object, which a deep copy would share with the original.
        block.__class__ = _recomputing(type(block))
    return len(blocks)


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network's stages, in the order of its modules, each once; see `recompute_activations`."""
    children = list(network.children())
    while len(children) == 1 and not isinstance(network, _CHAINS):  # an Encoder holds a Backbone, and that the library's network
        network, children = children[0], list(children[0].children())
    parts = [network] if isinstance(network, _CHAINS) else children
    return list(dict.fromkeys(block for part in parts if _is_stage(part) for block in _inside(part)))


def _is_stage(module: nn.Module) -> bool:
    return isinstance(module, _CHAINS) or type(module).__name__.endswith("Stage")


def _inside(stage: nn.Module) -> Iterator[nn.Module]:
    """Blocks of a stage, and of the stages within it."""
    repeated = getattr(stage, "blocks", None)
    if not isinstance(stage, _CHAINS) and isinstance(repeated, _CHAINS):
        stage = repeated  # beside it timm's stages have their downsampling
    for child in stage.children():
        if _is_stage(child):
            yield from _inside(child)
        elif any(True for _ in child.children()) and not _running(child):
            # A single layer would keep as much as it saves: its input. (timm's normalisations have their activation as a child.)
            yield child


class _Recomputing(nn.Module):
    """Comes before a block's own class."""

    def forward(self, *args, **kwargs):
        plain = super().forward
        if not (self.training and torch.is_grad_enabled()):
            return plain(*args, **kwargs)
        if torch.compiler.is_compiling():
            # The compiler traces a block once and writes its buffers once; it takes no context manager here.
            return checkpoint(plain, *args, use_reentrant=False, **kwargs)
        contexts = functools.partial(_contexts, self)
        return checkpoint(plain, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@functools.cache
def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    if issubclass(kind, _Recomputing):
        return kind
    return type(kind.__name__, (_Recomputing, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _contexts(block: nn.Module) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    return contextlib.nullcontext(), _running_kept(block)


@contextlib.contextmanager
def _running_kept(block: nn.Module) -> Iterator[None]:
    """Running statistics follow a batch once: the second pass writes into copies.

    Switching `track_running_stats` off instead would be simpler, but then a layer saves fewer tensors for its backward pass than in
    the first pass, which torch.utils.checkpoint takes for a fault.
    """
    kept = [(module, name, tensor) for module in block.modules() if module.training for name, tensor in _running(module).items()]
    for module, name, tensor in kept:
        module._buffers[name] = tensor.clone()
    try:
        yield
    finally:
        for module, name, tensor in kept:
            module._buffers[name] = tensor


def _running(module: nn.Module) -> dict[str, Tensor]:
    return {name: module._buffers[name] for name in _RUNNING if module._buffers.get(name) is not None}
