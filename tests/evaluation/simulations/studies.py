"""Made-up studies with a known truth, and how often the intervals of medssl.evaluation hold it.

    python tests/evaluation/simulations/studies.py [coverage] [images] [draws] [null] [power] [--studies N] [--replicates R]
        [--only NAME] [--out FILE]

prints a table of each and what docs/statistics.md quotes. The tests marked `long` beside it run the same functions with fewer studies
and bounds.

A study: P patients with 1 to 10 images each, 40 % of them positive; the score of an image is

    separation of the model * label + patient's effect (normal, SD 1) + patient's and image's effect on this model (SD `own` and 0.5)

so images of a patient are alike, and models agree about patients only in part. A model's separation is that of its arm plus what
its label draw (shared by the arms in part), its pretraining run and their meeting add. Scores of a class are normal, so
the AUROC that the arm reaches on average is known in closed form.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from medssl.evaluation.bootstrap import score_replicates
from medssl.evaluation.ranking import rank
from medssl.evaluation.variance import estimate, patient_df

AUROC = ("auroc",)


class AurocScorer:
    """The AUROC alone, which is all that the simulations look at."""

    names = AUROC

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._ranking = rank(labels, scores)

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        return self._ranking.evaluate(weights)[0][:, None]


@dataclass(frozen=True)
class Setting:
    """Standard deviations are in units of a separation; at 1.2 a unit of 0.1 is about 0.02 AUROC."""

    patients: int = 300
    draws: int = 5
    runs: int = 3
    separation: float = 1.2
    gain: float = 0.0  # of the second arm
    of_draw: float = 0.1  # SD of what a label draw adds to an arm, half of its variance shared by the arms
    of_run: float = 0.1  # SD of what a pretraining run adds
    of_both: float = 0.05  # SD of what their meeting adds
    own: float = 0.4  # SD of a model's own view of a patient
    images: int = 10  # most images of a patient

    def auroc(self, separation: float) -> float:
        """What models of this mean separation reach on average over draws and runs."""
        noise = 2 * (1 + self.own**2 + 0.25) + self.of_draw**2 + self.of_run**2 + self.of_both**2
        return 0.5 * (1 + math.erf(separation / math.sqrt(noise) / math.sqrt(2)))

    @property
    def difference(self) -> float:
        return self.auroc(self.separation + self.gain) - self.auroc(self.separation)


def study(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) labels, (N,) patients and (2, runs, draws, N) scores of one study."""
    s, shape = setting, (2, setting.runs, setting.draws)
    patients = np.repeat(np.arange(s.patients), rng.integers(1, s.images + 1, s.patients))
    of_patient = rng.random(s.patients) < 0.4
    while of_patient.all() or not of_patient.any():
        of_patient = rng.random(s.patients) < 0.4
    labels = of_patient[patients].astype(float)
    draws = s.of_draw * math.sqrt(0.5) * (rng.normal(size=(1, 1, s.draws)) + rng.normal(size=(2, 1, s.draws)))
    model = draws + s.of_run * rng.normal(size=(2, s.runs, 1)) + s.of_both * rng.normal(size=shape)
    separation = s.separation + np.array([0, s.gain])[:, None, None] + model
    effect = rng.normal(size=s.patients) + s.own * rng.normal(size=(*shape, s.patients))
    noise = 0.5 * rng.normal(size=(*shape, len(patients)))
    return labels, patients, separation[..., None] * labels + effect[..., patients] + noise


def difference(labels: np.ndarray, clusters: np.ndarray, scores: np.ndarray, replicates: int, seed: int):
    """Estimate of the second arm minus the first, as `Drawn.differences` makes it, and the replicates of both arms."""
    arms, runs, draws, n = scores.shape
    scorers = [AurocScorer(labels, row) for row in scores.reshape(-1, n)]
    values = np.array([scorer.evaluate(np.ones((1, n)))[0] for scorer in scorers]).reshape(arms, runs, draws, 1)
    drawn = score_replicates(scorers, clusters, replicates, seed, threads=1).reshape(replicates, arms, runs, draws, 1)
    sides = [[len(np.unique(clusters[labels == 1])), len(np.unique(clusters[labels == 0]))]]
    df = patient_df(np.array(sides), int(clusters.max()) + 1)
    return estimate(values[::-1], [drawn[:, 1], drawn[:, 0]], df), estimate(values[:1], [drawn[:, 0]], df), values, drawn


