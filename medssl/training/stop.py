"""A request to stop: SIGTERM, SIGINT and SLURM's USR1 set a flag, which the loop reads between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if hasattr(signal, "SIGUSR1"):  # what `#SBATCH --signal=USR1@120` sends; Windows has none
    _SIGNALS.append(signal.SIGUSR1)


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """The run was asked to stop, has kept what it had done, and goes on from there with the same command."""

    def __init__(self, signum: int, step: int, total: int, unit: str = "step") -> None:
        super().__init__(f"stopped after {unit} {step} of {total}; the same command goes on from there")
        self.signum = signum


class StopFlag:
    """Holds the number of the signal that asked to stop, or None."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def set(self, signum: int, frame: object = None) -> None:
        """Remember the request; a second SIGINT interrupts at once, for a user who does not want to wait."""
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Within the block SIGTERM, SIGINT and SIGUSR1 only set the flag. Outside of the main thread no handler can be set and none is."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {signum: signal.signal(signum, flag.set) for signum in _SIGNALS}
    try:
        yield flag
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
