"""sweep: learning rate, weight decay and strength of the views, chosen without labels.

Every method gets the same number of trials and of samples, and the same ranges around its own paper's numbers. Trials are ranked by
RankMe (Garrido et al., ICML 2023), which compares runs of one method and says nothing between methods. It is highest for a random
network, so a trial that has brought the two views of an image hardly nearer to each other is not ranked.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from rich.table import Table

from medssl.augment.evaluate import eval_view
from medssl.data.archive import Archive
from medssl.data.batches import epoch_order
from medssl.errors import DataError, StudyError
from medssl.files import write_json
from medssl.methods import Batch, Method
from medssl.methods.collapse import effective_rank
from medssl.seeds import derive
from medssl.stages.devices import choose_device
from medssl.stages.index import index
from medssl.stages.pretraining import SWEEP_RESULT, Plan, merged, plan_of, view_plans
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.screen import say, show_table, warn
from medssl.stages.smallest_budget import SmallestBudget
from medssl.stages.trial import Trial, numbers, run_trial, trial_inputs
from medssl.stages.views import check_fit, chosen_settings
from medssl.stages.workspace import Workspace, check_components
from medssl.study import SweepSettings
from medssl.training.stop import StopFlag, stop_on_signals

# Nearness of two views of an image at the end of a trial, as a share of the same at its start, from which it counts as not learnt.
UNLEARNT = 0.9


def sweep(work: Workspace, *, fresh: bool = False) -> dict[str, dict[str, Any]]:
    """Run every trial that is not there yet; returns for each method what its best trial was.

    Raises:
        StudyError: no arm is pretrained; a method is wrong or named twice; or trials are to be ranked by labels without a task.
        DataError: a trial sees fewer samples than one batch, or see `build_run`.
        Stopped: a signal asked for it; finished trials stay.
    """
    check_components(work.study)
    settings = work.study.sweep
    plans = _plans(work)
    arm = settings.arm or next((name for name, one in work.study.arms.items() if one.method), None)
    if arm is None:
        raise StudyError(f"{work.study_file}: arms: none is pretrained, so there is nothing to sweep over; or name sweep.arm")
    archive = index(work)
    rows = archive.require_images(archive.rows(pretrain=True, source=work.study.sources_of(arm)))
    check_fit(archive, rows, chosen_settings(work, "pretrain"))
    steps = settings.samples // work.study.pretrain.batch_size
    if steps < 1:
        raise DataError(f"sweep.samples: is {settings.samples}, fewer than one batch of {work.study.pretrain.batch_size}")
    labels = SmallestBudget(work, archive) if settings.rank_by == "labels" else None
    say(
        "sweep",
        f"{', '.join(plans)}: {settings.trials} trials each of {steps * work.study.pretrain.batch_size:,} samples, ranked by "
        + ("RankMe, without labels" if labels is None else f"a linear probe on {labels.text}"),
    )
    best = {}
    with stop_on_signals() as stop, work.open_log("sweep", stage="sweep", params=settings.model_dump(mode="json")) as log:
        for name, plan in plans.items():
            searched = _Search(work, archive, rows, dataclasses.replace(plan, max_steps=steps), arm, labels, log.folder)
            best[name] = searched.run(stop, fresh=fresh)
            log.metrics({f"sweep/{name}/score": best[name]["score"]}, step=0)
            path = work.folder / "sweep" / name / SWEEP_RESULT
            write_json(path, best[name])
            log.artifact(path, folder=name)
    for name, result in best.items():
        say("sweep", f"{name}: for pretrain: {' '.join(_overrides(result))}")
    return best


def _plans(work: Workspace) -> dict[str, Plan]:
    methods = work.study.sweep.methods
    plans = (
        [plan_of(work.study, method, f"sweep.methods.{i}") for i, method in enumerate(methods)]
        if methods
        else [plan_of(work.study)]
    )
    named = {plan.method.name: plan for plan in plans}
    if len(named) < len(plans):
        raise StudyError("sweep.methods: names a method twice; sweep its two settings in two studies")
    return named


class _Search:
    """The trials of one method."""

    def __init__(
        self,
        work: Workspace,
        archive: Archive,
        rows: np.ndarray,
        plan: Plan,
        arm: str,
        labels: SmallestBudget | None,
        parent: Path,
    ) -> None:
        self._work, self._archive, self._rows, self._plan = work, archive, rows, plan
        self._arm, self._labels, self._parent = arm, labels, parent
        self._device = choose_device(work.study)
        self._trials: list[dict[str, Any]] = []

    def run(self, stop: StopFlag, *, fresh: bool) -> dict[str, Any]:
        """Every trial; returns the best."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = optuna.create_study(direction="maximize")
        settings = self._work.study.sweep
        for number in range(settings.trials):
            # A stream for each trial, and all finished ones told again: a search that goes on draws what it would have drawn.
            search.sampler = optuna.samplers.TPESampler(seed=derive(self._work.study.seed, "sweep", number) % 2**32)
            asked = search.ask()
            found = self._trial(number, _drawn(asked, settings), stop, fresh=fresh)
            if _is_ranked(found):
                search.tell(asked, found["score"])
            else:
                search.tell(asked, state=optuna.trial.TrialState.FAIL)
            self._trials.append(found)
        show_table(self._table())
        ranked = [trial for trial in self._trials if _is_ranked(trial)]
        name, left = self._plan.method.name, len(self._trials) - len(ranked)
        if not ranked:
            raise DataError(
                f"sweep: {name}: none of {settings.trials} trials has learnt anything without collapsing; raise sweep.samples, and see "
                "the table and docs/methods.md"
            )
        if left:
            warn(f"sweep: {name}: {left} trials collapsed, diverged or have learnt nothing yet, and are not ranked")
        best = max(ranked, key=lambda trial: trial["score"])
        return best | {"method": self._plan.method.name, "rank_by": settings.rank_by, "trials": settings.trials} | self._budget()

    def _budget(self) -> dict[str, Any]:
        samples = self._plan.max_steps * self._plan.batch_size
        return {"samples": samples, "labels": self._labels.text if self._labels else None}

    def _trial(self, number: int, drawn: dict[str, float], stop: StopFlag, *, fresh: bool) -> dict[str, Any]:
        plan, settings = self._changed(drawn), self._work.study.sweep
        name = f"{plan.method.name}_{number:03d}"
        folder = self._work.folder / "sweep" / plan.method.name / f"{number:03d}"
        inputs = trial_inputs(self._work, self._archive, self._rows, plan, self._arm) | {
            "images": settings.images,
            "rank_by": settings.rank_by,
            "labels": None if self._labels is None else self._labels.digest,
        }
        if is_made_from(folder, inputs) and not fresh:
            kept = read_receipt(folder)["facts"]
            return kept | {"figures": numbers(kept["figures"])}
        trial, method = run_trial(
            self._work, self._archive, self._rows, plan, arm=self._arm, name=name, stage="sweep", parent=self._parent,
            device=self._device, stop=stop,
        )  # fmt: skip
        facts = {
            "number": number,
            "drawn": drawn,
            "state": trial.state,
            "sentence": trial.sentence,
            "figures": trial.figures,
            "nearness": trial.nearness if trial.nearness and np.isfinite(trial.nearness).all() else None,
        }
        facts |= {"base_lr": plan.recipe.base_lr, "weight_decay": plan.recipe.weight_decay, "strength": drawn["strength"]}
        facts |= self._scores(trial, method, plan)
        write_receipt(folder, inputs, **facts)
        return facts

    def _changed(self, drawn: dict[str, float]) -> Plan:
        own = self._plan.recipe
        changes = {"base_lr": own.base_lr * drawn["lr_factor"], "weight_decay": own.weight_decay * drawn["weight_decay_factor"]}
        views = merged(self._plan.views, {"strength": drawn["strength"]})
        return dataclasses.replace(self._plan, recipe=own.model_copy(update=changes), views=views)

    def _scores(self, trial: Trial, method: Method, plan: Plan) -> dict[str, float | None]:
        unknown = {"score": None, "rankme": None, "rankme_features": None, "auroc": None}
        if trial.state == "diverged":
            return unknown
        z, features = self._embeddings(method, plan)
        if not (z.isfinite().all() and features.isfinite().all()):  # the last step made it diverge
            return unknown
        scores = {"rankme": float(effective_rank(z)), "rankme_features": float(effective_rank(features)), "auroc": None}
        if self._labels is not None:
            scores["auroc"] = self._labels.auroc(method, self._device)
        return scores | {"score": scores["rankme"] if self._labels is None else scores["auroc"]}

    @torch.no_grad()
    def _embeddings(self, method: Method, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
        """z (n, d) and features (n, D) of images as they are, the same ones for every trial: views of another strength would be
        another question. In training mode, since running statistics lag behind after a short run; on a copy, which may change."""
        method = copy.deepcopy(method).train()
        plans = view_plans(plan, method.view_spec().views, self._work.study.encoder.input_size)
        order = epoch_order(len(self._rows), self._work.study.seed, 0)[: self._work.study.sweep.images]
        source, found = self._archive.pixels(self._rows, self._work.study.encoder.window), []
        for positions in _whole_batches(order, plan.batch_size // plan.accumulate):
            batch = source.batch(positions).to(self._device)
            views = [eval_view(batch, view.size) for view in plans]
            out = method(Batch(views, torch.zeros(len(batch), dtype=torch.bool, device=self._device) if method.pairs else None))
            found.append((out.z[0].cpu(), out.features[0].cpu()))
        return torch.cat([z for z, _ in found]), torch.cat([features for _, features in found])

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, title=f"{self._plan.method.name}", title_justify="left")
        columns = (
            "trial",
            "base lr",
            "weight decay",
            "strength",
            "loss",
            "nearness",
            "RankMe z",
            "RankMe features",
            "AUROC",
            "verdict",
        )
        for name in columns:
            table.add_column(name, justify="left" if name == "verdict" else "right")
        ranked = sorted(self._trials, key=lambda trial: (not _is_ranked(trial), -(trial["score"] or 0)))
        for trial in ranked:
            numbers = [
                f"{trial['number']}",
                f"{trial['base_lr']:.3g}",
                f"{trial['weight_decay']:.2g}",
                f"{trial['strength']:.2f}",
            ]
            near = trial["nearness"]
            numbers += [f"{trial['figures']['loss']:.3f}", "–" if near is None else f"{near[0]:.2f} > {near[1]:.2f}"]
            numbers += ["–" if trial[key] is None else f"{trial[key]:.1f}" for key in ("rankme", "rankme_features")]
            numbers.append("–" if trial["auroc"] is None else f"{trial['auroc']:.3f}")
            learnt = trial["state"] != "healthy" or _is_ranked(trial)
            table.add_row(*numbers, trial["state"] if learnt else "nothing learnt yet")
        return table


def _is_ranked(trial: dict[str, Any]) -> bool:
    """Whether a trial's score means something. A random network has the highest rank of all; labels see that by themselves."""
    if trial["score"] is None:
        return False
    if trial["auroc"] is not None:
        return trial["state"] == "healthy"
    near = trial["nearness"]
    return trial["state"] == "healthy" and (near is None or near[1] < UNLEARNT * near[0])


def _drawn(asked: optuna.Trial, settings: SweepSettings) -> dict[str, float]:
    return {
        "lr_factor": asked.suggest_float("lr_factor", *settings.lr_factor, log=True),
        "weight_decay_factor": asked.suggest_float("weight_decay_factor", *settings.weight_decay_factor, log=True),
        "strength": asked.suggest_float("strength", *settings.strength),
    }


def _whole_batches(order: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Batches of one size: a smaller one would have other batch statistics."""
    for start in range(0, max(len(order) - size, 0) + 1, size):
        yield order[start : start + size]


def _overrides(best: dict[str, Any]) -> list[str]:
    return [
        f"--set pretrain.optimizer.base_lr={best['base_lr']:.6g}",
        f"--set pretrain.optimizer.weight_decay={best['weight_decay']:.6g}",
        f"--set pretrain.views.strength={best['strength']:.4g}",
    ]
