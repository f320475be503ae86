"""finetune: small labelled sets. A cell for each arm, mode, label budget and draw; reads no label outside of its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from medssl.data.budgets import budget_name
from medssl.evaluation.primary import PRIMARY
from medssl.finetuning import NETWORK_MODES
from medssl.stages.cell_context import CellContext, check_modes
from medssl.stages.cell_fit import fit_cell, is_fitted, work_of
from medssl.stages.cells import Cell, grid
from medssl.stages.encoders import new_encoder
from medssl.stages.index import index
from medssl.stages.pretrain import pretrain
from medssl.stages.record import log_record
from medssl.stages.screen import bar, say
from medssl.stages.tracked import track_data
from medssl.stages.views import check_fit, finetune_views
from medssl.stages.workspace import Workspace
from medssl.training.stop import StopFlag, Stopped, stop_on_signals

if TYPE_CHECKING:
    from medssl.tracking import RunLog


def finetune(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Fit every cell that is not there yet.

    Raises:
        Stopped: a signal asked for it; finished cells stay.
        UserError: see the errors of each part.
    """
    _ = work.task  # said before days of pretraining
    check_modes(work, new_encoder(work))
    pretrain(work, arms=arms)
    archive = index(work)
    labelled = archive.rows(split="train", source=work.task.data)
    for mode in work.study.finetune.modes():
        if mode in NETWORK_MODES:
            check_fit(archive, labelled, finetune_views(work, mode), f"finetune.{mode}.views")
    context, cells = CellContext(work), grid(work, work.chosen_arms(arms))
    for cell in cells:
        context.draws.of(cell)  # a budget that cannot be drawn is said before any work
    with stop_on_signals() as stop:
        todo = [cell for cell in cells if fresh or not is_fitted(context, cell)]
        if not todo:
            say("finetune", f"nothing has changed, {len(cells)} cells are there")
            return
        with ExitStack() as stack:
            logs = {arm: stack.enter_context(_arm_log(context, arm, todo)) for arm in dict.fromkeys(cell.arm for cell in todo)}
            run_cells(context, todo, stop, lambda cell, value: _log_value(context, logs[cell.arm], cell, value))
    say("finetune", f"{len(todo)} cells fitted, {len(cells) - len(todo)} were there")


def run_cells(context: CellContext, cells: list[Cell], stop: StopFlag, done: Callable[[Cell, float], None]) -> None:
    """Fit cells one after the other, in the order given.

    Args:
        done: called with each cell that is fitted and its primary metric on validation.

    Raises:
        Stopped: a signal asked for it; finished cells stay.
    """
    with bar("finetune", sum(work_of(context, cell) for cell in cells)) as progress:
        for number, cell in enumerate(cells):
            if stop.signum is not None:
                raise Stopped(stop.signum, number, len(cells))
            done(cell, fit_cell(context, cell, stop=stop, advance=progress.advance))


@contextmanager
def _arm_log(context: CellContext, arm: str, todo: list[Cell]) -> Iterator[RunLog]:
    """A tracked run of an arm."""
    work, encoder = context.work, context.encoder(next(cell for cell in todo if cell.arm == arm))
    params = {
        "arm": arm,
        "weights": encoder.source,
        "encoder_digest": encoder.sha256,
        "finetune": work.study.finetune.model_dump(mode="json"),
    }
    with work.open_log(f"finetune-{arm}", stage="finetune", params=params, tags={"medssl.arm": arm}) as log:
        track_data(work, log, context.archive.summary, [work.task.data], "fine-tuning")
        log_record(work, context.archive, log, encoder)
        yield log


def _log_value(context: CellContext, log: RunLog, cell: Cell, value: float) -> None:
    budget, run = budget_name(cell.budget).replace("%", "pct"), f"/run{cell.run}" if cell.run else ""
    log.metrics({f"finetune/{cell.mode}/{budget}{run}/validation_{PRIMARY[context.outputs.kind]}": value}, step=cell.draw)
