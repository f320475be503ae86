"""The comparison in the tracker: one run for it all, and below it one for each arm, for the tracker's own compare view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from medssl.data.archive import Archive
from medssl.stages.record import log_record
from medssl.stages.tracked import track_data
from medssl.stages.workspace import Workspace


def track_comparison(
    work: Workspace, archive: Archive, table: pd.DataFrame, files: list[Path], of_arm: dict[str, list[Path]]
) -> None:
    """Log the comparison's metrics and artifacts; docs/comparison.md has the metrics' names.

    Args:
        files: of the whole comparison.
        of_arm: arm -> its own files, such as the model card.
    """
    settings, reference = work.study.evaluate, work.study.evaluate.reference
    with work.open_log("compare", stage="compare", params={"evaluate": settings.model_dump(mode="json")}) as log:
        track_data(work, log, archive.summary, [work.task.data], "test")
        log_record(work, archive, log)
        counts = ("test_patients", "test_images", "test_positives", "replicates_used")
        values = {f"compare/{name}": float(table[name].iloc[0]) for name in counts if pd.notna(table[name].iloc[0])}
        log.metrics(values, step=0)
        for path in files:
            log.artifact(path, folder="comparison")
        for arm, rows in table.groupby("arm", sort=False):
            params = {"arm": arm, "reference": reference} | work.study.arms[arm].model_dump(mode="json", exclude={"sources"})
            params["init"] = work.study.arms[arm].start
            with work.open_log(
                f"compare-{arm}", stage="compare", parent=log.folder, params=params, tags={"medssl.arm": arm}
            ) as child:
                values = {}
                for row in rows.to_dict("records"):
                    values |= metrics_of_row(row)
                child.metrics(values, step=0)
                for path in of_arm.get(str(arm), []):
                    child.artifact(path, folder="comparison")


def metrics_of_row(row: dict[str, Any]) -> dict[str, float]:
    """`test/<mode>/<budget>/<metric>` and its `_lower`, `_upper`, `_difference…`, `_p`, as far as they are known."""
    key = f"test/{row['mode']}/{row['budget'].replace('%', 'pct')}/{row['metric']}"
    names = {"value": "", "lower": "_lower", "upper": "_upper", "difference": "_difference"}
    names |= {"difference_lower": "_difference_lower", "difference_upper": "_difference_upper"}
    names |= {"p": "_p", "p_holm": "_p_holm"}
    return {key + suffix: float(row[name]) for name, suffix in names.items() if pd.notna(row[name])}
