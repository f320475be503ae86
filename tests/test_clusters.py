"""Which addresses of a dask scheduler may be spoken to without encryption."""

from __future__ import annotations

import pytest

from medssl.clusters import is_loopback


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("127.0.0.1:8786", True),
        ("tcp://localhost:8786", True),
        ("tcp://[::1]:8786", True),
        ("tcp://10.0.0.1:8786", False),
        ("tcp://head:8786", False),
        ("tcp://127.0.0.1.example.org:1", False),
        ("", False),
    ],
)
def test_what_is_this_machine(address, loopback):
    assert is_loopback(address) == loopback
