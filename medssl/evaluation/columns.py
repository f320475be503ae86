"""The columns of a table of predictions that depend on the outputs of the task."""

from __future__ import annotations

from medssl.task import Outputs


def label_columns(outputs: Outputs) -> list[str]:
    """`label`, or `label.<target>` for each target of a multi-label task."""
    return [f"label.{name}" for name in outputs.names] if outputs.kind == "multilabel" else ["label"]


def score_columns(outputs: Outputs) -> list[str]:
    """`score`, or `score.<output>` for each output of several."""
    return ["score"] if outputs.kind in ("binary", "regression") else [f"score.{name}" for name in outputs.names]


def threshold_columns(outputs: Outputs) -> list[str]:
    """`threshold`, `threshold.<target>` for each target, or none where no operating point is chosen."""
    if outputs.kind == "multilabel":
        return [f"threshold.{name}" for name in outputs.names]
    return ["threshold"] if outputs.kind == "binary" else []
