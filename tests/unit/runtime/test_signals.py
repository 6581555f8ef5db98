"""Ctrl-C while a runtime is set up: it is never lost, and never told as something else."""

from __future__ import annotations

import contextlib
import os
import signal
from types import SimpleNamespace

import pytest

from kflow.errors import UsageError
from kflow.runtime.loop import Loop
from kflow.runtime.signals import INTERRUPTED, Signals, Starting


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_interrupts_what_is_done_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Starting():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_follows_from_it_is_not_told():
    def fail() -> None:
        try:
            interrupt()
        except KeyboardInterrupt:
            raise UsageError("app.py: importing ended the process") from None

    with pytest.raises(KeyboardInterrupt), Starting():
        fail()


def test_an_error_without_it_stays_what_it_is():
    with pytest.raises(UsageError), Starting():
        raise UsageError("x")


@pytest.mark.parametrize("is_swallowed", [True, False])
def test_one_that_was_swallowed_stops_the_node_when_it_runs(is_swallowed):
    loop = Loop()
    reasons: list[str] = []
    node = SimpleNamespace(
        loop=loop, code=0, request_stop=reasons.append, supervisor=SimpleNamespace(reap=lambda: None)
    )
    signals = Signals()
    with Starting() as starting:
        if is_swallowed:
            with contextlib.suppress(KeyboardInterrupt):
                interrupt()
        signals.install(node, starting)
        loop.round(0)
        signals.restore()
    loop.close()
    assert (reasons, node.code) == ((["Ctrl-C"], INTERRUPTED) if is_swallowed else ([], 0))
