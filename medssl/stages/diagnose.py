"""diagnose: the papers' collapse experiments on the user's own images, in minutes.

Whoever trusts a monitor wants to have seen it ring: SimSiam as it should be, beside SimSiam without what keeps it from collapsing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from medssl.data.archive import Archive
from medssl.errors import DataError, StudyError
from medssl.files import read_json, write_atomic, write_json
from medssl.methods import method_settings
from medssl.methods.simsiam import SimSiamSettings
from medssl.report.collapse_figure import side_by_side
from medssl.stages.devices import choose_device
from medssl.stages.index import index
from medssl.stages.pretraining import Plan, described, plan_of
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.screen import say, show_table, warn
from medssl.stages.trial import Trial, numbers, run_trial, trial_inputs
from medssl.stages.views import check_fit, chosen_settings
from medssl.stages.workspace import Workspace, check_components
from medssl.tracking.lines import plain
from medssl.training.stop import StopFlag, stop_on_signals

FIGURE, CURVES = "diagnose.svg", "trial.json"
CHECKS = 40  # of the monitor in each variant
# Below this share of the reference's effective rank a variant counts as told apart, even where it is not flagged after so few steps.
TOLD_APART = 0.7


@dataclass(frozen=True)
class Variant:
    """One experiment of the papers."""

    name: str
    changes: dict[str, Any]  # of the method's settings
    said: str  # what the papers found
    source: str

    @property
    def collapses(self) -> bool:
        """Whether the papers saw it collapse."""
        return self.said == "collapses"


VARIANTS = (
    Variant("as it should be", {}, "trains", "2011.10566, section 4.1"),
    Variant("no stop-gradient", {"stop_gradient": False}, "collapses", "2011.10566, figure 2: 0.1% on ImageNet"),
    Variant("no predictor", {"predictor": "none"}, "collapses", "2011.10566, table 1a: 0.1%"),
    Variant("no BN in the heads", {"batch_norm": "none"}, "trains badly", "2011.10566, table 3a: 34.6%"),
    Variant("no BN, no stop-gradient", {"batch_norm": "none", "stop_gradient": False}, "collapses", "2011.10566, section 4.2"),
)


def diagnose(work: Workspace, *, steps: int = 200, arm: str | None = None, out: Path | None = None, fresh: bool = False) -> bool:
    """Train each variant for `steps` steps; print a table, draw a figure; returns whether the monitor can tell them apart here.

    The method is the study's where that is SimSiam or SimTriplet, else SimSiam; everything else is the study's.

    Args:
        arm: whose weights to start from; None: the first arm that is pretrained.
        out: where the figure goes besides the work folder.

    Raises:
        StudyError: no arm is pretrained, or there is no such arm.
        DataError: see `build_run`.
        Stopped: a signal asked for it; finished variants stay.
    """
    check_components(work.study)
    arm = _arm(work, arm)
    archive = index(work)
    rows = archive.require_images(archive.rows(pretrain=True, source=work.study.sources_of(arm)))
    check_fit(archive, rows, chosen_settings(work, "pretrain"))
    base = _base(work)
    plan = dataclasses.replace(base, max_steps=steps, recipe=base.recipe.model_copy(update={"warmup_epochs": 0}))
    if steps < 2:
        raise StudyError(f"--steps {steps}: allowed: 2 and more")
    if len(rows) < plan.batch_size:
        raise DataError(
            f"diagnose: {len(rows):,} images are fewer than one batch of {plan.batch_size}; lower pretrain.batch_size"
        )
    say(
        "diagnose",
        f"{len(VARIANTS)} variants of {plan.method.name}, {steps} steps of {plan.batch_size} images each, {plan.text()}",
    )
    folder = work.folder / "diagnose"
    with (
        stop_on_signals() as stop,
        work.open_log("diagnose", stage="diagnose", params=described(plan) | {"arm": arm}) as log,
    ):
        trials = [_variant(work, archive, rows, plan, variant, arm, log.folder, stop, fresh) for variant in VARIANTS]
        figure = side_by_side(
            {trial.name: trial.history for trial in trials}, f"{plan.method.name} with and without what keeps it from collapsing"
        )
        for path in (folder / FIGURE, *([out] if out else [])):
            write_atomic(path, figure)
        log.artifact(folder / FIGURE)
    show_table(_table(trials))
    told = _answer(trials)
    say("diagnose", f"figure: {out or folder / FIGURE}")
    return told


def _arm(work: Workspace, arm: str | None) -> str:
    if arm is not None:
        return work.chosen_arms([arm])[0]
    pretrained = [name for name, one in work.study.arms.items() if one.method]
    if not pretrained:
        raise StudyError(f"{work.study_file}: arms: none is pretrained, so there is nothing to diagnose")
    return pretrained[0]


def _base(work: Workspace) -> Plan:
    plan = plan_of(work.study)
    if not isinstance(plan.method, SimSiamSettings):
        say("diagnose", f"{plan.method.name} has no such experiments; they are done with simsiam, at its paper's rates")
        return plan_of(work.study, {"name": "simsiam"})
    # A study that is itself an ablation is compared with the method as it should be.
    normal = {"stop_gradient": True, "predictor": "learned", "batch_norm": "default"}
    return dataclasses.replace(plan, method=plan.method.model_copy(update=normal))


def _variant(
    work: Workspace,
    archive: Archive,
    rows: Any,
    plan: Plan,
    variant: Variant,
    arm: str,
    parent: Path,
    stop: StopFlag,
    fresh: bool,
) -> Trial:
    settings = method_settings(plan.method.model_dump() | variant.changes)
    plan = dataclasses.replace(plan, method=settings)
    slug = variant.name.replace(",", "").replace(" ", "_").replace("-", "_").lower()
    folder = work.folder / "diagnose" / slug
    inputs = trial_inputs(work, archive, rows, plan, arm)
    if is_made_from(folder, inputs) and not fresh:
        say("diagnose", f"{variant.name}: nothing has changed")
        kept = Trial(**read_json(folder / CURVES))
        return dataclasses.replace(kept, figures=numbers(kept.figures))
    interval = max(1, plan.max_steps // CHECKS)
    trial, _ = run_trial(
        work, archive, rows, plan, arm=arm, name=slug, stage="diagnose", parent=parent,
        device=choose_device(work.study), stop=stop, interval=interval,
    )  # fmt: skip
    trial = dataclasses.replace(trial, name=variant.name)
    write_json(folder / CURVES, plain(dataclasses.asdict(trial)))
    write_receipt(folder, inputs, figures=trial.figures, state=trial.state)
    return trial


def _table(trials: list[Trial]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("variant", "papers say", "loss", "std·√d", "rank of z", "share", "correlation", "here"):
        table.add_column(name, justify="left" if name in ("variant", "papers say", "here") else "right")
    for variant, trial in zip(VARIANTS, trials, strict=True):
        f = trial.figures
        table.add_row(
            trial.name,
            variant.said,
            f"{f['loss']:.3f}",
            f"{f['z_std_sqrt_d']:.2f}",
            f"{f['z_effective_rank']:.0f}",
            f"{f['z_rank_share']:.0%}",
            f"{f['z_correlation']:.2f}",
            trial.state,
        )
    return table


def _answer(trials: list[Trial]) -> bool:
    """Say whether good and collapsed runs can be told apart on these images."""
    good = trials[0]
    if good.state != "healthy":
        warn(f"diagnose: {good.name}: {good.state}. {good.sentence}")
        return False
    missed = []
    for variant, trial in zip(VARIANTS, trials, strict=True):
        ratio = trial.figures["z_effective_rank"] / good.figures["z_effective_rank"]
        if variant.collapses and trial.state == "healthy":
            if ratio < TOLD_APART:
                say("diagnose", f"{trial.name}: not flagged after so few steps, but its rank is {ratio:.0%} of the good run's")
            else:
                missed.append(f"{trial.name} (rank {ratio:.0%} of the good run's)")
    if missed:
        warn(f"diagnose: not told apart from a good run: {', '.join(missed)}; train longer with --steps, or look at the figure")
        return False
    say("diagnose", "a good run and the collapsed ones can be told apart on these images")
    return True
