"""index --report: a page that shows what the archive holds and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from medssl.data.archive import Archive
from medssl.report.archive_page import write_archive_page
from medssl.stages.screen import say
from medssl.stages.workspace import Workspace

PAGE = "index.html"


def archive_report(work: Workspace, archive: Archive) -> Path:
    """Write index.html into the work folder; returns its path. The tracker gets it only where the study lets pixels go there.

    Raises:
        StoreError: a table of the archive is missing or damaged, or the page cannot be written.
    """
    path = work.folder / PAGE
    write_archive_page(
        path,
        archive,
        study=work.study.name,
        input_size=work.study.encoder.input_size,
        window_rule=work.study.encoder.window,
        seed=work.study.seed,
        synthetic=work.synthetic,
    )
    with work.open_log("index_report", stage="index") as log:
        log.artifact(path, pixels=True)
    say("index", f"report: {path}")
    return path
