"""Made-up predictions of every kind of task, and what evaluation makes of them, for the tests of the page's sections."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

from medssl.evaluation.calibration import calibration_table
from medssl.evaluation.comparison import compare_all
from medssl.evaluation.confusion import confusion_table
from medssl.evaluation.efficiency import label_efficiency
from medssl.evaluation.power import power_table
from medssl.evaluation.predictions import read_predictions
from medssl.evaluation.subgroups import subgroups
from medssl.report.embedding_figure import Embeddings, embeddings_of
from medssl.report.extras import Extras
from medssl.report.facts import ArmFacts, Facts, SplitFacts
from medssl.report.worst import WorstImage, worst_rows
from medssl.task import Outputs

OUTPUTS = {
    "binary": Outputs("binary", ("pneumonia",)),
    "multiclass": Outputs("multiclass", ("normal", "bacteria", "virus")),
    "multilabel": Outputs("multilabel", ("effusion", "mass", "nodule")),
    "ordinal": Outputs("ordinal", ("none", "mild", "severe")),
    "regression": Outputs("regression", ("age",)),
}
ARMS = ("random", "imagenet", "in_domain", "imagenet_in_domain")
BUDGETS = (("40", 40), ("100", 100), ("all", 412))


def predictions_of(
    kind: str, modes: tuple[str, ...], patients: int = 150, seeds: int = 2, arms: tuple[str, ...] = ARMS
) -> pd.DataFrame:
    """Predictions in the form that `evaluate` writes; two images a patient."""
    rng = np.random.default_rng(0)
    outputs, n = OUTPUTS[kind], 2 * patients
    truth = rng.normal(size=(n, max(3, len(outputs.names))))
    tables = []
    for mode in modes:
        for step, (budget, size) in enumerate(BUDGETS):
            for seed in range(seeds):
                for i, arm in enumerate(arms):
                    skill = 0.4 + 0.5 * i + 0.25 * step
                    logits = skill * truth + rng.normal(size=truth.shape)
                    table = pd.DataFrame(
                        {"row_key": [f"{j:016x}" for j in range(n)], "patient": [f"patient{j // 2}" for j in range(n)]}
                    )
                    table = table.assign(arm=arm, mode=mode, budget=budget, seed=seed, split="test", run=0, temperature=1.4)
                    table["budget_patients"], table["budget_images"] = size, size + 5
                    tables.append(table.assign(**_columns(outputs, truth, logits)))
    return pd.concat(tables, ignore_index=True)


def _columns(outputs: Outputs, truth: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    sigmoid = 1 / (1 + np.exp(-2.5 * logits))
    if outputs.kind == "binary":
        return {"label": (truth[:, 0] > 0.2).astype(float), "score": sigmoid[:, 0], "threshold": 0.5}
    if outputs.kind == "regression":
        return {"label": 50 + 12 * truth[:, 0], "score": 50 + 12 * logits[:, 0] / 2}
    if outputs.kind == "multilabel":
        found: dict[str, np.ndarray] = {}
        for i, name in enumerate(outputs.names):
            found |= {
                f"label.{name}": (truth[:, i] > 0.2).astype(float),
                f"score.{name}": sigmoid[:, i],
                f"threshold.{name}": 0.5,
            }
        found["label.mass"][:30] = np.nan
        return found
    if outputs.kind == "ordinal":
        grade = np.digitize(truth[:, 0], [-0.4, 0.6]).astype(float)
        distances = -((logits[:, :1] - np.array([[-1.2, 0.1, 1.4]])) ** 2)
        scores = np.exp(distances) / np.exp(distances).sum(axis=1, keepdims=True)
    else:
        grade = truth[:, :3].argmax(axis=1).astype(float)
        scores = np.exp(2 * logits[:, :3]) / np.exp(2 * logits[:, :3]).sum(axis=1, keepdims=True)
    return {"label": grade} | {f"score.{name}": scores[:, i] for i, name in enumerate(outputs.names)}


def everything(kind: str, modes: tuple[str, ...], replicates: int = 60, images: bool = False) -> tuple[pd.DataFrame, Extras]:
    """The comparison's table and everything else that a page can show."""
    predictions, outputs = predictions_of(kind, modes), OUTPUTS[kind]
    found = compare_all(predictions, "imagenet", replicates, outputs=outputs)
    test = read_predictions(predictions, outputs)
    blocks = [block for block in test.blocks if block.budget == "all"]
    extras = Extras(
        pairs=found.pairs,
        matches=label_efficiency(found),
        power=power_table(found),
        reliability=calibration_table(test),
        confusion=None if kind == "regression" else confusion_table(test),
        subgroups=subgroups(test, groups(test.keys), "imagenet", blocks, replicates=40),
        embeddings=[embeddings(arm, i) for i, arm in enumerate(ARMS)],
        worst=worst(predictions, outputs),
        images=images,
    )
    return found.table, extras


