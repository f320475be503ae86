"""reproduce: the command that repeats a run, and whether it can come out the same here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medssl.errors import StudyError, TrackingError, UserError
from medssl.stages.past_run import PastRun, find_run
from medssl.stages.record import input_hashes, machine_record
from medssl.stages.screen import console
from medssl.stages.workspace import Workspace, open_workspace
from medssl.strict import StrictModel, parse_yaml
from medssl.study import Study
from medssl.tracking.redact import LOCAL, redact_study, without_paths

STAGES = ("index", "pretrain", "finetune", "evaluate", "compare", "sweep")
_PLACES = ("work_dir", "tracking", "privacy")  # where things lie and are shown: no part of what a run computes
_NO_RECORD = "the run kept no record of it"


@dataclass(frozen=True)
class Check:
    """What one line says: whether one thing is what it was."""

    what: str
    state: Literal["same", "differs", "cannot be checked"]
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.state}" + (f": {self.why}" if self.why else "")


def reproduce(config: Path, run: str) -> bool:
    """Print the command line that repeats a run, in a work folder of its own, and what differs here; trains nothing.

    Args:
        run: see `find_run`.

    Returns:
        Whether data and initial weights are those of the run.

    Raises:
        TrackingError: there is no such run, or it is none that one command repeats.
        StudyError: the study file does not fit the run.
    """
    work = open_workspace(config)
    past = find_run(work, run)
    if past.part_of is not None:
        raise TrackingError(f"{past.name}: is a part of the run {past.part_of}; reproduce that one")
    if past.stage not in STAGES:
        raise TrackingError(f"{past.name}: is a run of {past.stage}; allowed: runs of {', '.join(STAGES)}")
    changes = [f"{key}={_text(value)}" for key, value in _changes(past.study, work.study.model_dump(mode="json"))]
    again = open_workspace(config, changes)
    console.out(_command(past, config, changes, again.folder), highlight=False)
    checks = [
        *_data_checks(past, again),
        *_weights_checks(past, again),
        *_machine_checks(past, config),
        _study_check(past, again),
    ]
    for check in checks:
        console.out(f"  {check}", highlight=False)
    if len(past.records) > 1:
        console.out(f"  the run went on {len(past.records) - 1} times on another machine or with other versions", highlight=False)
    return all(check.state == "same" for check in checks if check.what in ("data", "initial weights"))


def _command(past: PastRun, config: Path, changes: list[str], folder: Path) -> str:
    # The old work folder stays as it is: it holds the run's own encoder.
    sets = [part for change in [*changes, f"work_dir={folder}-reproduced"] for part in ("--set", change)]
    arm = ["--arm", past.arm] if past.arm and past.stage in ("pretrain", "finetune") else []
    return shlex.join(["medssl", past.stage, "--config", str(config), *sets, *arm, "--fresh"])


def _changes(past: dict[str, Any], now: dict[str, Any], model: type = Study, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of the study that must be set to be what it was. A mapping that is no section of the file is set as a whole."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if key in _PLACES or name not in past:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, StrictModel):
            yield from _changes(past[name], now[name], field.annotation, f"{key}.")
            continue
        value = _sources(past[name], now[name]) if key == "data" else _filled(past[name], now[name], key)
        if json.dumps(value, sort_keys=True) != json.dumps(now[name], sort_keys=True):
            yield key, value


def _sources(past: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The run's data sets where they lie on this machine, which the present study file knows."""
    for name, source in past.items():
        if name not in now and source.get("root") is not None:
            raise StudyError(f"data.{name}: the run read this data set; add it to the study file, with its root")
    return {
        name: _filled(source, now.get(name), f"data.{name}") | {"root": now[name]["root"] if name in now else None}
        for name, source in ((name, source | {"root": None}) for name, source in past.items())
    }


def _filled(past: Any, now: Any, key: str) -> Any:
    """`past` with the places that it does not say taken from the same key of the present study file."""
    if past == LOCAL:
        if without_paths(now) != LOCAL:
            raise StudyError(f"{key}: the run took a file from its own machine; set this key to where that file lies here")
        return now
    if isinstance(past, dict):
        return {
            name: _filled(value, now.get(name) if isinstance(now, dict) else None, f"{key}.{name}")
            for name, value in past.items()
        }
    if isinstance(past, list):
        others = now if isinstance(now, list) and len(now) == len(past) else [None] * len(past)
        return [_filled(value, other, key) for value, other in zip(past, others, strict=True)]
    return past


