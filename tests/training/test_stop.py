"""Signals set a flag; a second Ctrl-C interrupts at once; handlers are put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from medssl.training.stop import stop_on_signals


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_sets_the_flag(signum):
    before = signal.getsignal(signum)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signum)
        assert stop.signum == signum
    assert signal.getsignal(signum) is before


def test_the_second_interrupt_does_not_wait():
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_no_handler_is_set():
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append(stop.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
