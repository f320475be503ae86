from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from medssl.tracking import TrackingSettings, open_run, sync_all


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real `mlflow server`; killed without warning at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder, start_new_session=True)
    try:
        end = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_comes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.tracking.live._LONGEST_PAUSE", 1.0)
    port, warnings, slowest, step = free_port(), [], 0.0, 0
    work = tmp_path / "work"
    settings = TrackingSettings(f"http://user:secret@127.0.0.1:{port}", "chest", work)
    (tmp_path / "server").mkdir()
    work.mkdir()
    (work / "encoder.json").write_text("{}")

    with open_run(
        work / "r", settings=settings, name="r", stage="pretrain", params={"lr": 0.1}, warn=warnings.append, every=0.2
    ) as log:

        def train(seconds: float, until=lambda: False) -> None:
            nonlocal slowest, step
            end = time.monotonic() + seconds
            while time.monotonic() < end and not until():
                begun = time.perf_counter()
                log.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step)
                slowest, step = max(slowest, time.perf_counter() - begun), step + 1
                time.sleep(0.02)

        train(1.0)  # down at the start
        assert not (work / "r" / "mlflow.json").exists()
        with server(tmp_path / "server", port):
            train(30, until=(work / "r" / "mlflow.json").exists)
            train(1.0)
        train(1.5)  # killed in the middle
        log.artifact(work / "encoder.json")
    assert slowest < 1.0
    assert 1 <= len(warnings) <= 3
    assert "out of reach" in warnings[0]
    assert all("\n" not in line and "secret" not in line for line in warnings)
    assert "secret" not in (work / "r" / "mlflow.json").read_text()
    ((_, status),) = sync_all(work, settings)
    assert status.startswith("not sent: ")
    assert "out of reach" in status

    with server(tmp_path / "server", port):
        ((_, status),) = sync_all(work, settings)
        assert status.startswith("sent ")
        assert sync_all(work, settings) == [(work / "r", "up to date")]
        from mlflow import MlflowClient

        client = MlflowClient(settings.store_uri)
        (run,) = client.search_runs([client.get_experiment_by_name("chest").experiment_id])
        assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
        loss = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))
        assert loss == [(s, 1 / (s + 1)) for s in range(step)]
        assert len(client.get_metric_history(run.info.run_id, "nan")) == step
        assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["encoder.json"]
        (work / "r" / "mlflow.json").unlink()
        assert sync_all(work, settings)[0][1].startswith("sent ")
        assert len(client.get_metric_history(run.info.run_id, "nan")) == step


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
