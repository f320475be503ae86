"""The control `imagenet_statistics`: weights with the scale of ImageNet's and none of their features.

After the "Mean Var" initialisation of Transfusion (Raghu et al. 2019, 1902.07208, section 5): the weights of each layer are drawn
independently from a normal distribution with the mean and variance of that layer's pretrained weights. What pretrained weights gain
over these they gain by what they show, not by how large they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssl.seeds import torch_generator

STREAM = ("init", "imagenet_statistics")


def draw_by_statistics(network: nn.Module, seed: int) -> int:
    """Draw every parameter of `network` anew, in place, from a normal distribution of its own mean and variance.

    A layer's weight, its bias, and scale and shift of a normalisation are a tensor each, with statistics of its own; the variance
    is that of the tensor's values (divided by n), so a tensor of equal values stays as it is. Running statistics of batch
    normalisation start anew (mean 0, variance 1, no batch seen), as in a random network: the paper does not speak of them, and
    those of ImageNet belong to features that are gone.

    Args:
        network: on the CPU; with the weights whose statistics are meant.
        seed: the stream ("init", "imagenet_statistics") is drawn from in the order of the network's parameters.

    Returns:
        How many tensors were drawn.
    """
    generator = torch_generator(seed, *STREAM)
    parameters = list(network.parameters())
    with torch.no_grad():
        for parameter in parameters:
            mean, std = mean_and_std(parameter)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + mean)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.reset_running_stats()
    return len(parameters)


def mean_and_std(tensor: Tensor) -> tuple[float, float]:
    """Mean and standard deviation (divided by n) of a tensor's values, computed in float64."""
    values = tensor.detach().double()
    return float(values.mean()), float(values.std(unbiased=False))
