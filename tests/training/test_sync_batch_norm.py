"""BN over the rows of two ranks, against BN of one process that has all rows."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medssl.errors import LaunchError
from medssl.training.sync_batch_norm import AllReduceBatchNorm, mean_and_variance, normalised, synchronize_batch_norm

RANKS = runpy.run_path(str(Path(__file__).with_name("ranks.py")))
N, C, SIZE, CPU = 6, 3, 2, torch.device("cpu")

# The layer, and the shape of one sample beyond its channels.
LAYERS = {
    "rows": (lambda: nn.BatchNorm1d(C), ()),
    "lines": (lambda: nn.BatchNorm1d(C), (5,)),
    "images": (lambda: nn.BatchNorm2d(C, eps=1e-3, momentum=0.3), (4, 5)),
    "volumes": (lambda: nn.BatchNorm3d(C), (2, 3, 4)),
    "plain average": (lambda: nn.BatchNorm2d(C, momentum=None), (3, 3)),
    "no affine": (lambda: nn.BatchNorm1d(C, affine=False), ()),
    "no shift": (lambda: without_shift(), ()),
    "untracked": (lambda: nn.BatchNorm2d(C, track_running_stats=False), (3, 3)),
    "with activation": (lambda: timm_layer(), (4, 4)),
}


def without_shift() -> nn.Module:
    layer = nn.BatchNorm1d(C)
    layer.register_parameter("bias", None)
    return layer


def timm_layer() -> nn.Module:
    from timm.layers import BatchNormAct2d

    return BatchNormAct2d(C, act_layer=nn.SiLU)


def layer_of(name: str) -> nn.Module:
    """With scales and shifts that are not those of the start."""
    layer, generator = LAYERS[name][0](), torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer.train()


def batches(name: str) -> Tensor:
    """(3, 2N, C, ...): three batches whose ranks differ much, with a mean far from 0."""
    x = torch.randn(3, SIZE * N, C, *LAYERS[name][1], generator=torch.Generator().manual_seed(0))
    x[:, N:] = 2 * x[:, N:] - 1
    return x + 10


def trained(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Two steps forward; outputs, gradients and statistics after the third, and what eval mode then gives."""
    for one in x[:2]:
        layer(one)
    last = x[2].clone().requires_grad_()
    y = layer(last)
    y.sin().mean().backward()
    found = {"y": y.detach(), "x.grad": last.grad} | {f"{name}.grad": p.grad for name, p in layer.named_parameters()}
    found |= {name: buffer.clone() for name, buffer in layer.named_buffers()}
    return found | {"eval": layer.eval()(x[0]).detach()}


class Network(nn.Module):
    """One layer in two places, layers inside layers, a frozen one, a hook, and what is not BN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, C, 3), nn.BatchNorm2d(C), nn.Sequential(timm_layer(), nn.GroupNorm(1, C)))
        self.again = self.first[1]
        self.frozen = nn.BatchNorm1d(C).eval().requires_grad_(False)
        self.instance = nn.InstanceNorm2d(C)
        self.first[1].note = "kept"
        self.calls = 0
        self.first[1].register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.again(self.first(x)).mean(dim=(2, 3)))


class OtherNorm(nn.BatchNorm2d):
    """A BN that does something more."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def conversion() -> dict[str, object]:
    """What the conversion of a network does, on one rank of two; nothing is computed on a GPU."""
    torch.manual_seed(0)
    old = Network()
    state = {name: value.clone() for name, value in old.state_dict().items()}
    parameters = list(map(id, old.parameters()))
    new, there = (synchronize_batch_norm(copy.deepcopy(old), torch.device(device)) for device in ("cpu", "cuda"))
    found = {
        "kinds": [[type(m).__name__ for m in one.modules() if "Batch" in type(m).__name__] for one in (new, there)],
        "keys": [list(one.state_dict()) == list(state) for one in (new, there)],
        "training": [[m.training for m in one.modules()] == [m.training for m in old.modules()] for one in (new, there)],
        "one layer": [one.again is one.first[1] for one in (new, there)],
        "note": [one.first[1].note for one in (new, there)],
    }
    for one in (new, there):
        one.load_state_dict(state, strict=True)
        Network().load_state_dict(one.state_dict(), strict=True)
    x = torch.rand(4, 1, 6, 6)
    found["eval"] = [torch.equal(one.eval()(x), old.eval()(x)) for one in (new, there)]
    found["calls"] = new.calls
    synchronize_batch_norm(old, CPU)
    found["same parameters"] = parameters == list(map(id, old.parameters()))
    found["twice"] = synchronize_batch_norm(old, CPU).first[1] is old.first[1]
    found["itself"] = type(synchronize_batch_norm(nn.BatchNorm1d(2), CPU)).__name__
    try:
        synchronize_batch_norm(nn.Sequential(OtherNorm(2)), CPU)
    except LaunchError as error:
        found["refused"] = str(error)
    try:
        AllReduceBatchNorm(2)(torch.ones(2))
    except ValueError as error:
        found["shape"] = str(error)
    return found


