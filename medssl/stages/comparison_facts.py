"""What the report says about how a comparison was made: from the work folder alone, no path and no identifier."""

from __future__ import annotations

import math
from importlib import metadata
from typing import Any

import medssl
from medssl.data.archive import Archive
from medssl.files import read_json
from medssl.report.facts import ArmFacts, Facts, SplitFacts
from medssl.report.shown import mode_name
from medssl.stages.encoders import initial_encoder, tell_start
from medssl.stages.evaluate import READS
from medssl.stages.pretrain import encoder_folder, pretrain_facts
from medssl.stages.pretrain_arm import run_name
from medssl.stages.pretraining import SWEEP_RESULT, described, plan_of
from medssl.stages.watch import FIGURE
from medssl.stages.workspace import Workspace

LIBRARIES = ("torch", "torchvision", "timm", "scikit-learn", "mlflow", "pydicom", "numpy")


def collect_facts(work: Workspace, archive: Archive, arms: list[str]) -> Facts:
    """What the report says about how the comparison was made: from the work folder alone, no path and no identifier."""
    study, task, encoder = work.study, work.task, work.study.encoder
    parts, saw = archive.summary["splits"]["parts"], _saw(work, archive, arms)
    names = {"train": "training pool", "removed": "removed from training"}
    splits = [
        SplitFacts(names.get(name, name), part["labelled_patients"], part["labelled_images"], part["positive_images"])
        for name, part in parts.items()
        if part["images"]
    ]
    normalization = encoder.normalization if isinstance(encoder.normalization, str) else str(encoder.normalization.model_dump())
    return Facts(
        study=study.name,
        target=", ".join(task.targets),
        kind=task.kind,
        pooling=task.pooling if task.level == "patient" else "",
        names=() if task.kind in ("binary", "regression") else task.outputs.names,
        positive_class=task.positive if task.kind == "binary" else "",
        splits=splits,
        arms=[_arm_facts(work, name) for name in arms],
        splitting=_splitting(work),
        synthetic=work.synthetic,
        transductive=study.pretrain.transductive,
        exclusions=_exclusions(archive),
        encoder={
            "backbone": f"{encoder.backbone}, {encoder.stem} stem",
            "input size": f"{encoder.input_size} px, from a store of {study.store_size} px",
            "normalisation": normalization,
            "BatchNorm statistics of frozen features": encoder.batch_norm.replace("_", " "),
            "window": encoder.window,
        },
        pretraining=_flat(described(plan_of(study))) if any(study.arms[name].method for name in arms) else {},
        finetuning=_flat(study.finetune.model_dump(mode="json", exclude={"parallel"})),
        versions={"medssl": medssl.__version__} | {name: metadata.version(name) for name in LIBRARIES},
        digests={
            "data": archive.data_digest[:16],
            "splits": archive.summary["splits"]["digest"][:16],
            "kept from pretraining": archive.summary["splits"]["excluded_digest"][:16],
        },
        test_reads=max(read_json(work.folder / "evaluate" / READS).values()),
        unconverged=[name for name in arms if _unconverged(work, name)],
        notes=[*_leaks(archive), *_may_have_seen(saw), *_chosen_by(work), *_notes(work, archive)],
        about_arms=[*_convergence(work, arms), *(f"{name}: {text}." for name, (text, _) in saw.items())],
        about_fitting=_fitting(work),
    )


def _splitting(work: Workspace) -> str:
    task = work.task
    how = {
        "patient": "Drawn at random, stratified by label,",
        "folds": "Dealt into folds at random, stratified by label, one of which is the test part,",
        "official": "The publishers' split",
        "held_out": f"Out of distribution: the test part is chosen by {getattr(task.split, 'column', '')}, as it stood",
    }[task.split.kind]
    if work.cards[task.data].patient == "image":
        return f"{how} before anything was trained; no patients are known, so only identical images are kept from standing in two parts."
    if getattr(task.split, "collisions", "") == "allow":
        return f"{how} before anything was trained, used as it was published."
    return f"{how} before anything was trained; no patient and no identical image is in two parts."


def _arm_facts(work: Workspace, name: str) -> ArmFacts:
    """Of several pretraining runs the first, and how many there are."""
    arm = work.study.arms[name]
    init = arm.start
    if not arm.method:
        return ArmFacts(name, init)
    facts = pretrain_facts(work, name)
    sha, figure = facts["init"]["sha256"], encoder_folder(work, name).parent / FIGURE
    return ArmFacts(
        name=name,
        init=init,
        method=arm.method,
        epochs=work.study.pretrain.epochs,
        samples_seen=facts["samples_seen"],
        std_sqrt_d=float(facts["figures"]["z_std_sqrt_d"]),
        effective_rank=float(facts["figures"]["z_effective_rank"]),
        dimensions=facts["dim"],
        weights=facts["init"]["source"] + (f", sha256 {sha[:8]}" if sha else ""),
        verdict=f"{facts['verdict']}. {facts['sentence']}",
        pairs=facts["pairs"],
        collapse_figure=figure.read_text() if figure.exists() else None,
    )


def _unconverged(work: Workspace, name: str) -> bool:
    runs = range(work.study.runs_of(name))
    return bool(work.study.arms[name].method) and not all(pretrain_facts(work, name, run)["converged"] for run in runs)