def run(setting: Setting, studies: int, replicates: int, clusters: str = "patients", seed: int = 0) -> dict[str, float]:
    """Shares of `studies` in which the 95 % intervals hold the truth, and in which the arms are called different.

    `by_percentiles` is the same difference by percentiles with draws and runs resampled k - 1 of k, for comparison.
    """
    rng = np.random.default_rng(seed)
    truth, alone = setting.difference, setting.auroc(setting.separation)
    held, held_alone, called, by_percentiles, width = 0, 0, 0, 0, 0.0
    for number in range(studies):
        labels, patients, scores = study(setting, rng)
        groups = patients if clusters == "patients" else np.arange(len(patients))
        found, first, _, drawn = difference(labels, groups, scores, replicates, number)
        low, high = (end[0] for end in found.symmetric(0.95))
        held += low <= truth <= high
        called += low > 0 or high < 0
        width += high - low
        low, high = (end[0] for end in first.skewed(0.95))
        held_alone += low <= alone <= high
        low, high = _percentiles(drawn[..., 0], rng)
        by_percentiles += low <= truth <= high
    shares = {
        "difference_held": held,
        "one_arm_held": held_alone,
        "called": called,
        "percentiles_held": by_percentiles,
        "width": width,
    }
    return {name: round(value / studies, 4) for name, value in shares.items()} | {"studies": studies}


def _percentiles(drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Interval of the difference by percentiles, k - 1 of the k draws and runs resampled with the patients."""
    replicates, _, runs, draws = drawn.shape

    def weights(count: int) -> np.ndarray:
        picks = rng.integers(0, count, size=(replicates, max(1, count - 1)))
        return (picks[:, :, None] == np.arange(count)).mean(axis=1)

    of_draw = weights(draws)
    each = [np.einsum("rnk,rn,rk->r", drawn[:, arm], weights(runs), of_draw) for arm in (0, 1)]
    return np.nanquantile(each[1] - each[0], [0.025, 0.975])


SMALL = Setting(draws=1, runs=1)  # one draw and one run that are the truth: patients alone are sampled
PATIENTS_ALONE = replace(SMALL, of_draw=0.0, of_run=0.0, of_both=0.0)
PLANS: dict[str, list[tuple[str, Setting, str]]] = {
    "coverage": [
        (f"{patients} patients, one draw and run", replace(PATIENTS_ALONE, patients=patients, gain=0.15), "patients")
        for patients in (40, 100, 300, 1000)
    ],
    "images": [("300 patients, images resampled", replace(PATIENTS_ALONE, gain=0.15), "images")],
    "draws": [
        (
            f"{draws} draws, {name}",
            replace(Setting(patients=300, runs=1, of_run=0, of_both=0, gain=0.15), draws=draws, of_draw=spread),
            "patients",
        )
        for draws in (2, 3, 5, 10)
        for name, spread in (("which do not differ", 0.0), ("SD 0.02 AUROC", 0.1), ("SD 0.04 AUROC", 0.2))
    ],
    "null": [
        ("5 draws, 3 runs an arm", Setting(), "patients"),
        ("3 draws, 3 runs an arm", replace(Setting(), draws=3), "patients"),
        ("5 draws, 2 runs an arm", replace(Setting(), runs=2), "patients"),
        ("5 draws, 5 runs an arm", replace(Setting(), runs=5), "patients"),
    ],
    "power": [
        (f"{patients} patients, 5 draws, 3 runs", replace(Setting(), patients=patients, gain=0.29), "patients")
        for patients in (100, 200, 300)
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="*", default=list(PLANS))
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for plan in given.plans:
        for name, setting, clusters in (each for each in PLANS[plan] if each[0].startswith(given.only)):
            begun = time.time()
            found = run(setting, given.studies, given.replicates, clusters)
            row = {"plan": plan, "name": name, "true_difference": round(setting.difference, 4)} | found
            row |= {"seconds": round(time.time() - begun), "setting": asdict(setting)}
            print(json.dumps({key: value for key, value in row.items() if key != "setting"}), flush=True)
            if given.out:
                with given.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
