"""What a sweep that ranks by labels may look at: the smallest label budget of the study, and nothing else."""

from __future__ import annotations

import torch

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.data.budgets import LabelDraw, draw_labels
from medssl.evaluation.linear_probe import fit_linear
from medssl.evaluation.primary import primary_metric
from medssl.files import digest_of
from medssl.methods import Method
from medssl.models.features import extract_features
from medssl.stages.workspace import Workspace


class SmallestBudget:
    """The labels of the smallest budget, the first draw: all that a ranking by labels may look at."""

    def __init__(self, work: Workspace, archive: Archive) -> None:
        """Raises: StudyError: the study has no task; DataError: see `draw_labels`."""
        _ = work.task
        finetune = work.study.finetune
        budgets = [budget for mode in finetune.modes() for budget in finetune.budgets_of(mode)]
        draws = [
            draw_labels(
                archive.splits, archive.manifest["exact_hash"], budget, work.study.seed, 0, folds=finetune.folds, task=work.task
            )
            for budget in budgets
        ]
        self._draw: LabelDraw = min(draws, key=lambda draw: draw.patients)
        self._work, self._archive = work, archive
        self.text = f"{self._draw.patients} labelled patients, the smallest label budget"
        hashes = archive.manifest["exact_hash"].iloc[self._draw.rows].tolist()
        settings = finetune.model_dump(mode="json", include={"folds": True, "linear": {"regularization"}})
        self.digest = digest_of([hashes, self._draw.labels.tolist(), settings])

    def auroc(self, method: Method, device: torch.device) -> float:
        """Of a linear probe, cross-validated inside the budget."""
        source = self._archive.pixels(self._draw.rows, self._work.study.encoder.window)
        size = self._work.study.encoder.input_size
        features = extract_features(method.encoder, (eval_view(batch.to(device), size) for batch in source.batches(128)))
        linear = self._work.study.finetune.linear
        outputs = self._work.task.outputs
        fit = fit_linear(features, self._draw, outputs, linear.regularization if linear else [1.0])
        return primary_metric(fit.validation_scores, self._draw.labels, outputs)
