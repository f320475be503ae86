"""The collapse monitor: is the network about to map every image to the same point, or into a few dimensions?

Standard deviation alone does not see dimensional collapse: behind an output BN, removing SimSiam's predictor leaves
std x sqrt(d) near 1 while the effective rank falls. So both are watched, on projections as in training: in eval mode
the running statistics of BN lag behind and give false alarms in the first epochs.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.seeds import torch_generator

# Below this share of a healthy std (1) the points have moved together: 0.5 is a mean vector of length 0.87 of 1.
COLLAPSED_STD = 0.5
# Fewer dimensions than this cannot tell more than a handful of images apart, whatever their std.
COLLAPSED_RANK = 2.0
# Share of a Gaussian's effective rank. On a toy of 16 px images (d = 128) SimSiam stayed above 0.25, and fell through 0.1
# without stop-gradient or without predictor. On 1,500 chest X-rays at 32 px (ResNet-18, d = 2048, 180 steps) it stayed
# above 0.5, and fell to 0.04 at four times the paper's learning rate. What share is healthy depends on the data: compare
# runs of one method, and trust a trend more than the threshold.
LOW_RANK_SHARE = 0.1

State = Literal["healthy", "dimensional collapse", "collapsed"]


def std_sqrt_d(z: Tensor) -> Tensor:
    """Mean over channels of the standard deviation of z / |z|, times sqrt(d): 1 for a Gaussian, 0 at a constant z.

    Args:
        z: (n, d), n >= 2.
    Returns:
        Scalar float32 on the device of z (2011.10566, section 4.1 and figure 2).
    Raises:
        ValueError: fewer than two rows.
    """
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"expected (n >= 2, d), got {tuple(z.shape)}")
    return F.normalize(z.float(), dim=1).std(dim=0).mean() * math.sqrt(z.shape[1])


def effective_rank(z: Tensor) -> float:
    """RankMe: exp of the entropy of the singular values of z, each divided by their sum; from 1 to min(n, d).

    z is not centred, so a constant z has rank 1 (Garrido et al., ICML 2023, equation 1).

    Args:
        z: (n, d), computed on the CPU in float64.
    """
    z = z.detach().cpu().double()
    gram = z @ z.T if len(z) <= z.shape[1] else z.T @ z
    eigenvalues = torch.linalg.eigvalsh(gram)
    # The Gram matrix knows singular values down to about 1e-8 of the largest; what is below is rounding.
    singular = eigenvalues.clamp_min(0).where(eigenvalues > 1e-14 * eigenvalues.max(), 0).sqrt()
    if singular.sum() == 0:
        return 1.0
    share = singular / singular.sum() + 1e-7  # the paper's epsilon
    return min(float(torch.exp(-(share * share.log()).sum())), float(min(z.shape)))


@functools.lru_cache(maxsize=16)
def gaussian_rank(rows: int, dim: int) -> float:
    """The effective rank of a standard Gaussian (rows, dim): what no data could exceed by much. The same at every call."""
    return effective_rank(torch.randn(rows, dim, generator=torch_generator(0, "collapse", "gaussian", rows, dim)))


class CollapseMonitor:
    """The last `rows` projections as in training, and what they say.

    The buffer lives on the device of what is put in, so that `update` waits for nothing; `report` does.
    """

    def __init__(self, dim: int, rows: int = 1024) -> None:
        self.dim, self.rows = dim, rows
        self._buffer = torch.zeros(rows, dim)
        self._seen = 0

    def update(self, z: Tensor) -> None:
        """Put in z (n, dim); the oldest rows make room.

        Raises:
            ValueError: z has another width.
        """
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(f"expected (n, {self.dim}), got {tuple(z.shape)}")
        if self._buffer.device != z.device:
            self._buffer = self._buffer.to(z.device)
        start = self._seen + max(0, len(z) - self.rows)
        place = torch.arange(start, self._seen + len(z), device=z.device) % self.rows
        self._buffer[place] = z[-self.rows :].detach().float()
        self._seen += len(z)

    def report(self) -> dict[str, float]:
        """`std_sqrt_d` and `effective_rank` of the rows held, and `rank_share`: the rank divided by a Gaussian's.

        Raises:
            ValueError: fewer than two rows were put in.
        """
        z = self._buffer[: min(self._seen, self.rows)]
        rank = effective_rank(z) if len(z) > 1 else 0.0
        return {
            "std_sqrt_d": float(std_sqrt_d(z)),
            "effective_rank": rank,
            "rank_share": rank / gaussian_rank(len(z), self.dim),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors on the CPU, part of the checkpoint, so that a resumed run reports the same."""
        return {"buffer": self._buffer.cpu().clone(), "seen": torch.tensor(self._seen)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state of a monitor of the same shape.

        Raises:
            ValueError: it is of another shape.
        """
        if state["buffer"].shape != (self.rows, self.dim):
            raise ValueError(f"expected a buffer ({self.rows}, {self.dim}), got {tuple(state['buffer'].shape)}")
        self._buffer, self._seen = state["buffer"].clone(), int(state["seen"])


def verdict(report: dict[str, float]) -> tuple[State, str]:
    """What a report means, in one word and in one sentence for people."""
    std, rank, share = report["std_sqrt_d"], report["effective_rank"], report["rank_share"]
    figures = f"std x sqrt(d) {std:.2f}, effective rank {rank:.1f}, {share:.1%} of a Gaussian's"
    # "not above" rather than "below": NaN must not pass as healthy.
    if not (std >= COLLAPSED_STD and rank >= COLLAPSED_RANK):
        return "collapsed", f"Nearly all images are mapped to one point or line ({figures}): this encoder is of no use."
    if not share >= LOW_RANK_SHARE:
        return (
            "dimensional collapse",
            f"The projections fill only a few dimensions ({figures}): try a lower rate or other views.",
        )
    return "healthy", f"The projections spread over many dimensions ({figures}); how useful they are, only labels can tell."
