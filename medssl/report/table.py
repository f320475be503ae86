"""The comparison as tables: on the screen (100 columns), and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table

from medssl.evaluation.answer import mode_name
from medssl.evaluation.binary import METRICS
from medssl.evaluation.comparison import number

POINTS = METRICS[1:]  # shown as points beside the AUROC, which has its intervals
HEADINGS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "balanced_accuracy": "BAcc",
    "sensitivity": "Sens",
    "specificity": "Spec",
}


def screen(comparison: pd.DataFrame) -> Group:
    """One table per mode, a row per label budget and arm; print it with a rich Console of 100 columns or more."""
    level, reference = f"{comparison['level'].iloc[0]:.0%}", comparison["reference"].iloc[0]
    tables = []
    for mode, rows in comparison.groupby("mode", sort=False):
        title = f"{mode_name(mode)}: means over the label draws, {level} intervals; difference to {reference}, paired"
        caption = "labels: labelled patients, validation included"
        table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.title_justify = table.caption_justify = "left"
        table.add_column("labels", justify="right")
        table.add_column("arm", overflow="fold")
        for heading in ("AUROC", "difference"):
            table.add_column(heading, no_wrap=True)
        for metric in POINTS:
            table.add_column(HEADINGS[metric], justify="right", no_wrap=True)
        for block in blocks(rows):
            for i, (arm, metrics) in enumerate(block):
                auroc = metrics["auroc"]
                table.add_row(
                    str(auroc["budget_patients"]) if i == 0 else "",
                    arm,
                    interval(auroc["value"], auroc["lower"], auroc["upper"]),
                    difference(auroc),
                    *(f"{metrics[metric]['value']:.2f}" for metric in POINTS),
                    end_section=i == len(block) - 1,
                )
        tables.append(table)
    return Group(*tables)


def markdown(comparison: pd.DataFrame) -> str:
    """One Markdown table, a row per mode, label budget and arm, for a document."""
    headings = ["mode", "labelled patients", "arm", "AUROC", "difference", *(HEADINGS[metric] for metric in POINTS)]
    lines = [_line(headings), _line(["---", "---:", "---", "---", "---", *["---:"] * len(POINTS)])]
    for mode, rows in comparison.groupby("mode", sort=False):
        for block in blocks(rows):
            for arm, metrics in block:
                auroc = metrics["auroc"]
                cells = [mode, str(auroc["budget_patients"]), arm.replace("|", "\\|")]
                cells += [interval(auroc["value"], auroc["lower"], auroc["upper"]), difference(auroc)]
                lines.append(_line([*cells, *(number(metrics[metric]["value"]) for metric in POINTS)]))
    return "\n".join(lines) + "\n"


def interval(value: float, lower: float, upper: float) -> str:
    """'0.912 [0.880, 0.941]'."""
    return f"{number(value)} [{number(lower)}, {number(upper)}]"


def difference(row: dict) -> str:
    """The paired difference of a row of the comparison with its interval; 'reference' for the reference."""
    if row["arm"] == row["reference"]:
        return "reference"
    plus = "+" if row["difference"] > 0 else ""
    return plus + interval(row["difference"], row["difference_lower"], row["difference_upper"])


def blocks(rows: pd.DataFrame) -> Iterator[list[tuple[str, dict[str, dict]]]]:
    """Per label budget: (arm, metric -> row of the comparison), in the order of the comparison."""
    for _, block in rows.groupby("budget", sort=False):
        arms: dict[str, dict[str, dict]] = {}
        for row in block.to_dict("records"):
            arms.setdefault(row["arm"], {})[row["metric"]] = row
        yield list(arms.items())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
