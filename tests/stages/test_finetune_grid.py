"""The cells of fine-tuning as jobs: in this process, in children, on a dask cluster, in shares; the same files from each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from medssl.errors import GridError, StudyError
from medssl.grid import ExecutionHow
from medssl.stages import cell_fit
from medssl.stages.cells import Cell, grid
from medssl.stages.compare import compare
from medssl.stages.evaluate import evaluate
from medssl.stages.finetune import finetune
from medssl.stages.index import index
from medssl.stages.receipt import read_receipt
from medssl.stages.workspace import open_workspace

distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra: pip install 'medssl[cluster]'")

ARMS = {"random": {"init": "random"}, "imagenet": {"init": "imagenet"}}
FINETUNE = {
    "budgets": [8, "all"],
    "seeds": {"8": 2, "all": 1},
    "linear": {"regularization": [0.01, 1.0]},
    "linear_recalibrated": {"regularization": [1.0], "budgets": [8], "seeds": 1},
    "full": {"budgets": [8], "seeds": 1, "epochs": 1, "batch_size": 8, "search": {"trials": 1}},
}
CELLS = 2 * (2 + 1 + 1 + 1)
WAYS = ("here", "workers", "cluster", "shards")


@pytest.fixture(scope="module")
def study(tmp_path_factory, write_study):
    """study(name) -> a study file of its own work folder; all of the same data and settings."""
    base = tmp_path_factory.mktemp("grid")

    def write(name: str, **changes):
        secret = base / "secret"  # shared: row keys must be the same in all work folders
        secret.write_bytes(bytes(range(32)))
        secret.chmod(0o600)
        settings = {"arms": ARMS, "finetune": FINETUNE, "tracking": {"enabled": False}, "privacy": {"secret_file": str(secret)}}
        settings |= changes
        return write_study(base / name, **settings)

    return write


@pytest.fixture(scope="module")
def said(study):
    """Way -> (its work folder, what was said), each fitted in its own way."""
    found = {}
    for way in WAYS:
        path = study(way)
        command = [sys.executable, "-m", "medssl", "finetune", "--config", str(path)]
        if way == "cluster":
            with distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0", silence_logs=50
            ) as cluster:
                lines = [run([*command, "--scheduler", cluster.scheduler_address])]
        elif way == "shards":
            lines = [run([*command, "--shard", shard]) for shard in ("1/2", "2/2")]
        else:
            lines = [run([*command, *(["--workers", "2"] if way == "workers" else [])])]
        found[way] = open_workspace(path), lines
    return found


def run(command, code=0):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def files_of(work, name):
    base = work.folder / "finetune" / "cells"
    return {path.relative_to(base).as_posix(): path for path in base.rglob(name)}


@pytest.mark.parametrize("way", WAYS[1:])
def test_each_way_makes_the_same_files(said, way):
    here, there = said["here"][0], said[way][0]
    heads = files_of(here, cell_fit.HEAD)
    assert len(heads) == CELLS
    assert set(files_of(there, cell_fit.HEAD)) == set(heads)
    for name, path in heads.items():
        assert files_of(there, cell_fit.HEAD)[name].read_bytes() == path.read_bytes(), name
    for name, path in files_of(here, cell_fit.VALIDATION).items():
        pd.testing.assert_frame_equal(pd.read_parquet(files_of(there, cell_fit.VALIDATION)[name]), pd.read_parquet(path))
    for name, path in files_of(here, "receipt.json").items():
        assert json.loads(files_of(there, "receipt.json")[name].read_text()) == json.loads(path.read_text()), name


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_repeated_afterwards(said, way, capsys):
    work = open_workspace(said[way][0].study_file)
    before = {path: path.stat().st_mtime_ns for path in (work.folder / "finetune").rglob("receipt.json")}
    evaluate(work)
    assert f"nothing has changed, {CELLS} cells are there" in " ".join(capsys.readouterr().out.split())
    assert {path: path.stat().st_mtime_ns for path in (work.folder / "finetune").rglob("receipt.json")} == before


@pytest.mark.parametrize("way", WAYS)
def test_features_are_computed_once(said, way):
    lines = [line for text in said[way][1] for line in text.splitlines() if line.startswith("features ") and "images" in line]
    assert sorted(line.split()[1] for line in lines if "each" in line) == ["imagenet:", "imagenet:", "random:", "random:"]


def test_a_shard_says_what_is_missing(said):
    first, second = said["shards"][1]
    assert "(part 1 of 2); " in first
    assert f"of the grid's {CELLS} cells are still missing" in first
    assert f"(part 2 of 2); all {CELLS} cells of the grid are there" in second
    fitted = [int(text.split(" cells fitted")[0].split()[-1]) for text in (first, second)]
    assert sum(fitted) == CELLS
    assert min(fitted) > 0


@pytest.mark.parametrize("way", WAYS)
def test_the_log_of_an_arm_is_the_same(said, way):
    def lines(work):
        found = []
        for path in sorted((work.folder / "tracking" / "finetune-imagenet").glob("*/metrics.jsonl")):
            found += [
                {key: value for key, value in json.loads(line).items() if not key.startswith("time/")}
                for line in path.read_text().splitlines()
            ]
        return sorted(map(str, found)) if way == "shards" else found

    expected = lines(said["here"][0])
    assert lines(said[way][0]) == expected
    assert len(expected) == CELLS / 2


def test_a_cell_that_fails_costs_itself(study, monkeypatch, capsys):
    work = open_workspace(study("failing"))
    fit, bad = cell_fit.fit_linear, []

    def failing(features, draw, *rest):
        if draw.budget == "8" and draw.seed == 1:
            bad.append(draw)
            raise ValueError("of the fit\nand more")
        return fit(features, draw, *rest)

    monkeypatch.setattr(cell_fit, "fit_linear", failing)
    with pytest.raises(GridError) as raised:
        finetune(work)
    assert str(raised.value) == (
        f"finetune: 2 of {CELLS} cells failed, the others are kept: random/0/linear/8/1: ValueError: of the fit (and 1 more); all of it "
        "is in private/finetune_failures.txt; mend it and run the same command again"
    )
    said = " ".join(capsys.readouterr().err.split())
    assert "random/0/linear/8/1, imagenet/0/linear/8/1: ValueError: of the fit" in said
    assert "in failing" in (work.private / "finetune_failures.txt").read_text()
    assert (work.private / "finetune_failures.txt").stat().st_mode & 0o777 == 0o600
    assert len(files_of(work, "receipt.json")) == CELLS - 2
    assert '"finetune/failed_cells": 1.0' in (work.folder / "tracking/finetune-random/001/metrics.jsonl").read_text()
    monkeypatch.setattr(cell_fit, "fit_linear", fit)
    finetune(open_workspace(work.study_file))
    assert "2 cells fitted, 8 were there" in " ".join(capsys.readouterr().out.split())


def test_a_stop_keeps_finished_cells(study):
    path = study("stopped", finetune=FINETUNE | {"full": FINETUNE["full"] | {"epochs": 2000, "patience": None}})
    command = [sys.executable, "-m", "medssl", "finetune", "--config", str(path), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    work, end = open_workspace(path), time.monotonic() + 120
    # The networks are the longest and come first, one in each process: probes of an arm follow only where a worker is free.
    while time.monotonic() < end and not list((work.folder / "finetune").rglob("*.job")):
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert f"of {CELLS}; the same command goes on from there" in " ".join(text.split())
    assert not files_of(work, "receipt.json").keys() & {"random/0/full/8/0/receipt.json", "imagenet/0/full/8/0/receipt.json"}


def test_budgets_of_the_same_patients_are_fitted_once(study):
    work = open_workspace(study("whole"))
    archive = index(work)
    pool = archive.splits.loc[(archive.splits["split"] == "train") & archive.splits["label"].notna(), "group"].nunique()
    share = 8 / pool
    finetune = {"budgets": [8, share, pool, 1.0, "all"], "seeds": 2, "linear": {}, "full": {"epochs": 1}}
    cells = grid(open_workspace(study("whole", finetune=finetune)), archive, ["random"])
    assert cells == [
        *(Cell("random", 0, "linear", *rest) for rest in ((8, 0), (8, 1), ("all", 0))),
        *(Cell("random", 0, "full", *rest) for rest in ((8, 0), (8, 1), ("all", 0), ("all", 1))),
    ]


def test_every_pretraining_run_is_fitted(study):
    arms = ARMS | {"in_domain": {"init": "random", "method": "simsiam"}}
    pretrain = {"method": {"name": "simsiam"}, "seeds": 3}
    work = open_workspace(study("runs", arms=arms, pretrain=pretrain))
    cells = grid(work, index(work), list(arms))
    assert {arm: {cell.run for cell in cells if cell.arm == arm} for arm in arms} == {
        "random": {0},
        "imagenet": {0},
        "in_domain": {0, 1, 2},
    }


def test_draws_of_each_budget(said):
    folders = {name.rpartition("/")[0] for name in files_of(said["here"][0], "receipt.json")}
    assert {name for name in folders if name.startswith("random/0/linear/")} == {
        "random/0/linear/8/0",
        "random/0/linear/8/1",
        "random/0/linear/all/0",
    }
    assert read_receipt(Cell("random", 0, "full", 8, 0).folder(said["here"][0]))["facts"]["budget"] == "8"


def test_a_comparison_holds_other_numbers_of_draws_at_each_budget(said):
    work = open_workspace(said["here"][0].study_file)
    compare(work)
    table = pd.read_parquet(work.folder / "compare" / "comparison.parquet")
    draws = table.drop_duplicates(["mode", "budget"]).set_index(["mode", "budget"])["n_seeds"].to_dict()
    assert draws == {("linear", "8"): 2, ("linear", "all"): 1, ("linear_recalibrated", "8"): 1, ("full", "8"): 1}
    assert "2 label draws" in (work.folder / "compare" / "report.html").read_text()


def test_two_parts_at_the_same_time_make_one_grid(study):
    path = study("at_once")
    command = [sys.executable, "-m", "medssl", "finetune", "--config", str(path), "--shard"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([*command, shard], **pipes) for shard in ("1/2", "2/2")]
    texts = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    work = open_workspace(path)
    assert len(files_of(work, "receipt.json")) == CELLS
    each = [line for text in texts for line in text.splitlines() if line.startswith("features ") and line.endswith("each")]
    assert len(each) == 4


def test_two_commands_never_get_one_log(said):
    work = said["here"][0]
    assert [work.next_log("try").name for _ in range(2)] == ["001", "002"]
    assert work.next_log("try", resume=True).name == "002"
    assert work.next_log("other", resume=True).name == "001"


def test_a_part_that_cannot_be_is_refused(study):
    text = run([sys.executable, "-m", "medssl", "finetune", "--config", str(study("none")), "--shard", "3/2"], code=2)
    assert text.startswith("error: --shard 3/2: is not of the form k/n")


def test_an_arm_that_is_unknown_is_said_before_a_cluster_is_asked(study):
    with pytest.raises(StudyError, match="--arm imagnet"):
        finetune(open_workspace(study("none")), arms=["imagnet"], how=ExecutionHow(scheduler="tcp://127.0.0.1:9"))
