"""pretrain: self-supervised training on the unlabelled archive, one encoder for every arm that needs one."""

from __future__ import annotations

import math
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import medssl
from medssl.data.archive import Archive
from medssl.data.placement import place
from medssl.data.splits import assert_disjoint
from medssl.errors import CheckpointError, DataError, StoreError
from medssl.files import digest_of, write_atomic
from medssl.methods import method_settings
from medssl.methods.collapse import CollapseMonitor, Judge
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import EncoderCard, save_encoder
from medssl.models.recompute import recompute_activations
from medssl.models.weights import InitRecord
from medssl.stages.devices import choose_device
from medssl.stages.encoders import initial_encoder
from medssl.stages.index import index
from medssl.stages.pretraining import build_run, new_method, pair_settings, plan_of, try_encoder
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import bar, minutes, mute, say, warn
from medssl.stages.tracked import track_data
from medssl.stages.views import check_fit, chosen_settings, log_views, tell_departures, tell_enlarged_crops
from medssl.stages.watch import FIGURE, KnnWatch, Watch, draw_collapse, feed_monitor
from medssl.stages.workspace import Workspace, check_components
from medssl.training.checkpoint import Checkpoints, describe, differences
from medssl.training.compiling import compile_or_say
from medssl.training.distributed import World
from medssl.training.loop import check_batch, seconds_per_step, surroundings, train
from medssl.training.stop import StopFlag, stop_on_signals
from medssl.training.sync_batch_norm import synchronize_batch_norm

STEPS = [  # of the preprocessing, for people who read encoder.json
    "decode one grey image, full dynamic range",
    "resize the longer side to store_size with antialiasing, pad to the square with black",
    "map stored values to units, apply the window, invert where high values are dark, clip to [0, 1]",
    "resize to input_size with antialiasing",
    "repeat the grey channel, subtract mean, divide by std (inside the encoder)",
]


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
    todo = [name for name in chosen if fresh or not _is_done(work, archive, name)]
    for name in chosen:
        if name not in todo:
            say("pretrain", f"{name}: nothing has changed, its encoder is in {encoder_folder(work, name)}")
    if todo:
        _tell_cost(work, archive, todo)
    with stop_on_signals() as stop:
        for name in todo:
            _pretrain_arm(work, archive, name, stop, world, fresh=fresh, force=force)


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


def encoder_folder(work: Workspace, arm: str) -> Path:
    """Where an arm's pretrained encoder is."""
    return work.folder / "pretrain" / arm / "encoder"


def pretrain_inputs(work: Workspace, archive: Archive, arm: str) -> dict[str, Any]:
    """What an arm's encoder depends on: settings that shape it, and digests of what it sees."""
    study = work.study
    shaping = study.pretrain.model_dump(
        mode="json", exclude={"sources", "checkpoint", "recompute", "log_every_steps", "knn_images", "collapse", "optimizer"}
    )
    plan = plan_of(study)
    return {
        "medssl": medssl.__version__,
        "seed": study.seed,
        "encoder": study.encoder.model_dump(mode="json", exclude={"batch_norm"}),
        "store_size": study.store_size,
        "pretrain": shaping
        | {
            "method": plan.method.model_dump(mode="json"),
            "optimizer": plan.recipe.model_dump(mode="json"),
            "views": chosen_settings(work, "pretrain").model_dump(mode="json", exclude_none=True),
        },
        "pairs": pair_settings(work, study.sources_of(arm), plan),
        "arm": {"init": study.arms[arm].init, "method": study.arms[arm].method, "sources": study.sources_of(arm)},
        "data": digest_of(archive.manifest["exact_hash"].iloc[_rows(work, archive, arm)].tolist()),
        "excluded": archive.summary["splits"]["excluded_digest"],
    }


def _rows(work: Workspace, archive: Archive, arm: str) -> np.ndarray:
    return archive.require_images(archive.rows(pretrain=True, source=work.study.sources_of(arm)))


