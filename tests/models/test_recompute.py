"""Activations computed again: the same losses, gradients and buffers to the last bit, from fewer kept tensors."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssl.errors import StudyError
from medssl.methods.base import Batch
from medssl.methods.simtriplet import SimTriplet, SimTripletSettings
from medssl.models.encoder import build_encoder
from medssl.models.recompute import find_blocks, recompute_activations
from medssl.training.sync_batch_norm import synchronize_batch_norm

RANKS = runpy.run_path(str(Path(__file__).parents[1] / "training" / "ranks.py"))


def monai_resnet() -> nn.Module:
    from monai.networks.nets import ResNet

    return ResNet("basic", [1, 1, 1, 1], [8, 16, 32, 64], spatial_dims=3, n_input_channels=1, num_classes=8)


def timm_network(name: str, **settings) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=0, **settings)

    return make


# Name, network, shape of a batch, blocks.
NETWORKS = {
    "resnet18": (lambda: build_encoder("resnet18"), (4, 1, 32, 32), 8),
    "small stem": (lambda: build_encoder("resnet18", stem="small"), (4, 3, 8, 8), 8),
    "efficientnet": (lambda: build_encoder("timm/efficientnet_lite0"), (4, 1, 32, 32), 16),
    "timm resnet": (timm_network("resnet50", drop_block_rate=0.1), (4, 3, 32, 32), 16),
    "drop path": (timm_network("convnext_atto", drop_path_rate=0.3), (4, 3, 32, 32), 12),
    "dropout": (
        timm_network("vit_tiny_patch16_224", img_size=32, proj_drop_rate=0.2, attn_drop_rate=0.1, pos_drop_rate=0.1),
        (4, 3, 32, 32),
        12,
    ),
    "volumes": (monai_resnet, (2, 1, 16, 16, 16), 4),
}


def made(network: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network().train()


def steps(network: nn.Module, shape: tuple[int, ...], count: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Losses, gradients and the global generator's next number of `count` steps of two passes each."""
    generator, found = torch.Generator().manual_seed(1), []
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(2)
    for _ in range(count):
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            first, second = (network(torch.rand(shape, generator=generator)).float() for _ in range(2))
        loss = (first * F.normalize(second, dim=1)).sum(dim=1).mean() + first.square().mean()
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None), torch.rand(1)]
        optimiser.step()
    return found


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_same(plain: nn.Module, again: nn.Module, shape: tuple[int, ...], **settings) -> None:
    assert same(steps(plain, shape, **settings), steps(again, shape, **settings))
    assert list(plain.state_dict()) == list(again.state_dict())
    assert same(list(plain.state_dict().values()), list(again.state_dict().values()))


