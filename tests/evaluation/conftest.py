from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def predictions() -> Callable[..., pd.DataFrame]:
    """Simulated predictions: `gains` sets how much farther apart an arm puts the classes than the others do."""

    def make(
        gains: Mapping[str, float] = {"imagenet": 0.0, "in_domain": 1.0},
        budgets: Sequence[tuple[str, int]] = (("40", 40),),
        modes: Sequence[str] = ("full",),
        seeds: int = 3,
        patients: int = 120,
        prevalence: float = 0.4,
        seed: int = 0,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(patients), rng.integers(1, 4, size=patients))
        label = (rng.random(patients) < prevalence).astype(int)[patient]
        noise = rng.normal(size=len(patient))
        tables = []
        for mode in modes:
            for budget, size in budgets:
                for draw in range(seeds):
                    for arm, gain in gains.items():
                        logit = (1.0 + gain) * (2 * label - 1) + noise + 0.3 * rng.normal(size=len(patient))
                        table = pd.DataFrame({"label": label, "score": 1 / (1 + np.exp(-logit))})
                        table = table.assign(arm=arm, mode=mode, budget=budget, seed=draw, threshold=0.5, split="test")
                        table["budget_patients"], table["budget_images"] = size, 2 * size
                        table["row_key"] = [f"image{i}" for i in range(len(patient))]
                        table["patient"] = [f"patient{i}" for i in patient]
                        tables.append(table)
        return pd.concat(tables, ignore_index=True)

    return make
