"""The command on a GPU: killed and begun again in deterministic mode it ends with the undisturbed run's encoder."""

from __future__ import annotations

import runpy
import signal
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

KILLS = runpy.run_path(str(Path(__file__).parent / "test_kills.py"))
STUDY = {"deterministic": True, "encoder": {"backbone": "resnet18", "input_size": 32}}


def test_three_kills_on_a_gpu(tmp_path, write_study):
    whole = KILLS["undisturbed"](tmp_path / "undisturbed", lambda folder: write_study(folder, **STUDY), 8)
    again = KILLS["undisturbed"](tmp_path / "again", lambda folder: write_study(folder, **STUDY), 8)
    assert again == whole
    study = write_study(tmp_path / "killed", **STUDY)
    done, _ = KILLS["disturbed"](tmp_path / "killed", study, signal.SIGKILL, 3, 8)
    assert done == 3
    assert KILLS["encoder_hash"](tmp_path / "killed") == whole
