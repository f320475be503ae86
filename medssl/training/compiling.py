"""torch.compile where it works: a machine without a compiler, or a network that it cannot take, trains without it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


def compile_or_say(module: nn.Module, trial: Callable[[], None], say: Callable[[str], None]) -> bool:
    """Compile `module` in place, try it, and go back to what it was where that fails.

    Buffers, gradients and the global random generators are afterwards what they were before the trial, so that training with and
    without it starts from the same state. What is compiled here is for the shapes and the mode of the trial: other ones compile again
    when they come, and an error then is not caught.

    Args:
        module: its calls are compiled from now on; names of the state dict stay.
        trial: a forward and backward pass of `module`, as training does it. It may change buffers and gradients, but no weights.
        say: gets one line where training goes on without.

    Returns:
        Whether `module` is compiled.
    """
    before = module._compiled_call_impl
    try:
        with _unchanged(module):
            module.compile()
            trial()
    # Compilers fail in many ways (no C++ compiler, an operator without lowering, a fault of their own) without a common class.
    except Exception as error:
        module._compiled_call_impl = before  # torch has no public way back
        say(f"torch.compile does not work here, training goes on without it: {_cause(error)}")
        return False
    return True


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Puts buffers, gradients and random generators back."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # the trial must not add to it
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for buffer, copy in buffers:
                buffer.copy_(copy)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _cause(error: BaseException) -> str:
    """`Type: first line` of what was wrong first: the errors around it only name the part of the compiler that met it."""
    while inner := getattr(error, "inner_exception", None) or error.__cause__:
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
