"""pretrain: self-supervised training on the unlabelled archive, one encoder for every arm that needs one, or several."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np

import medssl
from medssl.data.archive import Archive
from medssl.errors import CheckpointError, DataError, StoreError
from medssl.files import digest_of, write_atomic
from medssl.stages.index import index
from medssl.stages.pretrain_arm import ENCODER, Job, pretrain_arm, run_name
from medssl.stages.pretraining import pair_settings, plan_of
from medssl.stages.receipt import is_made_from, read_receipt
from medssl.stages.registering import register_late
from medssl.stages.screen import mute, say
from medssl.stages.starts import start_of
from medssl.stages.views import check_fit, chosen_settings, tell_departures, tell_enlarged_crops
from medssl.stages.workspace import Workspace, check_components
from medssl.training.checkpoint import describe, differences
from medssl.training.distributed import World
from medssl.training.stop import stop_on_signals

# Keys of `pretrain` that do not change what a run comes to, or that are said of it otherwise.
UNSHAPING = {
    "sources",
    "checkpoint",
    "recompute",
    "log_every_steps",
    "knn_images",
    "collapse",
    "optimizer",
    "seeds",
    "converged_epochs",
}


def pretrain(
    work: Workspace, *, arms: list[str] | None = None, fresh: bool = False, force: bool = False, world: World = World()
) -> None:
    """Train the encoder of each arm that has a method, where it is not there yet.

    Args:
        force: go on from a checkpoint of other settings, data or versions.
        world: the processes that share the work; all of them call this.

    Raises:
        Stopped: a signal asked for it; the same command goes on.
        UserError: see the errors of each part.
    """
    if not world.leads:
        mute()
    check_components(work.study)
    _check_shared(work, world)
    chosen = [name for name in work.chosen_arms(arms) if work.study.arms[name].method]
    with world.leader_first():
        archive = index(work)
    if not chosen:
        say("pretrain", "none of these arms is pretrained")
        return
    # Every arm's first run before any second: what a comparison needs most is there first.
    jobs = [_job(work, archive, name, run) for run in range(work.study.pretrain.seeds) for name in chosen]
    todo = [job for job in jobs if fresh or not _is_done(job)]
    for job in jobs:
        if job not in todo:
            say("pretrain", f"{job.name}: nothing has changed, its encoder is in {job.folder / ENCODER}")
            if world.leads:
                register_late(work, job.name, ENCODER, job.tags)
    if todo:
        _tell_cost(work, archive, todo)
    with stop_on_signals() as stop:
        for job in todo:
            pretrain_arm(work, archive, job, stop, world, fresh=fresh, force=force)


def _check_shared(work: Workspace, world: World) -> None:
    """Refuse machines that do not see the same work folder.

    Raises:
        StoreError: this one sees another.
    """
    if world.size == 1:
        return
    token = work.folder / f".ranks-{world.tell('folder', secrets.token_hex(8) if world.leads else None)}"
    with world.leader_first():
        if world.leads:
            write_atomic(token, "")
        elif not token.exists():
            raise StoreError(
                "work_dir: this process does not see the folder that rank 0 writes into; all machines of a run must share it (NFS or alike)"
            )
    world.wait()
    if world.leads:
        token.unlink()


def run_folder(work: Workspace, arm: str, run: int = 0) -> Path:
    """The folder of one pretraining run (from 0) of an arm: pretrain/ARM, and pretrain/ARM-run1 and so on for further ones."""
    return work.folder / "pretrain" / run_name(arm, run)


def encoder_folder(work: Workspace, arm: str, run: int = 0) -> Path:
    """Where the encoder of a pretraining run of an arm is."""
    return run_folder(work, arm, run) / ENCODER


def pretrain_facts(work: Workspace, arm: str, run: int = 0) -> dict[str, Any]:
    """What the receipt of a finished pretraining run says: see `medssl.stages.pretrain_arm`.

    Raises:
        CheckpointError: the run is not finished.
    """
    receipt = read_receipt(run_folder(work, arm, run))
    if receipt is None:
        raise CheckpointError(f"pretrain/{run_name(arm, run)}: is not pretrained yet; `medssl pretrain` does it")
    return receipt["facts"]


def pretrain_inputs(work: Workspace, archive: Archive, arm: str, rows: np.ndarray, run: int = 0) -> dict[str, Any]:
    """What the encoder of an arm's run depends on: settings that shape it, and digests of the images that it sees, at the positions
    `rows`, and of the weights that it starts from, where they come from a file or MLflow."""
    study = work.study
    shaping = study.pretrain.model_dump(mode="json", exclude=UNSHAPING)
    plan, start = plan_of(study), start_of(work, arm)
    weights = {} if start.sha256 is None else {"init_sha256": start.sha256}
    return {
        "medssl": medssl.__version__,
        "seed": study.seed_of_run(run),
        "encoder": study.encoder.model_dump(mode="json", exclude={"batch_norm"}),
        "store_size": study.store_size,
        "pretrain": shaping
        | {
            "method": plan.method.model_dump(mode="json"),
            "optimizer": plan.recipe.model_dump(mode="json"),
            "views": chosen_settings(work, "pretrain").model_dump(mode="json", exclude_none=True),
        },
        "pairs": pair_settings(work, study.sources_of(arm), plan),
        "arm": {"init": study.arms[arm].init, "method": study.arms[arm].method, "sources": study.sources_of(arm)} | weights,
        "data": digest_of(archive.manifest["exact_hash"].iloc[rows].tolist()),
        "excluded": archive.summary["splits"]["excluded_digest"],
    }


def _is_done(job: Job) -> bool:
    """Whether the arm's encoder is there.

    Raises:
        CheckpointError: it is there, but of other settings: days of training are not thrown away without being asked to.
    """
    receipt = read_receipt(job.folder)
    if receipt is None or is_made_from(job.folder, job.inputs):
        return receipt is not None
    changed = describe(differences(receipt["inputs"], job.inputs))
    raise CheckpointError(
        f"pretrain/{job.name}: its encoder belongs to another study: {changed}; put the study back, choose another work_dir, "
        "or train it anew with --fresh"
    )


def _job(work: Workspace, archive: Archive, arm: str, run: int) -> Job:
    rows = archive.require_images(archive.rows(pretrain=True, source=work.study.sources_of(arm)))
    return Job(arm, run, run_folder(work, arm, run), rows, pretrain_inputs(work, archive, arm, rows, run))


def _tell_cost(work: Workspace, archive: Archive, jobs: list[Job]) -> None:
    settings, plan = work.study.pretrain, plan_of(work.study)
    for arm in dict.fromkeys(job.arm for job in jobs):
        mine = [job for job in jobs if job.arm == arm]
        images = len(mine[0].rows)
        steps = images // settings.batch_size * settings.epochs
        if steps == 0:
            raise DataError(
                f"pretrain: {arm} has {images:,} images, fewer than one batch of {settings.batch_size}; lower pretrain.batch_size"
            )
        check_fit(archive, mine[0].rows, chosen_settings(work, "pretrain"))
        seen = steps * settings.batch_size
        text = f"{arm}: {settings.epochs} epochs of {images:,} images, {steps:,} steps of {settings.batch_size}, {seen:,} samples seen"
        times = f", {len(mine)} times: {len(mine) * seen:,} samples in all" if len(mine) > 1 else ""
        say("pretrain", f"{text} at {work.study.encoder.input_size} px{times}")
    say("pretrain", f"{plan.method.name}, {plan.text()}")
    views = chosen_settings(work, "pretrain")
    tell_enlarged_crops(work, views)
    tell_departures(views)
