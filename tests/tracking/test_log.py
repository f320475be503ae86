from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medssl.errors import StoreError, TrackingError
from medssl.tracking import RunLog, lines
from medssl.tracking.log import EVENTS, METRICS, SYSTEM, TIME
from medssl.tracking.system import SystemSampler


def records(folder: Path, name: str = METRICS) -> list[dict]:
    return [record for _, record in lines.read(folder / name)]


def started(folder: Path, *, resume: bool = False) -> RunLog:
    log = RunLog(folder, resume=resume)
    log.start(name="r", stage="pretrain", params={"lr": 0.1})
    return log


def study(folder: Path) -> list[dict]:
    log = started(folder)
    for step in range(5):
        log.metrics({"b": step / 3, "a/loss": math.exp(-step), "time/wall": time.perf_counter()}, step)
    log.metrics({"val/knn": 1e-300}, 4)
    log.end("finished")
    return [{k: v for k, v in r.items() if not k.startswith(("time/", "system/"))} for r in records(folder)]


def test_same_study_writes_same_metrics(tmp_path):
    first, second = study(tmp_path / "1"), study(tmp_path / "2")
    assert [json.dumps(r) for r in first] == [json.dumps(r) for r in second]
    assert len(first) == 6
    assert list(first[0]) == ["step", "a/loss", "b"]
    assert first[3]["a/loss"] == math.exp(-3)


def test_non_finite_values_are_valid_json_and_read_back(tmp_path):
    log = started(tmp_path)
    log.metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, 0)
    line = (tmp_path / METRICS).read_text()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert math.isnan(float(record["a"]))
    assert (float(record["b"]), float(record["c"])) == (math.inf, -math.inf)


def test_resume_cuts_a_half_line_and_repeats_nothing(tmp_path):
    log = started(tmp_path)
    for step in range(4):
        log.metrics({"loss": step, "time/wall": 1.0}, step)
    whole = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(whole[:-7])  # killed within the line of step 3
    (tmp_path / EVENTS).open("ab").write(b'{"event": "' + b"a" * 999)

    log = started(tmp_path, resume=True)
    assert log.last_step == 2
    for step in range(1, 6):
        log.metrics({"loss": step, "time/wall": 2.0}, step)
    assert [(r["step"], r["loss"], r["time/wall"]) for r in records(tmp_path)] == [
        (0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 3, 2), (4, 4, 2), (5, 5, 2),
    ]  # fmt: skip
    log.end("finished")
    assert [e["event"] for e in records(tmp_path, EVENTS)] == ["start", "resume", "end"]
    assert (tmp_path / EVENTS).read_bytes().endswith(b"}\n")


def test_keys_of_one_step_may_come_in_two_calls(tmp_path):
    log = started(tmp_path)
    log.metrics({"loss": 1.0}, 10)
    log.metrics({"knn": 0.5}, 10)
    log.metrics({"knn": 0.7}, 10)
    assert [set(r) - {TIME} for r in records(tmp_path)] == [{"step", "loss"}, {"step", "knn"}]


def test_a_fresh_log_replaces_the_old_one(tmp_path):
    started(tmp_path).metrics({"loss": 1.0}, 0)
    (tmp_path / "mlflow.json").write_text("{}")
    log = started(tmp_path, resume=False)
    assert (log.last_step, records(tmp_path), (tmp_path / "mlflow.json").exists()) == (None, [], False)


def test_resume_without_a_started_log_begins_one(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 3, "loss": 1.0, "time/unix_ms": 1}\n')
    log = started(tmp_path, resume=True)
    assert log.last_step is None
    assert records(tmp_path, EVENTS)[0]["event"] == "start"


@pytest.mark.parametrize("key", ["", "Loss", "a b", "a//b", "../a", "/a", "a/", "a/./b", "step", TIME, "x" * 251, "ä"])
def test_keys_that_mlflow_refuses_are_refused_at_once(tmp_path, key):
    with pytest.raises(ValueError, match="metric"):
        started(tmp_path).metrics({key: 1.0}, 0)


def test_a_damaged_line_is_named(tmp_path):
    started(tmp_path).metrics({"loss": 1.0}, 0)
    (tmp_path / METRICS).write_text('{"step": 0\n{"step": 1, "loss": 1}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl: the line that ends at byte 11"):
        RunLog(tmp_path, resume=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_a_store_error_and_leaves_whole_lines(tmp_path):
    file = lines.LineFile(tmp_path / "x.jsonl")
    file.append({"step": 0})
    descriptor, file._file = file._file, os.open("/dev/full", os.O_RDWR)
    with pytest.raises(StoreError, match="No space left"):
        file.append({"step": 1})
    os.close(file._file)
    file._file = descriptor
    file.append({"step": 2})
    assert [r["step"] for _, r in lines.read(tmp_path / "x.jsonl")] == [0, 2]


def test_artifacts_stay_in_the_work_folder_and_out_of_private(tmp_path):
    work = tmp_path / "work"
    for name in ("private/keys.parquet", "runs/a/private/x", "runs/fine.yaml"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("x")
    (tmp_path / "outside").write_text("x")
    (work / "link").symlink_to(work / "private" / "keys.parquet")
    log = RunLog(work / "log", resume=False, root=work)
    log.start(name="r", stage="pretrain")
    log.artifact(work / "runs/fine.yaml")
    assert records(work / "log", EVENTS)[-1]["path"] == "../runs/fine.yaml"
    for path in (work / "private/keys.parquet", work / "runs/a", tmp_path / "outside", work / "link", work):
        with pytest.raises(TrackingError):
            log.artifact(path)
    with pytest.raises(FileNotFoundError):
        log.artifact(work / "absent")


def test_one_dataset_has_one_meaning(tmp_path):
    log = started(tmp_path)
    for _ in range(2):
        log.dataset(name="d", digest="1", source="card:d", context="training", profile={"images": 3})
    assert [e["event"] for e in records(tmp_path, EVENTS)] == ["start", "dataset"]
    with pytest.raises(ValueError, match="dataset d"):
        log.dataset(name="d", digest="1", source="card:d", context="validation", profile={"images": 3})


def test_sigkill_leaves_a_log_that_goes_on(tmp_path):
    code = """
import sys
from pathlib import Path
from medssl.tracking.log import RunLog
log = RunLog(Path(sys.argv[1]), resume=True)
log.start(name="r", stage="pretrain")
for step in range(10**9):
    log.metrics({"loss": step / 7, "long/" + "k" * 200: 1 / (step + 1)}, step)
"""
    previous = -1
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        while process.poll() is None and len(records(tmp_path)) <= previous + 50:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = RunLog(tmp_path, resume=True).last_step
        assert last > previous
        previous = last
    steps = [r["step"] for r in records(tmp_path)]
    assert steps == list(range(len(steps)))


def test_system_sampler_writes_mlflows_names_and_ends(tmp_path):
    for first in (0, 1):  # a resumed run goes on counting
        before = threading.active_count()
        sampler = SystemSampler(tmp_path, interval=0.05)
        sampler.start()
        time.sleep(0.2)
        sampler.stop()
        assert threading.active_count() == before
        samples = records(tmp_path, SYSTEM)
        assert [s["step"] for s in samples] == list(range(len(samples)))
        assert len(samples) > 2 + first
    assert samples[-1]["system/system_memory_usage_megabytes"] > 0
    assert 0 <= samples[-1]["system/cpu_utilization_percentage"] <= 100


def test_system_sampler_never_raises(tmp_path):
    (tmp_path / SYSTEM).mkdir()
    sampler = SystemSampler(tmp_path, interval=0.05)
    sampler.start()
    sampler.stop()
