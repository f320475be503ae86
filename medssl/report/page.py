"""The comparison as one HTML page: no network, no script, light, dark and on paper."""

from __future__ import annotations

import pandas as pd

from medssl.evaluation.answer import answer, cautions, mode_name
from medssl.evaluation.binary import METRICS
from medssl.evaluation.comparison import sentence, verdict
from medssl.report import html
from medssl.report.document import document
from medssl.report.facts import Facts
from medssl.report.figures import budget_name, curves, forest, legend_mark
from medssl.report.html import Markup
from medssl.report.method import method_sections, times
from medssl.report.table import blocks, difference, number

NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
_VERDICTS = {"better": "▲ better", "worse": "▼ worse", "unclear": "cannot be told apart", "too few": "test set too small"}


def render(comparison: pd.DataFrame, facts: Facts) -> str:
    """The page as a string. `comparison` is the table of `evaluation.comparison.compare`.

    Raises ValueError when the comparison has an arm that the facts do not describe.
    """
    undescribed = set(comparison["arm"]) - {arm.name for arm in facts.arms}
    if undescribed:
        raise ValueError(f"facts do not describe the arms {', '.join(sorted(undescribed))}")
    body = [
        _head(comparison, facts),
        _answer(comparison),
        _caveats(comparison, facts),
        *_figures(comparison),
        *_tables(comparison),
        _sentences(comparison, facts),
        *method_sections(comparison, facts),
    ]
    return document(f"{facts.study}: which initialisation?", body)


def _head(comparison: pd.DataFrame, facts: Facts) -> Markup:
    first = comparison.iloc[0]
    lead = (
        f"Task: {facts.target}, positive class {facts.positive_class}. Tested on {first['test_images']:,} images "
        f"({first['test_positives']:,} positive) of {first['test_patients']:,} patients that no training has seen."
    )
    if facts.transductive:
        lead = lead.replace("that no training has seen", "whose labels no training has seen")
    kind = "medssl comparison, transductive" if facts.transductive else "medssl comparison"
    return Markup(
        f"<header>{html.paragraph(kind, 'kind')}<h1>{html.text(facts.study)}</h1>{html.paragraph(lead, 'lead')}</header>"
    )


def _answer(comparison: pd.DataFrame) -> Markup:
    parts = []
    for mode, sentences in answer(comparison).items():
        parts += [f"<h3>{html.text(mode_name(mode))}</h3>", html.bullets(sentences), _grid(comparison, mode)]
    return Markup(f'<section class="answer"><h2>Which initialisation should this task start from?</h2>{"".join(parts)}</section>')


def _grid(comparison: pd.DataFrame, mode: str) -> Markup:
    """Arms down, label budgets across: better, worse or not told apart, with the paired AUROC difference."""
    rows = comparison[(comparison["metric"] == "auroc") & (comparison["mode"] == mode)]
    others = rows[rows["arm"] != rows["reference"]]
    if others.empty:
        return Markup("")
    headings = [f"{budget_name(row)} labelled patients" for row in others.drop_duplicates("budget").to_dict("records")]
    lines = []
    for arm, own in others.groupby("arm", sort=False):
        cells = [_verdict_cell(row) for row in own.to_dict("records")]
        lines.append(f'<tr><th scope="row">{_arm(comparison, arm)}</th>{"".join(cells)}</tr>')
    reference, level = rows["reference"].iloc[0], f"{rows['level'].iloc[0]:.0%}"
    caption = f"AUROC minus that of {reference} on the same patients and label draws, {level} interval"
    head = "".join(f'<th scope="col">{html.text(heading)}</th>' for heading in ["arm", *headings])
    return html.titled(
        caption,
        Markup(f'<table class="grid"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'),
    )


def _verdict_cell(row: dict) -> str:
    kind = verdict(row)
    said = html.text(difference(row).replace("-", "−"))
    return f'<td class="{kind.split()[-1]}"><strong>{_VERDICTS[kind]}</strong><small>{said}</small></td>'


