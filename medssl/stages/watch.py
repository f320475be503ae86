"""What is logged and shown while an arm is pretrained; nothing is chosen by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.data.groups import order_groups
from medssl.errors import CollapseError
from medssl.evaluation.knn import knn_auroc
from medssl.files import write_atomic
from medssl.methods.collapse import CollapseMonitor, Judge, check_interval
from medssl.models.encoder import Encoder
from medssl.models.features import extract_features
from medssl.report.collapse_figure import collapse_figure
from medssl.stages.encoders import random_encoder
from medssl.stages.screen import Bar, warn
from medssl.stages.workspace import Workspace
from medssl.study import PretrainSettings
from medssl.task import MulticlassTask, OrdinalTask, RegressionTask, Task
from medssl.tracking import lines
from medssl.tracking.log import METRICS
from medssl.training.loop import Progress, Run

if TYPE_CHECKING:
    from medssl.tracking import RunLog

FIGURE = "collapse.svg"


class Watch:
    """What is logged and shown while an arm trains, and the verdict on it.

    Loss, rates and the method's own figures are logged every `log_every_steps`; the collapse monitor, which costs more, every
    `check_interval` steps and at the end.
    """

    def __init__(
        self,
        name: str,
        log: RunLog,
        progress: Bar,
        monitor: CollapseMonitor,
        judge: Judge,
        knn: KnnWatch | None,
        settings: PretrainSettings,
        run: Run,
        *,
        interval: int | None = None,
        quiet: bool = False,
    ) -> None:
        """`name`: of the arm or variant, for messages; `interval`: steps between two checks; `quiet`: a collapse is a result, so
        nobody is warned and nothing is stopped."""
        self._name, self._log, self._progress, self._run = name, log, progress, run
        self._monitor, self._judge, self._knn, self._settings = monitor, judge, knn, settings
        self._interval, self._quiet = interval or check_interval(run.batch_size, run.total_steps), quiet
        self._knn_figures = {} if knn is None else {"knn_auroc_random": knn.random}
        self._figures: dict[str, float] = {}
        self._waited = self._busy = 0.0
        self._counted = 0

    def on_step(self, step: Progress) -> None:
        """Feed the monitor, log when it is time, move the bar.

        Raises:
            CollapseError: the run has collapsed or diverged and the study says stop.
        """
        feed_monitor(self._monitor, step)
        self._waited += step.data_seconds
        seconds = time.perf_counter() - step.began
        self._busy += seconds
        self._counted += 1
        last = step.step == step.total
        logged, checked = (last or step.step % every == 0 for every in (self._settings.log_every_steps, self._interval))
        if checked and self._monitor.images > 1:
            self._figures = self._monitor.report() | {"loss": step.loss, "grad_norm": step.grad_norm}
        if logged or checked:
            values = self._step_values(step, seconds) | (
                {f"pretrain/{name}": value for name, value in self._figures.items()} if checked else {}
            )
            self._log.metrics(values, step=step.step)
        if checked and self._figures:
            self._judge_run(step)
        rate = self._run.batch_size / seconds
        shown = f"loss {step.loss:.3f}"
        if self._figures:
            shown += f"  std {self._figures['z_std_sqrt_d']:.2f}  rank {self._figures['z_effective_rank']:.0f}"
        if step.skipped_steps:
            shown += f"  skipped {step.skipped_steps}"
        self._progress.advance(1, f"{shown}  {rate:.0f} samples/s  data {self._waited / self._busy:.0%}{self._gpu()}")

    def on_epoch(self, epoch: int, step: int) -> None:
        """Look at the kNN."""
        if self._knn is not None:
            self._knn_figures["knn_auroc"] = self._knn.auroc()
            self._log.metrics({f"pretrain/{name}": value for name, value in self._knn_figures.items()}, step=step)

    def last(self) -> dict[str, float]:
        """The figures of the last check, with the kNN's; those of the checkpoint where no step was left to do."""
        if self._knn is not None and "knn_auroc" not in self._knn_figures:
            self._knn_figures["knn_auroc"] = self._knn.auroc()
        figures = self._figures or (self._monitor.report() if self._monitor.images > 1 else {})
        return figures | self._knn_figures

    def _gpu(self) -> str:
        if self._run.device.type != "cuda":
            return ""
        return f"  {torch.cuda.max_memory_allocated(self._run.device) / 2**30:.1f} GB"

    def _step_values(self, step: Progress, seconds: float) -> dict[str, float]:
        values = {
            "pretrain/loss": step.loss,
            "pretrain/grad_norm": step.grad_norm,
            "pretrain/skipped_steps": float(step.skipped_steps),
            "pretrain/epoch": float(step.epoch),
        }
        values |= {f"pretrain/lr_{name}": rate for name, rate in step.learning_rates.items()}
        values |= {f"pretrain/{name}": float(value) for name, value in step.logs.items()}
        values["time/samples_per_s"] = self._run.batch_size / seconds
        values["time/data_share"] = self._waited / self._busy
        values["time/hours_left"] = self._busy / self._counted * (step.total - step.step) / 3600
        if self._run.device.type == "cuda":
            values["system/gpu_peak_memory_mb"] = torch.cuda.max_memory_allocated(self._run.device) / 2**20
        return values

    def _judge_run(self, step: Progress) -> None:
        alarm = self._judge.update(step.step, self._figures | self._knn_figures)
        if alarm is None or self._quiet:
            return
        if self._settings.collapse.policy == "stop":
            raise CollapseError(
                f"pretrain: {self._name}: {alarm.state} at step {step.step} of {step.total}. {alarm.sentence} Stopped, as "
                "pretrain.collapse.policy says; change the settings and start over with --fresh"
            )
        warn(f"pretrain: {self._name}: {alarm.state} since step {alarm.since}. {alarm.sentence}")


