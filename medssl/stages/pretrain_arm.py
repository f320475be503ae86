"""The pretraining of one arm, by one process or by several."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.archive import Archive
from medssl.data.placement import place
from medssl.data.splits import assert_disjoint
from medssl.errors import CheckpointError, CollapseError
from medssl.files import write_atomic
from medssl.methods import Method
from medssl.methods.collapse import CollapseMonitor, Judge
from medssl.models.encoder import Encoder
from medssl.models.encoder_file import save_encoder
from medssl.models.recompute import recompute_activations
from medssl.models.weights import InitRecord
from medssl.stages.devices import choose_device
from medssl.stages.encoder_card import encoder_card
from medssl.stages.encoders import initial_encoder, tell_start
from medssl.stages.pretraining import Plan, build_run, new_method, plan_of, try_encoder
from medssl.stages.provenance import Provenance
from medssl.stages.receipt import write_receipt
from medssl.stages.record import log_record
from medssl.stages.registering import register_encoder
from medssl.stages.screen import bar, minutes, say, warn
from medssl.stages.tracked import track_data
from medssl.stages.views import log_views
from medssl.stages.watch import FIGURE, KnnWatch, Watch, can_watch, draw_collapse, feed_monitor
from medssl.stages.workspace import Workspace
from medssl.tracking import lines
from medssl.tracking.locks import locked
from medssl.tracking.log import METRICS
from medssl.training.checkpoint import Checkpoints, describe, differences
from medssl.training.compiling import compile_or_say
from medssl.training.convergence import converged
from medssl.training.distributed import World
from medssl.training.divergence import REPORT as DIVERGENCE
from medssl.training.divergence import DivergenceError
from medssl.training.loop import Run, check_batch, seconds_per_step, surroundings, train
from medssl.training.stop import StopFlag
from medssl.training.sync_batch_norm import synchronize_batch_norm

ENCODER = "encoder"  # folder of a finished encoder below that of its run


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be made."""

    arm: str
    run: int  # which pretraining run of the arm, from 0
    folder: Path
    rows: np.ndarray  # positions in the manifest of the images that it sees
    inputs: dict[str, Any]  # what the encoder depends on

    @property
    def name(self) -> str:
        """Of the run: its folder below pretrain/, and in its log and messages."""
        return run_name(self.arm, self.run)

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.inputs["seed"]

    @property
    def tags(self) -> dict[str, str]:
        """Of the run in the tracker."""
        return {"medssl.arm": self.arm, "medssl.run": str(self.run)}


def run_name(arm: str, run: int) -> str:
    """`in_domain` for an arm's first run, `in_domain-run1` for the next: no arm's name has a hyphen."""
    return f"{arm}-run{run}" if run else arm


@dataclass
class _Training:
    plan: Plan
    encoder: Encoder
    init: InitRecord
    known: Provenance  # whether the initial weights may have seen the held-out patients
    method: Method
    run: Run
    monitor: CollapseMonitor
    judge: Judge
    done: int = 0  # steps of a former start


def pretrain_arm(work: Workspace, archive: Archive, job: Job, stop: StopFlag, world: World, *, fresh: bool, force: bool) -> None:
    """Train an arm's encoder, from its checkpoint where there is one; rank 0 writes it.

    Raises:
        Stopped: a signal asked for it; the same command goes on.
        UserError: see the errors of each part.
    """
    with _alone(job) if world.leads else nullcontext():
        training = _build(work, archive, job, world, force=force)
        with world.leader_first():
            if fresh and world.leads:  # not before everything that may be wrong has been checked
                shutil.rmtree(job.folder, ignore_errors=True)
        _look_back(job, training, world)
        _get_ready(work, job, training, world)
        if world.leads:
            _lead(work, archive, job, training, stop, world)
        else:
            training.run.on_step = lambda step: feed_monitor(training.monitor, step)
            train(training.run, stop, world)


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Keep other commands from training the same arm into the same folder.

    Raises:
        CheckpointError: one does.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(job.folder.with_name(f".{job.name}.lock"), timeout=0.5))
        except TimeoutError:
            raise CheckpointError(
                f"pretrain/{job.name}: another command is training it in this work folder; wait for its end, or choose another work_dir"
            ) from None
        yield


def _build(work: Workspace, archive: Archive, job: Job, world: World, *, force: bool) -> _Training:
    settings, plan = work.study.pretrain, plan_of(work.study)
    device = choose_device(work.study, world.local_rank if world.size > 1 else None)
    if not settings.transductive:
        assert_disjoint(archive.splits, archive.manifest["exact_hash"], job.rows, archive.near)
    encoder, init = initial_encoder(work, job.arm, job.run)
    if init.sha256 is not None and job.inputs["arm"].get("init_sha256", init.sha256) != init.sha256:
        raise CheckpointError(
            f"pretrain/{job.name}: the weights of {init.source} have changed since this command began; run it again"
        )
    known = tell_start(work, archive, job.arm, init)
    method = new_method(work, plan, encoder, device, seed=job.seed)
    if world.size > 1 and settings.sync_batch_norm and method.sync_batch_norm:
        method = synchronize_batch_norm(method, device)
    checkpoints = Checkpoints(job.folder / "checkpoints", keep=settings.checkpoint.keep, say=warn, force=force)
    run = build_run(work, archive, job.rows, method, plan, device, checkpoints=checkpoints, inputs=job.inputs, seed=job.seed)
    check_batch(run, world.size)
    monitor = CollapseMonitor(method.dim, encoder.feature_dim)
    judge = Judge(run.total_steps * run.batch_size, patience=settings.collapse.patience)
    run.extra_state = {"monitor": monitor, "judge": judge}
    return _Training(plan, encoder, init, known, method, run, monitor, judge)


