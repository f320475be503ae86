"""Many points, a database that another program holds, and a log that is sent by two processes."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing

import psutil
import pytest
import yaml

from medssl.errors import TrackingError
from medssl.tracking import TrackingSettings, open_run, sync_all
from medssl.tracking.mlflow_store import Store, UnreachableError

MEBIBYTE = 2**20

HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def client_of(settings: TrackingSettings):
    from mlflow import MlflowClient

    return MlflowClient(settings.store_uri)


def log_while_the_store_is_down(folder, uri: str, points: int) -> float:
    """Log `points` points in lines of ten; the growth of Python's memory in MiB, the sink's attempts at the store included."""
    settings = TrackingSettings(uri, "e", folder)
    keys = [f"k{key}" for key in range(10)]
    with open_run(folder / "r", settings=settings, name="r", stage="x", warn=lambda line: None, every=0.05) as log:
        for step in range(200):  # what is allocated once, such as the HTTP client
            log.metrics(dict.fromkeys(keys, 0.5), step)
            time.sleep(0.005)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for step in range(200, points // 10):
                log.metrics(dict.fromkeys(keys, step / 7), step)
            time.sleep(0.3)
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / MEBIBYTE
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("points", [10_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_a_run_whose_store_is_down_does_not_grow_and_is_sent_later(tmp_path, monkeypatch, outages, server, points):
    monkeypatch.setattr("medssl.tracking.live._FIRST_PAUSE", 0.1)
    monkeypatch.setattr("medssl.tracking.live._LONGEST_PAUSE", 0.2)  # hundreds of attempts, as in days
    grown = log_while_the_store_is_down(tmp_path, server.uri, points)
    assert grown < 0.3
    there = TrackingSettings(None, "e", tmp_path)
    with Store(there.store_uri).calls():  # imports mlflow, which is no part of what a transfer needs
        pass
    resident = psutil.Process().memory_info().rss
    ((_, status),) = sync_all(tmp_path, there)
    assert (psutil.Process().memory_info().rss - resident) / MEBIBYTE < 30
    assert status.startswith("sent ")
    client = client_of(there)
    (run,) = outages.runs_of(client, "e").values()
    assert outages.stored(client, run) == outages.logged(tmp_path / "r")
    assert len(outages.logged(tmp_path / "r")["k3"]) == points // 10


def test_a_database_that_another_program_holds_costs_nothing(tmp_path, outages):
    settings, warnings, slowest = TrackingSettings(None, "e", tmp_path), [], 0.0
    with open_run(tmp_path / "r", settings=settings, name="r", stage="x", warn=warnings.append, every=0.1) as log:
        log.metrics({"loss": 0.0}, 0)
        while not (tmp_path / "r" / "mlflow.json").exists():
            time.sleep(0.05)
        database = str(tmp_path / "mlflow.db")
        other = subprocess.Popen([sys.executable, "-c", HOLD, database, "3"], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "held\n"
        for step in range(1, 200):
            begun = time.perf_counter()
            log.metrics({"loss": 1 / step, "nan": float("nan"), "inf": float("inf")}, step)
            slowest = max(slowest, time.perf_counter() - begun)
            time.sleep(0.005)
        assert other.poll() is None  # still held when the run ends
    other.communicate()
    assert slowest < 0.5
    assert warnings == []
    assert {status for _, status in sync_all(tmp_path)} == {"up to date"}
    client = client_of(settings)
    (run,) = outages.runs_of(client, "e").values()
    assert outages.stored(client, run) == outages.logged(tmp_path / "r")


def test_a_database_that_stays_held_is_out_of_reach_and_not_refused(tmp_path, monkeypatch):
    database = tmp_path / "mlflow.db"
    real = sqlite3.connect
    with closing(real(database, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: real(path, timeout=0.1))
        with (
            pytest.raises(UnreachableError, match=r"is out of reach \(database is locked\)"),
            Store(f"sqlite:///{database}").calls(),
        ):
            pass


RUN = """
import sys, time
from pathlib import Path
from medssl.tracking import TrackingSettings, open_run
work = Path(sys.argv[1])
with open_run(work / "r", settings=TrackingSettings(None, "e", work), name="r", stage="x", every=0.05) as log:
    for step in range(10**6):
        log.metrics({"loss": 1 / (step + 1), "acc": step}, step)
        time.sleep(0.002)
        if step > 300 and (work / "stop").exists():
            break
