"""The tables of a model card: one arm's metrics, subgroups and calibration, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from medssl.evaluation.answer import headline
from medssl.report import markdown as md
from medssl.report.facts import Facts
from medssl.report.metrics import metric_of, metrics_of, of_family, primary_of
from medssl.report.pairs_matrix import probability
from medssl.report.shown import mode_name, modes_of
from medssl.report.table import difference, interval


def metrics(arm: str, facts: Facts, comparison: pd.DataFrame, pairs: pd.DataFrame | None, task: str) -> str:
    """What the arm reaches, how it compares with the reference in words, and with every other arm where `pairs` is given."""
    rows = comparison[comparison["arm"] == arm]
    first, primary = rows.iloc[0], metric_of(primary_of(comparison))
    level = f"{first['level']:.0%}"
    direction = " Lower is better." if primary.lower_is_better else ""
    scored = (
        f"the scores of a patient's images made one by their {facts.pooling}"
        if facts.pooling
        else f"{first['test_images']:,} images"
    )
    parts = [
        f"Task: {task}. {first['test_patients']:,} test patients, {scored}. Primary metric: "
        f"{primary.title}.{direction} Means over label draws with {level} intervals; differences are paired, arm minus "
        f"{md.plain(first['reference'])}."
    ]
    said = headline(comparison, facts.pretrained, facts.unconverged)
    mine = [
        f"{mode_name(mode)}: {text}"
        for mode in modes_of(comparison)
        for text in said[mode]
        if _about(arm, text, comparison, mode, said)
    ]
    parts += [md.bullets(mine)] if mine else []
    shown = [primary, *(metric for metric in metrics_of(rows) if metric.name != primary.name and not metric.target)]
    shown = [metric for metric in shown if metric.family != "calibration"]
    head = ["mode", "labelled patients", primary.title, "difference", *(metric.title for metric in shown[1:])]
    lines = [md.line(head), md.line(["---", "---:", *["---"] * (len(head) - 2)])]
    for mode in modes_of(rows):
        for _, block in rows[rows["mode"] == mode].groupby("budget", sort=False):
            by = {row["metric"]: row for row in block.to_dict("records")}
            main = by[primary.name]
            cells = [mode_name(mode), f"{main['budget_patients']:,}", _interval(main), difference(main)]
            lines.append(md.line([*cells, *(_interval(by.get(metric.name)) for metric in shown[1:])]))
    parts.append("\n".join(lines))
    if pairs is not None and not pairs.empty:
        parts.append(_against_others(arm, pairs))
    return "\n\n".join(part for part in parts if part)


def _about(arm: str, text: str, comparison: pd.DataFrame, mode: str, said: Mapping[str, list[str]]) -> bool:
    """Whether a sentence of the mode is that on `arm`: they come in the order of the arms that are not the reference."""
    rows = comparison[(comparison["mode"] == mode) & (comparison["arm"] != comparison["reference"])]
    arms = list(dict.fromkeys(rows["arm"]))
    return arm in arms and said[mode][arms.index(arm)] is text


def _against_others(arm: str, pairs: pd.DataFrame) -> str:
    own = pairs[(pairs["a"] == arm) | (pairs["b"] == arm)]
    lines = [
        md.line(["against", "mode", "labelled patients", "difference", "after Holm's correction"]),
        md.line(["---", "---", "---:", "---", "---:"]),
    ]
    for row in own.to_dict("records"):
        mine = row["a"] == arm
        ends = (row["lower"], row["upper"]) if mine else (-row["upper"], -row["lower"])
        value = interval(row["difference"] if mine else -row["difference"], *ends)
        other = row["b"] if mine else row["a"]
        cells = [md.plain(other), mode_name(row["mode"]), f"{row['budget_patients']:,}", value, probability(row["p_holm"])]
        lines.append(md.line(cells))
    return "Against every other arm, this arm minus the other:\n\n" + "\n".join(lines)


def subgroups(arm: str, table: pd.DataFrame | None) -> str:
    """The primary metric of each group with its gap."""
    if table is None or table.empty:
        return "Not measured: the data card names no subgroups."
    rows = table[table["arm"] == arm]
    rows = rows[rows["metric"] == rows["metric"].iloc[0]]
    title = metric_of(rows["metric"].iloc[0]).title
    head = ["by", "group", "mode", "budget", "patients", "images", title, "gap to all others"]
    lines = [md.line(head), md.line(["---"] * 4 + ["---:"] * 2 + ["---"] * 2)]
    for row in rows.to_dict("records"):
        value = "too few patients" if row["too_small"] else _interval(row)
        gap = "–" if row["too_small"] or row["gap"] != row["gap"] else interval(row["gap"], row["gap_lower"], row["gap_upper"])
        cells = [md.plain(row["column"]), md.plain(row["group"]), mode_name(row["mode"]), md.plain(row["budget"])]
        lines.append(md.line([*cells, f"{int(row['patients']):,}", f"{int(row['images']):,}", value, gap]))
    return "\n".join(lines) + "\n\nNothing here is corrected for the number of groups."


def calibration(rows: pd.DataFrame) -> str:
    """The metrics of calibration among the arm's `rows` of the comparison."""
    metrics = of_family(rows, "calibration")
    if not metrics:
        return "Not measured for this kind of task."
    lines = [md.line(["mode", "labelled patients", *(metric.title for metric in metrics)])]
    lines.append(md.line(["---", "---:", *["---"] * len(metrics)]))
    for mode in modes_of(rows):
        for _, block in rows[rows["mode"] == mode].groupby("budget", sort=False):
            by = {row["metric"]: row for row in block.to_dict("records")}
            patients = f"{next(iter(by.values()))['budget_patients']:,}"
            lines.append(md.line([mode_name(mode), patients, *(_interval(by.get(metric.name)) for metric in metrics)]))
    return "Of the classifiers made from this encoder; lower is better.\n\n" + "\n".join(lines)


def _interval(row: Mapping | None) -> str:
    return (
        "–" if row is None else "unknown" if row["value"] != row["value"] else interval(row["value"], row["lower"], row["upper"])
    )
