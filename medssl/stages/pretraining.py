"""What one pretraining is made of, from a study's settings to a run of the loop: shared by pretrain, diagnose and sweep."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medssl.augment.policies import build_policy, policy_settings
from medssl.data.archive import Archive
from medssl.data.pairs import RelatedImages, related_images
from medssl.errors import DataError, StudyError
from medssl.intervals import interval_of
from medssl.methods import METHODS, Batch, Method, View, build_method, method_settings
from medssl.models.encoder import Encoder
from medssl.stages.devices import choose_precision
from medssl.stages.workspace import Workspace
from medssl.strict import StrictModel
from medssl.study import Study
from medssl.training.checkpoint import Checkpoints
from medssl.training.loop import Run, ViewPlan
from medssl.training.optimizers import build_optimizer
from medssl.training.recipe import Recipe, chosen_recipe

SMALLEST_VIEW = 16  # px
SWEEP_RESULT = "result.json"  # below sweep/<method>/: the best trial


@dataclass(frozen=True)
class Plan:
    """What a pretraining does; all settings are checked."""

    method: StrictModel
    recipe: Recipe
    views: dict[str, Any]  # as in the study file
    second_view: dict[str, Any]
    epochs: int
    batch_size: int
    accumulate: int = 1
    max_steps: int | None = None  # None: all epochs

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        return self.recipe.peak_lr(self.batch_size)

    def text(self) -> str:
        """How it is optimised, for people."""
        recipe = self.recipe
        how = "" if recipe.scaling == "none" else f" ({recipe.base_lr:g} scaled {recipe.scaling} with the batch)"
        warmup = f", {recipe.warmup_epochs} epochs of warm-up" if recipe.warmup_epochs else ""
        return f"{recipe.name.upper()} at {self.peak_lr:.3g}{how}, weight decay {recipe.weight_decay:g}{warmup}"


def plan_of(study: Study, method: dict[str, Any] | None = None, where: str = "pretrain.method") -> Plan:
    """The pretraining that a study asks for, or the same with another method, which stands at the key `where`.

    Raises:
        StudyError: a setting of the method, of the optimiser or of a view is wrong.
    """
    settings = study.pretrain
    checked = method_settings(settings.method if method is None else method, where)
    own = METHODS[checked.name][1].recipe
    given = settings.optimizer.model_dump(exclude_none=True)
    if method is not None and method["name"] != settings.method.get("name"):
        given = {}  # another method: its own recipe, not the numbers that were chosen for the study's
    return Plan(
        method=checked,
        recipe=chosen_recipe(own, given, settings.epochs),
        views=settings.views,
        second_view=settings.second_view,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
    )


def view_plans(plan: Plan, views: tuple[View, ...], input_size: int) -> list[ViewPlan]:
    """How each view of a method is made.

    Raises:
        StudyError: a setting is wrong, or the method's views and the study's contradict each other.
    """
    plans = []
    for index, view in enumerate(views):
        size = round(view.size * input_size)
        if view.size < 1 and size < SMALLEST_VIEW:
            raise StudyError(
                f"pretrain.method: {plan.method.name}'s small views would be {size} px, the least is {SMALLEST_VIEW}; raise "
                "small_size or encoder.input_size, or set small_views: 0"
            )
        plans.append(ViewPlan(build_policy(policy_settings(_settings_of(plan, index, view))), size, view.related))
    return plans


def _settings_of(plan: Plan, index: int, view: View) -> dict[str, Any]:
    value = merged(plan.views, plan.second_view if index == 1 else {})
    if "crop_scale" in view.changes.get("geometry", {}) and policy_settings(value).geometry.crop_mm is not None:
        raise StudyError(
            f"pretrain.method: {plan.method.name} sets crop_scale for each of its views, and pretrain.views crops in mm; set "
            "pretrain.views.geometry.crop_mm: null, or small_views: 0"
        )
    return merged(value, view.changes)


def merged(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`value` with `changes`, blocks merged key by key."""
    out = dict(value)
    for key, own in changes.items():
        base = out.get(key)
        out[key] = {**base, **own} if isinstance(base, dict) and isinstance(own, dict) else own
    return out


