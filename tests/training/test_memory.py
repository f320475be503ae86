from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from medssl.training.memory import keep_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_is_used_again_without_faults():
    """Page faults of making and freeing 16 MB over and over, before and after; in a process of its own, since it lasts."""
    script = """
        import resource, numpy as np
        from medssl.training.memory import keep_memory
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(50):
                parts = [np.ones(2**21) for _ in range(4)]
                del parts
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        first = faults()
        print(first, keep_memory(), faults() and faults())
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    ).stdout.split()
    if out[1] == "False":
        pytest.skip("this C library is not glibc")
    assert int(out[2]) < int(out[0]) / 10


def test_it_may_be_called_twice():
    assert keep_memory() == keep_memory()
