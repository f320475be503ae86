"""What one row of a comparison says, in plain words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from medssl.evaluation.metrics import metric, title
from medssl.evaluation.verdicts import FEWEST_OF_A_CLASS, SMALL_TEST, fewest_of, verdict
from medssl.modes import MODES

_SETTINGS = {
    "linear": "as a linear probe",
    "linear_recalibrated": "as a linear probe with BatchNorm recalibrated",
    "knn": "by nearest neighbours",
    "full": "after full fine-tuning",
    "linear_then_full": "after a linear probe and then full fine-tuning",
    "partial": "after partial fine-tuning",
    "layer_decay": "after full fine-tuning with layer-wise rates",
}
assert set(_SETTINGS) == set(MODES)


def sentence(row: Mapping, pretrained: Collection[str] = (), unconverged: Collection[str] = ()) -> str:
    """What one row of `compare` says, naming a better arm only where the paired interval and Holm's correction do.

    `pretrained` names the arms whose encoder was pretrained by this study: a difference that involves one of them with a
    single pretraining run holds for that run, because no interval here covers another run of it. `unconverged` names the arms
    whose pretraining was not finished in earnest.
    """
    arm, reference, level, name = row["arm"], row["reference"], f"{row['level']:.0%}", title(row["metric"])
    setting = f"{_SETTINGS[row['mode']]} with {row['budget_patients']} labelled patients, validation included"
    low, high = number(row["difference_lower"]), number(row["difference_upper"])
    kind = verdict(row)
    if kind == "reference":
        low, high = number(row["lower"]), number(row["upper"])
        article = "an" if name[0] in "AEIOU" or name[:2] in ("F1", "R²") or name[0] in "aeiou" else "a"
        said = f"{arm}, the reference, reaches {article} {name} of {number(row['value'])} ({level} interval {low} to {high})"
    elif kind == "too few":
        said = f"the test set is too small to compare {arm} with {reference}"
    elif kind == "unclear":
        said = (
            f"the data cannot tell {arm} and {reference} apart "
            f"(difference {number(row['difference'])} {name}, {level} interval {low} to {high})"
        )
    else:
        gap, low, high = by(row)
        said = f"{arm} is {kind} than {reference} by {gap} {name} ({level} interval {low} to {high})"
    involved = [arm] if kind == "reference" else [arm, reference]
    holds = f", for {' and '.join(ones)}" if (ones := _once(row, involved, pretrained)) else ""
    late = [name for name in involved if name in unconverged]
    converged = f"; pretraining not converged ({' and '.join(late)})" if late else ""
    return f"{said} {setting}{holds}{converged}.{_small(row)}"


def by(row: Mapping) -> tuple[str, str, str]:
    """The size of a difference and the ends of its interval, all as distances, smaller first: ('0.031', '0.012', '0.049')."""
    ends = sorted((abs(row["difference_lower"]), abs(row["difference_upper"])))
    return number(abs(row["difference"])), number(ends[0]), number(ends[1])


def number(value: float) -> str:
    """Three decimals; more where three would print a value other than 0 as 0.000; '?' for unknown."""
    if value != value:
        return "?"
    for digits in (3, 4, 5):
        text = f"{value:.{digits}f}"
        if float(text) != 0 or value == 0:
            return text
    return "0.000"


def lower_is_better(name: str) -> str:
    """', lower is better' where it is."""
    return "" if metric(name).higher_is_better else ", lower is better"


def single_runs(row: Mapping, pretrained: Collection[str]) -> list[str]:
    """The arms of a row that were pretrained, once."""
    runs = {row["arm"]: row.get("n_runs", 1), row["reference"]: row.get("n_runs_reference", 1)}
    return [arm for arm, count in runs.items() if arm in pretrained and count == 1]


def _once(row: Mapping, involved: Collection[str], pretrained: Collection[str]) -> list[str]:
    ones = ["this one pretraining run"] if set(single_runs(row, pretrained)) & set(involved) else []
    return ones + (["this one label draw"] if row["n_seeds"] == 1 else [])


def _small(row: Mapping) -> str:
    fewest = fewest_of(row)
    if fewest < FEWEST_OF_A_CLASS:
        kind = "have an image of the rarest class"
        if row["test_patients_positive"] == row["test_patients_positive"]:
            kind = f"have a {'positive' if row['test_patients_positive'] == fewest else 'negative'} image"
        return f" Caution: only {fewest} of {row['test_patients']} test patients {kind}; below {FEWEST_OF_A_CLASS} no arm is called better."
    if row["test_patients"] < SMALL_TEST:
        return f" Caution: only {row['test_patients']} test patients."
    return ""
