"""A short pretraining of which only its figures are kept: what `diagnose` and `sweep` are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medssl
from medssl.data.archive import Archive
from medssl.errors import CollapseError
from medssl.files import digest_of
from medssl.methods import Method
from medssl.methods.collapse import CollapseMonitor, Judge, nearness
from medssl.models.weights import InitRecord
from medssl.stages.encoders import initial_encoder
from medssl.stages.pretraining import Plan, build_run, described, new_method, pair_settings
from medssl.stages.screen import bar
from medssl.stages.starts import start_of
from medssl.stages.watch import Watch
from medssl.stages.workspace import Workspace
from medssl.tracking import lines
from medssl.tracking.log import METRICS
from medssl.training.loop import Run, drawn_at, train
from medssl.training.stop import StopFlag


@dataclass(frozen=True)
class Trial:
    """What one short pretraining was."""

    name: str
    figures: dict[str, float]  # of the monitor at the end
    nearness: list[float] | None  # of two views of an image, at the start and at the end; None: there is one z alone
    state: str
    sentence: str
    history: list[dict[str, Any]]  # the records of its log


def run_trial(
    work: Workspace,
    archive: Archive,
    rows: np.ndarray,
    plan: Plan,
    *,
    arm: str,
    name: str,
    stage: str,
    parent: Path,
    device: torch.device,
    stop: StopFlag,
    interval: int | None = None,
) -> tuple[Trial, Method]:
    """Pretrain for `plan.max_steps` steps from the weights that `arm` starts from, as a child run of `parent` in the tracker.

    A trial that diverges is a result, not an error. There is no checkpoint: a trial that is stopped is done again.

    Args:
        name: of the trial's run; its log lies in tracking/<stage>-<name>.
        interval: steps between two checks of the monitor; None: as in a long pretraining.

    Raises:
        Stopped: a signal asked for it.
        DataError: see `build_run`.
    """
    encoder, init = initial_encoder(work, arm)
    method = new_method(work, plan, encoder, device)
    run = build_run(work, archive, rows, method, plan, device)
    monitor = CollapseMonitor(method.dim, encoder.feature_dim)
    judge = Judge(run.total_steps * run.batch_size, patience=work.study.pretrain.collapse.patience)
    first = _nearness_at_start(run, method, CollapseMonitor(method.dim, encoder.feature_dim))
    params = described(plan) | {"arm": arm, "init": _init(init)}
    with work.open_log(f"{stage}-{name}", stage=stage, parent=parent, params=params) as log:
        with bar(f"{stage} {name}", run.total_steps) as progress:
            watch = Watch(name, log, progress, monitor, judge, None, work.study.pretrain, run, interval=interval, quiet=True)
            run.on_step = watch.on_step
            try:
                train(run, stop)
                figures = watch.last()
            except CollapseError:
                figures = watch.last() | {"loss": float("nan")}
        history = [record for _, record in lines.read(log.folder / METRICS)]
    state, sentence = judge.final(figures)
    last = nearness(figures)
    return Trial(name, figures, None if first is None or last is None else [first, last], state, sentence, history), method


@torch.no_grad()
def _nearness_at_start(run: Run, method: Method, monitor: CollapseMonitor) -> float | None:
    """What training has to improve on: a random network also brings two views of one image somewhat nearer than different images.

    The method is left as it was.
    """
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train()
    for step in range(min(run.total_steps, math.ceil(monitor.rows / run.batch_size))):
        for drawn in drawn_at(run, step):
            monitor.update(run.forward(method, drawn))
    method.load_state_dict(before)
    return nearness(monitor.report())


def trial_inputs(work: Workspace, archive: Archive, rows: np.ndarray, plan: Plan, arm: str) -> dict[str, Any]:
    """What a trial depends on."""
    study, start = work.study, start_of(work, arm)
    weights = {} if start.sha256 is None else {"init_sha256": start.sha256}
    return weights | {
        "medssl": medssl.__version__,
        "plan": described(plan),
        "arm": study.arms[arm].model_dump(mode="json"),
        "encoder": study.encoder.model_dump(mode="json"),
        "store_size": study.store_size,
        "precision": study.pretrain.precision,
        "patience": study.pretrain.collapse.patience,
        "seed": study.seed,
        "data": digest_of(archive.manifest["exact_hash"].iloc[rows].tolist()),
        "pairs": pair_settings(work, study.sources_of(arm), plan),
    }


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Figures as they were, from a receipt, in which NaN and infinities are words."""
    return {name: float(value) for name, value in figures.items()}


def _init(init: InitRecord) -> dict[str, Any]:
    return {"source": init.source, "sha256": init.sha256}
