from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from medssl.errors import TrackingError
from medssl.tracking import RunLog, TrackingSettings, open_run, sync_all
from medssl.tracking.locks import locked
from medssl.tracking.mlflow_store import Store


def runs(client, settings: TrackingSettings) -> dict:
    experiment = client.get_experiment_by_name(settings.experiment)
    found = client.search_runs([experiment.experiment_id])
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found), "a run is there twice"
    return by_name


def history(client, run, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def write_log(folder: Path, *, steps: int = 5, experiment: str = "e", **start) -> RunLog:
    log = RunLog(folder, resume=False)
    log.start(name=start.pop("name", "r"), stage="pretrain", experiment=experiment, **start)
    for step in range(steps):
        log.metrics({"loss": 1 / (step + 1)}, step)
    return log


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, medssl.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_telemetry_and_nothing_on_the_screen(tmp_path):
    code = """
import sys
from pathlib import Path
from medssl.tracking import TrackingSettings, open_run
work = Path(sys.argv[1])
with open_run(work / "r", settings=TrackingSettings(None, "e", work), name="r", stage="pretrain") as log:
    log.metrics({"loss": 1.0}, 0)
from mlflow.telemetry.utils import is_telemetry_disabled
sys.exit(0 if is_telemetry_disabled() else 3)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PYTEST", "DO_NOT"))}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_run_is_readable_in_mlflow(settings, client, tmp_path):
    (tmp_path / "study.yaml").write_text("seed: 1\n")
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "encoder.json").write_text("{}")
    (tmp_path / "figure.png").write_bytes(b"png")
    common = {"settings": settings, "warn": pytest.fail}
    params = {"optim": {"lr": 0.1, "betas": [0.9, 0.999]}, "init": "imagenet", "sources": {}, "none": None, "empty": ""}
    with open_run(tmp_path / "all", name="all", stage="run", **common) as parent:
        with open_run(
            tmp_path / "a", name="a", stage="pretrain", parent=parent.folder, params=params, tags={"arm": "in_domain"}, **common
        ) as log:
            log.dataset(name="nih", digest="d" * 64, source="card:nih", context="training", profile={"patients": 7})
            for step in range(3):
                log.metrics({"loss": step / 3, "bad": math.nan, "time/wall": 0.5}, step)
            log.artifact(tmp_path / "study.yaml")
            log.artifact(tmp_path / "enc", folder="encoders")
            log.artifact(tmp_path / "figure.png", pixels=True)
            log.artifact(tmp_path / "study.yaml", folder="gone")
        with pytest.raises(ZeroDivisionError), open_run(tmp_path / "b", name="b", stage="x", parent=parent.folder, **common):
            raise ZeroDivisionError
        with pytest.raises(SystemExit), open_run(tmp_path / "c", name="c", stage="x", **common):
            raise SystemExit(143)
    found = runs(client, settings)
    run = found["a"]
    assert {name: r.info.status for name, r in found.items()} == {
        "all": "FINISHED", "a": "FINISHED", "b": "FAILED", "c": "KILLED",
    }  # fmt: skip
    assert found["b"].data.tags["medssl.error"] == "ZeroDivisionError"
    assert run.data.tags["mlflow.parentRunId"] == found["b"].data.tags["mlflow.parentRunId"] == found["all"].info.run_id
    assert run.data.tags["arm"] == "in_domain"
    assert run.data.params == {
        "optim.lr": "0.1", "optim.betas": "[0.9, 0.999]", "init": "imagenet", "sources": "{}", "none": "null", "empty": "",
    }  # fmt: skip
    assert history(client, run, "loss") == [(0, 0.0), (1, 1 / 3), (2, 2 / 3)]
    assert [math.isnan(value) for _, value in history(client, run, "bad")] == [True] * 3
    logged = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert sorted(m.timestamp for m in client.get_metric_history(run.info.run_id, "loss")) == [
        record["time/unix_ms"] for record in logged
    ]
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("nih", "d" * 36, "training")
    assert json.loads(data.dataset.profile) == {"digest": "d" * 64, "patients": 7}
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"study.yaml", "encoders", "gone"}
    assert [f.path for f in client.list_artifacts(run.info.run_id, "encoders/enc")] == ["encoders/enc/encoder.json"]
    assert run.data.tags["medssl.withheld"] == "../figure.png: shows pixels; tracking.images is off"
    assert str(tmp_path) not in json.dumps([run.data.tags, run.data.params])
    assert {status for _, status in sync_all(tmp_path, settings)} == {"up to date"}


def test_repeated_and_interrupted_replays_lose_and_double_nothing(sink, client, settings, tmp_path, monkeypatch):
    log = write_log(tmp_path, steps=2500, params={"p": 1})
    log.metrics({"nan": math.nan}, 0)
    log.dataset(name="d", digest="1", source="card:d", context="training", profile={})
    one = sink(tmp_path)
    state = tmp_path / "mlflow.json"
    acknowledge, calls = type(one)._acknowledge, []

    def killed(self, name, offset):
        calls.append(name)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt  # the batch is in the store, its acknowledgement is not on the disk
        acknowledge(self, name, offset)

    monkeypatch.setattr(type(one), "_acknowledge", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sink(tmp_path).replay()
    monkeypatch.undo()
    log.end("finished")
    assert sink(tmp_path).behind
    sink(tmp_path).replay()
    assert not sink(tmp_path).behind
    assert (lambda r: (r.points, r.events))(sink(tmp_path).replay()) == (0, 0)
    state.unlink()  # memory lost: the run is found by the log's id
    assert sink(tmp_path).replay().points == 2501

    (run,) = runs(client, settings).values()
    assert history(client, run, "loss") == [(s, 1 / (s + 1)) for s in range(2500)]
    assert len(history(client, run, "nan")) == 1
    assert len(run.inputs.dataset_inputs) == 1


def test_a_kill_after_creating_the_run_makes_no_second_one(sink, client, settings, tmp_path, monkeypatch):
    write_log(tmp_path)
    one = sink(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(type(one), "_save", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            one.replay()
    sink(tmp_path).replay()
    assert len(runs(client, settings)) == 1


def test_long_and_illegal_params_are_kept_whole(sink, client, settings, tmp_path):
    params = {
        "long": "ä" * 6001,
        "fits": "x" * 6000,
        "odd*key": 1,
        "odd?key": 2,
        "k" * 300: 3,
        "many": dict.fromkeys(map(str, range(250)), 0),
    }
    write_log(tmp_path, params=params, tags={"note": "t" * 9000})
    sink(tmp_path).replay()
    (run,) = runs(client, settings).values()
    stored = run.data.params
    assert stored["long"] == "ä" * 5999 + "…"
    assert stored["fits"] == "x" * 6000
    assert len(stored) == len(params) - 1 + 250
    assert len(run.data.tags["note"]) == 8000
    for name, whole in (("params_full.yaml", params), ("tags_full.yaml", {"note": "t" * 9000})):
        path = client.download_artifacts(run.info.run_id, name, str(tmp_path))
        assert yaml.safe_load(Path(path).read_text(encoding="utf-8")) == whole


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(settings, client, tmp_path):
    def attempt(params: dict, last: int) -> None:
        with open_run(tmp_path / "r", settings=settings, name="r", stage="p", params=params, resume=True) as log:
            for step in range(last):
                log.metrics({"loss": 1 / (step + 1)}, step)
            if last < 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt({"lr": 0.1, "gpus": 1}, 6)
    assert runs(client, settings)["r"].info.status == "KILLED"
    attempt({"lr": 0.1, "gpus": 2, "new": True}, 10)
    (run,) = runs(client, settings).values()
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1", "gpus": "1", "new": "true"})
    assert run.data.tags["changed/gpus"] == "2"
    assert [step for step, _ in history(client, run, "loss")] == list(range(10))


def test_a_store_made_anew_gets_everything_again(tmp_path):
    settings = TrackingSettings(None, "e", tmp_path)
    write_log(tmp_path / "r").end("finished")
    assert sync_all(tmp_path) == [(tmp_path / "r", "sent 5 points and 2 events")]
    assert sync_all(tmp_path) == [(tmp_path / "r", "up to date")]
    second = TrackingSettings(f"sqlite:///{tmp_path}/second.db", "e", tmp_path)
    assert sync_all(tmp_path, second)[0][1] == "sent 5 points and 2 events"
    assert sync_all(tmp_path, settings)[0][1].startswith("sent")  # back in the first store: found there, nothing doubled
    from mlflow import MlflowClient

    (run,) = runs(MlflowClient(settings.store_uri), settings).values()
    assert len(history(MlflowClient(settings.store_uri), run, "loss")) == 5


def test_refusals_are_tracking_errors_that_do_not_stop_the_run(settings, client, sink, tmp_path):
    write_log(tmp_path / "first")
    sink(tmp_path / "first").replay()
    client.delete_run(sink(tmp_path / "first").run_id)
    with pytest.raises(TrackingError, match=r"is deleted in .* restore it"):
        sink(tmp_path / "first").replay()
    client.delete_experiment(client.get_experiment_by_name(settings.experiment).experiment_id)
    warnings: list[str] = []
    with open_run(tmp_path / "r", settings=settings, name="r", stage="x", warn=warnings.append, every=0.05) as log:
        for step in range(10):
            log.metrics({"loss": step}, step)
            time.sleep(0.05)
    assert len(warnings) == 1
    assert "is deleted" in warnings[0]
    assert "\n" not in warnings[0]
    assert log.last_step == 9


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    begun = time.monotonic()
    with pytest.raises(TrackingError, match="not a database"), Store(f"sqlite:///{tmp_path}/mlflow.db").calls():
        pass
    assert time.monotonic() - begun < 5


def test_local_log_only(tmp_path):
    settings = TrackingSettings(None, "e", tmp_path, enabled=False)
    with open_run(tmp_path / "r", settings=settings, name="r", stage="x") as log:
        log.metrics({"loss": 1.0}, 0)
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["events.jsonl", "metrics.jsonl", "system.jsonl"]
    assert not (tmp_path / "mlflow.db").exists()


def test_three_processes_start_at_once_on_a_new_store(tmp_path, outages):
    code = """
import sys, time
from pathlib import Path
from medssl.tracking import TrackingSettings, open_run
work, name, begin = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
from medssl.tracking.mlflow_store import prepare_mlflow
prepare_mlflow()
time.sleep(max(0, begin - time.time()))
with open_run(work / name, settings=TrackingSettings(None, "e", work), name=name, stage="pretrain", every=0.1) as log:
    log.dataset(name="shared", digest="1", source="card:shared", context="training", profile={})
    for step in range(300):
        log.metrics({"loss": step, "knn": 1 / (step + 1), "nan": float("nan")}, step)
        time.sleep(0.004)
"""
    begin = str(time.time() + 5)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name, begin], stderr=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    errors = [process.communicate(timeout=90)[1] for process in processes]
    assert [(p.returncode, e) for p, e in zip(processes, errors, strict=True)] == [(0, "")] * 3
    assert {status for _, status in sync_all(tmp_path)} == {"up to date"}
    from mlflow import MlflowClient

    settings = TrackingSettings(None, "e", tmp_path)
    client = MlflowClient(settings.store_uri)
    found = runs(client, settings)
    assert sorted(found) == ["a", "b", "c"]
    for name, run in found.items():
        assert outages.stored(client, run) == outages.logged(tmp_path / name)
        assert [step for step, _ in history(client, run, "loss")] == list(range(300))
        assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["shared"]


@pytest.mark.parametrize("with_flock", [True, False])
def test_a_lock_has_one_holder(tmp_path, monkeypatch, with_flock):
    if not with_flock:
        monkeypatch.setattr("medssl.tracking.locks.fcntl", None)
    with locked(tmp_path / "l", timeout=1):
        with pytest.raises(TimeoutError), locked(tmp_path / "l", timeout=0.1):
            pass
        if not with_flock:
            os.utime(tmp_path / "l.held", (0, 0))  # left behind by a killed process long ago
            with locked(tmp_path / "l", timeout=0.1):
                pass
    with locked(tmp_path / "l", timeout=0.1):
        pass