def _text(value: Any) -> str:
    """`value` as `--set` reads it: JSON, which is YAML, or plain text where that reads back as the same."""
    try:
        if isinstance(value, str) and parse_yaml(value, "", StudyError) == value:
            return value
    except StudyError:
        pass
    return json.dumps(value, ensure_ascii=False)


def _compared(what: str, before: Any, now: Any) -> Check:
    if before is None:
        return Check(what, "cannot be checked", _NO_RECORD)
    return Check(what, "same") if before == now else Check(what, "differs", f"{before} was, {now} is now")


def _data_checks(past: PastRun, work: Workspace) -> list[Check]:
    """Data and splits, where the archive in the work folder is that of today's files and the run's settings."""
    from medssl.data.archive import open_archive
    from medssl.stages.index import archive_inputs
    from medssl.stages.receipt import is_made_from, read_receipt
    from medssl.stages.sources import Source
    from medssl.stages.split_tables import split_inputs

    archive, splits = work.folder / "archive", work.folder / "splits"
    recorded = past.records[0]["inputs"] if past.records else {}
    why = None
    if read_receipt(archive) is None or read_receipt(splits) is None:
        why = f"nothing is indexed in this work folder; `medssl index --config {work.study_file}` does it"
    else:
        try:
            if not is_made_from(archive, archive_inputs(work, [Source(work, name) for name in sorted(work.study.data)])):
                why = (
                    "the archive here is not of today's files, the run's settings and this medssl; the repeated run makes its own"
                )
        except UserError as problem:
            why = str(problem)
    if why is not None:
        return [Check("data", "cannot be checked", why), Check("splits", "cannot be checked", why)]
    now = input_hashes(open_archive(archive, splits))
    data = _compared("data", recorded.get("data_digest") or past.data_digest, now["data_digest"])
    if not is_made_from(splits, split_inputs(work, archive)):
        return [data, Check("splits", "cannot be checked", "the splits here are not of the run's task and seed")]
    return [data, _compared("splits", recorded.get("splits_digest"), now["splits_digest"])]


def _weights_checks(past: PastRun, work: Workspace) -> list[Check]:
    """What a pretraining started from; other stages start from what stages before them made."""
    from medssl.stages.encoders import initial_encoder

    if past.stage != "pretrain":
        return []
    what = "initial weights"
    if work.study.arms[past.arm].init == "random":
        return [Check(what, "same", "random, drawn from the study's seed")]
    if not past.records:
        return [Check(what, "cannot be checked", _NO_RECORD)]
    try:
        _, init = initial_encoder(work, past.arm)
    except UserError as problem:
        return [Check(what, "cannot be checked", str(problem))]
    return [_compared(what, past.records[0]["inputs"]["init_sha256"], init.sha256)]


def _machine_checks(past: PastRun, config: Path) -> list[Check]:
    now, was = machine_record(config), past.records[0] if past.records else {}
    versions, hardware = was.get("versions", {}), was.get("hardware")
    return [
        _compared("medssl", versions.get("medssl") or past.version, now["versions"]["medssl"]),
        _compared("torch", versions.get("torch"), now["versions"]["torch"]),
        _compared("hardware", hardware and _machine(was), _machine(now)),
    ]


def _machine(record: dict[str, Any]) -> str:
    """What decides in which order a machine adds up numbers: processor, threads, GPUs."""
    hardware = record["hardware"]
    gpus = ", ".join(gpu["name"] for gpu in hardware["gpus"]) or "no GPU"
    return f"{hardware['cpu']} with {record['threads']} threads, {gpus}"


def _study_check(past: PastRun, work: Workspace) -> Check:
    """Whether the changes gave the study back: a key that this medssl no longer has cannot be set."""
    from medssl.training.checkpoint import describe, differences

    studies = [past.study, redact_study(work.study.model_dump(mode="json"))]
    kept = [{key: value for key, value in study.items() if key not in _PLACES} for study in studies]
    for study in kept:
        study["data"] = {name: source | {"root": None} for name, source in study["data"].items()}
    changed = differences(*kept)
    return Check("study", "differs", describe(changed)) if changed else Check("study", "same")
