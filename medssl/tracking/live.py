"""Sends a log to its store while the run goes on, from a thread that can neither stop nor slow the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from medssl.tracking.mlflow_sink import Sink
from medssl.tracking.mlflow_store import BusyError, UnreachableError

Warn = Callable[[str], None]

_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0  # seconds between attempts at a store that fails; doubled each time
_SLOW = 2.0  # seconds; an attempt that fails after more is not worth repeating within _RECENT seconds
_RECENT = 60.0


@dataclass
class _Trouble:
    """Since when attempts fail. A store out of reach is shared by all runs of this process: one warning, one back-off."""

    pause: float = 0.0
    failed_at: float = 0.0
    seconds: float = 0.0

    def failed(self, seconds: float) -> bool:
        """Note a failed attempt; True for the first in a row."""
        first = self.pause == 0
        self.pause = _FIRST_PAUSE if first else min(_LONGEST_PAUSE, 2 * self.pause)
        self.failed_at, self.seconds = time.monotonic(), seconds
        return first

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self.failed_at + self.pause - time.monotonic()) if self.pause else 0.0


_STORES: dict[str, _Trouble] = {}


class LiveSink:
    """A thread that replays new lines of a log every few seconds.

    Args:
        sink: what to replay.
        warn: gets one line when sending begins to fail.
        every: seconds between two looks at the log.
    """

    def __init__(self, sink: Sink, *, warn: Warn, every: float = 3.0) -> None:
        self._sink, self._warn, self._every = sink, warn, every
        self._store = _STORES.setdefault(sink.store.uri, _Trouble())
        self._refused = _Trouble()
        self._closing = threading.Event()
        self._complete = False
        self._thread = threading.Thread(target=self._run, name="medssl-mlflow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, *, timeout: float = 10.0) -> bool:
        """Make a last attempt, of at most `timeout` seconds; True when the store has everything.

        What is missing stays in the log, for `medssl track sync`. A transfer that takes longer goes on in the background
        while the process lives.
        """
        self._closing.set()
        self._thread.join(timeout)
        if self._thread.is_alive() and not self._store.pause:
            self._say(f"{self._sink.store.shown} did not take everything within {timeout:.0f} s")
        return self._complete and not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.wait(max(self._every, self._store.left, self._refused.left)):
            self._attempt()
        hopeless = self._store.seconds > _SLOW and time.monotonic() - self._store.failed_at < _RECENT
        if not (self._store.pause and hopeless):
            self._complete = self._attempt()

    def _attempt(self) -> bool:
        begun = time.monotonic()
        try:
            self._sink.replay()
        except BusyError as error:
            if self._closing.is_set():
                self._say(str(error))
            return False
        except Exception as error:  # whatever it is, the run is worth more than its display
            trouble = self._store if isinstance(error, UnreachableError) else self._refused
            if trouble.failed(time.monotonic() - begun):
                self._say(" ".join(str(error).split()) or type(error).__name__)
            return False
        self._store.pause = self._refused.pause = 0.0
        return True

    def _say(self, reason: str) -> None:
        self._warn(f"tracking: {reason}; the run goes on with its local log, and `medssl track sync` sends what is missing")
