"""The comparison as one HTML page: no network, no script, light, dark and on paper."""

from __future__ import annotations

import pandas as pd

from medssl.evaluation.answer import answer, cautions, headline
from medssl.evaluation.sentences import sentence
from medssl.report import (
    confusion,
    control,
    efficiency,
    embedding_figure,
    html,
    numbers,
    pairs_matrix,
    reliability,
    subgroups,
    worst,
)
from medssl.report.document import document
from medssl.report.extras import Extras
from medssl.report.facts import Facts
from medssl.report.figures import curves, forest, legend
from medssl.report.html import Markup
from medssl.report.method import method_sections, times
from medssl.report.metrics import metric_of, primary_of
from medssl.report.numbers import grid
from medssl.report.shown import FEW_MODES, by_mode, mode_name, modes_of


def render(comparison: pd.DataFrame, facts: Facts, extras: Extras | None = None) -> str:
    """The page as a string. `comparison` is the table of `evaluation.comparison.compare`, its primary metric first.

    Raises ValueError when the comparison has an arm that the facts do not describe.
    """
    extras = extras or Extras()
    undescribed = set(comparison["arm"]) - {arm.name for arm in facts.arms}
    if undescribed:
        raise ValueError(f"facts do not describe the arms {', '.join(sorted(undescribed))}")
    body = [
        *_figures(comparison),
        control.section(comparison),
        pairs_matrix.section(extras.pairs),
        efficiency.section(extras.matches, extras.power, comparison),
        subgroups.section(extras.subgroups, comparison),
        reliability.section(extras.reliability, comparison),
        confusion.section(extras.confusion, comparison),
        embedding_figure.section(extras.embeddings),
        worst.section(extras.worst, extras.images),
        numbers.section(comparison),
        _sentences(comparison, facts),
        *method_sections(comparison, facts),
    ]
    head = [_head(comparison, facts), _answer(comparison, facts), _caveats(comparison, facts), html.contents(body)]
    return document(f"{facts.study}: which initialisation?", [part for part in [*head, *body] if part])


def _head(comparison: pd.DataFrame, facts: Facts) -> Markup:
    first = comparison.iloc[0]
    unseen = "whose labels no training has seen" if facts.transductive else "that no training has seen"
    positive = f" ({first['test_positives']:,.0f} positive)" if _has_positives(comparison, facts) else ""
    tested = f"{first['test_images']:,} images{positive} of {first['test_patients']:,} patients {unseen}."
    if facts.pooling:
        tested = (
            f"{first['test_patients']:,} patients{positive} {unseen}; the scores of a patient's images are made one by their "
            f"{facts.pooling}, so wherever results count images, they count patients."
        )
    lead = f"Task: {_task(facts)} Tested on {tested}"
    kind = "medssl comparison, transductive" if facts.transductive else "medssl comparison"
    return Markup(
        f"<header>{html.paragraph(kind, 'kind')}<h1>{html.text(facts.study)}</h1>{html.paragraph(lead, 'lead')}</header>"
    )


def _task(facts: Facts) -> str:
    names = ", ".join(facts.names)
    return {
        "binary": f"{facts.target}, positive class {facts.positive_class}.",
        "multiclass": f"{facts.target}, one of {names}.",
        "ordinal": f"{facts.target}, from least to most {names}.",
        "multilabel": f"{facts.target}: {names}, each present or absent."
        if facts.target != names
        else f"{names}, each present or absent.",
        "regression": f"the value of {facts.target}.",
    }[facts.kind]


def _answer(comparison: pd.DataFrame, facts: Facts) -> Markup:
    """What every arm's sentence says, and the verdicts at a glance; of many modes all verdicts first, in one table."""
    said, alone, modes = headline(comparison, facts.pretrained, facts.unconverged), answer(comparison), modes_of(comparison)
    words = {mode: html.bullets(said[mode] or alone[mode]) for mode in modes}
    if len(modes) <= FEW_MODES:
        parts = [by_mode({mode: html.joined(words[mode], grid(comparison, [mode])) for mode in modes})]
    else:
        parts = [grid(comparison, modes), by_mode(words)]
    return Markup(f'<section class="answer"><h2>Which initialisation should this task start from?</h2>{"".join(parts)}</section>')