def worker() -> None:
    number, folder = RANKS["joined_rank"]()
    own = slice(number * N, (number + 1) * N)
    found: dict[str, object] = {}
    for name in LAYERS:
        layer = synchronize_batch_norm(layer_of(name), CPU)
        found[name] = trained(layer, batches(name)[:, own])
    layer = synchronize_batch_norm(layer_of("images"), CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(batches("images")[0, own].bfloat16())
    found["bfloat16"] = {"y": y.detach(), "mean": layer.running_mean}
    uneven = batches("rows")[0][slice(0, 3) if number == 0 else slice(3, None)]
    found["uneven"] = mean_and_variance(uneven)
    found["conversion"] = conversion()
    torch.save(found, folder / f"{number}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    return RANKS["found_by_ranks"](__file__, tmp_path_factory.mktemp("ranks"), SIZE)


@pytest.mark.parametrize("name", LAYERS)
def test_two_ranks_are_one_process(found, name):
    expected = trained(layer_of(name), batches(name))
    ranks = [one[name] for one in found]
    assert set(ranks[0]) == set(expected)
    for key in ("y", "x.grad", *(["eval"] if name != "untracked" else [])):
        # The loss is a mean over rows; a rank's is over its own, so half as many.
        joined = torch.cat([one[key] for one in ranks]) / (SIZE if key == "x.grad" else 1)
        torch.testing.assert_close(joined, expected[key], atol=2e-5, rtol=1e-4)
    for key in set(expected) - {"y", "x.grad", "eval"}:
        if key.endswith(".grad"):  # as DistributedDataParallel averages
            torch.testing.assert_close((ranks[0][key] + ranks[1][key]) / SIZE, expected[key], atol=1e-5, rtol=1e-4)
        else:
            assert torch.equal(ranks[0][key], ranks[1][key])
            torch.testing.assert_close(ranks[0][key], expected[key], atol=1e-5, rtol=1e-5)


def test_batches_of_ranks_alone_have_other_statistics():
    """Otherwise the test above could not fail."""
    alone, both = (trained(layer_of("images"), x) for x in (batches("images")[:, :N], batches("images")))
    assert (alone["y"] - both["y"][:N]).abs().max() > 0.1
    assert (alone["running_var"] - both["running_var"]).abs().max() > 0.1


def test_autocast_keeps_statistics_in_float32(found):
    layer, x = layer_of("images"), batches("images")[0].bfloat16()
    expected = layer(x.float())
    y = torch.cat([one["bfloat16"]["y"] for one in found])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(found[0]["bfloat16"]["mean"], layer.running_mean, atol=1e-5, rtol=1e-6)


def test_ranks_may_have_unequal_rows(found):
    x = batches("rows")[0]
    for one in found:
        mean, variance, count = one["uneven"]
        torch.testing.assert_close(mean, x.mean(dim=0))
        torch.testing.assert_close(variance, x.var(dim=0, correction=0))
        assert count.tolist() == [SIZE * N]


def test_a_converted_network_is_the_same_network(found):
    for one in found:
        seen = one["conversion"]
        assert seen["kinds"] == [
            ["AllReduceBatchNorm", "AllReduceBatchNormAct", "AllReduceBatchNorm"],
            ["SyncBatchNorm", "SyncBatchNormAct", "SyncBatchNorm"],
        ]
        for key in ("keys", "training", "one layer", "eval"):
            assert seen[key] == [True, True], key
        assert seen["note"] == ["kept", "kept"]
        assert seen["same parameters"]
        assert seen["twice"]
        assert seen["calls"] == 2  # the hook of a layer in two places
        assert seen["itself"] == "AllReduceBatchNorm"


def test_an_unknown_kind_of_bn_is_one_line(found):
    said = found[0]["conversion"]["refused"]
    assert said.startswith("launch: the network has a layer OtherNorm")
    assert "\n" not in said
    assert "expected (N, C)" in found[0]["conversion"]["shape"]


def test_in_a_world_of_one_nothing_changes():
    network = Network()
    kinds = [type(layer) for layer in network.modules()]
    assert synchronize_batch_norm(network, CPU) is network
    assert [type(layer) for layer in network.modules()] == kinds
    x, layer = batches("images")[0], AllReduceBatchNorm(C, eps=1e-3)
    torch.testing.assert_close(layer(x), nn.BatchNorm2d(C, eps=1e-3)(x), rtol=0, atol=0)
    mean, variance, _ = mean_and_variance(x)
    torch.testing.assert_close(normalised(x, mean, variance, 1e-3), layer(x), atol=1e-5, rtol=1e-5)


if __name__ == "__main__":
    worker()