def _look_back(job: Job, training: _Training, world: World) -> None:
    """Find out where a former start came to. What does not fit is refused here, before the log goes on."""
    loaded, goes_on = training.run.checkpoints.load(job.inputs), ""
    if loaded is not None:
        training.done, goes_on = loaded.step, f", going on from its checkpoint after step {loaded.step:,}"
        if changed := differences(loaded.surroundings, surroundings(training.run, world)):
            warn(f"pretrain: {job.name}: goes on in other surroundings, so not bit by bit as before: {describe(changed)}")
    say("pretrain", f"{job.name}: from {training.init.source}{goes_on}")


def _get_ready(work: Workspace, job: Job, training: _Training, world: World) -> None:
    """Do and say what goes before the first step."""
    settings, run, arm, plan = work.study.pretrain, training.run, job.name, training.plan
    if world.size > 1:
        share = f"{run.batch_size // world.size} of the {run.batch_size} samples of a step each"
        say("pretrain", f"{arm}: {world.size} processes, {share}")
    say("pretrain", f"{arm}: {place(run.source, run.device, work.study.store.placement)}")
    if run.pairs is not None:
        say("pretrain", f"{arm}: {run.pairs.sentence()}")
    if settings.recompute:
        blocks = recompute_activations(training.encoder)
        say("pretrain", f"{arm}: {blocks} blocks compute their activations again instead of keeping them")
    if settings.compile and compile_or_say(training.encoder, lambda: try_encoder(training.encoder, run, world.size), warn):
        say("pretrain", f"{arm}: the encoder is compiled")
    for sentence in training.method.cautions(len(job.rows), plan.batch_size // plan.accumulate):
        warn(f"pretrain: {plan.method.name}: {sentence}")
    if not training.done:
        seconds = seconds_per_step(run, world)
        cost = minutes(seconds * run.total_steps)
        say("pretrain", f"{arm}: about {cost} on this {run.device.type} at {run.batch_size / seconds:.0f} samples/s")


def _lead(work: Workspace, archive: Archive, job: Job, training: _Training, stop: StopFlag, world: World) -> None:
    """Train as the one process that logs and writes."""
    settings, run, name = work.study.pretrain, training.run, job.name
    resume = training.done > 0
    with work.open_log(f"pretrain-{name}", stage="pretrain", resume=resume, params=_params(job, training), tags=job.tags) as log:
        track_data(work, log, archive.summary, work.study.sources_of(job.arm), "pretraining")
        if said := log_record(work, archive, log, training.init):
            warn(f"pretrain: {name}: this is not what the run was started with: {said}")
        if not resume:
            log_views(work, archive, job.rows, job.folder, log)
        with bar(f"pretrain {name}", run.total_steps, training.done) as progress:
            watched = settings.knn_images and can_watch(work.study.task)
            knn = KnnWatch(work, archive, training.encoder, run.device) if watched else None
            watch = Watch(name, log, progress, training.monitor, training.judge, knn, settings, run)
            run.on_step, run.on_epoch = watch.on_step, watch.on_epoch
            try:
                train(run, stop, world)
            except DivergenceError as error:
                write_atomic(job.folder / DIVERGENCE, error.report)
                log.artifact(job.folder / DIVERGENCE)
                raise CollapseError(
                    f"{error}; {job.folder / DIVERGENCE} has the last steps, and which layers are not finite"
                ) from error
            finally:  # also of a run that was stopped: the figure is what its user wants to see
                draw_collapse(log, job.folder / FIGURE, name)
        figures = watch.last()
        seen = run.total_steps * run.batch_size
        history = [record for _, record in lines.read(log.folder / METRICS)]
        rest = converged(history, epochs=run.epochs, samples=seen, least_epochs=settings.converged_epochs)
        card = encoder_card(
            work,
            archive,
            training.encoder,
            training.init,
            training.known,
            arm=job.arm,
            run=job.run,
            epochs=run.epochs,
            seen=seen,
            metrics=figures,
        )
        save_encoder(job.folder / ENCODER, training.encoder, card)
        log.artifact(job.folder / ENCODER, folder=ENCODER)
        if work.study.tracking.register:
            register_encoder(work, job.name, log, ENCODER, job.tags)
    _finish(job, training, figures, seen, rest)


def _params(job: Job, training: _Training) -> dict[str, Any]:
    """What the tracker shows of a run: its inputs, and what was loaded."""
    return job.inputs | {"run": job.run, "init": training.init.facts, "init_saw": training.known.sentence}


def _finish(job: Job, training: _Training, figures: dict[str, float], seen: int, rest: tuple[bool, str]) -> None:
    """Write the receipt, let the checkpoints go, say the verdict."""
    (state, sentence), pairs = training.judge.final(figures), training.run.pairs
    write_receipt(
        job.folder,
        job.inputs,
        init=training.init.facts,
        init_saw=training.known.saw,  # see medssl.stages.provenance
        init_saw_sentence=training.known.sentence,
        run=job.run,
        samples_seen=seen,
        figures=figures,
        verdict=state,
        sentence=sentence,
        converged=rest[0],
        convergence=rest[1],
        dim=training.method.dim,
        pairs=None if pairs is None else pairs.sentence(),
    )
    training.run.checkpoints.clear()
    (say if state == "healthy" else lambda _, text: warn(text))("pretrain", f"{job.name}: {state}. {sentence}")
    say("pretrain", f"{job.name}: pretraining {'has' if rest[0] else 'has not'} converged: {rest[1]}")
    say("pretrain", f"{job.name}: the encoder is in {job.folder / ENCODER}")
