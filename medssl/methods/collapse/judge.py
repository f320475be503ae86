"""When something has been wrong for long enough to say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from medssl.methods.collapse.monitor import ROWS
from medssl.methods.collapse.verdict import STATES, State, Verdict, judged

# Times its value `patience` checks before: a figure that rises so much recovers. MoCo's std x sqrt(d) rose 1.3-fold and more in 50
# steps, from 0.19 at step 25 to 0.77 at step 300.
RECOVERING = 1.1


@dataclass(frozen=True)
class Alarm:
    """Something has been wrong for long enough to say so.

    Attributes:
        step: of the check that raised it.
        since: step of the first check in a row that was unhealthy.
    """

    step: int
    since: int
    state: State
    sentence: str


class Judge:
    """Verdicts one after the other: one bad check may be chance, several in a row are not.

    Nothing but a divergence is judged before the buffer is full, or before it holds all that the run will ever put in. A figure that
    is too low but rises from check to check is waited for: without BN in its heads a network starts with all vectors near their
    mean, as MoCo's does, and training draws them apart. An alarm is given once, and again only where the state grows worse or comes
    back after a healthy check.

    Attributes:
        rows: images in the buffer before which nothing is judged.
        patience: checks in a row that must be at least as bad as what is alarmed. A divergence needs one.
        last: the verdict of the last check; None before there was one.
    """

    def __init__(self, total_samples: int, *, patience: int = 3, rows: int = ROWS) -> None:
        """`total_samples`: images that the run puts in from start to end, repeated ones counted again."""
        if patience < 1:
            raise ValueError(f"expected a patience of at least 1 check, got {patience}")
        self.rows, self.patience = min(rows, total_samples), patience
        self.last: Verdict | None = None
        self._recent: list[_Check] = []  # the last unhealthy ones in a row
        self._since = 0
        self._alarmed = 0
        self._loss_first: float | None = None

    def update(self, step: int, report: Mapping[str, float]) -> Alarm | None:
        """Take in the report of a step; an alarm where it is time for one.

        `loss_first` is the loss of the first report, where the report says nothing else.
        """
        if self._loss_first is None and "loss" in report:
            self._loss_first = float(report["loss"])
        known = {} if self._loss_first is None else {"loss_first": self._loss_first}
        self.last, finding = judged(known | dict(report))
        if self.last.state != "diverged" and report["rows"] < self.rows:
            return None
        if finding is None:
            self._recent, self._alarmed = [], 0
            return None
        if not self._recent:
            self._since = step
        check = _Check(STATES.index(self.last.state), self.last.sentence, finding.figure, finding.value)
        self._recent = [*self._recent, check][-self.patience :]
        lasting = self._lasting()
        if lasting <= self._alarmed:
            return None
        self._alarmed = lasting
        sentence = next(check.sentence for check in reversed(self._recent) if check.place == lasting)
        return Alarm(step, self._since, STATES[lasting], sentence)

    def _lasting(self) -> int:
        """What the last checks have in common, as a place in STATES; 0 where they are too few, or the figure recovers."""
        last = self._recent[-1]
        if STATES[last.place] == "diverged":
            return last.place
        if len(self._recent) < self.patience or self._recovers():
            return 0
        # A state that flickers between bad and worse is bad for as long.
        return min(check.place for check in self._recent)

    def _recovers(self) -> bool:
        """Whether one figure was too low in all of the last checks, and rises."""
        if len(self._recent) < 2:
            return False
        first, last = self._recent[0], self._recent[-1]
        same = all(check.figure == first.figure for check in self._recent)
        return same and STATES[last.place] != "diverged" and last.value > first.value * RECOVERING

    def final(self, report: Mapping[str, float]) -> Verdict:
        """What is said of a run that has ended with `report`: its verdict, but that a figure which still rises is not held against it."""
        known = {} if self._loss_first is None else {"loss_first": self._loss_first}
        found, finding = judged(known | dict(report))
        if finding is None or found.state == "diverged" or not self._recovers():
            return found
        low, now = self._recent[0].value, self._recent[-1].value
        return Verdict(
            "healthy", f"Too short to judge, train longer: {found.sentence} But the figure rises, from {low:.2g} to {now:.2g}."
        )

    def state_dict(self) -> dict[str, Any]:
        """Numbers, words and lists, part of the checkpoint, so that a resumed run alarms at the same step."""
        recent = [list(check) for check in self._recent]
        return {"recent": recent, "since": self._since, "alarmed": self._alarmed, "loss_first": self._loss_first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a judge of the same patience."""
        self._recent, self._since = [_Check(*check) for check in state["recent"]], int(state["since"])
        self._alarmed, self._loss_first = int(state["alarmed"]), state["loss_first"]


class _Check(NamedTuple):
    place: int  # of the state in STATES
    sentence: str
    figure: str
    value: float
