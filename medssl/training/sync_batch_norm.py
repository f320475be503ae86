"""Batch normalisation over the rows of all ranks, so that a batch has the same statistics however many ranks work on it.

On GPUs this is torch's SyncBatchNorm, whose kernels are fused. That one refuses tensors on the CPU, where the layer below does the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.errors import LaunchError
from medssl.training.collectives import gather_rows, world_size


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and biased variance (C,) of each channel over all ranks, and (1,) how many values each is of; with gradients.

    Args:
        x: (N, C, ...) with at least one row, in float32 or float64. N may differ between ranks here.
    """
    channels, over = x.shape[1], [dim for dim in range(x.ndim) if dim != 1]
    variance, mean = torch.var_mean(x, over, correction=0)
    count = x.new_full((1,), x.numel() // channels)
    # Means and variances are exchanged rather than sums of squares, whose difference would lose the digits of a small spread.
    means, variances, counts = gather_rows(torch.cat([mean, variance, count])[None]).split([channels, channels, 1], dim=1)
    total = counts.sum(dim=0)
    share = counts / total
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0), total


def normalised(
    x: Tensor, mean: Tensor, variance: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias of (N, C, ...), with (C,) each."""
    shape = [1, -1, *[1] * (x.ndim - 2)]
    scale = (variance + eps).rsqrt()
    centred, scale = x - mean.view(shape), (scale if weight is None else scale * weight).view(shape)
    return centred * scale if bias is None else torch.addcmul(bias.view(shape), centred, scale)


class AllReduceBatchNorm(_BatchNorm):
    """nn.BatchNorm1d, 2d and 3d over the rows of all ranks, for tensors on the CPU: (N, C) or (N, C, ...) to the same shape.

    In training mode the batch statistics, and with them the running ones, are of all ranks' rows. In eval mode, and in a world of one,
    it is nn.BatchNorm. Worked on in float32 at least, also under autocast; the output has the type of the input.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C) or (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Raises ValueError where the input has fewer than two dimensions."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.to(torch.promote_types(input.dtype, torch.float32))
            mean, variance, count = mean_and_variance(x)
            if self.track_running_stats:
                self._track(mean.detach(), (variance * count / (count - 1)).detach())
            return normalised(x, mean, variance, self.eps, self.weight, self.bias).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics follow; without a momentum they are the plain average of all batches."""
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class AllReduceBatchNormAct(AllReduceBatchNorm):
    """timm's BatchNormAct2d over the rows of all ranks: dropout and activation, which are part of that layer, follow."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.act(self.drop(super().forward(input)))


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every BatchNorm1d, 2d and 3d of `module` take its statistics over all ranks; call it before the module trains on `device`.

    The new layers hold the very parameters, buffers, submodules and hooks of the old ones, under the same names: optimisers and state
    dicts do not notice. In a world of one nothing changes.

    Args:
        module: changed in place, unless it is itself a BatchNorm.

    Returns:
        `module`, or what takes its place.

    Raises:
        LaunchError: a layer is a batch normalisation of another kind, of which it is not known what else it does.
    """
    if world_size() == 1:
        return module
    new: dict[int, nn.Module] = {}  # a layer that stands in two places stays one layer
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm | AllReduceBatchNorm):
            new[id(layer)] = _synchronized(layer, device)
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if id(child) in new:
                parent._modules[name] = new[id(child)]
    return new.get(id(module), module)


def _synchronized(layer: _BatchNorm, device: torch.device) -> _BatchNorm:
    kind = _kind(layer, cuda=device.type == "cuda")
    new = kind(layer.num_features, device="meta")
    # All that a module is stands in its __dict__. To name single attributes would lose hooks, a missing bias, what a user has set.
    new.__dict__.update(layer.__dict__)
    return new


def _kind(layer: _BatchNorm, *, cuda: bool) -> type[_BatchNorm]:
    if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.SyncBatchNorm if cuda else AllReduceBatchNorm
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    if type(layer) is BatchNormAct2d:
        return SyncBatchNormAct if cuda else AllReduceBatchNormAct
    raise LaunchError(
        f"launch: the network has a layer {type(layer).__name__}, of which no form over several processes is known; "
        "train with one process, or choose another backbone"
    )
