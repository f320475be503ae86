"""Two ranks that share each batch learn what one process learns, whatever the method."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medssl.errors import StudyError
from medssl.methods import METHODS, Batch, Method, build_method, method_settings
from medssl.methods.collapse import CollapseMonitor
from medssl.methods.moco import in_groups
from medssl.models.weights import init_stream
from medssl.seeds import seed_global, torch_generator
from medssl.training.collectives import own_rows, world_size
from medssl.training.sync_batch_norm import synchronize_batch_norm

RANKS = runpy.run_path(str(Path(__file__).parents[1] / "training" / "ranks.py"))
SIZE, ROWS, STEPS, CPU = 2, 32, 20, torch.device("cpu")
DEVICE = "RANKS_DEVICE"  # environment variable: where the ranks compute

# Sizes for a toy. Settings that change what rows have to do with each other are cases of their own.
SMALL = {
    "simsiam": {"projector_dim": 16, "projector_hidden": 16},
    "simtriplet": {"projector_dim": 16, "projector_hidden": 16},
    "byol": {"projector_hidden": 16, "projector_dim": 8, "predictor_hidden": 16, "momentum": 0.9},
    "moco": {"projector_dim": 8, "queue_size": 128, "momentum": 0.9, "bn_group": 8},
    "simclr": {"projector_hidden": 16, "projector_dim": 8},
    "swav": {"projector_hidden": 16, "projector_dim": 8, "prototypes": 12, "freeze_steps": 4},
    "barlow_twins": {"projector_widths": [16, 16]},
}
CASES: dict[str, tuple[str, dict]] = {name: (name, {}) for name in METHODS} | {
    "swav with queue": ("swav", {"queue_size": 64, "queue_from": 0.1, "small_views": 1, "small_size": 0.75}),
    "moco, one group a rank": ("moco", {"bn_group": 16}),
}
# Barlow Twins' loss is a sum over channels, some 20 here, where SGD needs a lower rate.
RATES = {"barlow_twins": 0.002}


class TinyEncoder(nn.Sequential):
    feature_dim = 12

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3, 2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, 2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def build(case: str) -> Method:
    name, settings = CASES[case]
    with init_stream(0):
        encoder = TinyEncoder()
    return build_method(method_settings({"name": name} | SMALL[name] | settings), encoder, seed=0).train()


def batch_of(method: Method, step: int) -> Batch:
    """This rank's rows of a step's batch. Every fourth sample has no related image."""
    own, generator = own_rows(ROWS // world_size()), torch_generator(0, "batch", step)
    views = method.view_spec().views
    images = torch.rand(ROWS, 1, 12, 12, generator=generator)
    # The ranks' images differ, so that statistics of one rank alone would be others.
    images[ROWS // 2 :] = images[ROWS // 2 :] * 0.5 + 0.4
    made = [images + 0.2 * torch.randn(images.shape, generator=generator) for _ in views]
    made = [x[..., : int(12 * view.size), : int(12 * view.size)][own] for x, view in zip(made, views, strict=True)]
    return Batch(made, (torch.arange(ROWS) % 4 > 0)[own] if method.pairs else None)


def trained(case: str, *, alone: bool = False) -> dict[str, object]:
    """Losses and logs of 20 steps as this rank has them, and what they leave behind. `alone`: BN is not synchronised."""
    device = torch.device(os.environ.get(DEVICE, "cpu"))
    torch.backends.cudnn.allow_tf32 = False
    method, losses, logs = build(case).to(device), [], []
    if method.sync_batch_norm and not alone:
        method = synchronize_batch_norm(method, device)
    called = method if world_size() == 1 else nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    monitor = CollapseMonitor(method.dim, 12, rows=48)
    parameters = [parameter for one in method.parameter_groups() for parameter in one["params"]]
    optimizer = torch.optim.SGD(parameters, lr=RATES.get(CASES[case][0], 0.02), momentum=0.9, weight_decay=1e-4)
    for step in range(STEPS):
        seed_global(0, "step", step, own_rows(1).start)
        method.before_step(step, STEPS)
        optimizer.zero_grad(set_to_none=True)
        batch = batch_of(method, step)
        views = [view.to(device) for view in batch.views]
        output = called(Batch(views, None if batch.related is None else batch.related.to(device)))
        output.loss.backward()
        method.after_backward(step, STEPS)
        optimizer.step()
        method.after_step(step, STEPS)
        monitor.update(output)
        losses.append(output.loss.detach().cpu())
        logs.append(torch.stack(list(output.logs.values())).cpu())
    return {
        "losses": torch.stack(losses),
        "logs": torch.stack(logs),
        "state": {name: value.cpu().clone() for name, value in method.state_dict().items()},
        "report": monitor.report(),
        "monitor": monitor.state_dict(),
    }


def autocast_loss(case: str) -> Tensor:
    """Of the first batch, in bfloat16 where a method allows it."""
    method = build(case)
    if method.sync_batch_norm:
        synchronize_batch_norm(method, CPU)
    method.before_step(0, STEPS)
    seed_global(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch_of(method, 0))
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    return output.loss.detach()


def refusals() -> dict[str, str]:
    """The queue that a batch does not fit into: 32 rows of two ranks."""
    said = {}
    for name, settings in (("moco", {"queue_size": 48}), ("swav", {"queue_size": 24, "queue_from": 0.0})):
        method = build_method(method_settings({"name": name} | SMALL[name] | settings), TinyEncoder(), seed=0).train()
        method.before_step(0, 10)
        try:
            method(batch_of(method, 0))
        except StudyError as error:
            said[name] = str(error)
    return said


def group_means(rows: Tensor) -> tuple[Tensor, Tensor]:
    """A network whose output says which rows were together."""
    return rows * 2, rows.mean().expand(len(rows))


def worker() -> None:
    number, folder = RANKS["joined_rank"]()
    found: dict[str, object] = {case: trained(case) for case in CASES}
    if DEVICE in os.environ:
        torch.save(found, folder / f"{number}.pt")
        return
    found["unsynchronised"] = trained("simsiam", alone=True)
    found["autocast"] = {case: autocast_loss(case) for case in CASES}
    found["refusals"] = refusals()
    seed_global(number)
    found["groups"] = in_groups(group_means, torch.arange(float(ROWS))[own_rows(ROWS // SIZE), None], 8, shuffle=True)
    torch.save(found, folder / f"{number}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    return RANKS["found_by_ranks"](__file__, tmp_path_factory.mktemp("ranks"), SIZE)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose time to more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_process() -> dict[str, dict]:
    return {case: trained(case) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one_process(found, one_process, case):
    expected = one_process[case]
    losses, logs = (torch.stack([one[case][key] for one in found]).mean(dim=0) for key in ("losses", "logs"))
    torch.testing.assert_close(losses, expected["losses"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logs, expected["logs"], atol=1e-3, rtol=1e-4)
    assert (expected["losses"][0] - expected["losses"][-1]).abs() > 1e-2  # otherwise equal losses would say little


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_end_with_the_state_of_one_process(found, one_process, case):
    """Parameters, running statistics, teachers and queues."""
    expected, ranks, method = one_process[case]["state"], [one[case]["state"] for one in found], build(case)
    # Where BN is not synchronised, its running statistics are each rank's own.
    own = set() if method.sync_batch_norm else {name for name in expected if "running_" in name or "num_batches" in name}
    for name in set(expected) - own:
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected[name], atol=2e-4, rtol=1e-4)
    assert max((expected[name] - start).abs().max() for name, start in method.named_parameters()) > 1e-2


@pytest.mark.parametrize("case", CASES)
def test_every_rank_has_the_monitor_of_one_process(found, one_process, case):
    expected = one_process[case]
    for one in found:
        assert one[case]["report"] == pytest.approx(expected["report"], rel=1e-5, abs=1e-5)
        assert one[case]["monitor"]["seen"] == STEPS * ROWS
        assert set(one[case]["monitor"]) == set(expected["monitor"])


@pytest.mark.parametrize("case", CASES)
def test_autocast_changes_nothing_of_that(found, case):
    """bfloat16 has eight bits, and the ranks' convolutions may round otherwise than one process's."""
    loss = torch.stack([one["autocast"][case] for one in found]).mean()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, autocast_loss(case), atol=1e-2, rtol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_ranks_on_a_gpu_have_the_losses_of_one_process(tmp_path, monkeypatch):
    """Both on one GPU, over gloo: NCCL wants one for each."""
    monkeypatch.setenv(DEVICE, "cuda")
    ranks = RANKS["found_by_ranks"](__file__, tmp_path, SIZE)
    for case in CASES:
        losses = torch.stack([one[case]["losses"] for one in ranks]).mean(dim=0)
        torch.testing.assert_close(
            losses, trained(case)["losses"], atol=1e-4, rtol=0, msg=lambda text, case=case: f"{case}: {text}"
        )
        for name, value in ranks[0][case]["state"].items():
            if build(case).sync_batch_norm or "running_" not in name:
                assert torch.equal(value, ranks[1][case]["state"][name]), (case, name)


def test_ranks_that_do_not_share_statistics_lose_the_way(found, one_process):
    """Otherwise the tests above could not fail."""
    apart = torch.stack([one["unsynchronised"]["losses"] for one in found]).mean(dim=0)
    assert (apart - one_process["simsiam"]["losses"]).abs().max() > 1e-2


def test_queues_are_checked_against_the_batch_of_all_ranks(found):
    for one in found:
        assert "queue_size: is 48, not a multiple of the 32 images" in one["refusals"]["moco"]
        assert "queue_size: is 24, below the 32 images" in one["refusals"]["swav"]


def test_keys_are_shuffled_between_the_groups_of_all_ranks(found):
    """As one process with the generator of rank 0 shuffles them, whatever the other ranks' generators say."""
    seed_global(0)
    expected = in_groups(group_means, torch.arange(float(ROWS))[:, None], 8, shuffle=True)
    for number, one in enumerate(found):
        own = slice(number * ROWS // SIZE, (number + 1) * ROWS // SIZE)
        assert all(torch.equal(part, whole[own]) for part, whole in zip(one["groups"], expected, strict=True))
    assert set(found[0]["groups"][1].tolist()) & set(found[1]["groups"][1].tolist())  # rows of both ranks were together


if __name__ == "__main__":
    worker()
