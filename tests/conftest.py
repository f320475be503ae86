"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Networks of a test are tiny: one thread is as fast as two, and two runs side by side do not wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: MEDSSL_DATA, or ../shared/data beside the repository. Absent: the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDSSL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("real data are absent; set MEDSSL_DATA to their folder")
    return folder
