"""The comparison as tables: on the screen (100 columns), and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table

from medssl.evaluation.sentences import number
from medssl.report.metrics import Metric, metric_of, metrics_of, primary_of
from medssl.report.shown import mode_name, modes_of

MOST_POINTS = 4  # metrics shown without intervals beside the primary one: more do not fit 100 columns
# Of what kind the others are that say most beside each primary metric; those that the table has, in this order.
_PREFERRED = (
    "average_precision", "rmse", "r2", "pearson", "balanced_accuracy", "sensitivity", "specificity",
    "accuracy", "f1", "mcc", "quadratic_kappa", "ece", "brier",
)  # fmt: skip


def points_of(comparison: pd.DataFrame) -> list[Metric]:
    """The metrics that tables of few columns show beside the primary one."""
    there = {metric.name for metric in metrics_of(comparison)} - {primary_of(comparison)}
    return [metric_of(name) for name in _PREFERRED if name in there][:MOST_POINTS]


def screen(comparison: pd.DataFrame) -> Group:
    """One table per mode, a row per label budget and arm; print it with a rich Console of 100 columns or more."""
    level, reference = f"{comparison['level'].iloc[0]:.0%}", comparison["reference"].iloc[0]
    primary, points = metric_of(primary_of(comparison)), points_of(comparison)
    lower = f"; {primary.short}: {primary.title}, lower is better" if primary.lower_is_better else ""
    tables = []
    for mode in modes_of(comparison):
        title = f"{mode_name(mode)}: means over the label draws, {level} intervals; difference to {reference}, paired"
        caption = f"labels: labelled patients, validation included{lower}"
        table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.title_justify = table.caption_justify = "left"
        table.add_column("labels", justify="right")
        table.add_column("arm", overflow="fold")
        for heading in (primary.short, "difference"):
            table.add_column(heading, no_wrap=True)
        for metric in points:
            table.add_column(metric.short, justify="right", no_wrap=True)
        for block in blocks(comparison[comparison["mode"] == mode]):
            for i, (arm, metrics) in enumerate(block):
                main = metrics[primary.name]
                table.add_row(
                    str(main["budget_patients"]) if i == 0 else "",
                    arm,
                    interval(main["value"], main["lower"], main["upper"]),
                    difference(main),
                    *(_point(metrics.get(metric.name)) for metric in points),
                    end_section=i == len(block) - 1,
                )
        tables.append(table)
    return Group(*tables)


def markdown(comparison: pd.DataFrame) -> str:
    """One Markdown table, a row per mode, label budget and arm, for a document."""
    primary, points = metric_of(primary_of(comparison)), points_of(comparison)
    headings = ["mode", "labelled patients", "arm", primary.short, "difference", *(metric.short for metric in points)]
    lines = [_line(headings), _line(["---", "---:", "---", "---", "---", *["---:"] * len(points)])]
    for mode in modes_of(comparison):
        for block in blocks(comparison[comparison["mode"] == mode]):
            for arm, metrics in block:
                main = metrics[primary.name]
                cells = [mode, str(main["budget_patients"]), arm.replace("|", "\\|")]
                cells += [interval(main["value"], main["lower"], main["upper"]), difference(main)]
                others = [metrics.get(metric.name) for metric in points]
                lines.append(_line([*cells, *("–" if row is None else number(row["value"]) for row in others)]))
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


def _point(row: dict | None) -> str:
    return "–" if row is None else "?" if row["value"] != row["value"] else f"{row['value']:.2f}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
