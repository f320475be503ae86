"""compare: the arms side by side with intervals, as a table on screen, Parquet, one HTML page, and runs in the tracker."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import medssl
from medssl.data.archive import Archive
from medssl.evaluation.answer import answer, mode_name
from medssl.evaluation.comparison import compare as compare_predictions
from medssl.files import digest_of, read_json, replacing, sha256_of_file, write_atomic
from medssl.report.facts import ArmFacts, Facts, SplitFacts
from medssl.report.page import render
from medssl.report.table import markdown, screen
from medssl.stages.evaluate import PREDICTIONS, READS, evaluate
from medssl.stages.index import index
from medssl.stages.pretrain import encoder_folder
from medssl.stages.pretraining import SWEEP_RESULT, described, plan_of
from medssl.stages.receipt import is_made_from, read_receipt, write_receipt
from medssl.stages.record import log_record
from medssl.stages.screen import console, say, show_table
from medssl.stages.tracked import track_data
from medssl.stages.watch import FIGURE
from medssl.stages.workspace import Workspace

TABLE, PAGE, MARKDOWN = "comparison.parquet", "report.html", "comparison.md"
LIBRARIES = ("torch", "torchvision", "timm", "scikit-learn", "mlflow", "pydicom", "numpy")


def compare(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Compare every arm with the reference on the test patients.

    Raises:
        UserError: see the errors of each part.
    """
    evaluate(work, arms=arms)
    archive, folder = index(work), work.folder / "compare"
    facts = collect_facts(work, archive, work.chosen_arms(arms))
    settings = work.study.evaluate
    inputs = {
        "predictions": sha256_of_file(work.folder / "evaluate" / PREDICTIONS),
        "evaluate": settings.model_dump(mode="json"),
        "seed": work.study.seed,
        "facts": digest_of(str(facts)),
    }
    if fresh or not is_made_from(folder, inputs):
        predictions = pd.read_parquet(work.folder / "evaluate" / PREDICTIONS)
        table = compare_predictions(predictions, settings.reference, settings.replicates, work.study.seed, settings.level)
        with replacing(folder / TABLE) as temporary:
            table.to_parquet(temporary, index=False)
        write_atomic(folder / PAGE, render(table, facts))
        write_atomic(folder / MARKDOWN, markdown(table))
        _track(work, archive, table, folder)
        write_receipt(folder, inputs)
    else:
        table = pd.read_parquet(folder / TABLE)
        say("compare", "nothing has changed")
    _show(work, table)


def collect_facts(work: Workspace, archive: Archive, arms: list[str]) -> Facts:
    """What the report says about how the comparison was made: from the work folder alone, no path and no identifier."""
    study, task, encoder = work.study, work.task, work.study.encoder
    parts = archive.summary["splits"]["parts"]
    names = {"train": "training pool", "removed": "removed from training"}
    splits = [
        SplitFacts(names.get(name, name), part["labelled_patients"], part["labelled_images"], part["positive_images"])
        for name, part in parts.items()
        if part["images"]
    ]
    normalization = encoder.normalization if isinstance(encoder.normalization, str) else str(encoder.normalization.model_dump())
    return Facts(
        study=study.name,
        target=task.target,
        positive_class=task.positive,
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
        pretraining=_flat(described(plan_of(study))),
        finetuning=_flat(study.finetune.model_dump(mode="json")),
        versions={"medssl": medssl.__version__} | {name: metadata.version(name) for name in LIBRARIES},
        digests={
            "data": archive.data_digest[:16],
            "splits": archive.summary["splits"]["digest"][:16],
            "kept from pretraining": archive.summary["splits"]["excluded_digest"][:16],
        },
        test_reads=max(read_json(work.folder / "evaluate" / READS).values()),
        notes=_chosen_by(work) + _notes(work, archive),
    )


def _splitting(work: Workspace) -> str:
    how = "The publishers' split" if work.task.split.kind == "official" else "Drawn at random, stratified by label,"
    if work.cards[work.task.data].patient == "image":
        return f"{how} before anything was trained; no patients are known, so only identical images are kept from standing in two parts."
    return f"{how} before anything was trained; no patient and no identical image is in two parts."