def _convergence(work: Workspace, arms: list[str]) -> list[str]:
    """Why each pretraining counts as finished or not, run by run."""
    said = []
    for name in arms:
        if work.study.arms[name].method:
            for run in range(work.study.runs_of(name)):
                facts = pretrain_facts(work, name, run)
                kind = "converged" if facts["converged"] else "not converged"
                said.append(f"Pretraining of {run_name(name, run)}: {kind} ({facts['convergence']}).")
    return said


def _saw(work: Workspace, archive: Archive, arms: list[str]) -> dict[str, tuple[str, bool]]:
    """What the weights that each arm begins with have seen, and whether the test patients may be among it."""
    found = {}
    for name in arms:
        if work.study.arms[name].method:
            facts = pretrain_facts(work, name)
            found[name] = facts["init_saw_sentence"], facts["init_saw"] in ("not_checked", "unknown")
        else:
            known = tell_start(work, archive, name, initial_encoder(work, name)[1])
            found[name] = known.sentence, known.is_doubtful
    return found


def _may_have_seen(saw: dict[str, tuple[str, bool]]) -> list[str]:
    return [f"{name} may be too good: {text}." for name, (text, doubtful) in saw.items() if doubtful]


def _fitting(work: Workspace) -> list[str]:
    """How many rates were tried, and that it was the same for all."""
    said = []
    for mode, settings in work.study.finetune.modes().items():
        search = getattr(settings, "search", None)
        if search is not None:
            tried = (
                "one setting, no search"
                if search.trials == 1
                else f"{search.trials} settings of rates and weight decay, chosen on validation"
            )
            said.append(f"{mode_name(mode)}: {tried}, the same for every arm.")
    return said


def _leaks(archive: Archive) -> list[str]:
    leaks = archive.summary["splits"]["leaks"]
    if not leaks["images"]:
        return []
    return [
        f"This split leaks: {leaks['images']:,} images of {leaks['patients']:,} patients in training or validation are known to validation or test, "
        "and the study says that it may (task.split.collisions: allow). Every number here may be too good."
    ]


def _chosen_by(work: Workspace) -> list[str]:
    """How the settings of pretraining were chosen, where they are those that a sweep of this study found."""
    plan, strength = plan_of(work.study), work.study.pretrain.views.get("strength", 1.0)
    path = work.folder / "sweep" / plan.method.name / SWEEP_RESULT
    if not path.exists():
        return []
    best = read_json(path)
    ours = (plan.recipe.base_lr, plan.recipe.weight_decay, strength)
    theirs = (best["base_lr"], best["weight_decay"], best["strength"])
    # As printed for --set, with fewer digits than found.
    if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(ours, theirs, strict=True)):
        return []
    how = "by RankMe, without labels" if best["labels"] is None else f"by the labels of {best['labels']}"
    return [
        f"Learning rate, weight decay and strength of the views of pretraining were chosen {how}: {best['trials']} trials of "
        f"{best['samples']:,} samples each."
    ]


def _exclusions(archive: Archive) -> dict[str, int]:
    texts = {
        "held_out_patient": "images of validation and test patients, kept from pretraining",
        "identical_to_held_out": "images under another key that are pixel-identical to a validation or test image, kept from pretraining",
        "near_held_out": "images that are nearly identical to a validation or test image, kept from pretraining",
        "linked_to_held_out": "other images of patients who share an image with a validation or test patient, kept from pretraining",
    }
    counts = archive.summary["splits"]["excluded_from_pretraining"]
    found = {texts[name]: count["images"] for name, count in counts.items()}
    removed = archive.summary["splits"]["parts"]["removed"]["images"]
    if removed:
        found["images removed from the training pool, their patient or an identical image being in validation or test"] = removed
    if archive.summary["rejects"]:
        found["files that could not be read"] = archive.summary["rejects"]
    return found


def _notes(work: Workspace, archive: Archive) -> list[str]:
    notes, parts = [], archive.summary["splits"]["parts"]
    if work.task.kind == "binary":
        notes += _prevalence(parts)

    if archive.summary["patients_from"].get("image"):
        notes.append(
            "The data set names no patients: each image counts as one, so images of one patient may stand on both sides of the split."
        )
    if archive.summary["patients_from"].get("study"):
        notes.append("Some files have no usable patient ID: each of their studies counts as a patient.")
    return notes


def _prevalence(parts: dict[str, Any]) -> list[str]:
    prevalence = {
        name: part["positive_images"] / part["labelled_images"] for name, part in parts.items() if part["labelled_images"]
    }
    shown = ", ".join(f"{share:.1%} in {name}" for name, share in prevalence.items() if name != "removed")
    notes = [f"Share of positive images: {shown}."]
    if "removed" in prevalence:
        train, removed = parts["train"], parts["removed"]
        positive = train["positive_images"] + removed["positive_images"]
        images = train["labelled_images"] + removed["labelled_images"]
        notes.append(
            f"Removing {removed['labelled_images']:,} images ({prevalence['removed']:.1%} positive) of colliding patients changed the share of "
            f"positive images in training from {positive / images:.1%} to {prevalence['train']:.1%}."
        )
    return notes


def _flat(value: dict[str, Any], key: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, item in value.items():
        full = f"{key}.{name}" if key else name
        flat |= _flat(item, full) if isinstance(item, dict) else {full: "none" if item is None else str(item)}
    return flat
