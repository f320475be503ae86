"""Pretraining by two real processes: the same losses as one, a rank that dies, restarts, another number of ranks."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ARM = ["--arm", "in_domain", "--set", "tracking.enabled=false", "--set", "pretrain.knn_images=0"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def command(study: Path, *more: str, ranks: int = 2, restarts: int = 0, epochs: int = 5) -> list[str]:
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", "-m"]
    # Untrained networks on so small a batch multiply the last bit of a sum at each step; this one at this rate hardly does.
    sets = ["pretrain.checkpoint.every=2 steps", f"pretrain.epochs={epochs}", "encoder.backbone=resnet18"]
    sets += ["pretrain.optimizer.base_lr=0.005"]
    return [*launcher, "medssl", "pretrain", "--config", str(study), *ARM, *(f for one in sets for f in ("--set", one)), *more]


def run(study: Path, *more: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run(command(study, *more, **how), capture_output=True, text=True, timeout=240, env=ENVIRONMENT)


def start(study: Path, *more: str, **how) -> subprocess.Popen:
    return subprocess.Popen(
        command(study, *more, **how), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def losses(folder: Path) -> dict[int, float]:
    lines = (folder / "work" / "tracking" / "pretrain-in_domain" / "001" / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["pretrain/loss"] for line in map(json.loads, lines) if "pretrain/loss" in line}


def encoder_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "work/pretrain/in_domain/encoder/encoder.safetensors").read_bytes()).hexdigest()


def wait_for(folder: Path, steps: int, process: subprocess.Popen) -> None:
    path, end = folder / "work" / "tracking" / "pretrain-in_domain" / "001" / "metrics.jsonl", time.monotonic() + 180
    while process.poll() is None and time.monotonic() < end:
        if path.exists() and path.read_text().count("pretrain/loss") >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"ended with {process.poll()} before step {steps}: {process.stderr.read()[-2000:]}")


def process_of(rank: int, launcher: subprocess.Popen) -> psutil.Process:
    for child in psutil.Process(launcher.pid).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child
    raise AssertionError(f"there is no rank {rank}")


@pytest.fixture(scope="module")
def both(tmp_path_factory, write_study) -> Path:
    """What two processes make without a disturbance."""
    folder = tmp_path_factory.mktemp("both")
    done = run(write_study(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes, 8 of the 16 samples of a step each" in done.stdout
    assert done.stdout.count("the encoder is in") == 1, "rank 0 alone speaks"
    return folder


def test_two_processes_have_the_losses_of_one(both, tmp_path, write_study):
    done = run(write_study(tmp_path), ranks=1)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, shared = losses(tmp_path), losses(both)
    assert list(alone) == list(shared) == list(range(1, 21))
    assert all(shared[step] == pytest.approx(alone[step], abs=1e-4) for step in alone)


def test_a_rank_that_dies_ends_the_other_which_says_so(tmp_path, write_study):
    process = start(write_study(tmp_path), epochs=50)
    wait_for(tmp_path, 3, process)
    killed = time.monotonic()
    process_of(1, process).kill()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed < 25
    assert process.returncode != 0
    assert "rank 1 of 2: does not answer any more" in said


def test_an_error_of_one_rank_ends_all_with_its_text(tmp_path, write_study):
    done = run(write_study(tmp_path), "--set", "pretrain.batch_size=15", epochs=1)
    assert done.returncode != 0
    assert (
        "pretrain.batch_size: is 15, which 2 processes with accumulate: 1 cannot share evenly; allowed: multiples of 2"
        in done.stderr
    )


@pytest.mark.long
def test_torchrun_starts_them_again_and_the_encoder_is_the_same(both, tmp_path, write_study):
    process = start(write_study(tmp_path), restarts=1)
    wait_for(tmp_path, 5, process)
    process_of(1, process).kill()
    out, said = process.communicate(timeout=200)
    assert process.returncode == 0, said[-3000:]
    assert "going on from its checkpoint after step" in out
    assert encoder_hash(tmp_path) == encoder_hash(both)


@pytest.mark.long
def test_stopped_gone_on_by_one_process_and_by_two_again(both, tmp_path, write_study):
    study = write_study(tmp_path)
    for steps, ranks in ((3, 2), (6, 1)):
        process = start(study, ranks=ranks)
        wait_for(tmp_path, steps, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "the same command goes on from there" in said, said[-2000:]
    assert "processes was 2 and is now 1" in said
    done = run(study)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "processes was 1 and is now 2" in done.stderr
    alone, shared = losses(both), losses(tmp_path)
    assert all(shared[step] == pytest.approx(alone[step], abs=1e-4) for step in alone)


def test_other_commands_are_not_for_several_processes(tmp_path, write_study):
    more = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "medssl", "finetune", "--config", str(write_study(tmp_path))],
        capture_output=True, text=True, env=os.environ | more,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "only `medssl pretrain` shares its work over processes" in done.stderr
