"""Rows and sums of all ranks, and their gradients, against one process that has all rows."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from medssl.training.collectives import from_first_rank, gather_rows, own_rows, rank, sum_over_ranks, world_size

RANKS = runpy.run_path(str(Path(__file__).with_name("ranks.py")))
N, DIM, SIZE = 3, 4, 2


def all_rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SIZE * N, DIM, generator=torch.Generator().manual_seed(0)).to(dtype)


def weights() -> Tensor:
    return torch.randn(SIZE * N, SIZE * N, generator=torch.Generator().manual_seed(1))


def pairwise_loss(own: Tensor, everything: Tensor, weight: Tensor) -> Tensor:
    """A mean over own rows in which each meets the rows of all, with another weight for each pair."""
    return ((own @ everything.T) * weight).sin().sum(dim=1).mean()


def summed_loss(total: Tensor) -> Tensor:
    return total.sin().sum()


def worker() -> None:
    number, folder = RANKS["joined_rank"]()
    found = {"rank": rank(), "world_size": world_size()}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = all_rows(dtype)[own_rows(N)].requires_grad_()
        gathered = gather_rows(x)
        pairwise_loss(x.float(), gathered.float(), weights()[own_rows(N)]).backward()
        found[f"gathered {dtype}"], found[f"gathered.grad {dtype}"] = gathered.detach(), x.grad

    for one_loss in (False, True):
        x = all_rows()[own_rows(N)].requires_grad_()
        total = sum_over_ranks(x.T @ x, one_loss=one_loss)
        (summed_loss(total) if one_loss else summed_loss(total) * (1 + number)).backward()
        found[f"sum {one_loss}"], found[f"sum.grad {one_loss}"] = total.detach(), x.grad
    x = torch.tensor([1.5, -3.0 * number], dtype=torch.bfloat16)
    found["sum of bfloat16"], found["scalar"] = sum_over_ranks(x), sum_over_ranks(torch.tensor(1.0 + number))

    images = all_rows().view(SIZE * N, 1, 2, 2)[own_rows(N)].contiguous(memory_format=torch.channels_last)
    found["images"], found["lines"] = gather_rows(images.expand(-1, 2, -1, -1)), gather_rows(torch.arange(6)[own_rows(3)])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(number)).flip(0)
    found["order"], found["own order"] = from_first_rank(order), order
    torch.save(found, folder / f"{number}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    return RANKS["found_by_ranks"](__file__, tmp_path_factory.mktemp("ranks"), SIZE)


def test_ranks_know_who_they_are(found):
    assert [(one["rank"], one["world_size"]) for one in found] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_come_in_rank_order_with_exact_gradients(found, dtype):
    x = all_rows(dtype).requires_grad_()
    pairwise_loss(x.float(), x.float(), weights()).backward()
    for number, one in enumerate(found):
        assert torch.equal(one[f"gathered {dtype}"], x.detach())
        grad = one[f"gathered.grad {dtype}"]
        assert grad.dtype == dtype
        # Each rank's loss is a mean over its own rows, so the mean of the ranks' is the loss, and its gradient half of theirs.
        own = x.grad[number * N : (number + 1) * N]
        # The loss is worked out in float32 whatever is gathered, and processors differ in the order of its sums.
        tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(grad / SIZE, own, atol=tolerance, rtol=tolerance)


def test_sums_have_the_gradient_of_all_ranks_losses(found):
    x = all_rows().requires_grad_()
    total = x.T @ x
    (grad,) = torch.autograd.grad(summed_loss(total), x)
    for number, one in enumerate(found):
        own = grad[number * N : (number + 1) * N]
        for one_loss, times in ((False, 1 + 2), (True, 1 + 1)):
            torch.testing.assert_close(one[f"sum {one_loss}"], total.detach())
            torch.testing.assert_close(one[f"sum.grad {one_loss}"], times * own)


def test_sums_keep_type_and_shape(found):
    assert all(torch.equal(one["sum of bfloat16"], torch.tensor([3.0, -3.0], dtype=torch.bfloat16)) for one in found)
    assert all(one["scalar"].shape == () for one in found)
    assert [float(one["scalar"]) for one in found] == [3.0, 3.0]


def test_other_layouts_and_integers_are_gathered(found):
    for one in found:
        assert torch.equal(one["images"], all_rows().view(6, 1, 2, 2).expand(-1, 2, -1, -1))
        assert one["lines"].tolist() == list(range(6))


def test_the_first_ranks_order_is_everyones(found):
    assert not torch.equal(found[0]["own order"], found[1]["own order"])
    assert all(torch.equal(one["order"], found[0]["own order"]) for one in found)


def test_in_a_world_of_one_nothing_is_done():
    x = torch.ones(2, 3)
    assert (rank(), world_size(), own_rows(5)) == (0, 1, slice(0, 5))
    assert gather_rows(x) is sum_over_ranks(x, one_loss=True) is from_first_rank(x) is x


if __name__ == "__main__":
    worker()
