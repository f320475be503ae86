from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from medssl.tracking import TrackingSettings, open_run, sync_all


def test_a_server_that_comes_and_goes(tmp_path, monkeypatch, outages, server):
    """Down at the start, then held, then killed by SIGKILL in the middle of a request, then started again."""
    monkeypatch.setattr("medssl.tracking.live._LONGEST_PAUSE", 1.0)
    proxy = outages.Proxy(server.port, server.kill)
    warnings, seconds, step = [], [], 0
    work = tmp_path / "work"
    settings = TrackingSettings(proxy.uri.replace("//", "//user:secret@"), "chest", work)
    work.mkdir()
    (work / "encoder.json").write_text("{}")
    state = work / "r" / "mlflow.json"

    with open_run(
        work / "r", settings=settings, name="r", stage="pretrain", params={"lr": 0.1}, warn=warnings.append, every=0.2
    ) as log:

        def train(least: float, until=lambda: True, most: float = 60) -> None:
            nonlocal step
            begun = time.monotonic()
            while time.monotonic() - begun < least or not until():
                assert time.monotonic() - begun < most
                before = time.perf_counter()
                log.metrics({"loss": 1 / (step + 1), "nan": float("nan"), "inf": float("-inf")}, step)
                seconds.append(time.perf_counter() - before)
                step += 1
                time.sleep(0.01)

        train(1.0)  # down at the start
        assert not state.exists()
        server.start()
        train(0.5, until=lambda: proxy.requests > 1)
        server.hold()
        train(1.5)
        server.go_on()
        proxy.faults = ["whole"]  # stored, but nobody was told
        train(0.5, until=lambda: not proxy.faults and server._process is None)
        train(1.0)
        log.artifact(work / "encoder.json")
    assert np.percentile(seconds, 99) < 0.01
    assert max(seconds) < 1.0
    assert 1 <= len(warnings) <= 3
    assert "out of reach" in warnings[0]
    assert all("\n" not in line and "secret" not in line for line in warnings)
    assert "secret" not in state.read_text()
    ((_, status),) = sync_all(work, settings)
    assert status.startswith("not sent: ")
    assert "out of reach" in status

    server.start()
    ((_, status),) = sync_all(work, settings)
    assert status.startswith("sent ")
    assert sync_all(work, settings) == [(work / "r", "up to date")]
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    (run,) = outages.runs_of(client, "chest").values()
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert outages.stored(client, run) == outages.logged(work / "r")
    assert [point[0] for point in outages.logged(work / "r")["loss"]] == list(range(step))
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["encoder.json"]
    state.unlink()
    assert sync_all(work, settings)[0][1].startswith("sent ")
    assert outages.stored(client, run) == outages.logged(work / "r")
    proxy.close()


@pytest.mark.long
def test_a_server_killed_again_and_again_within_a_run(tmp_path, monkeypatch, outages, server):
    """Killed by SIGKILL with half a request, and after a request but before its answer; slow; held for longer than its time-out."""
    monkeypatch.setattr("medssl.tracking.live._LONGEST_PAUSE", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    proxy, warnings, seconds, step = outages.Proxy(server.port, server.kill), [], [], 0
    settings = TrackingSettings(proxy.uri, "e", tmp_path)
    server.start()
    with open_run(tmp_path / "r", settings=settings, name="r", stage="x", warn=warnings.append, every=0.2) as log:

        def train(until, most: float = 90) -> None:
            nonlocal step
            end = time.monotonic() + most
            while not until():
                assert time.monotonic() < end
                before = time.perf_counter()
                log.metrics({f"k{key}": step / (key + 1) for key in range(20)}, step)
                seconds.append(time.perf_counter() - before)
                step += 1
                time.sleep(0.005)

        def after(requests: int):
            goal = proxy.requests + requests
            return lambda: proxy.requests >= goal

        train(after(2))
        for fault in ("half", "whole", "half", "whole"):
            proxy.faults = [fault]
            train(lambda: server._process is None)
            server.start()
            train(after(3))
        proxy.faults = [0.5] * 6
        train(after(6))
        server.hold()
        begun = time.monotonic()
        train(lambda: time.monotonic() - begun > 8)
        server.go_on()
        train(after(3))
    assert np.percentile(seconds, 99) < 0.01
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    sync_all(tmp_path, settings)
    (run,) = outages.runs_of(client, "e").values()
    assert run.info.status == "FINISHED"
    assert outages.stored(client, run) == outages.logged(tmp_path / "r")
    assert len(outages.logged(tmp_path / "r")["k0"]) == step
    assert all("out of reach" in line for line in warnings)
    proxy.close()


def test_a_store_that_never_answers_costs_one_bounded_wait(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    warnings: list[str] = []
    with socket.socket() as silent:  # accepts connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = TrackingSettings(f"http://127.0.0.1:{silent.getsockname()[1]}", "e", tmp_path)
        begun = time.monotonic()
        for name in "abcd":
            with open_run(tmp_path / name, settings=settings, name=name, stage="x", warn=warnings.append, every=0.1) as log:
                log.metrics({"loss": 1.0}, 0)
                time.sleep(0.3)
        seconds = time.monotonic() - begun
    assert seconds < 12
    assert len(warnings) == 1
    assert log.last_step == 0


def test_an_unknown_error_in_the_sink_is_a_warning(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("medssl.tracking.mlflow_sink.Sink.replay", broken)
    warnings: list[str] = []
    with open_run(
        tmp_path / "r", settings=TrackingSettings(None, "e", tmp_path), name="r", stage="x", warn=warnings.append, every=0.05
    ) as log:
        log.metrics({"loss": 1.0}, 0)
        time.sleep(0.3)
    assert len(warnings) == 1
    assert warnings[0].startswith("tracking: first line second line; the run goes on")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_as_killed(tmp_path, signal_number):
    code = """
import signal, sys, time
from pathlib import Path
from medssl.tracking import TrackingSettings, open_run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
work = Path(sys.argv[1])
with open_run(work / "r", settings=TrackingSettings(None, "e", work, enabled=False), name="r", stage="x") as log:
    log.metrics({"loss": 1.0}, 0)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    while not (tmp_path / "r" / "metrics.jsonl").exists() or not (tmp_path / "r" / "metrics.jsonl").stat().st_size:
        time.sleep(0.05)
    process.send_signal(signal_number)
    process.wait(timeout=20)
    assert '"status": "killed"' in (tmp_path / "r" / "events.jsonl").read_text()