def _arm_facts(work: Workspace, name: str) -> ArmFacts:
    arm = work.study.arms[name]
    init = arm.start
    if not arm.method:
        return ArmFacts(name, init)
    facts = read_receipt(encoder_folder(work, name).parent)["facts"]
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
    prevalence = {
        name: part["positive_images"] / part["labelled_images"] for name, part in parts.items() if part["labelled_images"]
    }
    shown = ", ".join(f"{share:.1%} in {name}" for name, share in prevalence.items() if name != "removed")
    notes.append(f"Share of positive images: {shown}.")
    if "removed" in prevalence:
        train, removed = parts["train"], parts["removed"]
        positive = train["positive_images"] + removed["positive_images"]
        images = train["labelled_images"] + removed["labelled_images"]
        notes.append(
            f"Removing {removed['labelled_images']:,} images ({prevalence['removed']:.1%} positive) of colliding patients changed the share of "
            f"positive images in training from {positive / images:.1%} to {prevalence['train']:.1%}."
        )
    if archive.summary["patients_from"].get("image"):
        notes.append(
            "The data set names no patients: each image counts as one, so images of one patient may stand on both sides of the split."
        )
    if archive.summary["patients_from"].get("study"):
        notes.append("Some files have no usable patient ID: each of their studies counts as a patient.")
    return notes


def _flat(value: dict[str, Any], key: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, item in value.items():
        full = f"{key}.{name}" if key else name
        flat |= _flat(item, full) if isinstance(item, dict) else {full: "none" if item is None else str(item)}
    return flat


def _track(work: Workspace, archive: Archive, table: pd.DataFrame, folder: Path) -> None:
    """One run for the comparison, and below it one for each arm, so that the tracker's own compare view shows them."""
    settings, reference = work.study.evaluate, work.study.evaluate.reference
    with work.open_log("compare", stage="compare", params={"evaluate": settings.model_dump(mode="json")}) as log:
        track_data(work, log, archive.summary, [work.task.data], "test")
        log_record(work, archive, log)
        counts = ("test_patients", "test_images", "test_positives", "replicates_used")
        log.metrics({f"compare/{name}": float(table[name].iloc[0]) for name in counts}, step=0)
        for name in (TABLE, PAGE, MARKDOWN):
            log.artifact(folder / name, folder="comparison")
        for arm, rows in table.groupby("arm", sort=False):
            params = {"arm": arm, "reference": reference} | work.study.arms[arm].model_dump(mode="json", exclude={"sources"})
            params["init"] = work.study.arms[arm].start
            with work.open_log(
                f"compare-{arm}", stage="compare", parent=log.folder, params=params, tags={"medssl.arm": arm}
            ) as child:
                for row in rows.to_dict("records"):
                    child.metrics(_metrics(row), step=0)


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    key = f"test/{row['mode']}/{row['budget'].replace('%', 'pct')}/{row['metric']}"
    names = {"value": "", "lower": "_lower", "upper": "_upper", "difference": "_difference"}
    names |= {"difference_lower": "_difference_lower", "difference_upper": "_difference_upper"}
    return {key + suffix: float(row[name]) for name, suffix in names.items() if pd.notna(row[name])}


def _show(work: Workspace, table: pd.DataFrame) -> None:
    show_table(screen(table))
    for mode, sentences in answer(table).items():
        console.print("\n".join(f"{mode_name(mode)}: {sentence}" for sentence in sentences), markup=False)
    if work.synthetic:
        console.print("[bold]synthetic data: this shows that the tool works and says nothing about patients[/bold]")
    console.print(f"report    {work.folder / 'compare' / PAGE}")
    for name in dict.fromkeys(table["arm"]):
        if work.study.arms[name].method:
            console.print(f"encoder   {encoder_folder(work, name)}")
    if work.study.tracking.enabled:
        console.print(f"tracker   mlflow ui --backend-store-uri {work.tracking_settings().store_uri}")