def new_method(work: Workspace, plan: Plan, encoder: Encoder, device: torch.device, *, seed: int | None = None) -> Method:
    """The method of a plan around `encoder`, on the device, in the memory layout that is fast there; `seed`: None for the study's."""
    method = build_method(plan.method, encoder, seed=work.study.seed if seed is None else seed).to(device)
    return method.to(memory_format=torch.channels_last) if device.type == "cuda" else method


def find_pairs(work: Workspace, archive: Archive, rows: np.ndarray, plan: Plan, method: Method) -> RelatedImages | None:
    """The related images of the rows that a run sees; None where the method asks for none.

    Raises:
        DataError: the method asks for them and no image has one.
    """
    if not method.pairs:
        return None
    part = archive.manifest.iloc[rows]
    sources = sorted(part["source"].unique())
    pairs = related_images(part, {source: work.cards[source].positive_pairs for source in sources})
    if not pairs.found.any():
        cards = ", ".join(work.cards[source].name for source in sources)
        raise DataError(
            f"pretrain.method: {plan.method.name} needs related images, and by positive_pairs of the card ({cards}) no image has one; "
            "name kinds there that the data has, or choose simsiam"
        )
    return pairs


def pair_settings(work: Workspace, sources: list[str], plan: Plan) -> dict[str, Any]:
    """What the cards say of related images, where the method asks for them."""
    if not METHODS[plan.method.name][1].pairs:
        return {}
    return {
        source: work.cards[source].model_dump(mode="json", include={"positive_pairs", "tiles"}, exclude_none=True)
        for source in sources
    }


def build_run(
    work: Workspace,
    archive: Archive,
    rows: np.ndarray,
    method: Method,
    plan: Plan,
    device: torch.device,
    *,
    checkpoints: Checkpoints | None = None,
    inputs: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Run:
    """A run of the loop. `checkpoints`, `inputs`: see `medssl.training.loop.Run`; `seed`: None for the study's.

    Raises:
        DataError: see `find_pairs`; or there are fewer images than one batch takes.
    """
    if len(rows) < plan.batch_size:
        raise DataError(
            f"pretrain: {len(rows):,} images are fewer than one batch of {plan.batch_size}; lower pretrain.batch_size"
        )
    return Run(
        module=method,
        forward=lambda module, drawn: module(Batch(drawn.views, drawn.related)),
        optimizer=build_optimizer(plan.recipe, method.parameter_groups(), plan.peak_lr),
        source=archive.pixels(rows, work.study.encoder.window),
        views=view_plans(plan, method.view_spec().views, work.study.encoder.input_size),
        pairs=find_pairs(work, archive, rows, plan, method),
        epochs=plan.epochs,
        max_steps=plan.max_steps,
        batch_size=plan.batch_size,
        accumulate=plan.accumulate,
        seed=work.study.seed if seed is None else seed,
        device=device,
        warmup_epochs=plan.recipe.warmup_epochs,
        final_lr=plan.recipe.final_lr,
        precision=choose_precision(work.study, device),
        checkpoints=checkpoints,
        checkpoint_every=interval_of(work.study.pretrain.checkpoint.every),
        clip_norm=work.study.pretrain.clip_norm,
        inputs=inputs or {},
        before_step=method.before_step,
        after_backward=method.after_backward,
        after_step=method.after_step,
    )


def try_encoder(encoder: Encoder, run: Run, ranks: int) -> None:
    """A forward and backward pass with images of the size that training has."""
    size, rows = run.views[0].size, max(2, run.batch_size // run.accumulate // ranks)
    images = torch.rand(rows, run.source.channels, size, size, device=run.device)
    encoder.train()
    with torch.autocast(run.device.type, dtype=run.precision, enabled=run.precision != torch.float32):
        features = encoder(images)
    features.float().square().mean().backward()


def described(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, every default written out, for logs and receipts."""
    value = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    value["method"], value["recipe"] = plan.method.model_dump(mode="json"), plan.recipe.model_dump(mode="json")
    value["views"] = policy_settings(plan.views).model_dump(mode="json", exclude_none=True)
    return {name: item for name, item in value.items() if item not in (None, {})}
