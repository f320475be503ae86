from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssl.evaluation.comparison import compare
from medssl.report.facts import ArmFacts, Facts, SplitFacts


def make_comparison(
    arms: tuple[str, ...] = ("random", "imagenet", "in_domain"),
    budgets: tuple[tuple[str, int], ...] = (("40", 40), ("all", 412)),
    modes: tuple[str, ...] = ("linear", "full"),
    patients: int = 120,
    reference: str = "imagenet",
) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = rng.random(patients) < 0.4
    noise = rng.normal(size=patients)
    tables = []
    for mode in modes:
        for budget, size in budgets:
            for seed in range(2):
                for i, arm in enumerate(arms):
                    logit = (0.3 + 0.5 * i) * (2 * labels - 1) + noise + 0.3 * rng.normal(size=patients)
                    table = pd.DataFrame({"label": labels.astype(int), "score": 1 / (1 + np.exp(-logit))})
                    table = table.assign(arm=arm, mode=mode, budget=budget, seed=seed, threshold=0.5, split="test")
                    table["budget_patients"], table["budget_images"] = size, size + 5
                    table["row_key"] = table["patient"] = [f"key{i}" for i in range(patients)]
                    tables.append(table)
    return compare(pd.concat(tables, ignore_index=True), reference, replicates=100)


@pytest.fixture(scope="session")
def comparison() -> pd.DataFrame:
    return make_comparison()


@pytest.fixture
def make():
    return make_comparison


@pytest.fixture
def facts() -> Facts:
    return Facts(
        study="Chest X-ray",
        target="pneumonia",
        positive_class="pneumonia",
        splits=[SplitFacts("archive", 1200, 5210, None), SplitFacts("test", 120, 120, 48)],
        arms=[
            ArmFacts("random", "random"),
            ArmFacts("imagenet", "imagenet", weights="package, sha256 1f3a"),
            ArmFacts("in_domain", "random", "simsiam", 200, 1_824_000, 0.97, 61.3, 512, "drawn with seed 0"),
        ],
        exclusions={"test patients left out of pretraining": 832, "duplicates": 0},
        encoder={"backbone": "timm/tf_efficientnet_lite0", "input size": "64 × 64"},
        versions={"torch": "2.15.0"},
        digests={"splits": "sha256 99b1"},
    )
