"""The grid of fine-tuning: a cell is one fit, of an arm's pretraining run, in a mode, on a label budget, with one draw of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl.data.archive import Archive
from medssl.data.budgets import LabelDraw, draw_labels, patients_of, pool_of
from medssl.finetuning import budget_name
from medssl.stages.workspace import Workspace

DETERMINISTIC = ("linear", "linear_recalibrated", "knn")
"""Modes in which nothing but the rows is drawn: a budget of the whole pool has one cell, whatever the number of draws."""


@dataclass(frozen=True)
class Cell:
    """One fit."""

    arm: str
    run: int
    mode: str
    budget: int | float | str
    draw: int

    @property
    def name(self) -> str:
        """`imagenet/0/linear/40/0`: also its folder below finetune/cells. `10%` is written 10pct."""
        return f"{self.arm}/{self.run}/{self.mode}/{budget_name(self.budget).replace('%', 'pct')}/{self.draw}"

    def folder(self, work: Workspace) -> Path:
        """Where its head, validation predictions and receipt are."""
        return work.folder / "finetune" / "cells" / self.name


def grid(work: Workspace, archive: Archive, arms: list[str]) -> list[Cell]:
    """Every cell of the study for `arms`, arm by arm, each once.

    Budgets that come to the same number of patients give the same cells and stand under the name of the first; one that comes to the
    whole pool is called `all`, however it is written.

    Raises:
        DataError: a budget is larger than the pool.
    """
    settings, pool, cells = work.study.finetune, pool_of(archive.splits), {}
    budgets = {mode: _distinct(settings.budgets_of(mode), pool) for mode in settings.modes()}
    for arm in arms:
        for run in range(work.study.runs_of(arm)):
            for mode, distinct in budgets.items():
                for budget, same in distinct.items():
                    draws = max(settings.seeds_of(mode, each) for each in same)
                    one = mode in DETERMINISTIC and budget == "all"
                    cells |= dict.fromkeys(Cell(arm, run, mode, budget, draw) for draw in range(1 if one else draws))
    return list(cells)


def _distinct(budgets: list[int | float | str], pool: int) -> dict[int | float | str, list[int | float | str]]:
    """Budget -> the budgets as written that are the same number of patients, itself included."""
    by_size: dict[int, list[int | float | str]] = {}
    for budget in budgets:
        by_size.setdefault(patients_of(budget, pool), []).append(budget)
    return {"all" if size == pool else same[0]: same for size, same in by_size.items()}


class Draws:
    """The label draws of a study, each made once and the same for every arm and mode."""

    def __init__(self, work: Workspace, archive: Archive) -> None:
        self._work, self._archive = work, archive
        self._made: dict[tuple, LabelDraw] = {}

    def of(self, cell: Cell) -> LabelDraw:
        """The labels that a cell may learn from.

        Raises:
            DataError: see `draw_labels`.
        """
        key = (cell.budget, cell.draw)
        if key not in self._made:
            self._made[key] = draw_labels(
                self._archive.splits,
                self._archive.manifest["exact_hash"],
                cell.budget,
                self._work.study.seed,
                cell.draw,
                folds=self._work.study.finetune.folds,
                task=self._work.task,
            )
        return self._made[key]