def _is_done(work: Workspace, archive: Archive, arm: str) -> bool:
    """Whether the arm's encoder is there.

    Raises:
        CheckpointError: it is there, but of other settings: days of training are not thrown away without being asked to.
    """
    folder, inputs = work.folder / "pretrain" / arm, pretrain_inputs(work, archive, arm)
    receipt = read_receipt(folder)
    if receipt is None or is_made_from(folder, inputs):
        return receipt is not None
    changed = describe(differences(receipt["inputs"], inputs))
    raise CheckpointError(
        f"pretrain/{arm}: its encoder belongs to another study: {changed}; put the study back, choose another work_dir, "
        "or train it anew with --fresh"
    )


def _tell_cost(work: Workspace, archive: Archive, arms: list[str]) -> None:
    settings, plan = work.study.pretrain, plan_of(work.study)
    for arm in arms:
        rows = _rows(work, archive, arm)
        images = len(rows)
        steps = images // settings.batch_size * settings.epochs
        if steps == 0:
            raise DataError(
                f"pretrain: {arm} has {images:,} images, fewer than one batch of {settings.batch_size}; lower pretrain.batch_size"
            )
        check_fit(archive, rows, chosen_settings(work, "pretrain"))
        seen = steps * settings.batch_size
        text = f"{arm}: {settings.epochs} epochs of {images:,} images, {steps:,} steps of {settings.batch_size}, {seen:,} samples seen"
        say("pretrain", f"{text} at {work.study.encoder.input_size} px")
    say("pretrain", f"{plan.method.name}, {plan.text()}")
    views = chosen_settings(work, "pretrain")
    tell_enlarged_crops(work, views)
    tell_departures(views)


