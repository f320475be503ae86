"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

# Networks of a test are tiny: one thread is as fast as two, and two runs side by side do not wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MOST_WORKERS = 8  # the longest file of tests is about an eighth of all: more processes would wait for it
WORKER_MEMORY = 2.5 * 2**30  # bytes: torch, MLflow and a small study with its subprocess


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of `pytest -n auto`: the cores that this process may use, as far as free memory goes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / WORKER_MEMORY), MOST_WORKERS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: MEDSSL_DATA, or ../shared/data beside the repository. Absent: the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDSSL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("real data are absent; set MEDSSL_DATA to their folder")
    return folder
