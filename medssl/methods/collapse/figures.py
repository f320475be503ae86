"""What can be said of a set of vectors: how far they spread, in how many directions, how near two views of an image are.

Every figure is a scalar tensor on the device of its input, so that a caller can fetch all of them at once. A vector
that is not finite makes every figure NaN: what is unknown must not look healthy.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.seeds import torch_generator


def std_sqrt_d(z: Tensor) -> Tensor:
    """Mean over channels of the standard deviation of z / |z|, times sqrt(d): about 1 for a Gaussian, 0 at a constant z.

    Args:
        z: (n, d), n >= 2.
    Returns:
        In [0, sqrt(n / (n - 1))] (2011.10566, section 4.1 and figure 2).
    Raises:
        ValueError: another shape.
    """
    return F.normalize(_rows(z).float(), dim=1).std(dim=0).mean() * math.sqrt(z.shape[1])


def mean_and_residual(z: Tensor) -> tuple[Tensor, Tensor]:
    """m_o and m_r: the length of the mean of z / |z|, and the root mean square length of what remains of each.

    m_o^2 + m_r^2 = 1, and m_r is the root mean square of the channels' standard deviations (with 1 / n) times sqrt(d). So they are
    the signal of `std_sqrt_d` again, divided into its two parts. A z of length 0 has no direction and counts as 0.

    Args:
        z: (n, d), n >= 2.
    Returns:
        Each in [0, 1]. m_o is 1 at a constant z, and about 1 / sqrt(n) for a Gaussian (2203.16262, section 3.1).
    Raises:
        ValueError: another shape.
    """
    unit = F.normalize(_rows(z).double(), dim=1)
    mean = unit.mean(dim=0)
    return mean.norm(), (unit - mean).square().sum(dim=1).mean().sqrt()


def effective_rank(z: Tensor) -> Tensor:
    """RankMe: exp of the entropy of the singular values of z, each divided by their sum.

    z is not centred, so a constant z has rank 1.

    Args:
        z: (n, d), n >= 2; worked on in float64.
    Returns:
        From 1 to min(n, d); 1 where z is 0 (Garrido et al., ICML 2023, equation 1).
    Raises:
        ValueError: another shape.
    """
    known, z = _known(_rows(z).double())
    singular = _singular_values(z)
    total = singular.sum()
    share = singular / total + 1e-7  # the paper's epsilon
    rank = torch.where(total > 0, torch.exp(-(share * share.log()).sum()).clamp(1, min(z.shape)), 1.0)
    return torch.where(known, rank, math.nan)


@functools.lru_cache(maxsize=16)
def gaussian_rank(rows: int, dim: int) -> float:
    """The effective rank of a standard Gaussian (rows, dim): what no data could exceed by much. The same at every call."""
    z = torch.randn(rows, dim, generator=torch_generator(0, "collapse", "gaussian", rows, dim))
    return float(effective_rank(z))


def singular_value_auc(z: Tensor) -> Tensor:
    """Area under the cumulative share of the singular values, largest first, of z / |z| minus its mean.

    That is the mean over j = 1 .. k of (s_1 + ... + s_j) / (s_1 + ... + s_k), with k = min(n - 1, d): more cannot differ from 0
    after centring. It sees what `effective_rank` sees, but a mean common to all rows does not count.

    Args:
        z: (n, d), n >= 2; worked on in float64.
    Returns:
        From (k + 1) / 2k, just above 0.5, where all directions are as strong, to 1 where there is one; 1 at a constant z.
        (Li, Efros and Pathak, ECCV 2022, section 4.)
    Raises:
        ValueError: another shape.
    """
    known, z = _known(_rows(z).double())
    unit = F.normalize(z, dim=1)
    centred = unit - unit.mean(dim=0)
    most = min(len(z) - 1, z.shape[1])
    singular = _singular_values(centred).flip(0)[:most]
    total = singular.sum()
    # Rounding leaves a constant z a spread of about 1e-16.
    area = torch.where(total > 1e-12, (singular.cumsum(0) / total).mean(), 1.0)
    return torch.where(known, area, math.nan)


def correlation(z: Tensor) -> Tensor:
    """Mean of |correlation| over pairs of different channels.

    A constant channel has no correlation and is left out. Where fewer than two channels vary the figure is 1: nothing independent
    is left.

    Args:
        z: (n, d), n >= 2.
    Returns:
        In [0, 1]; about sqrt(2 / (pi n)) for a Gaussian, so 0.025 for 1,024 rows (2203.16262, section 4.2).
    Raises:
        ValueError: another shape.
    """
    known, z = _known(_rows(z).float())
    centred = z - z.mean(dim=0)
    length = centred.norm(dim=0)
    # A channel that is constant but for rounding: float32 has 24 bits.
    varies = length > 1e-6 * z.norm(dim=0)
    unit = torch.where(varies, centred / length.clamp_min(torch.finfo(torch.float32).tiny), 0)
    count = varies.sum()
    total = (unit.T @ unit).abs().clamp_max(1).sum(dtype=torch.float64) - count
    mean = torch.where(count > 1, total.clamp_min(0) / (count * (count - 1)).clamp_min(1), 1.0)
    return torch.where(known, mean, math.nan)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(n,) squared distance of row i of `first` and of `second`, (n, d) each, after both are normalised; in [0, 4].

    Raises:
        ValueError: their shapes differ, or are no matrices.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"expected (n, d) twice, got {tuple(first.shape)} and {tuple(second.shape)}")
    return (F.normalize(first.float(), dim=1) - F.normalize(second.float(), dim=1)).square().sum(dim=1)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the normalised vectors of two views, (n, d) each: 0 where views of an image fall together.

    Returns:
        In [0, 4]; about 2 for vectors that have nothing to do with each other (2005.10242, section 4.1, with alpha = 2).
    Raises:
        ValueError: their shapes differ, or are no matrices.
    """
    return squared_distances(first, second).mean()