def _pretrain_arm(work: Workspace, archive: Archive, arm: str, stop: StopFlag, world: World, *, fresh: bool, force: bool) -> None:
    folder, inputs = work.folder / "pretrain" / arm, pretrain_inputs(work, archive, arm)
    settings, device, plan = (
        work.study.pretrain,
        choose_device(work.study, world.local_rank if world.size > 1 else None),
        plan_of(work.study),
    )
    rows = _rows(work, archive, arm)
    if not work.study.pretrain.transductive:
        assert_disjoint(archive.splits, archive.manifest["exact_hash"], rows, archive.near)
    encoder, init = initial_encoder(work, arm)
    method = new_method(work, plan, encoder, device)
    if world.size > 1 and settings.sync_batch_norm and method.sync_batch_norm:
        method = synchronize_batch_norm(method, device)
    checkpoints = Checkpoints(folder / "checkpoints", keep=settings.checkpoint.keep, say=warn, force=force)
    run = build_run(work, archive, rows, method, plan, device, checkpoints=checkpoints, inputs=inputs)
    check_batch(run, world.size)
    if settings.recompute:
        say("pretrain", f"{arm}: {recompute_activations(encoder)} blocks compute their activations again instead of keeping them")
    monitor = CollapseMonitor(method.dim, encoder.feature_dim)
    judge = Judge(run.total_steps * run.batch_size, patience=settings.collapse.patience)
    run.extra_state = {"monitor": monitor, "judge": judge}
    with world.leader_first():
        if fresh and world.leads:  # not before everything that may be wrong has been checked
            shutil.rmtree(folder, ignore_errors=True)
    loaded = checkpoints.load(inputs)  # refused here, before the log goes on
    resume, done = loaded is not None, 0 if loaded is None else loaded.step
    goes_on = f", going on from its checkpoint after step {done:,}" if resume else ""
    say("pretrain", f"{arm}: from {init.source} ({init.matched} tensors){goes_on}")
    if resume and (changed := differences(loaded.surroundings, surroundings(run, world))):
        warn(f"pretrain: {arm}: goes on in other surroundings, so not bit by bit as before: {describe(changed)}")
    if world.size > 1:
        say(
            "pretrain",
            f"{arm}: {world.size} processes, {run.batch_size // world.size} of the {run.batch_size} samples of a step each",
        )
    say("pretrain", f"{arm}: {place(run.source, device, work.study.store.placement)}")
    if run.pairs is not None:
        say("pretrain", f"{arm}: {run.pairs.sentence()}")
    if settings.compile and compile_or_say(encoder, lambda: try_encoder(encoder, run, world.size), warn):
        say("pretrain", f"{arm}: the encoder is compiled")
    for sentence in method.cautions(len(rows), plan.batch_size // plan.accumulate):
        warn(f"pretrain: {plan.method.name}: {sentence}")
    if not resume:
        seconds = seconds_per_step(run, world)
        cost = minutes(seconds * run.total_steps)
        say("pretrain", f"{arm}: about {cost} on this {device.type} at {run.batch_size / seconds:.0f} samples/s")
    if not world.leads:
        run.on_step = lambda step: feed_monitor(monitor, step)
        train(run, stop, world)
        return
    with work.open_log(f"pretrain-{arm}", stage="pretrain", resume=resume, params=inputs, tags={"medssl.arm": arm}) as log:
        track_data(work, log, archive.summary, work.study.sources_of(arm), "pretraining")
        if said := log_record(work, archive, log, init):
            warn(f"pretrain: {arm}: {said}")
        if not resume:
            log_views(work, archive, rows, folder, log)
        with bar(f"pretrain {arm}", run.total_steps, done) as progress:
            knn = KnnWatch(work, archive, encoder, device) if settings.knn_images and work.study.task else None
            watch = Watch(arm, log, progress, monitor, judge, knn, settings, run)
            run.on_step, run.on_epoch = watch.on_step, watch.on_epoch
            try:
                train(run, stop, world)
            finally:  # also of a run that was stopped: the figure is what its user wants to see
                draw_collapse(log, folder / FIGURE, arm)
        figures = watch.last()
        state, sentence = judge.final(figures)
        seen = run.total_steps * run.batch_size
        card = encoder_card(work, archive, encoder, init, arm=arm, epochs=run.epochs, seen=seen, metrics=figures)
        save_encoder(folder / "encoder", encoder, card)
        log.artifact(folder / "encoder", folder="encoder")
    write_receipt(
        folder,
        inputs,
        init=vars(init) | {"missing": [], "unexpected": list(init.unexpected)},
        samples_seen=seen,
        figures=figures,
        verdict=state,
        sentence=sentence,
        dim=method.dim,
        pairs=None if run.pairs is None else run.pairs.sentence(),
    )
    checkpoints.clear()
    (say if state == "healthy" else lambda _, text: warn(text))("pretrain", f"{arm}: {state}. {sentence}")
    say("pretrain", f"{arm}: the encoder is in {folder / 'encoder'}")


def encoder_card(
    work: Workspace,
    archive: Archive,
    encoder: Encoder,
    init: InitRecord,
    *,
    arm: str,
    epochs: int,
    seen: int,
    metrics: dict[str, float],
) -> EncoderCard:
    """What encoder.json says about an arm's encoder."""
    study = work.study
    reading = [work.cards[source].read for source in study.sources_of(arm)]
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return EncoderCard(
        medssl_version=medssl.__version__,
        backbone=study.encoder.backbone,
        stem=study.encoder.stem,
        group_norm=study.encoder.group_norm,
        input_size=study.encoder.input_size,
        feature_dim=encoder.feature_dim,
        normalization={"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()},
        preprocessing={
            "store_size": study.store_size,
            "window": study.encoder.window,
            "channels": "rgb" if any(options.channels == "rgb" for options in reading) else "grey",
            # Data sets may differ in this; a file of the user's is then read as those of the first.
            "file_window": reading[0].window,
            "steps": STEPS,
        },
        batch_norm=study.encoder.batch_norm,
        init={"source": init.source, "sha256": init.sha256},
        method={"name": study.arms[arm].method, "settings": method_settings(study.pretrain.method).model_dump(mode="json")},
        epochs=epochs,
        samples_seen=seen,
        seed=study.seed,
        data_digest=archive.data_digest,
        excluded_digest=archive.summary["splits"]["excluded_digest"],
        metrics=finite,
        synthetic=work.synthetic,
    )