"""


def test_syncing_a_run_that_goes_on_elsewhere_doubles_nothing(tmp_path, outages):
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "r" / "mlflow.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    settings, statuses = TrackingSettings(None, "e", tmp_path), []
    client = client_of(settings)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        statuses += [status for _, status in sync_all(tmp_path)]
    (run,) = outages.runs_of(client, "e").values()
    assert run.info.status == "RUNNING"
    (tmp_path / "stop").touch()
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert any(status.startswith("sent ") for status in statuses)
    assert not any(status.startswith("not sent") for status in statuses)
    (run,) = outages.runs_of(client, "e").values()
    assert run.info.status == "FINISHED"
    assert outages.stored(client, run) == outages.logged(tmp_path / "r")


def test_a_copy_of_the_work_folder_that_is_synced_too_doubles_nothing(settings, sink, client, tmp_path, outages):
    """Another machine, another lock, the same store: the run is known by its log, a point by its content."""
    with open_run(tmp_path / "r", settings=settings, name="r", stage="x", params={"lr": 1}, every=60) as log:
        for step in range(100):
            log.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step)
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in ("events.jsonl", "metrics.jsonl", "system.jsonl"):
            (copy / file).write_bytes((tmp_path / "r" / file).read_bytes())
        assert sink(copy).replay().points >= 200
        for step in range(100, 200):
            log.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step)
    (run,) = outages.runs_of(client, settings.experiment).values()
    assert run.info.status == "FINISHED"
    assert outages.stored(client, run) == outages.logged(tmp_path / "r")


def test_a_log_that_its_run_is_sending_is_left_alone(sink, settings, tmp_path, monkeypatch):
    from medssl.tracking.locks import locked

    monkeypatch.setattr("medssl.tracking.mlflow_sink._LOCK_SECONDS", 0.1)
    with open_run(tmp_path / "r", settings=TrackingSettings(None, "e", tmp_path, enabled=False), name="r", stage="x"):
        pass
    with locked(tmp_path / "r" / "mlflow.lock", timeout=1):
        assert sync_all(tmp_path, settings) == [(tmp_path / "r", "left alone: another process is sending the same log")]


def test_track_sync_says_what_it_sent(tmp_path, settings, server, outages, capsys):
    from medssl.stages.sync import sync
    from medssl.stages.workspace import open_workspace

    study = tmp_path / "study.yaml"
    about = {"version": 1, "name": "s", "work_dir": str(tmp_path / "work"), "data": {"archive": {"card": "phantom_cxr"}}}
    study.write_text(yaml.safe_dump(about | {"tracking": {"uri": settings.store_uri, "enabled": False}}))
    work = open_workspace(study)
    with work.open_log("pretrain-x", stage="pretrain", params={"lr": 0.1}) as log:
        for step in range(7):
            log.metrics({"loss": 1.0, "knn": 0.5}, step)
    with pytest.raises(TrackingError, match=r"1 of 1 logs could not be sent: .* is out of reach .*; they stay for the next time"):
        sync(open_workspace(study, [f"tracking.uri={server.uri}"]))
    capsys.readouterr()
    sync(work)
    points = sum(len(values) for values in outages.logged(log.folder).values())
    assert capsys.readouterr().out == f"track pretrain-x/001: sent {points} points and 4 events\n"  # start, study, card, end
    sync(work)
    assert capsys.readouterr().out == "track pretrain-x/001: up to date\n"