def uniformity(z: Tensor) -> Tensor:
    """log of the mean, over pairs of different rows, of exp(-2 x their squared distance), rows normalised.

    Args:
        z: (n, d), n >= 2.
    Returns:
        In [-8, 0]; 0 at a constant z, about -4 for a Gaussian of many dimensions (2005.10242, section 4.1, with t = 2).
    Raises:
        ValueError: another shape.
    """
    unit = F.normalize(_rows(z).float(), dim=1)
    cosines = (unit @ unit.T).clamp(-1, 1)
    potential = torch.exp(4 * cosines.double() - 4)  # squared distance = 2 - 2 cosine
    pairs = potential.sum() - potential.diagonal().sum()
    return (pairs / (len(z) * (len(z) - 1))).log()


def _rows(z: Tensor) -> Tensor:
    if z.ndim != 2 or len(z) < 2 or z.shape[1] < 1:
        raise ValueError(f"expected (n >= 2, d), got {tuple(z.shape)}")
    # Apple's GPUs have no float64 and no eigenvalues.
    return z.detach().cpu() if z.device.type == "mps" else z.detach()


def _known(z: Tensor) -> tuple[Tensor, Tensor]:
    """Whether all of z is finite, and z, or zeros in its place: eigenvalues of NaN are an error. Waits for nothing."""
    known = z.isfinite().all()
    return known, torch.where(known, z, 0)


def _singular_values(z: Tensor) -> Tensor:
    """(min(n, d),) singular values of z, smallest first, from its Gram matrix, which is several times as fast as an SVD."""
    eigenvalues = torch.linalg.eigvalsh(z @ z.T if len(z) <= z.shape[1] else z.T @ z)
    # The Gram matrix knows singular values down to about 1e-8 of the largest; what is below is rounding.
    return torch.where(eigenvalues > 1e-14 * eigenvalues.max(), eigenvalues.clamp_min(0), 0).sqrt()
