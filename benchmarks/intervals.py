"""What the statistics cost: bootstrap replicates of AUROC and of all metrics, and DeLong's interval, beside scikit-learn in a loop.

    python benchmarks/intervals.py [--patients 10000] [--labels 14] [--replicates 2000] [--scores 100000] [--loop 5] [--out FILE]

One image a patient. scikit-learn has no bootstrap and no DeLong: its roc_auc_score is called once a replicate and label. That takes
minutes, so it is timed on `--loop` replicates and multiplied; the table says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))

from common import best_of, machine, report, save

from medssl.evaluation.bootstrap import score_replicates
from medssl.evaluation.delong import delong
from medssl.evaluation.multilabel import MultilabelScorer
from medssl.evaluation.ranking import rank


class Aurocs:
    """The AUROC of every label and nothing else."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self.names = tuple(str(i) for i in range(labels.shape[1]))
        self._rankings = [rank(labels[:, i], scores[:, i]) for i in range(labels.shape[1])]

    def evaluate(self, weights: np.ndarray) -> np.ndarray:
        return np.stack([ranking.evaluate(weights)[0] for ranking in self._rankings], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("patients", 10_000),
        ("labels", 14),
        ("replicates", 2000),
        ("scores", 100_000),
        ("loop", 5),
        ("rounds", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    n, count = given.patients, given.labels
    labels = (rng.random((n, count)) < rng.uniform(0.02, 0.4, count)).astype(float)
    scores = 1 / (1 + np.exp(-(labels + rng.normal(size=(n, count)))))
    patients = np.arange(n)
    aurocs = Aurocs(labels, scores)
    everything = MultilabelScorer(aurocs.names, labels, scores, np.full(count, 0.5), 1.3)

    def loop() -> None:
        for _ in range(given.loop):
            picks = rng.integers(0, n, n)
            for i in range(count):
                roc_auc_score(labels[picks, i], scores[picks, i])

    each = best_of(given.rounds, loop) / given.loop * given.replicates
    rows = []
    for name, scorer, threads in (
        ("AUROC, 1 thread", aurocs, 1),
        ("AUROC, 2 threads", aurocs, 2),
        (f"all {len(everything.names)} metrics, 2 threads", everything, 2),
    ):
        begun = os.times()
        seconds = best_of(given.rounds, lambda s=scorer, t=threads: score_replicates([s], patients, given.replicates, 0, t))
        ended = os.times()
        cpu = (ended.user + ended.system - begun.user - begun.system) / given.rounds
        rows.append(
            {
                "what": name,
                "seconds": round(seconds, 2),
                "CPU seconds": round(cpu, 2),
                "times faster than the loop": round(each / seconds, 1),
            }
        )
    rows.append(
        {
            "what": "scikit-learn's AUROC in a loop (extrapolated)",
            "seconds": round(each, 1),
            "CPU seconds": "",
            "times faster than the loop": 1,
        }
    )
    report(f"{given.replicates:,} replicates, {n:,} patients, {count} labels", rows)

    truth = rng.integers(0, 2, given.scores)
    values = truth + rng.normal(size=given.scores)
    alone = best_of(3, lambda: roc_auc_score(truth, values))
    measured = [("DeLong", best_of(3, lambda: delong(truth, values)))]
    measured.append(("DeLong, 3 images a patient", best_of(3, lambda: delong(truth, values, np.arange(given.scores) // 3))))
    measured.append(("scikit-learn's AUROC without an interval", alone))
    delongs = [{"what": name, "seconds": round(s, 4), "times scikit-learn's AUROC": round(s / alone, 2)} for name, s in measured]
    report(f"{given.scores:,} scores", delongs)
    found = {"load": os.getloadavg() if hasattr(os, "getloadavg") else None, "time": time.strftime("%H:%M")}
    if given.out:
        save(given.out, {"machine": machine(["numpy", "scikit-learn", "scipy"]) | found, "bootstrap": rows, "delong": delongs})


if __name__ == "__main__":
    main()
