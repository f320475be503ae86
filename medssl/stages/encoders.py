"""The study's network, and the weights that each arm starts from."""

from __future__ import annotations

from medssl.models.encoder import Encoder, build_encoder
from medssl.models.weights import InitRecord, initialise
from medssl.stages.workspace import Workspace


def new_encoder(work: Workspace) -> Encoder:
    """The study's network, the same for every arm, with arbitrary weights."""
    settings = work.study.encoder
    own = {} if settings.normalization == "backbone" else settings.normalization.model_dump()
    return build_encoder(settings.backbone, settings.stem, settings.group_norm, **own)


def initial_encoder(work: Workspace, arm: str) -> tuple[Encoder, InitRecord]:
    """The study's network with the weights that an arm starts from."""
    return _initialised(work, work.study.arms[arm].init)


def random_encoder(work: Workspace) -> Encoder:
    """The study's network with the random weights of the study's seed."""
    return _initialised(work, "random")[0]


def _initialised(work: Workspace, init: str) -> tuple[Encoder, InitRecord]:
    encoder = new_encoder(work)
    zero = work.study.encoder.zero_init_residual if init == "random" else None
    return encoder, initialise(encoder, init, seed=work.study.seed, zero_init_residual=zero)
