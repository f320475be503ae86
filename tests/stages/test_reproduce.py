"""A run's record says enough to make the run again, and `medssl reproduce` prints a command that does."""

from __future__ import annotations

import getpass
import itertools
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from medssl.cli import app
from medssl.errors import StudyError, TrackingError
from medssl.files import read_json, sha256_of_file, write_json
from medssl.models.weights import InitRecord
from medssl.stages.index import index
from medssl.stages.past_run import find_run
from medssl.stages.pretrain import pretrain
from medssl.stages.record import git_state, log_record, machine_record, records
from medssl.stages.reproduce import reproduce
from medssl.stages.workspace import open_workspace
from medssl.study import read_study
from medssl.tracking import lines, redact_study

SETS = ["pretrain.epochs=1", "pretrain.method={name: simsiam, projector_dim: 16, projector_hidden: 16}", "seed=3"]
FILE_INIT = InitRecord("file: w.safetensors", "a" * 64, 10)


def shown(run: str, study: Path) -> tuple[int, str]:
    """Exit code and output of `medssl reproduce`."""
    done = CliRunner().invoke(app, ["reproduce", run, "--config", str(study)])
    return done.exit_code, done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_study) -> Path:
    """A study file whose in-domain arm was pretrained under other settings than those that stand in it."""
    study = write_study(tmp_path_factory.mktemp("trained"))
    pretrain(open_workspace(study, SETS), arms=["in_domain"])
    return study


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, write_study):
    work = open_workspace(write_study(tmp_path_factory.mktemp("indexed"), tracking={"enabled": False}))
    index(work)
    return work


def encoder_hash(work: Path) -> str:
    return sha256_of_file(work / "pretrain" / "in_domain" / "encoder" / "encoder.safetensors")


def events(folder: Path, kind: str) -> list[dict]:
    return [event for _, event in lines.read(folder / "events.jsonl") if event["event"] == kind]