def _caveats(comparison: pd.DataFrame, facts: Facts) -> Markup:
    first = comparison.iloc[0]
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
    prevalence = first["test_positives"] / first["test_images"]
    items.append(
        f"{prevalence:.0%} of the test images are positive. Average precision depends on that share, and where the share "
        "differs, so do predictive values; AUROC, sensitivity and specificity do not depend on it."
    )
    items += cautions(comparison, facts.pretrained)
    if facts.test_reads > 1:
        items.append(f"The test labels were scored {times(facts.test_reads)}. Every look after the first invites choosing by it.")
    if left_out := [f"{name} ({count:,})" for name, count in facts.exclusions.items() if count]:
        items.append(f"Left out: {'; '.join(left_out)}.")
    items += facts.notes
    return Markup(f'<aside class="caveats"><h2>Before you rely on this</h2>{html.bullets(items)}</aside>')


def _figures(comparison: pd.DataFrame) -> list[Markup]:
    level = f"{comparison['level'].iloc[0]:.0%}"
    reference = comparison["reference"].iloc[0]
    result = []
    for mode in dict.fromkeys(comparison["mode"]):
        parts = [
            html.figure(
                curves(comparison, mode),
                f"AUROC on the test patients with {level} intervals. Arms stand side by side so that their intervals can be "
                "seen; overlapping intervals do not mean that arms are equal: the paired differences below decide.",
            )
        ]
        if drawing := forest(comparison, mode):
            parts.append(
                html.figure(
                    drawing,
                    f"Paired differences to {reference} with {level} intervals. Filled: the interval leaves out 0. "
                    "Hollow: it does not, or the test set is too small to say.",
                )
            )
        result.append(html.section(f"{mode_name(mode)}: AUROC by number of labelled patients", *parts))
    return result


def _tables(comparison: pd.DataFrame) -> list[Markup]:
    level, reference = f"{comparison['level'].iloc[0]:.0%}", comparison["reference"].iloc[0]
    result = []
    for mode, rows in comparison.groupby("mode", sort=False):
        lines: list[tuple[str, ...]] = []
        for block in blocks(rows):
            row = block[0][1]["auroc"]
            draws = f"{row['n_seeds']} label draw{'s' if row['n_seeds'] > 1 else ''}"
            lines.append((f"{budget_name(row)} labelled patients, {row['budget_images']} images, {draws}",))
            for arm, metrics in block:
                values = [_value(metrics[metric]) for metric in METRICS]
                lines.append((_arm(comparison, arm), values[0], _difference(metrics["auroc"]), *values[1:]))
        headings = ["arm", NAMES["auroc"], f"AUROC minus {reference}", *(NAMES[metric] for metric in METRICS[1:])]
        caption = f"Means over the label draws with {level} intervals; sensitivity and specificity at the threshold chosen inside the budget"
        result.append(html.section(f"{mode_name(mode)}: all numbers", html.table(caption, headings, lines)))
    return result


def _sentences(comparison: pd.DataFrame, facts: Facts) -> Markup:
    rows = comparison[(comparison["metric"] == "auroc") & (comparison["arm"] != comparison["reference"])]
    said = [sentence(row, facts.pretrained) for row in rows.to_dict("records")]
    if not said:
        return Markup("")
    # An arm's name keeps its own letters; a sentence that starts with words starts with a capital.
    return html.section(
        "Every comparison in words", html.bullets(f"The{text[3:]}" if text.startswith("the ") else text for text in said)
    )


def _arm(comparison: pd.DataFrame, arm: str) -> Markup:
    breakable = html.text(arm).replace("_", "_<wbr>")
    return Markup(legend_mark(comparison, arm) + breakable)


def _value(row: dict) -> Markup:
    return Markup(f"{number(row['value'])}<small>{number(row['lower'])} to {number(row['upper'])}</small>")


def _difference(row: dict) -> Markup:
    if row["arm"] == row["reference"]:
        return Markup("<small>reference</small>")
    sign = "+" if row["difference"] > 0 else ""
    ends = f"{number(row['difference_lower'])} to {number(row['difference_upper'])}"
    return Markup(f"{sign}{number(row['difference'])}<small>{ends}</small>".replace("-", "−"))


def _strong(start: str, rest: str) -> Markup:
    return Markup(f"<strong>{html.text(start)}</strong> {html.text(rest)}")
