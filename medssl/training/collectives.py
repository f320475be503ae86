"""What a loss needs from the other ranks: rows and sums of all of them, with gradients.

A rank's loss may depend on the rows of all ranks. The gradient of the ranks' summed losses then reaches a row from every rank, so the
backward pass of everything here sums over ranks, and DistributedDataParallel's mean over ranks makes of it the gradient of the mean of
the ranks' losses: with one process's batch dealt to the ranks, exactly that process's gradient.

All ranks must call the same functions in the same order, with tensors of the same shape. In a world of one nothing is done: what goes
in comes out. Works for float32, float64 and bfloat16, on CPUs (gloo) and on GPUs (NCCL), and never waits for a GPU.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx


def world_size() -> int:
    """Processes that train together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 <= rank < world_size()."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def own_rows(n: int) -> slice:
    """Where this rank's `n` rows stand among the rows that `gather_rows` gives."""
    return slice(rank() * n, (rank() + 1) * n)


def gather_rows(x: Tensor) -> Tensor:
    """(world_size * n, ...), the rows of all ranks in rank order, of this rank's (n, ...).

    n must be the same on all ranks: to check that would cost a second round of messages. Where no gradient is wanted the same function
    serves, and its backward pass costs nothing.
    """
    return x if world_size() == 1 else _GatherRows.apply(x)


def sum_over_ranks(x: Tensor, *, one_loss: bool = False) -> Tensor:
    """The sum of x (any shape) over all ranks.

    Args:
        one_loss: the caller promises that every rank makes the same loss of the sum. Each rank then has the same gradient, which needs
            no second exchange to be summed.
    """
    return x if world_size() == 1 else _SumOverRanks.apply(x, one_loss)


@torch.no_grad()
def from_first_rank(x: Tensor) -> Tensor:
    """What rank 0 has in x (any shape, any type, no gradient), on all ranks. The x of other ranks must have the same shape."""
    if world_size() == 1:
        return x
    x = x.contiguous().clone()
    dist.broadcast(x, src=0)
    return x


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        x = x.contiguous()
        gathered = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather(list(gathered.split(len(x))), x)
        return gathered

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return _summed(grad)[own_rows(ctx.rows)].to(grad.dtype)


class _SumOverRanks(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, one_loss: bool) -> Tensor:
        ctx.one_loss = one_loss
        return _summed(x).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return (grad * world_size() if ctx.one_loss else _summed(grad).to(grad.dtype)), None


def _summed(x: Tensor) -> Tensor:
    """A new tensor, at least float32: bfloat16 would lose digits with each rank that is added."""
    total = x.to(torch.promote_types(x.dtype, torch.float32), copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