def _caveats(comparison: pd.DataFrame, facts: Facts) -> Markup:
    items: list[str] = []
    if facts.synthetic:
        items.append(
            _strong(
                "Synthetic data.",
                "The images are made, not of patients: this page shows that the tool works and says nothing about medicine.",
            )
        )
    if facts.transductive:
        items.append(
            _strong(
                "Transductive.",
                "Pretraining saw the images, not the labels, of the validation and test patients. For new patients expect less.",
            )
        )
    if _has_positives(comparison, facts):
        first = comparison.iloc[0]
        prevalence = first["test_positives"] / first["test_images"]
        who = "patients" if facts.pooling else "images"
        items.append(
            f"{prevalence:.0%} of the test {who} are positive. Average precision depends on that share, and where the share "
            "differs, so do predictive values; AUROC, sensitivity and specificity do not depend on it."
        )
    items += cautions(comparison, facts.pretrained, facts.unconverged)
    if facts.test_reads > 1:
        items.append(f"The test labels were scored {times(facts.test_reads)}. Every look after the first invites choosing by it.")
    if left_out := [f"{name} ({count:,})" for name, count in facts.exclusions.items() if count]:
        items.append(f"Left out: {'; '.join(left_out)}.")
    items += facts.notes
    return Markup(f'<aside class="caveats"><h2>Before you rely on this</h2>{html.bullets(items)}</aside>')


def _figures(comparison: pd.DataFrame) -> list[Markup]:
    """Curves and paired differences; with many modes the curves stand together, so that modes can be compared."""
    level, reference = f"{comparison['level'].iloc[0]:.0%}", comparison["reference"].iloc[0]
    metric, modes = metric_of(primary_of(comparison)), modes_of(comparison)
    below = (
        f"{metric.start} on the test patients with {level} intervals. Arms stand side by side so that their intervals can be "
        "seen; overlapping intervals do not mean that arms are equal: the paired differences below decide."
    )
    drawings = {mode: forest(comparison, mode) for mode in modes}
    differences = {mode: html.figure(drawing, _FOREST.format(reference, level)) for mode, drawing in drawings.items() if drawing}
    named = f"{metric.title} by number of labelled patients"
    if len(modes) <= FEW_MODES:
        return [
            html.section(f"{mode_name(mode)}: {named}", html.figure(curves(comparison, mode), below), differences.get(mode, ""))
            for mode in modes
        ]
    drawn = [html.figure(curves(comparison, mode, small=True), mode_name(mode)) for mode in modes]
    shown = (
        Markup(legend(comparison)),
        html.panels(drawn, named=True),
        html.paragraph(below + " All panels have one scale.", "note"),
    )
    result = [html.section(f"All modes: {named}", *shown)]
    return [*result, html.section(f"Paired differences to {reference}", by_mode(differences))] if differences else result


_FOREST = (
    "Paired differences to {} with {} intervals. Filled: the interval leaves out 0, and Holm's correction over the pairs of arms "
    "agrees. Hollow: not so, or the test set is too small to say."
)


def _sentences(comparison: pd.DataFrame, facts: Facts) -> Markup:
    rows = comparison[(comparison["metric"] == primary_of(comparison)) & (comparison["arm"] != comparison["reference"])]
    said = [sentence(row, facts.pretrained, facts.unconverged) for row in rows.to_dict("records")]
    if not said:
        return Markup("")
    # An arm's name keeps its own letters; a sentence that starts with words starts with a capital.
    return html.section(
        "Every comparison in words", html.bullets(f"The{text[3:]}" if text.startswith("the ") else text for text in said)
    )


def _has_positives(comparison: pd.DataFrame, facts: Facts) -> bool:
    return facts.kind == "binary" and "test_positives" in comparison and comparison["test_positives"].notna().all()


def _strong(start: str, rest: str) -> Markup:
    return Markup(f"<strong>{html.text(start)}</strong> {html.text(rest)}")
