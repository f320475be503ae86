"""How the comparison was done: the second half of the page, for who wants to check or repeat it."""

from __future__ import annotations

import pandas as pd

from medssl.evaluation.comparison import FEWEST_OF_A_CLASS
from medssl.report import html
from medssl.report.facts import ArmFacts, Facts, SplitFacts
from medssl.report.html import Markup

BUDGET = (
    "A label budget counts patients, and it is all that an arm may learn labels from. It is divided into a part to fit "
    "and a part to validate (80/20; cross-validated inside the budget below 100 patients). Hyper-parameters, the epoch "
    "and the threshold are chosen on the validation part; no label outside the budget is read before the test. The "
    "number of patients printed includes validation.",
    "Every arm has the same budgets, the same label draws, the same settings and the same test patients; arms differ in "
    "the weights that they start from and in nothing else.",
)


def method_sections(comparison: pd.DataFrame, facts: Facts) -> list[Markup]:
    """Data and splits, arms, label budget, intervals, settings, versions and digests."""
    return [
        html.section("How it was done", _splits(facts), _arms(facts), _budget(facts), _intervals(comparison)),
        html.section("To repeat it", *_settings(facts)),
    ]


def _splits(facts: Facts) -> Markup:
    rows = [(split.name, f"{split.patients:,}", f"{split.images:,}", *_positives(split)) for split in facts.splits]
    headings = ("split", "patients", "images", "positive images", "share")
    parts = [
        html.paragraph(facts.splitting),
        html.table("Splits", headings, rows, numbers=range(1, 5)),
    ]
    if facts.exclusions:
        rows = [(name, f"{count:,}") for name, count in facts.exclusions.items()]
        parts.append(html.table("Left out", ("what", "how many"), rows, numbers=[1]))
    return html.section("Patients and splits", *parts, level=3)


def _arms(facts: Facts) -> Markup:
    headings = (
        "arm",
        "starts from",
        "pretrained with",
        "epochs",
        "samples seen",
        "std·√d",
        "effective rank",
        "source of the weights",
    )
    rows = [_arm(arm) for arm in facts.arms]
    note = (
        "std·√d and the effective rank are the last values of the collapse monitor. std·√d is 1 when the normalised vectors are "
        "spread over all directions and 0 when all images look the same to the encoder; it does not see vectors that share a few "
        "directions, the effective rank does."
    )
    parts = [html.table("Arms", headings, rows, numbers=range(3, 7))]
    if facts.pretrained:
        parts.append(html.paragraph(note, "note"))
    if facts.about_arms:
        parts.append(html.bullets(facts.about_arms))
    for arm in facts.arms:
        said = [text for text in (arm.verdict, arm.pairs) if text]
        if said:
            parts.append(html.bullets([f"{arm.name}: {text}" for text in said]))
        if arm.collapse_figure:
            caption = f"{arm.name}: what was watched while it was pretrained; dashed lines are the monitor's thresholds."
            parts.append(html.figure(html.image(arm.collapse_figure, caption), caption))
    return html.section("Arms and pretraining", *parts, level=3)


def _arm(arm: ArmFacts) -> tuple[str, ...]:
    rank = "–"
    if arm.effective_rank is not None:
        rank = f"{arm.effective_rank:.1f}" + (f" of {arm.dimensions}" if arm.dimensions else "")
    return (
        arm.name,
        arm.init,
        arm.method or "–",
        "–" if arm.epochs is None else f"{arm.epochs:,}",
        "–" if arm.samples_seen is None else f"{arm.samples_seen:,}",
        "–" if arm.std_sqrt_d is None else f"{arm.std_sqrt_d:.2f}",
        rank,
        arm.weights or "–",
    )


def _budget(facts: Facts) -> Markup:
    scored = f"The test labels were scored {times(facts.test_reads)}."
    return html.section("Label budget", *(html.paragraph(text) for text in (*BUDGET, *facts.about_fitting, scored)), level=3)


def _intervals(comparison: pd.DataFrame) -> Markup:
    first = comparison.iloc[0]
    used, level = f"{first['replicates_used']:,}", f"{first['level']:.0%}"
    single = set(comparison["n_seeds"]) == {1}
    draws = (
        "There is one label draw, so test patients alone are resampled."
        if single
        else "Label draws and repeated pretraining runs are few; what they add enters as a variance component with Student's t, "
        "without what a finite test set makes them differ by."
    )
    texts = (
        "The quantity estimated is the mean test metric over label draws and pretraining runs: what an arm reaches on patients like "
        "the test patients when the labelled patients are drawn again and the encoder is pretrained again.",
        f"Intervals are {level} intervals from {used} bootstrap replicates. A replicate draws test patients with "
        f"replacement, each with all their images, because images of one patient are not independent. {draws} Replicates "
        "without a class that a metric needs are left out.",
        "Every replicate uses the same patients for all arms and draws, so differences are paired. An arm is called better or "
        "worse only where the interval of its paired difference leaves out 0 and where the p-value still does after Holm's "
        "correction for all pairs of arms of the mode and label budget, and never with fewer than "
        f"{FEWEST_OF_A_CLASS} test patients of a class. Intervals themselves are not widened for the number of comparisons.",
    )
    return html.section("Intervals", *map(html.paragraph, texts), level=3)


def _settings(facts: Facts) -> list[Markup]:
    result = []
    for heading, items, code in (
        ("Encoder and its input", facts.encoder, False),
        ("Pretraining", facts.pretraining, False),
        ("Fine-tuning", facts.finetuning, False),
        ("Versions", facts.versions, False),
        ("Digests", facts.digests, True),
    ):
        if items:
            result.append(html.section(heading, html.pairs(items, code), level=3))
    return result


def _positives(split: SplitFacts) -> tuple[str, str]:
    if split.positives is None or not split.images:
        return "–", "–"
    return f"{split.positives:,}", f"{split.positives / split.images:.1%}"


def times(count: int) -> str:
    """'once', 'twice', '3 times'."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
