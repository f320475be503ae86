"""What is logged and shown while an arm is pretrained; nothing is chosen by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.data.groups import order_groups
from medssl.errors import DataError
from medssl.evaluation.knn import knn_auroc
from medssl.methods.collapse import CollapseMonitor
from medssl.models.encoder import Encoder
from medssl.models.features import extract_features
from medssl.stages.screen import Bar
from medssl.stages.workspace import Workspace
from medssl.training.loop import Progress

if TYPE_CHECKING:
    from medssl.tracking import RunLog


@dataclass
class Watch:
    """What is logged and shown while an arm trains."""

    log: RunLog
    progress: Bar
    monitor: CollapseMonitor
    knn: KnnWatch | None
    every: int
    batch_size: int
    device: torch.device
    figures: dict[str, float] = field(default_factory=dict)
    waited: float = 0.0
    busy: float = 0.0

    def on_step(self, step: Progress) -> None:
        """Feed the monitor, log when it is time, move the bar."""
        self.monitor.update(step.output.z)
        self.waited += step.data_seconds
        self.busy += step.step_seconds
        due = step.step % self.every == 0 or step.step == step.total
        if due:
            self._log(step)
        rate = self.batch_size / step.step_seconds
        shown = f"loss {float(step.output.loss.detach()):.3f}"
        if self.figures:
            shown += f"  std {self.figures['std_sqrt_d']:.2f}  rank {self.figures['effective_rank']:.0f}"
        self.progress.advance(1, f"{shown}  {rate:.0f} samples/s  data {self.waited / self.busy:.0%}")

    def _log(self, step: Progress) -> None:
        loss = float(step.output.loss.detach())
        if not math.isfinite(loss):
            raise DataError(
                f"pretrain: the loss is {loss} at step {step.step}; lower pretrain.optimizer.base_lr or set precision: float32"
            )
        self.figures = self.monitor.report()
        values = {"pretrain/loss": loss, "pretrain/grad_norm": float(step.grad_norm), "pretrain/epoch": float(step.epoch)}
        values |= {f"pretrain/{name}": value for name, value in self.figures.items()}
        values |= {f"pretrain/lr_{name}": rate for name, rate in step.learning_rates.items()}
        values |= {
            f"pretrain/{name}": float(value) for name, value in step.output.logs.items() if name not in ("loss", "z_std_sqrt_d")
        }
        values["time/samples_per_s"] = self.batch_size / step.step_seconds
        values["time/data_share"] = self.waited / self.busy
        if self.device.type == "cuda":
            values["system/gpu_peak_memory_mb"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        self.log.metrics(values, step=step.step)

    def on_epoch(self, epoch: int, step: int) -> None:
        """Look at the kNN."""
        if self.knn is not None:
            self.figures["knn_auroc"] = self.knn.auroc()
            self.log.metrics({"pretrain/knn_auroc": self.figures["knn_auroc"]}, step=step)


class KnnWatch:
    """A kNN on labelled training images, for watching only: nothing is chosen by it."""

    def __init__(self, work: Workspace, archive: Archive, encoder: Encoder, device: torch.device) -> None:
        rows = archive.rows(split="train", pretrain=True)
        rows = rows[archive.splits["label"].iloc[rows].notna().to_numpy()]
        part = archive.splits.iloc[rows].assign(exact_hash=archive.manifest["exact_hash"].iloc[rows])
        place = part["group"].map(order_groups(part, work.study.seed, "knn")).to_numpy()
        rows = rows[np.argsort(place, kind="stable")][: work.study.pretrain.knn_images]
        self._labels = archive.splits["label"].iloc[rows].to_numpy(np.int64)
        self._groups = archive.splits["group"].iloc[rows].to_numpy()
        self._source = archive.pixels(rows, work.study.encoder.window)
        self._encoder, self._size, self._device = encoder, work.study.encoder.input_size, device

    def auroc(self) -> float:
        """AUROC in [0, 1] of the encoder as it is now."""
        images = (eval_view(batch.to(self._device), self._size) for batch in self._source.batches(128))
        return knn_auroc(extract_features(self._encoder, images), self._labels, self._groups)
