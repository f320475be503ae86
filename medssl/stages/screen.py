"""What a person sees: lines, progress bars, and nothing that identifies a patient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

TABLE_WIDTH = (
    100  # columns that the comparison needs; a narrower window wraps its lines, which is better than cells cut to pieces
)
console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console = Console(highlight=False, soft_wrap=True, width=120)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def say(stage: str, text: str) -> None:
    """One line of a stage."""
    console.print(f"[bold]{stage}[/bold] {text}", markup=True)


def warn(text: str) -> None:
    """One line of warning, on standard error."""
    errors.print(f"[yellow]warning[/yellow] {text}")


def mute() -> None:
    """Nothing more from this process: of several, rank 0 alone speaks."""
    console.quiet = errors.quiet = True


class Bar:
    """One progress bar; `advance` moves it, `note` shows figures beside it."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Move on by `by`, and show `note`."""
        if note is None:
            self._progress.advance(self._task, by)
        else:
            self._progress.update(self._task, advance=by, note=note)

    def reach(self, done: int) -> None:
        """Move to `done`."""
        self._progress.update(self._task, completed=done)


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """A progress bar with the time left; on a screen that is no terminal, only the end is printed."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        yield Bar(progress, progress.add_task(title, total=total, completed=done, note=""))


def show_table(table: object) -> None:
    """A rich table or group at its full width."""
    Console(highlight=False, width=max(TABLE_WIDTH, console.width)).print(table)


def minutes(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
