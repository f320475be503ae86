"""What the page shows besides the comparison's table: every part may be missing, and its section is then left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from medssl.report import confusion, efficiency, pairs_matrix, reliability, subgroups
from medssl.report.embedding_figure import Embeddings
from medssl.report.worst import WorstImage


@dataclass(frozen=True)
class Extras:
    """Tables and figures of a comparison; the columns of each table stand in the module that shows it.

    Attributes:
        pairs: of `evaluation.comparison.compare_all`; `pairs_matrix.COLUMNS` are read.
        matches, power: of `evaluation.efficiency` and `evaluation.power`; `efficiency.MATCH_COLUMNS`, `efficiency.POWER_COLUMNS`.
        reliability: of `evaluation.calibration`; `reliability.COLUMNS`.
        confusion: of `evaluation.confusion`; `confusion.COLUMNS`.
        subgroups: of `evaluation.subgroups`; `subgroups.COLUMNS`.
        embeddings: one an arm.
        worst: the worst errors of each arm.
        images: pixels of patients may be on the page (the study's `tracking.images`).

    Raises:
        ValueError: a table lacks a column.
    """

    pairs: pd.DataFrame | None = None
    matches: pd.DataFrame | None = None
    power: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None
    subgroups: pd.DataFrame | None = None
    embeddings: Sequence[Embeddings] = ()
    worst: Sequence[WorstImage] = ()
    images: bool = False

    def __post_init__(self) -> None:
        expected = {
            "pairs": pairs_matrix.COLUMNS,
            "matches": efficiency.MATCH_COLUMNS,
            "power": efficiency.POWER_COLUMNS,
            "reliability": reliability.COLUMNS,
            "confusion": confusion.COLUMNS,
            "subgroups": subgroups.COLUMNS,
        }
        for name, columns in expected.items():
            table = getattr(self, name)
            if table is not None and (missing := [column for column in columns if column not in table]):
                raise ValueError(f"report: the table of {name} lacks {', '.join(missing)}")
