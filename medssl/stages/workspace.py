"""A study with its cards and its work folder: what every stage starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import medssl
from medssl.data.archive import Archive
from medssl.data.card import Card, find_card, read_card
from medssl.data.private import Secret, make_private, open_secret
from medssl.errors import StoreError, StudyError, TrackingError
from medssl.files import write_atomic
from medssl.finetuning import NETWORK_MODES
from medssl.stages.screen import warn
from medssl.stages.task_check import check_task, resolved
from medssl.strict import near_miss
from medssl.study import Study, read_study
from medssl.task import Task

if TYPE_CHECKING:
    from medssl.tracking import RunLog, TrackingSettings


@dataclass
class Workspace:
    """Folders:

    private/      the secret and what resolves keys; mode 600, never tracked
    archive/      manifest, rejects, pixel store
    splits/       the splits table
    pretrain/     a folder an arm and pretraining run: checkpoint, encoder
    fetched/      weights that arms start from, from MLflow
    finetune/     features and cells
    evaluate/     test predictions
    compare/      the comparison and the report
    tracking/     local logs, a folder a run
    """

    study: Study
    study_file: Path
    cards: dict[str, Card]
    card_files: dict[str, Path]
    folder: Path
    archive: Archive | None = None  # once this command has indexed
    starts: dict[str, Any] = field(default_factory=dict)  # what the arms' inits came to in this command; see stages.starts
    told: set[str] = field(default_factory=set)  # lines about arms that have been printed

    @property
    def private(self) -> Path:
        """Where identifiers may lie."""
        return self.folder / "private"

    @cached_property
    def secret(self) -> Secret:
        """The secret that keys are made with."""
        make_private(self.private)
        return open_secret(self.private, self.study.privacy.secret_file)

    @property
    def task(self) -> Task:
        """The study's task; of a multiclass or ordinal one the classes are filled in from the card.

        Raises:
            StudyError: it has none.
        """
        if self.study.task is None:
            raise StudyError(
                f"{self.study_file}: task: is not there; index and pretrain can do without, fine-tuning and comparing need it"
            )
        return resolved(self.study.task, self.cards[self.study.task.data])

    @property
    def synthetic(self) -> bool:
        """Whether any data set of the study is made up."""
        return any(card.synthetic for card in self.cards.values())

    def chosen_arms(self, only: list[str] | None) -> list[str]:
        """The study's arms, or those of `--arm`.

        Raises:
            StudyError: an arm is asked for that the study has not.
        """
        for name in only or []:
            if name not in self.study.arms:
                known = list(self.study.arms)
                raise StudyError(f"--arm {name}: is no arm of the study{near_miss(name, known)}; allowed: {', '.join(known)}")
        return [name for name in self.study.arms if not only or name in only]

    def next_log(self, name: str, *, resume: bool = False) -> Path:
        """The folder of the log of a run: a new number, which no other command gets, or the last one where a run goes on."""
        base = self.folder / "tracking" / name
        last = max((int(path.name) for path in base.glob("[0-9]*") if path.name.isdigit()), default=0)
        if resume and last:
            return base / f"{last:03d}"
        while True:
            last += 1
            with suppress(FileExistsError):
                (base / f"{last:03d}").mkdir(parents=True)
                return base / f"{last:03d}"

    def tracking_settings(self) -> TrackingSettings:
        """Where this study's runs are shown."""
        from medssl.tracking import TrackingSettings

        tracking = self.study.tracking
        return TrackingSettings(
            uri=tracking.uri,
            experiment=tracking.experiment or self.study.name,
            work_dir=self.folder.resolve(),
            enabled=tracking.enabled,
            images=tracking.images,
        )

    @contextmanager
    def open_log(
        self,
        name: str,
        *,
        stage: str,
        resume: bool = False,
        parent: Path | None = None,
        params: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> Iterator[RunLog]:
        """A tracked run in tracking/NAME/; the study file and the cards, without this machine's paths, are its first artifacts."""
        from medssl.tracking import open_run, redact_study
        from medssl.tracking.redact import without_paths

        folder = self.next_log(name, resume=resume)
        about = {"medssl.version": medssl.__version__, "medssl.synthetic": str(self.synthetic).lower()} | (tags or {})
        with open_run(
            folder,
            settings=self.tracking_settings(),
            name=name,
            stage=stage,
            parent=parent,
            resume=resume,
            params=without_paths(params),
            tags=about,
            warn=warn,
        ) as log:
            if not (folder / "study.yaml").exists():
                study = redact_study(self.study.model_dump(mode="json"))
                write_atomic(folder / "study.yaml", yaml.safe_dump(study, sort_keys=False))
                log.artifact(folder / "study.yaml", folder="study")
                for card in {card.name: card for card in self.cards.values()}.values():
                    path = folder / "cards" / f"{card.name}.yaml"
                    write_atomic(path, yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False))
                    log.artifact(path, folder="study/cards")
            yield log


def check_study(config: Path, overrides: list[str] | None = None) -> Study:
    """Read a study and its cards and check them against each other; writes nothing.

    Raises:
        StudyError, CardError: something in them is wrong.
    """
    study = read_study(config, overrides)
    _check_inits(study, config)
    check_task(study, {name: read_card(path) for name, path in _card_files(study, config).items()}, config)
    return study


def open_workspace(config: Path, overrides: list[str] | None = None) -> Workspace:
    """Read a study and its cards, check everything that can be checked before any work, and make the work folder.

    Raises:
        StudyError, CardError: something in them is wrong.
        StoreError: the work folder cannot be made.
    """
    study = check_study(config, overrides)
    files = _card_files(study, config)
    folder = study.work_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StoreError(
            f"work_dir: {folder} cannot be made ({os.strerror(problem.errno)}); pass --set work_dir=FOLDER"
        ) from problem
    return Workspace(study, config, {name: read_card(path) for name, path in files.items()}, files, folder)


def _card_files(study: Study, config: Path) -> dict[str, Path]:
    return {name: find_card(source.card, config) for name, source in study.data.items()}


def check_components(study: Study) -> None:
    """Check the settings that belong to methods and view policies; apart, because it imports torch.

    Raises:
        StudyError: there is no such method, optimiser or policy, or one of its settings is wrong.
    """
    from medssl.augment.policies import policy_settings
    from medssl.models.backbones import build_backbone
    from medssl.stages.pretraining import merged, plan_of

    plan_of(study)
    policy_settings(study.pretrain.views)
    policy_settings(merged(study.pretrain.views, study.pretrain.second_view), "pretrain.second_view")
    for mode, settings in study.finetune.modes().items():
        if mode in NETWORK_MODES:
            policy_settings(settings.views, f"finetune.{mode}.views")
    backbone = build_backbone(study.encoder.backbone, study.encoder.stem, study.encoder.group_norm)
    if study.encoder.input_size < backbone.min_input_size:
        raise StudyError(
            f"encoder.input_size: is {study.encoder.input_size}, {study.encoder.backbone} needs at least {backbone.min_input_size}"
        )
    if backbone.fixed_input_size not in (None, study.encoder.input_size):
        raise StudyError(
            f"encoder.input_size: is {study.encoder.input_size}, {study.encoder.backbone} takes only {backbone.fixed_input_size}"
        )


def _check_inits(study: Study, config: Path) -> None:
    from medssl.tracking.artifacts import is_remote, parse

    for name, arm in study.arms.items():
        if is_remote(arm.init):
            try:
                parse(arm.init)
            except TrackingError as error:
                raise StudyError(f"{config}: arms.{name}.init: {error}") from error