def feed_monitor(monitor: CollapseMonitor, step: Progress) -> None:
    """What each rank does after a step. A step that was skipped shows a batch's fault, not the network's."""
    if not step.skipped:
        for output in step.outputs:
            monitor.update(output)


def draw_collapse(log: RunLog, path: Path, title: str) -> None:
    """Write the figure of everything that was watched, and hand it to the tracker; the log is where its points come from."""
    history = [record for _, record in lines.read(log.folder / METRICS)]
    if any("pretrain/z_effective_rank" in record for record in history):
        write_atomic(path, collapse_figure(history, title))
        log.artifact(path, folder="collapse")


def can_watch(task: Task | None) -> bool:
    """Whether a kNN has two classes to tell apart."""
    return task is not None and not isinstance(task, RegressionTask)


def two_sided(labels: np.ndarray, task: Task) -> np.ndarray:
    """(N,) int64, 0 or 1, of (N,) known labels of the splits table."""
    if isinstance(task, MulticlassTask | OrdinalTask):
        numbers = labels.astype(np.int64)
        return (numbers == np.bincount(numbers, minlength=1).argmax()).astype(np.int64)
    return labels.astype(np.int64)


class KnnWatch:
    """A kNN on labelled training images, for watching only: nothing is chosen by it.

    Of a binary task it tells positive from negative, of a multilabel one images with any positive target from those with none, of
    classes the commonest from the others. A regression has none, see `can_watch`.

    Attributes:
        random: AUROC in [0, 1] of the same network with random weights: what an encoder must beat to have learnt anything.
    """

    def __init__(self, work: Workspace, archive: Archive, encoder: Encoder, device: torch.device) -> None:
        rows = archive.rows(split="train", pretrain=True)
        rows = rows[archive.splits["label"].iloc[rows].notna().to_numpy()]
        part = archive.splits.iloc[rows].assign(exact_hash=archive.manifest["exact_hash"].iloc[rows])
        place = part["group"].map(order_groups(part, work.study.seed, "knn")).to_numpy()
        rows = rows[np.argsort(place, kind="stable")][: work.study.pretrain.knn_images]
        self._labels = two_sided(archive.splits["label"].iloc[rows].to_numpy(), work.task)
        self._groups = archive.splits["group"].iloc[rows].to_numpy()
        self._source = archive.pixels(rows, work.study.encoder.window)
        self._encoder, self._size, self._device = encoder, work.study.encoder.input_size, device
        self.random = self._auroc_of(random_encoder(work).to(device))

    def auroc(self) -> float:
        """AUROC in [0, 1] of the encoder as it is now."""
        return self._auroc_of(self._encoder)

    def _auroc_of(self, encoder: Encoder) -> float:
        images = (eval_view(batch.to(self._device), self._size) for batch in self._source.batches(128))
        return knn_auroc(extract_features(encoder, images), self._labels, self._groups)
