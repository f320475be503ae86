"""Kills at random moments, also in the middle of writing a checkpoint: the encoder is that of the undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A checkpoint after each step: a third of the time is spent writing them, so kills hit writes as well.
SETS = ["tracking.enabled=false", "pretrain.knn_images=0", "pretrain.checkpoint.every=1 step"]


SHORT, LONG = 4, 32  # epochs of 4 steps; each kill comes after a new checkpoint, so there must be more steps than kills


def command(study: Path, epochs: int = SHORT) -> list[str]:
    sets = [flag for one in (*SETS, f"pretrain.epochs={epochs}") for flag in ("--set", one)]
    return [sys.executable, "-m", "medssl", "pretrain", "--config", str(study), "--arm", "in_domain", *sets]


def encoder_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "work/pretrain/in_domain/encoder/encoder.safetensors").read_bytes()).hexdigest()


def newest(folder: Path) -> int:
    steps = [int(path.stem[5:]) for path in (folder / "work/pretrain/in_domain/checkpoints").glob("step-*.pt")]
    return max(steps, default=0)


def undisturbed(folder: Path, write_study, epochs: int) -> str:
    subprocess.run(command(write_study(folder), epochs), check=True, capture_output=True)
    return encoder_hash(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, write_study) -> str:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), write_study, SHORT)


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory, write_study) -> str:
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), write_study, LONG)


def disturbed(folder: Path, study: Path, signum: int, kills: int, epochs: int) -> tuple[int, int]:
    """Run to the end, disturbed `kills` times; how often it was, and how many half-written checkpoints that left."""
    moments, done, halves = random.Random(signum), 0, 0
    while True:
        process = subprocess.Popen(command(study, epochs), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        before, end = newest(folder), time.monotonic() + 120
        while process.poll() is None and done < kills and time.monotonic() < end:
            if newest(folder) > before:  # it has made progress, so it will come to an end
                time.sleep(moments.uniform(0, 0.5))
                process.send_signal(signum)
                process.wait(timeout=60)
                done += process.returncode != 0
                break
            time.sleep(0.01)
        said = process.communicate(timeout=240)[1]
        halves += len(list((folder / "work/pretrain/in_domain").glob("checkpoints/.step-*")))
        if process.returncode == 0:
            return done, halves
        assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum), said[-2000:]


def check(whole: str, tmp_path: Path, write_study, signum: int, kills: int, epochs: int) -> None:
    done, halves = disturbed(tmp_path, write_study(tmp_path), signum, kills, epochs)
    print(f"{signal.Signals(signum).name}: {done} times, {halves} half-written checkpoints left behind")
    assert done == kills, "the run ended before the last of them"
    assert encoder_hash(tmp_path) == whole
    assert not (tmp_path / "work/pretrain/in_domain/checkpoints").exists(), "a finished run keeps none"


def test_three_kills(whole, tmp_path, write_study):
    check(whole, tmp_path, write_study, signal.SIGKILL, 3, SHORT)


@pytest.mark.long
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_thirty_disturbances(long_whole, tmp_path, write_study, signum):
    check(long_whole, tmp_path, write_study, signum, 30, LONG)


def test_a_full_disk_is_one_line_and_what_was_written_is_unharmed(whole, tmp_path, write_study):
    """A limit on the size of files stands for a full disk: the system refuses the write in the same way."""
    study = write_study(tmp_path)
    limited = "import resource,sys,runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); "
    limited += "sys.argv=['medssl', *sys.argv[1:]]; runpy.run_module('medssl', run_name='__main__')"
    subprocess.run(
        [sys.executable, "-m", "medssl", "index", "--config", str(study)], check=True, capture_output=True, env=os.environ
    )
    refused = subprocess.run(
        [sys.executable, "-c", limited, *command(study)[3:]], capture_output=True, text=True, timeout=240, env=os.environ
    )
    assert refused.returncode == 2, refused.stderr[-2000:]
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "step-000000001.pt: could not be written (File too large)" in lines[0]
    assert "Traceback" not in refused.stderr
    subprocess.run(command(study), check=True, capture_output=True)
    assert encoder_hash(tmp_path) == whole
