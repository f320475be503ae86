"""A network that is compiled in place, and one on a machine where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medssl.training.compiling import compile_or_say


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def images() -> Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def trial_of(network: nn.Module):
    def trial() -> None:
        torch.rand(3)
        network(images()).square().mean().backward()

    return trial


def state_of(network: nn.Module) -> list[Tensor]:
    grads = [torch.zeros(0) if p.grad is None else p.grad for p in network.parameters()]
    return [tensor.clone() for tensor in (*network.state_dict().values(), *grads, torch.get_rng_state())]


def three_steps(network: nn.Module) -> list[float]:
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.1), []
    for _ in range(3):
        optimiser.zero_grad()
        loss = network(images()).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def failing_compile(message: str, kind: type[Exception] = RuntimeError):
    """A backend of torch.compile that raises."""

    def backend(graph, inputs):
        raise kind(message)

    return backend


def say_nothing(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    """What other tests have compiled, or failed to, is not of this one."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_compiled_network_trains_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = small_network(), small_network()
    names, before = list(plain.state_dict()), state_of(compiled)
    assert compile_or_say(compiled, trial_of(compiled), say_nothing)
    assert all(
        torch.equal(a, b) for a, b in zip(before, state_of(compiled), strict=True)
    )  # weights, buffers, gradients, generator
    assert list(compiled.state_dict()) == names
    assert list(tmp_path.rglob("*.so"))  # a compiler has really been at work
    assert three_steps(compiled) == pytest.approx(three_steps(plain), rel=1e-5)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())


@pytest.mark.parametrize("gradients", [False, True])
def test_a_failure_leaves_everything_as_it_was(monkeypatch, gradients):
    network, said = small_network(), []
    if gradients:
        trial_of(network)()
    monkeypatch.setattr(network, "compile", lambda: nn.Module.compile(network, backend=failing_compile("no such\noperator")))
    before = state_of(network)
    assert not compile_or_say(network, trial_of(network), said.append)
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(network), strict=True))
    assert said == ["torch.compile does not work here, training goes on without it: RuntimeError: no such"]
    assert three_steps(network)


def test_a_trial_that_fails_after_the_forward_pass(monkeypatch):
    network, said = small_network(), []
    before = state_of(network)

    def trial() -> None:
        trial_of(network)()
        raise NotImplementedError

    monkeypatch.setattr(network, "compile", lambda: nn.Module.compile(network, backend="eager"))
    assert not compile_or_say(network, trial, said.append)
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(network), strict=True))
    assert said == ["torch.compile does not work here, training goes on without it: NotImplementedError"]


def without_a_compiler() -> None:
    torch.set_num_threads(1)
    network, lines = small_network(), []
    done = compile_or_say(network, trial_of(network), lines.append)
    print(done, three_steps(network) == three_steps(small_network()), *lines, sep="\n")


def test_without_a_cpp_compiler_training_goes_on(tmp_path):
    environment = os.environ | {
        "CXX": str(tmp_path / "nothing"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    compiled, same, *lines = done.stdout.splitlines()
    assert (compiled, same) == ("False", "True")
    assert len(lines) == 1
    assert lines[0].startswith(
        "torch.compile does not work here, training goes on without it: InvalidCxxCompiler: No working C++ compiler"
    )


if __name__ == "__main__":
    without_a_compiler()