def groups(keys) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(index=pd.Index(keys, name="row_key"))
    frame["sex"] = rng.choice(["F", "M"], len(frame))
    frame["age_band"] = rng.choice(["0-17", "18-39", "40-64", "65+"], len(frame), p=[0.02, 0.28, 0.4, 0.3])
    frame["vendor"] = rng.choice(["Siemens", "GE", "Philips"], len(frame))
    return frame


def embeddings(arm: str, spread: int, count: int = 2600) -> Embeddings:
    rng = np.random.default_rng(spread)
    label, vendor = rng.integers(0, 2, count), rng.integers(0, 3, count)
    features = rng.normal(size=(count, 12))
    features[:, 0] += 1.5 * spread * label
    features[:, 1] += 4 / (1 + spread) * vendor
    names = [None if i % 50 == 0 else ["Siemens", "GE", "Philips"][place] for i, place in enumerate(vendor)]
    labels = [["normal", "pneumonia"][value] for value in label]
    return embeddings_of(arm, features, labels, {"vendor": names, "source": ["xray"] * count}, np.arange(count) // 2)


def worst(predictions: pd.DataFrame, outputs: Outputs) -> list[WorstImage]:
    last = predictions[(predictions["budget"] == "all") & (predictions["mode"] == predictions["mode"].iloc[0])]
    y, x = np.mgrid[0:96, 0:96] / 95
    found = []
    for i, row in enumerate(worst_rows(last, outputs, set(), 6).to_dict("records")):
        image = np.clip(0.4 + 0.3 * np.sin(6 * x + i) * np.cos(5 * y) + 0.2 * y, 0, 1).astype(np.float32)
        spot = np.exp(-((x - 0.3 - 0.05 * i % 0.5) ** 2 + (y - 0.5) ** 2) / 0.03).astype(np.float32)
        found.append(WorstImage(row["arm"], row["row_key"], image, spot, row["label"], row["said"], row["score"]))
    return found


def facts_of(kind: str) -> Facts:
    """What the page says of how a comparison of that kind was made."""
    return Facts(
        study="Chest X-ray",
        target="age" if kind == "regression" else "findings",
        positive_class="pneumonia" if kind == "binary" else "",
        kind=kind,
        names=OUTPUTS[kind].names,
        splits=[SplitFacts("archive", 1200, 5210, None), SplitFacts("test", 150, 300, 120 if kind == "binary" else None)],
        arms=[
            ArmFacts("random", "random"),
            ArmFacts("imagenet", "imagenet", weights="package, sha256 1f3a"),
            ArmFacts("in_domain", "random", "simsiam", 200, 1_824_000, 0.97, 61.3, 512, pairs="one image a patient"),
            ArmFacts("imagenet_in_domain", "imagenet", "simsiam", 200, 1_824_000, 0.97, 61.3, 512),
        ],
        unconverged=["in_domain"],
    )


MODES_OF = {"binary": ("linear", "linear_recalibrated", "full")}


@functools.cache
def _shown(kind: str, images: bool) -> tuple[pd.DataFrame, Extras]:
    return everything(kind, MODES_OF.get(kind, ("linear",)), replicates=30, images=images)


@pytest.fixture
def shown():
    """`shown(kind)`: the comparison's table and everything else that a page of this kind of task shows."""
    return lambda kind="binary", images=False: _shown(kind, images)


@pytest.fixture
def facts_for():
    """`facts_for(kind)`: see `facts_of`."""
    return facts_of


@pytest.fixture
def outputs_of():
    return OUTPUTS.__getitem__


@pytest.fixture
def predictions():
    """`predictions(kind, modes)`: see `predictions_of`."""
    return predictions_of
