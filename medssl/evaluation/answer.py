"""The comparison as a short answer: which arm is better, by how much, with how many labels, and what to be careful about."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from medssl.evaluation.coverage import BY_DRAWS, BY_PATIENTS
from medssl.evaluation.metrics import title
from medssl.evaluation.sentences import by, lower_is_better, single_runs
from medssl.evaluation.verdicts import SMALL_TEST, verdict
from medssl.modes import MODES


def headline(
    comparison: pd.DataFrame, pretrained: Collection[str] = (), unconverged: Collection[str] = ()
) -> dict[str, list[str]]:
    """Mode -> one sentence for each arm but the reference, over all label budgets, small ones first.

    'in_domain beats imagenet by 0.031 AUROC (0.012 to 0.049) with 47 labelled patients, validation included; with all
    labels the data cannot tell them apart.' An arm beats another only where `verdict` says so. `pretrained` names the arms that
    this study pretrained: with one run of it the sentence holds for that run. `unconverged` names those whose pretraining was
    not finished in earnest.
    """
    result: dict[str, list[str]] = {}
    for mode, rows in primary(comparison).groupby("mode", sort=False):
        others = rows[rows["arm"] != rows["reference"]]
        result[mode] = [_over_budgets(own, pretrained, unconverged) for _, own in others.groupby("arm", sort=False)]
    return result


def _over_budgets(rows: pd.DataFrame, pretrained: Collection[str], unconverged: Collection[str]) -> str:
    records = rows.to_dict("records")
    first = records[0]
    arm, reference, name = first["arm"], first["reference"], first["metric"]
    clauses: list[tuple[str, list[dict]]] = []
    for row in records:
        kind = verdict(row)
        # Neighbouring budgets share a clause where nothing is claimed; where an arm wins, each has its own number.
        if clauses and clauses[-1][0] == kind and kind in ("unclear", "too few"):
            clauses[-1][1].append(row)
        else:
            clauses.append((kind, [row]))
    parts, validation = [], ", validation included"
    for kind, block in clauses:
        labels = _labels(block)
        if kind in ("better", "worse"):
            gap, low, high = by(block[0])
            named = (
                f"{arm} {'beats' if kind == 'better' else 'loses to'} {reference}" if not parts else _again(kind, arm, parts[-1])
            )
            parts.append(f"{named} by {gap} {title(name)} ({low} to {high}{lower_is_better(name)}) with {labels}{validation}")
        else:
            them = f"{arm} and {reference}" if not parts else "them"
            cannot = f"the data cannot tell {them} apart" if kind == "unclear" else f"the test set is too small to compare {them}"
            parts.append(f"with {labels}{validation}{',' if validation else ''} {cannot}")
        validation = ""
    text = "; ".join(parts)
    text = text if text.startswith(arm) else text[0].upper() + text[1:]
    if once := single_runs(first, pretrained):
        text += f"; for this one pretraining run{_of(once, arm)}"
    if late := [each for each in (arm, reference) if each in unconverged]:
        text += f"; pretraining not converged{_of(late, arm)}"
    return text + "."


def _again(kind: str, arm: str, before: str) -> str:
    # `it` is the arm only where the clause before began with it.
    subject = "it" if before.startswith((f"{arm} ", "it ")) else arm
    return f"{subject} {'wins' if kind == 'better' else 'loses'}"


def _of(arms: list[str], arm: str) -> str:
    return "" if arms == [arm] else f" of {list_of(arms)}"


def _labels(block: list[dict]) -> str:
    """'47 labelled patients', '20, 40 and 60 labelled patients and with all labels'."""
    counts = [f"{row['budget_patients']}" for row in block if row["budget"] != "all"]
    parts = [f"{list_of(counts)} labelled patients"] if counts else []
    return " and with ".join(parts + ["all labels"] * (len(counts) < len(block)))


def answer(comparison: pd.DataFrame) -> dict[str, list[str]]:
    """Mode -> sentences on the primary metric, small label budgets first: which arms are better, worse, not told apart.

    Neighbouring budgets of which the same can be said share a sentence.
    """
    result: dict[str, list[str]] = {}
    for mode, rows in primary(comparison).groupby("mode", sort=False):
        said: list[tuple[str, list[str]]] = []
        for _, block in rows.groupby("budget", sort=False):
            finding, patients = _finding(block), str(block["budget_patients"].iloc[0])
            if said and said[-1][0] == finding:
                said[-1][1].append(patients)
            else:
                said.append((finding, [patients]))
        result[mode] = [f"With {list_of(patients)} labelled patients, {finding}." for finding, patients in said]
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
            parts.append(f"{list_of(arms[kind])} {verb} {kind} than {reference}")
    if "unclear" in arms:
        parts.append(f"the data cannot tell {list_of(arms['unclear'], 'or')} from {reference}")
    if "too few" in arms:
        parts.append(f"the test set is too small to compare {list_of(arms['too few'], 'or')} with {reference}")
    return "; ".join(parts) or f"{reference} has no arm to be compared with"


def cautions(comparison: pd.DataFrame, pretrained: Collection[str] = (), unconverged: Collection[str] = ()) -> list[str]:
    """What a reader of the comparison must know before believing it, one sentence or two each."""
    first, rows, result = comparison.iloc[0], primary(comparison), []
    patients, level = int(first["test_patients"]), f"{first['level']:.0%}"
    if patients < SMALL_TEST:
        result.append(f"The test set is small: {patients} patients. {_found(BY_PATIENTS, patients, 'test patients')}")
    elif patients < max(BY_PATIENTS):
        result.append(f"There are {patients} test patients. {_found(BY_PATIENTS, patients, 'test patients')}")
    compared = rows[rows["arm"] != rows["reference"]]
    if len(compared) > 1:
        families = len(compared.drop_duplicates(["mode", "budget"]))
        text = (
            f"{len(compared)} differences are shown, each with its own {level} interval. Arms are called better or worse after "
            "Holm's correction for all pairs of arms of a mode and label budget"
        )
        if families > 1:
            chance = families * (1 - first["level"])
            text += f", and not for the {families} combinations of both: if no arm differed, up to {chance:.1f} of them would still name one"
        result.append(text + ".")
    if unknown := sorted(set(rows.loc[rows["value"].isna(), "metric"])):
        names = list_of([title(name) for name in unknown])
        result.append(f"The {names} is unknown: the test set lacks a class that it needs, so no arm is called better.")
    arms = list(dict.fromkeys(rows["arm"]))
    runs = dict(zip(rows["arm"], rows["n_runs"], strict=True)) if "n_runs" in rows else {}
    if ours := [arm for arm in arms if arm in pretrained and runs.get(arm, 1) == 1]:
        result.append(
            f"{list_of(ours)}: for this one pretraining run. Pretraining was not repeated, and no interval covers how "
            "another run would have come out."
        )
    if late := [arm for arm in arms if arm in unconverged]:
        result.append(f"{list_of(late)}: pretraining not converged. A longer pretraining may come out otherwise.")
    return result + _draws(rows[rows["budget"] != "all"])


def _draws(rows: pd.DataFrame) -> list[str]:
    """What few label draws mean, of rows in which labels were drawn at all."""
    result = []
    once = rows[rows["n_seeds"] == 1]
    if len(once):
        where = "" if len(once) == len(rows) else f" in {list_of(_once_in(rows))}"
        result.append(f"One label draw{where}: the intervals leave out the luck of which patients were labelled.")
    several = rows.loc[rows["n_seeds"] > 1, "n_seeds"]
    if len(several) and (fewest := int(several.min())) < max(BY_DRAWS):
        result.append(
            f"{fewest} label draws: how much the result depends on which patients were labelled is only roughly known. "
            + _found(BY_DRAWS, fewest, "label draws")
        )
    return result


def _once_in(rows: pd.DataFrame) -> list[str]:
    """The modes with one draw, and their budgets where it is not so at all of them."""
    names = []
    for mode, own in rows.groupby("mode", sort=False):
        budgets = list(dict.fromkeys(own.loc[own["n_seeds"] == 1, "budget"]))
        if budgets:
            names.append(mode_name(mode) + ("" if (own["n_seeds"] == 1).all() else f" (budget {list_of(budgets)})"))
    return names


def _found(coverage: dict[int, int], size: int, what: str) -> str:
    """What simulations found at the nearest size that is not larger, or at the smallest."""
    known = max((each for each in coverage if each <= size), default=min(coverage))
    return (
        f"In simulated studies with {known} {what}, intervals made to hold the truth in 95 of 100 studies held it in "
        f"{coverage[known]} of 100 in the worst setting tried."
    )


def primary(comparison: pd.DataFrame) -> pd.DataFrame:
    """The rows of the metric by which arms are called better or worse."""
    return comparison[comparison["primary"].to_numpy(dtype=bool)]


def mode_name(mode: str) -> str:
    """The name of a mode on pages: 'Linear probe'."""
    return MODES[mode]


def list_of(names: list[str], last: str = "and") -> str:
    """'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
