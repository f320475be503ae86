"""What every cell of a study needs, loaded when it is first asked for: archive, draws of labels, encoders, features."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl.data.archive import Archive, open_archive
from medssl.data.budgets import LabelDraw
from medssl.data.splits import assert_disjoint
from medssl.errors import StudyError
from medssl.evaluation.columns import label_columns
from medssl.files import digest_of
from medssl.finetuning import NETWORK_MODES
from medssl.stages.arms import ArmEncoder, Features, arm_features, feature_inputs, load_arm
from medssl.stages.cells import Cell, Draws
from medssl.stages.devices import choose_device
from medssl.stages.workspace import Workspace, open_workspace
from medssl.task import Outputs


class CellContext:
    """Pickled it is a study and a device: another process loads for itself what it needs, from the work folder.

    Holds one encoder and one table of features (a memory map) at a time, so cells are best done arm by arm.
    """

    def __init__(self, work: Workspace, device: torch.device | None = None) -> None:
        """`work`: of a study that has been indexed and pretrained. `device`: None: the study's."""
        self.work = work
        self.device = device or choose_device(work.study)
        self._arm: ArmEncoder | None = None
        self._features: tuple[tuple, Features] | None = None
        self._known: dict[tuple[str, int], tuple[str, str]] = {}

    @classmethod
    def open(cls, config: Path, overrides: list[str] | None = None, device: torch.device | None = None) -> CellContext:
        """From a study file, in a process of its own.

        Raises:
            UserError: see `open_workspace`; the study has not been indexed yet.
        """
        return cls(open_workspace(config, overrides), device)

    def __getstate__(self) -> dict[str, Any]:
        return {"work": replace(self.work, archive=None), "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["work"], state["device"])

    @cached_property
    def archive(self) -> Archive:
        """As it was indexed: no file is looked at."""
        if self.work.archive is None:
            self.work.archive = open_archive(self.work.folder / "archive", self.work.folder / "splits")
        return self.work.archive

    @cached_property
    def draws(self) -> Draws:
        """The study's draws of labels."""
        return Draws(self.work, self.archive)

    @property
    def outputs(self) -> Outputs:
        """Of the study's task."""
        return self.work.task.outputs

    def encoder(self, cell: Cell) -> ArmEncoder:
        """The cell's arm; the last one asked for is kept."""
        key = (cell.arm, cell.run)
        if self._arm is None or (self._arm.arm, self._arm.run) != key:
            self._arm, self._features = None, None
            self._arm = load_arm(self.work, self.archive, cell.arm, cell.run, self.device)
            self._known[key] = self._arm.source, self._arm.sha256
        return self._arm

    def identity(self, cell: Cell) -> tuple[str, str]:
        """(where the weights of the cell's arm come from, SHA-256 of its tensors)."""
        if (cell.arm, cell.run) not in self._known:
            self.encoder(cell)
        return self._known[cell.arm, cell.run]

    def features(self, cell: Cell) -> Features:
        """Of the cell's arm, with BatchNorm as the cell's mode has it; the last ones asked for are kept."""
        recalibrated = cell.mode == "linear_recalibrated"
        key = (cell.arm, cell.run, recalibrated)
        arm = self.encoder(cell)
        if self._features is None or self._features[0] != key:
            self._features = key, arm_features(self.work, self.archive, arm, self.device, recalibrated=recalibrated)
        return self._features[1]

    def draw(self, cell: Cell) -> LabelDraw:
        """The labels that the cell may learn from, after a look that no held-out image is among them.

        Raises:
            DataError: one is; or the budget cannot be drawn.
        """
        draw = self.draws.of(cell)
        assert_disjoint(self.archive.splits, self.archive.manifest["exact_hash"], draw.rows, self.archive.near)
        return draw

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), T) float64: the labels at positions in the manifest, NaN unknown. For `evaluate` alone: a fit has its draw's."""
        return self.archive.splits[label_columns(self.outputs)].iloc[rows].to_numpy(np.float64)

    def inputs(self, cell: Cell) -> dict[str, Any]:
        """What the cell depends on."""
        draw, settings = self.draws.of(cell), getattr(self.work.study.finetune, cell.mode)
        sha256, hashes = self.identity(cell)[1], self.archive.manifest["exact_hash"].iloc[draw.rows].tolist()
        return {
            "features": feature_inputs(self.work, self.archive, sha256, recalibrated=cell.mode == "linear_recalibrated"),
            "mode": settings.model_dump(mode="json", exclude={"budgets", "seeds"}),
            "seed": self.work.study.seed,
            "draw": digest_of([hashes, draw.labels.tolist(), [validation.tolist() for _, validation in draw.divisions]]),
        }


def check_modes(work: Workspace, encoder: torch.nn.Module) -> None:
    """Refuse modes that make no sense for this study, before any work.

    Raises:
        StudyError: one does not.
    """
    finetune = work.study.finetune
    if finetune.linear_recalibrated is not None:
        if work.study.encoder.batch_norm == "recalibrated":
            raise StudyError(
                "finetune.linear_recalibrated: encoder.batch_norm is recalibrated, so it would be finetune.linear again; allowed: null"
            )
        if not any(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in encoder.modules()):
            raise StudyError(
                f"finetune.linear_recalibrated: {work.study.encoder.backbone} has no batch normalisation to recalibrate; allowed: null"
            )
    for mode in NETWORK_MODES:
        settings = getattr(finetune, mode)
        if settings is not None and settings.loss == "focal" and work.task.kind == "regression":
            raise StudyError(
                f"finetune.{mode}.loss: is focal, which a regression has not; allowed: cross_entropy, which it does not use"
            )
