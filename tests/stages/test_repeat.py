"""The same study twice gives the same log; a run that is killed and started again ends with bitwise the same encoder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ARM = ["--arm", "in_domain", "--set", "tracking.enabled=false", "--set", "pretrain.checkpoint.every=3 steps"]


def command(study: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "medssl", "pretrain", "--config", str(study), *ARM, *more]


def encoder_hash(work: Path) -> str:
    return hashlib.sha256((work / "pretrain" / "in_domain" / "encoder" / "encoder.safetensors").read_bytes()).hexdigest()


def log(work: Path) -> list[dict]:
    return lasting(work / "tracking" / "pretrain-in_domain" / "001" / "metrics.jsonl")


def lasting(path: Path) -> list[dict]:
    """The lines of a log without what differs from run to run."""
    lines = path.read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(("time/", "system/"))} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_study) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(write_study(folder)), check=True, capture_output=True)
    return folder / "work"


def wait_for_steps(process: subprocess.Popen, work: Path, steps: int) -> None:
    path, deadline = work / "tracking" / "pretrain-in_domain" / "001" / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_text().count("pretrain/loss") >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended (code {process.poll()}) or took too long before step {steps}")


@pytest.mark.parametrize(("signum", "code", "steps"), [(signal.SIGKILL, -9, 5), (signal.SIGUSR1, 138, 2)])
def test_killed_and_started_again_it_ends_the_same(whole, tmp_path, write_study, signum, code, steps):
    study = write_study(tmp_path)
    process = subprocess.Popen(command(study), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_steps(process, tmp_path / "work", steps)
    os.kill(process.pid, signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    if signum == signal.SIGUSR1:  # as SLURM sends it; tests/training/test_stop.py has the other signals
        assert "the same command goes on from there" in said
        assert "Traceback" not in said
    assert not (tmp_path / "work" / "pretrain" / "in_domain" / "encoder").exists()
    again = subprocess.run(command(study), check=True, capture_output=True, text=True)
    assert "going on from its checkpoint" in again.stdout
    assert encoder_hash(tmp_path / "work") == encoder_hash(whole)
    # Each step stands in the log once, with the value of the uninterrupted run.
    assert sorted(log(tmp_path / "work"), key=str) == sorted(log(whole), key=str)


def test_two_runs_of_one_study_log_the_same(tmp_path, write_study):
    """In two work folders, with two secrets and so with other keys: the whole road to the comparison."""
    logs = []
    for name in ("first", "second"):
        study = write_study(tmp_path / name, tracking={"enabled": False}, finetune={"budgets": [8], "seeds": 2, "full": None})
        more = ["--set", "pretrain.epochs=1"]
        subprocess.run(
            [sys.executable, "-m", "medssl", "compare", "--config", str(study), *more], check=True, capture_output=True
        )
        folder = tmp_path / name / "work" / "tracking"
        logs.append({path.relative_to(folder): lasting(path) for path in sorted(folder.rglob("metrics.jsonl"))})
    assert len(logs[0]) == 1 + 2 + 4 + 1 + 1 + 4
    assert all(logs[0].values())
    assert logs[0] == logs[1]


def test_another_study_does_not_touch_a_finished_encoder(whole, tmp_path):
    study, before = whole.parent / "study.yaml", encoder_hash(whole)
    refused = subprocess.run(command(study, "--set", "pretrain.epochs=3"), capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "its encoder belongs to another study: pretrain.epochs was 2 and is now 3" in refused.stderr
    assert encoder_hash(whole) == before
