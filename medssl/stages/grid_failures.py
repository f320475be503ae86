"""What is said of the cells of a grid that came to nothing."""

from __future__ import annotations

from medssl.data.private import make_private
from medssl.errors import GridError
from medssl.files import PRIVATE_MODE, write_atomic
from medssl.grid import Summary
from medssl.grid.job import Failure
from medssl.stages.screen import warn
from medssl.stages.workspace import Workspace

TRACEBACKS = "finetune_failures.txt"
"""In private/: an error can name a file."""


def failed(work: Workspace, summary: Summary, total: int) -> GridError:
    """Name each cell that failed, with the cause once, and keep the tracebacks; returns the error that ends the command."""
    by_cause: dict[str, list[Failure]] = {}
    for failure in summary.failures:
        by_cause.setdefault(failure.error, []).append(failure)
    for cause, failures in by_cause.items():
        warn(f"{', '.join(failure.key for failure in failures)}: {cause}")
    text = "\n".join(f"{failure.key}: {failure.error}\n{failure.detail}" for failure in summary.failures)
    make_private(work.private)
    write_atomic(work.private / TRACEBACKS, text, mode=PRIVATE_MODE)
    first, more = summary.failures[0], len(summary.failures) - 1
    cells = total - summary.done - summary.taken
    return GridError(
        f"finetune: {cells} of {total} cells failed, the others are kept: {first.key}: {first.error}"
        + (f" (and {more} more)" if more else "")
        + f"; all of it is in private/{TRACEBACKS}; mend it and run the same command again"
    )
