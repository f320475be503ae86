"""The comparison as a short answer: one sentence per mode and label budget, and what to be careful about."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from medssl.evaluation.bootstrap import COVERAGE
from medssl.evaluation.comparison import SMALL_TEST, verdict


def answer(comparison: pd.DataFrame) -> dict[str, list[str]]:
    """Mode -> sentences on AUROC, small label budgets first: which arms are better, worse, not told apart.

    Neighbouring budgets of which the same can be said share a sentence.
    """
    auroc = comparison[comparison["metric"] == "auroc"]
    result: dict[str, list[str]] = {}
    for mode, rows in auroc.groupby("mode", sort=False):
        said: list[tuple[str, list[str]]] = []
        for _, block in rows.groupby("budget", sort=False):
            finding, patients = _finding(block), str(block["budget_patients"].iloc[0])
            if said and said[-1][0] == finding:
                said[-1][1].append(patients)
            else:
                said.append((finding, [patients]))
        result[mode] = [f"With {_list(patients)} labelled patients, {finding}." for finding, patients in said]
    return result


def _finding(block: pd.DataFrame) -> str:
    reference = block["reference"].iloc[0]
    arms: dict[str, list[str]] = {}
    for row in block.to_dict("records"):
        arms.setdefault(verdict(row), []).append(row["arm"])
    parts = []
    for kind in ("better", "worse"):
        if kind in arms:
            verb = "is" if len(arms[kind]) == 1 else "are"
            parts.append(f"{_list(arms[kind])} {verb} {kind} than {reference}")
    if "unclear" in arms:
        parts.append(f"the data cannot tell {_list(arms['unclear'], 'or')} from {reference}")
    if "too few" in arms:
        parts.append(f"the test set is too small to compare {_list(arms['too few'], 'or')} with {reference}")
    return "; ".join(parts) or f"{reference} has no arm to be compared with"


def cautions(comparison: pd.DataFrame, pretrained: Collection[str] = ()) -> list[str]:
    """What a reader of the comparison must know before believing it, one sentence or two each."""
    first = comparison.iloc[0]
    auroc = comparison[comparison["metric"] == "auroc"]
    result = []
    patients, level = int(first["test_patients"]), f"{first['level']:.0%}"
    if patients < SMALL_TEST:
        result.append(f"The test set is small: {patients} patients. Percentile intervals are then too narrow.")
    compared = auroc[auroc["arm"] != auroc["reference"]]
    if len(compared) > 1:
        chance = len(compared) * (1 - first["level"])
        result.append(
            f"{len(compared)} differences are shown, each with its own {level} interval. If no arm differed from the "
            f"reference, {chance:.1f} of them would still be expected to exclude 0."
        )
    others = list(dict.fromkeys(compared["arm"]))
    if len(others) > 1:
        result.append(
            f"Arms are compared with {first['reference']} alone. To compare two others, make one of them the reference: "
            "where two single intervals overlap, nothing follows about their difference."
        )
    if ours := [arm for arm in dict.fromkeys(auroc["arm"]) if arm in pretrained]:
        result.append(
            f"{_list(ours)}: for this one pretraining run. Pretraining was not repeated, and no interval covers how "
            "another run would have come out."
        )
    draws = sorted(set(auroc["n_seeds"]))
    if draws[0] == 1:
        result.append("One label draw: the intervals leave out the luck of which patients were labelled.")
    elif draws[0] < max(COVERAGE):
        held = COVERAGE[max(known for known in COVERAGE if known <= draws[0])]
        result.append(
            f"{draws[0]} label draws: how much the result depends on which patients were labelled is only roughly known. "
            f"With so few, intervals made to hold the truth in 95 of 100 studies held it in as few as {held} of 100 "
            "simulated ones, where the draws differed much."
        )
    return result


def mode_name(mode: str) -> str:
    """'Linear probe' or 'Full fine-tuning'."""
    return {"linear": "Linear probe", "full": "Full fine-tuning"}[mode]


def _list(names: list[str], last: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
