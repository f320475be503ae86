"""The study's network, and the weights that each arm starts from."""

from __future__ import annotations

from pathlib import Path

from medssl.data.archive import Archive
from medssl.models.encoder import Encoder, build_encoder
from medssl.models.weights import RANDOM, InitRecord, initialise
from medssl.stages.provenance import Provenance, provenance_of
from medssl.stages.screen import say, warn
from medssl.stages.starts import start_of
from medssl.stages.workspace import Workspace


def new_encoder(work: Workspace) -> Encoder:
    """The study's network, the same for every arm, with arbitrary weights."""
    settings = work.study.encoder
    own = {} if settings.normalization == "backbone" else settings.normalization.model_dump()
    return build_encoder(settings.backbone, settings.stem, settings.group_norm, **own)


def initial_encoder(work: Workspace, arm: str, run: int = 0) -> tuple[Encoder, InitRecord]:
    """The study's network with the weights that a pretraining run of an arm starts from.

    Raises:
        WeightsError, TrackingError: there are no such weights, or they do not fit.
    """
    start = start_of(work, arm)
    encoder, record = _initialised(work, start.init, work.study.seed_of_run(run))
    return encoder, start.shown(record)


def random_encoder(work: Workspace) -> Encoder:
    """The study's network with the random weights of the study's seed."""
    return _initialised(work, RANDOM, work.study.seed)[0]


def tell_start(work: Workspace, archive: Archive, arm: str, record: InitRecord) -> Provenance:
    """Say once a command what an arm's weights are, and warn where they may have seen the test patients."""
    tell_arm(work, arm, record.line())
    known = provenance_of(record, archive.summary["splits"]["excluded_digest"])
    if known.is_doubtful and work.study.task is not None and (line := f"arm {arm}: {known.sentence}") not in work.told:
        work.told.add(line)
        warn(line)
    return known


def tell_arm(work: Workspace, arm: str, text: str) -> None:
    """Say something about an arm, once a command."""
    if (line := f"{arm}: {text}") not in work.told:
        work.told.add(line)
        say("arm", line)


def _initialised(work: Workspace, init: str | Path, seed: int) -> tuple[Encoder, InitRecord]:
    encoder = new_encoder(work)
    zero = work.study.encoder.zero_init_residual if init == RANDOM else None
    return encoder, initialise(encoder, init, seed=seed, zero_init_residual=zero)
