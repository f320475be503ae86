"""What the collapse monitor costs, as a share of the training steps between two of its reports, on the CPU.

    python benchmarks/monitor.py [--quick] [--threads 1] [--out FOLDER]

A SimSiam step on made-up views, without making them; then the monitor on what the steps gave. Steps and reports are measured in
turn, several rounds of each, so that what else the machine does meets both; the share is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from common import machine, report, save

from medssl.methods.base import Batch, Output
from medssl.methods.collapse import CollapseMonitor, check_interval
from medssl.methods.collapse.figures import gaussian_rank
from medssl.methods.simsiam import SimSiam, SimSiamSettings
from medssl.models.encoder import build_encoder
from medssl.training.memory import keep_memory

SIDE = 64  # px
TARGET = 0.02  # of the steps between two reports, at most
STUDIES = (  # backbone, batch, d
    ("resnet18", 64, 2048),
    ("timm/efficientnet_lite0", 32, 512),
    ("resnet50", 32, 2048),
)


def measure(backbone: str, batch: int, dim: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    method = SimSiam(SimSiamSettings(projector_dim=dim), build_encoder(backbone)).train()
    optimiser = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    views = Batch([torch.rand(batch, 1, SIDE, SIDE, generator=generator) for _ in range(2)])
    monitor = CollapseMonitor(dim, method.encoder.feature_dim)

    def step() -> Output:
        output = method(views)
        optimiser.zero_grad(set_to_none=True)
        output.loss.backward()
        optimiser.step()
        return output

    output = step()
    began = time.perf_counter()
    gaussian_rank(monitor.rows, dim), gaussian_rank(monitor.rows, method.encoder.feature_dim)
    once = time.perf_counter() - began
    for _ in range(monitor.rows // batch):
        # Rows of a fixed batch would repeat: eigenvalues of a matrix of lower rank may take another time.
        monitor.update(
            Output(output.loss, *(torch.randn(x.shape, generator=generator) for x in (output.z, output.features, output.p)))
        )
    monitor.report()
    interval = check_interval(batch, 2000)  # of a run that is not long: there checks are rarer
    steps, updates, reports = [], [], []
    for _ in range(rounds):
        steps.append(statistics.median(seconds(step) for _ in range(3)))
        updates.append(seconds(lambda: monitor.update(output)))
        reports.append(seconds(monitor.report))
    shares = [r / (interval * s) + u / s for s, u, r in zip(steps, updates, reports, strict=True)]
    return {
        "backbone": backbone,
        "batch": batch,
        "d": dim,
        "D": method.encoder.feature_dim,
        "step, s": f"{statistics.median(steps):.2f}",
        "update, ms": f"{statistics.median(updates) * 1e3:.2f}",
        "report, s": f"{statistics.median(reports):.2f}",
        "once a run, s": f"{once:.2f}",
        "steps between reports": interval,
        "share, median": f"{statistics.median(shares):.2%}",
        "share, worst round": f"{max(shares):.2%}",
        "target": f"<= {TARGET:.0%}",
    }


def seconds(call: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print; about two minutes on two cores that do nothing else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: whether it runs, not how dear it is")
    parser.add_argument("--threads", type=int, default=1, help="more than are free wait for each other, reports most")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()  # as training does
    results: dict[str, Any] = {"machine": machine(["torch", "timm"]) | {"threads": str(given.threads)}}
    print(json.dumps(results["machine"]))
    results["monitor"] = []
    for study in STUDIES:
        results["monitor"].append(measure(*study, rounds=2 if given.quick else 5))
        print(f"done: {study[0]}", flush=True)
    report(f"The collapse monitor beside SimSiam's steps at {SIDE} px, CPU with {given.threads} threads", results["monitor"])
    save(given.out / "monitor.json", results)


if __name__ == "__main__":
    main()
