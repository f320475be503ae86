"""What a tracker can suffer: a real `mlflow server` that can be killed and held, and a proxy that cuts a request in the middle."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from medssl.tracking import lines

LARGEST = 1.7976931348623157e308  # MLflow's SQL stores keep it in the place of infinity


class Server:
    """`mlflow server` on a SQLite file in `folder`; the port and the data stay over a restart."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._process = folder, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = os.environ | {"DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=self.folder, start_new_session=True
            )
        end = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def hold(self) -> None:
        """It accepts connections and answers nothing until `go_on`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of `hold`."""
        os.killpg(self._process.pid, signal.SIGCONT)


class Proxy:
    """Stands before a server. `faults` are spent one a request that brings metrics.

    `half`: half of the request reaches the server, then `cut` is called; `whole`: the server has done it all, then `cut` is
    called; of both the client gets no answer. A number: so many seconds pass first.
    """

    def __init__(self, port: int, cut: Callable[[], None]) -> None:
        proxy, self.faults, self.requests, self.cut, self._port = self, [], 0, cut, port

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self) -> None:
                proxy.forward(self)

            do_GET = do_POST = do_PUT = do_PATCH = forward  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._server.server_close()

    def forward(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Bring one request to the server and its answer back."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = None
        if handler.path.endswith("runs/log-batch") and b'"metrics": [{' in body:
            self.requests += 1
            fault = self.faults.pop(0) if self.faults else None
        handler.close_connection = True
        if isinstance(fault, float | int):
            time.sleep(fault)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(self._connection()) as server:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
            server.putrequest(handler.command, handler.path, skip_accept_encoding=True)
            for name, value in headers.items():
                server.putheader(name, value)
            server.endheaders(body[: len(body) // 2] if fault == "half" else body)
            if fault == "half":
                self.cut()
                return
            answer = server.getresponse()
            content = answer.read()
            if fault == "whole":
                self.cut()
                return
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)


def logged(folder: Path) -> dict[str, list[tuple]]:
    """All points of a log as (step, time, value) under their keys, as MLflow shows them."""
    points: dict[str, list[tuple]] = defaultdict(list)
    for name in ("metrics.jsonl", "system.jsonl"):
        for _, record in lines.read(folder / name):
            for key, value in record.items():
                if key not in ("step", "time/unix_ms"):
                    points[key].append((record["step"], record["time/unix_ms"], shown(float(value))))
    return {key: sorted(values) for key, values in points.items()}


def shown(value: float) -> float | str:
    """`value` as it comes back from a SQL store, in a form that equals itself."""
    return "nan" if math.isnan(value) else max(-LARGEST, min(LARGEST, value))


def stored(client, run) -> dict[str, list[tuple]]:
    """All points of an MLflow run, in the form of `logged`."""
    return {
        key: sorted((m.step, m.timestamp, shown(m.value)) for m in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def runs_of(client, experiment: str) -> dict:
    """The runs of an experiment under their names, none of them twice."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found), "a run is there twice"
    return by_name