def test_the_printed_command_repeats_the_run_bit_by_bit(trained):
    code, said = shown("pretrain-in_domain/001", trained)
    assert code == 0
    command, *checks = said.splitlines()
    for what in ("data", "splits", "torch", "hardware"):
        assert f"  {what}: same" in checks
    assert "  initial weights: same: random, drawn from the study's seed" in checks
    assert "  medssl: same" in checks
    assert "  study: same" in checks
    old = encoder_hash(trained.parent / "work")
    program, *arguments = shlex.split(command)
    assert program == "medssl"
    again = subprocess.run([sys.executable, "-m", "medssl", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert encoder_hash(trained.parent / "work-reproduced") == old == encoder_hash(trained.parent / "work")


def test_a_run_is_found_by_each_of_its_names(trained, tmp_path):
    work = open_workspace(trained)
    log = work.folder / "tracking" / "pretrain-in_domain" / "001"
    run_id = read_json(log / "mlflow.json")["run_id"]
    local = find_run(work, "pretrain-in_domain/001")
    assert (local.stage, local.arm, local.part_of) == ("pretrain", "in_domain", None)
    for name in ("pretrain-in_domain", "tracking/pretrain-in_domain/001", run_id, events(log, "start")[0]["id"]):
        assert find_run(work, name) == local
    # The same run as only the tracker has it: the log is gone, the database is there.
    uri = f"sqlite:///{work.folder}/mlflow.db"
    elsewhere = open_workspace(trained, [f"work_dir={tmp_path / 'other'}", f"tracking.uri={uri}"])
    for name in (run_id, events(log, "start")[0]["id"]):
        kept = find_run(elsewhere, name)
        assert (kept.study, kept.arm, kept.data_digest) == (local.study, local.arm, local.data_digest)
        assert kept.records == local.records
    with pytest.raises(TrackingError, match=r"did you mean 'pretrain-in_domain/001'\?; the last runs are: index/001"):
        find_run(work, "pretrain-in_domian/001")
    with pytest.raises(TrackingError, match="is no run of this work folder or its tracker"):
        find_run(work, "0" * 32)


def test_the_command_gives_the_study_of_the_run_back(trained, capsys):
    """Also where whole mappings, such as the arms and a method's settings, have come to the file since, or gone."""
    changed = yaml.safe_load(trained.read_text()) | {
        "arms": {"random": {"init": "random"}},
        "evaluate": {"reference": "random"},
        "encoder": {"backbone": "resnet18", "input_size": 48, "normalization": {"mean": [0.5] * 3, "std": [0.25] * 3}},
        "task": None,
    }
    changed["pretrain"] |= {"method": {"name": "byol", "momentum": 0.9}, "second_view": {"flip": 0.0}}
    changed["finetune"] = {"budgets": ["all"], "linear": None, "full": {"epochs": 2}}
    path = trained.with_name("changed.yaml")
    path.write_text(yaml.safe_dump(changed))
    reproduce(path, "pretrain-in_domain/001")
    command, *checks = capsys.readouterr().out.splitlines()
    words = shlex.split(command)
    sets = [word for before, word in itertools.pairwise(words) if before == "--set"]
    assert "  study: same" in checks
    places = ("work_dir", "tracking", "privacy")
    was, now = (read_study(trained, SETS), read_study(path, sets))
    assert {k: v for k, v in was if k not in places} == {k: v for k, v in now if k not in places}


def test_changed_data_is_not_called_the_same(trained, tmp_path, capsys):
    log = trained.parent / "work" / "tracking" / "pretrain-in_domain" / "001"
    nothing = trained.with_name("nothing.yaml")
    nothing.write_text(yaml.safe_dump(yaml.safe_load(trained.read_text()) | {"work_dir": str(tmp_path / "empty")}))
    copy = tmp_path / "empty" / "tracking" / "pretrain-in_domain" / "001"
    copy.mkdir(parents=True)
    for file in ("events.jsonl", "study.yaml"):
        (copy / file).write_bytes((log / file).read_bytes())
    assert not reproduce(nothing, "pretrain-in_domain/001")
    assert "data: cannot be checked: nothing is indexed in this work folder" in capsys.readouterr().out
    assert not (tmp_path / "empty" / "archive").exists()

    (digest,) = {event["digest"] for event in events(log, "dataset")}
    work = trained.parent / "work" / "tracking" / "pretrain-other" / "001"
    work.mkdir(parents=True)
    (work / "study.yaml").write_bytes((log / "study.yaml").read_bytes())
    (work / "events.jsonl").write_text((log / "events.jsonl").read_text().replace(digest, "f" * 64))
    code, said = shown("pretrain-other/001", trained)
    assert code == 2
    assert f"data: differs: {'f' * 64} was, {digest} is now" in said


def test_a_record_says_what_the_run_was_made_with(indexed):
    with indexed.open_log("pretrain-x", stage="pretrain") as log:
        assert log_record(indexed, index(indexed), log, FILE_INIT) is None
    (path,) = records(log.folder)
    record = read_json(path)
    assert record["inputs"] == {
        "data_digest": index(indexed).data_digest,
        "splits_digest": index(indexed).summary["splits"]["digest"],
        "excluded_digest": index(indexed).summary["splits"]["excluded_digest"],
        "init_source": "file: w.safetensors",
        "init_sha256": "a" * 64,
    }
    (named,) = [event for event in events(log.folder, "artifact") if event["folder"] == "record"]
    assert named["path"] == "record.json"
    (params,) = events(log.folder, "params")
    assert params["params"]["record"]["torch"] == record["versions"]["torch"]
    assert params["params"]["record"]["init_sha256"] == "a" * 64


def test_a_run_that_goes_on_elsewhere_says_what_differs(indexed):
    for number in range(4):
        with indexed.open_log("pretrain-y", stage="pretrain", resume=number > 0) as log:
            if number == 2:  # as if the last start had been on another machine
                was = read_json(log.folder / "record.json")
                was["versions"]["torch"], was["hardware"]["cpu"] = "1.0", "another"
                write_json(log.folder / "record.json", was)
            said = log_record(indexed, index(indexed), log, FILE_INIT)
        if number == 2:
            assert said.startswith('versions.torch was "1.0" and is now "')
            assert "hardware.cpu" in said
        else:
            assert said is None
        assert len(records(log.folder)) == (1 if number < 2 else 2)
    assert [path.name for path in records(log.folder)] == ["record.json", "record_2.json"]


def test_a_record_names_no_machine_user_or_place():
    record = machine_record(Path(__file__))
    text = json.dumps(record)
    for name in (platform.node(), f'"{getpass.getuser()}"', str(Path.cwd()), str(Path(__file__).parent), sys.prefix):
        assert name not in text
    assert set(record) == {"versions", "git", "hardware", "determinism", "threads", "processes"}
    assert record["versions"]["python"] == platform.python_version()
    assert record["hardware"]["cores_available"] >= 1


def git(folder: Path, *arguments: str) -> str:
    about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *about, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_git_state_is_that_of_the_study_files_folder(tmp_path):
    study = tmp_path / "repository" / "configs" / "a.yaml"
    study.parent.mkdir(parents=True)
    study.write_text("seed: 1\n")
    assert git_state(study) is None
    git(tmp_path / "repository", "init", "-q")
    assert git_state(study) is None  # no commit yet
    git(tmp_path / "repository", "add", ".")
    git(tmp_path / "repository", "commit", "-qm", "first")
    commit = git(tmp_path / "repository", "rev-parse", "HEAD")
    (tmp_path / "repository" / "runs").mkdir()
    (tmp_path / "repository" / "runs" / "output").write_text("x")  # what a run writes is no change of its source
    assert git_state(study) == {"commit": commit, "dirty": False}
    (study.parent / "b.yaml").write_text("seed: 2\n")
    assert git_state(study.parent / "b.yaml") == {"commit": commit, "dirty": True}
    study.write_text("seed: 3\n")
    assert git_state(study) == {"commit": commit, "dirty": True}


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nsleep 60\n", "#!/bin/sh\nexit 3\n"])
def test_a_git_that_is_absent_or_hangs_does_not_matter(tmp_path, monkeypatch, script):
    if script is not None:
        (tmp_path / "git").write_text(script)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + (":/bin:/usr/bin" if script else ""))
    monkeypatch.setattr("medssl.stages.record._GIT_SECONDS", 0.3)
    assert git_state(Path(__file__)) is None


def stand_in(indexed, name: str, record: dict | None, *, stage: str = "pretrain", parent: Path | None = None, **study) -> str:
    """A log of a pretraining as if `record` and the changed `study` had been its own."""
    with indexed.open_log(name, stage=stage, parent=parent, tags={"medssl.arm": "in_domain"}) as log:
        was = redact_study(indexed.study.model_dump(mode="json")) | study
        (log.folder / "study.yaml").write_text(yaml.safe_dump(was))
        if record is not None:
            write_json(log.folder / "record.json", record)
    return f"{name}/{log.folder.name}"


def test_weights_and_versions_are_compared_with_the_record(indexed, tmp_path, capsys):
    from medssl.stages.encoders import initial_encoder

    archive = index(indexed)
    with indexed.open_log("pretrain-z", stage="pretrain") as log:
        log_record(indexed, archive, log, initial_encoder(indexed, "imagenet_in_domain")[1])
    record = read_json(log.folder / "record.json")
    arms = {"in_domain": {"init": "imagenet", "method": "simsiam", "sources": None}, "imagenet": {"init": "imagenet"}}
    arms["imagenet"] |= {"method": None, "sources": None}
    config = indexed.study_file
    assert reproduce(config, stand_in(indexed, "pretrain-z", record, arms=arms))
    said = capsys.readouterr().out
    for what in ("data", "splits", "initial weights", "medssl", "torch", "hardware", "study"):
        assert f"  {what}: same\n" in said

    record["inputs"] |= {"init_sha256": "b" * 64, "splits_digest": "c" * 64}
    record["versions"]["torch"] = "1.0"
    assert not reproduce(config, stand_in(indexed, "pretrain-z", record, arms=arms))
    said = capsys.readouterr().out
    assert f"initial weights: differs: {'b' * 64} was, " in said
    assert f"splits: differs: {'c' * 64} was, " in said
    assert "torch: differs: 1.0 was, " in said
    assert not reproduce(config, stand_in(indexed, "pretrain-z", None, arms=arms))
    assert "initial weights: cannot be checked: the run kept no record of it" in capsys.readouterr().out


def test_what_one_command_cannot_repeat_is_said_in_one_line(indexed):
    config = indexed.study_file
    with pytest.raises(TrackingError, match="is a run of views; allowed: runs of index, pretrain"):
        reproduce(config, stand_in(indexed, "views", None, stage="views"))
    with indexed.open_log("sweep", stage="sweep") as log:
        part = stand_in(indexed, "sweep-1", None, stage="sweep", parent=log.folder)
    with pytest.raises(TrackingError, match="is a part of the run sweep/001; reproduce that one"):
        reproduce(config, part)
    arms = {"in_domain": {"init": "<local>", "method": "simsiam", "sources": None}}
    with pytest.raises(StudyError, match=r"^arms\.in_domain\.init: the run took a file from its own machine; set this key"):
        reproduce(config, stand_in(indexed, "pretrain-w", None, arms=arms))
    data = {"other": {"card": "phantom_cxr", "root": "<local>"}}
    with pytest.raises(StudyError, match=r"^data\.other: the run read this data set; add it"):
        reproduce(config, stand_in(indexed, "pretrain-v", None, data=data))