def kept_bytes(loss: Callable[[], Tensor]) -> int:
    """Of the storages that the backward pass of `loss` holds."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_three_steps_are_the_same_to_the_last_bit(name):
    network, shape, blocks = NETWORKS[name]
    plain, again = made(network), made(network)
    assert recompute_activations(again) == blocks
    assert_same(plain, again, shape)


def test_under_bfloat16_autocast_too():
    plain, again = (made(NETWORKS["resnet18"][0]) for _ in range(2))
    recompute_activations(again)
    assert_same(plain, again, (4, 1, 32, 32), dtype=torch.bfloat16)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kind", ["plain", "sync", "frozen"])
def test_running_statistics_follow_once(kind, momentum):
    """SyncBatchNorm, the plain average of all batches, and a layer in eval mode within a network that trains."""
    plain, again = (made(NETWORKS["resnet18"][0]) for _ in range(2))
    recompute_activations(again)
    pair = [nn.SyncBatchNorm.convert_sync_batchnorm(network) if kind == "sync" else network for network in (plain, again)]
    norms = [module for network in pair for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = momentum
        norm.train(kind != "frozen")
    assert_same(*pair, (4, 1, 32, 32))
    assert {int(norm.num_batches_tracked) for norm in norms} == {0 if kind == "frozen" else 6}


def test_a_method_keeps_less_and_learns_the_same():
    def method(again: bool) -> SimTriplet:
        torch.manual_seed(0)
        encoder = build_encoder("resnet50")
        if again:
            assert recompute_activations(encoder) == 16
        return SimTriplet(SimTripletSettings(projector_dim=16, projector_hidden=16), encoder).train()

    views = torch.rand(3, 2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    batch, found = Batch(list(views), related=torch.tensor([True, False])), []
    for again in (False, True):
        network, losses = method(again), []
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        kept = kept_bytes(lambda network=network, losses=losses: losses.append(network(batch).loss)) - weights
        losses[0].backward()
        found.append((kept, [losses[0].detach(), *(p.grad for p in network.parameters()), *network.buffers()]))
    assert same(found[0][1], found[1][1])
    assert found[1][0] < 0.5 * found[0][0]


def test_in_eval_mode_and_without_gradients_nothing_is_computed_twice():
    network = made(NETWORKS["resnet18"][0])
    recompute_activations(network)
    calls: list[int] = []
    for block in find_blocks(network):
        block.conv1.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        network(x)
    network.eval()(x).sum().backward()
    assert len(calls) == 16
    network.train()(x).sum().backward()
    assert len(calls) == 16 + 2 * 8  # and here it is, so that the counts above mean something


def test_a_copy_recomputes_by_itself():
    network = made(NETWORKS["efficientnet"][0])
    recompute_activations(network)
    twin = copy.deepcopy(network)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in twin.parameters()}
    before = copy.deepcopy(network.state_dict())
    steps(twin, (2, 1, 32, 32), count=1)
    assert same(list(before.values()), list(network.state_dict().values()))
    assert all(p.grad is None for p in network.parameters())
    plain = made(NETWORKS["efficientnet"][0])
    steps(plain, (2, 1, 32, 32), count=1)
    assert same(list(plain.state_dict().values()), list(twin.state_dict().values()))


def test_a_second_time_changes_nothing():
    network = made(NETWORKS["resnet18"][0])
    assert recompute_activations(network) == 8
    kinds = [type(module) for module in network.modules()]
    assert recompute_activations(network) == 8
    assert [type(module) for module in network.modules()] == kinds


def test_stages_within_stages_and_their_own_layers():
    for name, kinds in (
        ("swin_tiny_patch4_window7_224", {"SwinTransformerBlock"}),
        ("convnext_atto", {"ConvNeXtBlock"}),
        ("regnety_002", {"Bottleneck"}),
    ):
        assert {type(block).__name__ for block in find_blocks(timm_network(name)())} == kinds, name


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("timm/inception_v3", lambda: build_encoder("timm/inception_v3")),
        ("Sequential", lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())),
    ],
)
def test_a_network_without_blocks_is_refused(name, network):
    with pytest.raises(StudyError, match=rf"^encoder\.backbone: {name} has no stages of blocks") as error:
        recompute_activations(network())
    assert "\n" not in str(error.value)


def worker() -> None:
    rank, folder = RANKS["joined_rank"]()
    found = []
    for again in (False, True):
        network = made(NETWORKS["resnet18"][0])
        if again:
            recompute_activations(network)
        network = nn.parallel.DistributedDataParallel(
            synchronize_batch_norm(network, torch.device("cpu")), broadcast_buffers=False
        )
        found.append([*steps(network, (2 + rank, 1, 32, 32), count=2), *network.buffers()])
    torch.save(found, folder / f"{rank}.pt")


def test_two_ranks_that_share_statistics(tmp_path):
    """The second forward pass exchanges statistics again, between the exchanges of the backward pass."""
    RANKS["run_ranks"](__file__, tmp_path)
    for rank in range(2):
        plain, again = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert same(plain, again)


if __name__ == "__main__":
    worker()
