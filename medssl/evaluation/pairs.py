"""Every pair of arms on the task's primary metric, with p-values corrected for the number of pairs."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from medssl.evaluation.bootstrap import Drawn
from medssl.evaluation.delong import delong_test
from medssl.evaluation.holm import holm
from medssl.evaluation.metrics import PRIMARY
from medssl.evaluation.predictions import Cell, TestSet
from medssl.evaluation.verdicts import FEWEST_OF_A_CLASS, called

COLUMNS = {
    "a": "an arm",
    "b": "an arm that stands after it in the table",
    "mode": "how both were trained, a name of medssl.modes",
    "budget": "label of the budget",
    "budget_patients": "labelled patients, validation included (mean over the draws, rounded)",
    "n_seeds": "label draws",
    "metric": "the primary metric of the task",
    "difference": "a minus b",
    "lower": "lower end of the paired interval",
    "upper": "upper end of the paired interval",
    "p": "of no difference, two-sided, from the same variance and degrees of freedom as the interval",
    "p_delong": "of no difference, by DeLong; binary, one label draw and one pretraining run an arm, else empty",
    "p_holm": "p corrected by Holm over all pairs of the mode and budget",
    "verdict": "better | worse (a than b) | unclear | too few (test patients)",
}


def pairs_of(test: TestSet, drawn: Drawn, fewest: int, level: float) -> pd.DataFrame:
    """One row a pair of arms of one block, columns COLUMNS.

    A pair is called better or worse only if its interval leaves out 0 and p_holm < 1 - level. The family of the
    correction is all pairs of arms of one mode and one budget: the chance that one or more of them is named falsely is at most
    1 - level. Fewer than FEWEST_OF_A_CLASS test patients of the rarest class (`fewest`) name nobody.
    """
    name, block = PRIMARY[test.outputs.kind], drawn.block
    rows = []
    for a, b in itertools.combinations(test.arms, 2):
        found = drawn.differences(a, b, level)[name]
        row = {
            **{"a": a, "b": b, "mode": block.mode, "budget": block.budget, "budget_patients": block.patients},
            **{"n_seeds": len(block.seeds), "metric": name, "difference": found.value, "lower": found.lower},
            **{"upper": found.upper, "p": found.p, "p_delong": _p_delong(test, drawn, a, b, level)},
        }
        rows.append(row)
    table = pd.DataFrame(rows, columns=[column for column in COLUMNS if column not in ("p_holm", "verdict")])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    table["verdict"] = [
        called(row, "lower", "upper", level) if fewest >= FEWEST_OF_A_CLASS else "too few" for row in table.to_dict("records")
    ]
    return table


def _p_delong(test: TestSet, drawn: Drawn, a: str, b: str, level: float) -> float:
    single = len(drawn.block.seeds) == 1 and len(test.runs_of(a)) == len(test.runs_of(b)) == 1
    if test.outputs.kind != "binary" or not single:
        return math.nan
    first, second = (test.scores[only_cell(test, drawn, arm)][:, 0] for arm in (a, b))
    return delong_test(test.labels[:, 0], first, second, test.patients, level).p


def only_cell(test: TestSet, drawn: Drawn, arm: str) -> Cell:
    """The cell of an arm that has one draw and one pretraining run in this block."""
    return Cell(arm, drawn.block.mode, drawn.block.budget, drawn.block.seeds[0], test.runs_of(arm)[0])
