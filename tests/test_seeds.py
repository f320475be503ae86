"""Streams: named, independent, the same everywhere."""

from __future__ import annotations

import random

import numpy as np
import torch

from medssl.seeds import derive, numpy_generator, seed_global, torch_generator


def test_streams_are_fixed_for_ever():
    # A change of these values would change every published result.
    assert derive(0, "order", 3) == 1061650156124314802
    assert derive(1, "views", 2, 0) == 4465809308993236784
    assert 0 <= derive(2**62, "x") < 2**63


def test_names_do_not_run_together():
    assert len({derive(0, "ab", "c"), derive(0, "a", "bc"), derive(0, "abc"), derive(0, 1), derive(0, "1"), derive(1)}) == 6


def test_generators_start_where_their_name_says():
    first, second = (torch.rand(4, generator=torch_generator(7, "views", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=torch_generator(7, "views", 2)))
    assert np.array_equal(numpy_generator(7, "a").random(3), numpy_generator(7, "a").random(3))


def test_global_generators_are_reseeded():
    draws = []
    for _ in range(2):
        seed_global(3, "step", 5)
        draws.append((random.random(), np.random.rand(), float(torch.rand(1))))
    assert draws[0] == draws[1]
