"""The tables of a comparison, made from the predictions on the test patients, written as Parquet and read again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from medssl.data.archive import Archive
from medssl.data.manifest import LABEL_PREFIX
from medssl.evaluation.calibration import calibration_table
from medssl.evaluation.comparison import compare_all
from medssl.evaluation.confusion import confusion_table
from medssl.evaluation.efficiency import label_efficiency
from medssl.evaluation.pooling import pool_patients
from medssl.evaluation.power import power_table
from medssl.evaluation.predictions import Block, TestSet, read_predictions
from medssl.evaluation.subgroups import age_bands, subgroups
from medssl.files import replacing
from medssl.stages.workspace import Workspace
from medssl.task import Outputs

COMPARISON = "comparison.parquet"


@dataclass(frozen=True)
class Tables:
    """A file a table, called by its name; the columns stand where each is made, in `medssl.evaluation`."""

    comparison: pd.DataFrame
    pairs: pd.DataFrame
    matches: pd.DataFrame  # how many labels the reference needs to match an arm
    power: pd.DataFrame  # how many test patients a difference needs
    reliability: pd.DataFrame
    confusion: pd.DataFrame
    subgroups: pd.DataFrame

    def write(self, folder: Path) -> list[Path]:
        """Write each as Parquet; returns the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{each.name}.parquet" for each in fields(self)]
        for path in paths:
            with replacing(path) as temporary:
                getattr(self, path.stem).to_parquet(temporary, index=False)
        return paths

    @classmethod
    def read(cls, folder: Path) -> Tables:
        """What `write` wrote."""
        return cls(**{each.name: pd.read_parquet(folder / f"{each.name}.parquet") for each in fields(cls)})


def make_tables(work: Workspace, archive: Archive, predictions: pd.DataFrame, outputs: Outputs) -> Tables:
    """All tables of the study's comparison; of a task at patient level the scores are pooled first.

    Args:
        predictions: evaluate's table, one row an image and cell.

    Raises:
        DataError: the predictions do not fit together.
    """
    task, settings, seed = work.task, work.study.evaluate, work.study.seed
    if task.level == "patient":
        predictions = pool_patients(predictions, outputs, task.pooling)
    comparison = compare_all(predictions, settings.reference, settings.replicates, seed, settings.level, outputs)
    test = read_predictions(predictions, outputs)
    groups = _groups(work, archive, "patient" if task.level == "patient" else "row_key")
    return Tables(
        comparison=comparison.table,
        pairs=comparison.pairs,
        matches=label_efficiency(comparison, settings.level),
        power=power_table(comparison),
        reliability=calibration_table(test, settings.level),
        confusion=confusion_table(test),
        subgroups=subgroups(test, groups, settings.reference, _largest(test), settings.replicates, seed, settings.level),
    )


def _largest(test: TestSet) -> list[Block]:
    """Of each mode the largest budget, which the report shows: subgroups of few patients need all the labels that there are."""
    return list({block.mode: block for block in sorted(test.blocks, key=lambda block: block.patients)}.values())


def _groups(work: Workspace, archive: Archive, key: str) -> pd.DataFrame:
    """The subgroups that the card names, a row a `key`: of a patient what the first image says.

    A target goes before the column of the same name: where the files do not say sex or age, a data set's own table may.
    """
    card, manifest = work.cards[work.task.data], archive.manifest
    rows = manifest[manifest["source"] == work.task.data].drop_duplicates(key).set_index(key)
    columns = {}
    for name in card.subgroups:
        target = card.targets.get(name)
        values = rows[name] if target is None else rows[f"{LABEL_PREFIX}{name}"]
        if name == "age" and (target is None or target.numeric):
            values = age_bands(np.floor(pd.to_numeric(values)))
        elif pd.api.types.is_float_dtype(values):
            values = values.astype("Int64")  # whole numbers, which empty ones among them have made floats: 2019, not 2019.0
        columns[name] = values
    return pd.DataFrame(columns, index=rows.index)
