"""compare: the arms side by side with intervals, as a table on screen, Parquet, one HTML page, model cards, and runs in the tracker."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medssl import __version__
from medssl.errors import StudyError
from medssl.evaluation.answer import cautions, headline
from medssl.files import digest_of, sha256_of_file, write_atomic
from medssl.models.encoder_file import read_card
from medssl.report.extras import Extras
from medssl.report.facts import Facts
from medssl.report.model_card import model_card
from medssl.report.page import render
from medssl.report.shown import mode_name
from medssl.report.table import markdown, screen
from medssl.report.worst import LOCAL, local_page
from medssl.stages.cell_context import CellContext
from medssl.stages.cells import Cell, grid
from medssl.stages.comparison_facts import collect_facts
from medssl.stages.comparison_runs import track_comparison
from medssl.stages.comparison_tables import Tables, make_tables
from medssl.stages.embeddings import embeddings
from medssl.stages.evaluate import PREDICTIONS, evaluate
from medssl.stages.index import index
from medssl.stages.prediction_rows import read_outputs
from medssl.stages.pretrain import encoder_folder
from medssl.stages.receipt import is_made_from, write_receipt
from medssl.stages.screen import console, say, show_table
from medssl.stages.workspace import Workspace
from medssl.stages.worst_errors import worst_errors

PAGE, MARKDOWN, CARDS = "report.html", "comparison.md", "model_cards"


def compare(work: Workspace, *, arms: list[str] | None = None, fresh: bool = False) -> None:
    """Compare every arm with the reference on the test patients.

    Raises:
        StudyError: the reference is not among `arms`; said before any work.
        UserError: see the errors of each part.
    """
    chosen, reference = work.chosen_arms(arms), work.study.evaluate.reference
    if reference not in chosen:
        raise StudyError(
            f"--arm: leaves out {reference}, which evaluate.reference compares every arm with; add --arm {reference}, or set "
            f"evaluate.reference={chosen[0]}"
        )
    evaluate(work, arms=arms)
    archive, folder = index(work), work.folder / "compare"
    facts = collect_facts(work, archive, chosen)
    inputs = {
        "predictions": sha256_of_file(work.folder / "evaluate" / PREDICTIONS),
        "evaluate": work.study.evaluate.model_dump(mode="json"),
        "seed": work.study.seed,
        "images": work.study.tracking.images,
        "subgroups": work.cards[work.task.data].subgroups,
        "facts": digest_of(str(facts)),
        "medssl": __version__,  # what a page shows, and how, is the program's
    }
    if fresh or not is_made_from(folder, inputs):
        tables = _make(work, facts, chosen, folder)
        write_receipt(folder, inputs)
    else:
        tables = Tables.read(folder)
        say("compare", "nothing has changed")
    _show(work, facts, tables)


def _make(work: Workspace, facts: Facts, arms: list[str], folder: Path) -> Tables:
    context = CellContext(work)
    cells = grid(work, context.archive, arms)
    predictions = pd.read_parquet(work.folder / "evaluate" / PREDICTIONS)
    outputs = read_outputs(work.folder / "evaluate")
    tables = make_tables(work, context.archive, predictions, outputs)
    files = tables.write(folder)
    extras = _extras(context, cells, predictions, tables)
    write_atomic(folder / PAGE, render(tables.comparison, facts, extras))
    write_atomic(folder / MARKDOWN, markdown(tables.comparison))
    # Pixels of patients: on this machine alone, unless the study lets them go.
    write_atomic(folder / LOCAL, local_page(facts.study, extras.worst))
    cards = _write_cards(work, facts, arms, tables, folder / CARDS)
    track_comparison(work, context.archive, tables.comparison, [*files, folder / PAGE, folder / MARKDOWN], cards)
    return tables


def _extras(context: CellContext, cells: list[Cell], predictions: pd.DataFrame, tables: Tables) -> Extras:
    return Extras(
        pairs=tables.pairs,
        matches=tables.matches,
        power=tables.power,
        reliability=tables.reliability,
        confusion=tables.confusion,
        subgroups=tables.subgroups,
        embeddings=embeddings(context, cells),
        worst=worst_errors(context, cells, predictions),
        images=context.work.study.tracking.images,
    )


def _write_cards(work: Workspace, facts: Facts, arms: list[str], tables: Tables, folder: Path) -> dict[str, list[Path]]:
    """A model card for each arm that this study pretrained."""
    found = {}
    for arm in arms:
        if work.study.arms[arm].method:
            encoder = read_card(encoder_folder(work, arm))
            path = folder / f"{arm}.md"
            write_atomic(path, model_card(arm, facts, tables.comparison, tables.pairs, tables.subgroups, encoder))
            found[arm] = [path]
    return found


def _show(work: Workspace, facts: Facts, tables: Tables) -> None:
    show_table(screen(tables.comparison))
    said = headline(tables.comparison, facts.pretrained, facts.unconverged)
    for mode, sentences in said.items():
        console.print("\n".join(f"{mode_name(mode)}: {sentence}" for sentence in sentences), markup=False)
    for caution in cautions(tables.comparison, facts.pretrained, facts.unconverged):
        console.print(caution, markup=False)
    if work.synthetic:
        console.print("[bold]synthetic data: this shows that the tool works and says nothing about patients[/bold]")
    folder = work.folder / "compare"
    console.print(f"report    {folder / PAGE}")
    console.print(f"errors    {folder / LOCAL}  (images of patients: stays on this machine)")
    for name in (arm.name for arm in facts.arms if arm.name in facts.pretrained):
        console.print(f"encoder   {encoder_folder(work, name)}  (model card {folder / CARDS / f'{name}.md'})")
    if work.study.tracking.enabled:
        console.print(f"tracker   mlflow ui --backend-store-uri {work.tracking_settings().store_uri}")
