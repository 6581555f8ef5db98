"""Parked entries that are sent to their function again: who waits for the answer, and what a death on the way means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from kflow.broker.parked import ParkedStore
from kflow.errors import KflowError
from kflow.interfaces import FunctionError
from kflow.runtime.messages import DeathNote

log = logging.getLogger(__name__)

Answer = Callable[[dict[str, Any]], None]

_INTERRUPTED = FunctionError(type="Interrupted", message="the runtime ended the worker; send it again")


class Redrives:
    """The redrives that are under way. Belongs to the node's loop."""

    def __init__(self, parked: ParkedStore) -> None:
        self._parked = parked
        self._answers: dict[int, Answer] = {}

    def begin(self, number: int, answer: Answer) -> None:
        """`answer` is called when the entry has been sent, with `{"number": int, "error": None | its fields}`."""
        self._answers[number] = answer

    def done(self, number: int, error: FunctionError | None) -> None:
        """The function was called; the worker has put the result into the store."""
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer({"number": number, "error": None if error is None else msgspec.to_builtins(error)})

    def died(self, number: int, death: DeathNote | None) -> None:
        """The worker died with it: a failed attempt where its death counts as one, else the claim goes back."""
        try:
            if death is None:
                self._parked.unclaim(number)
            else:
                self._parked.failed_again(number, death.error, 1)
        except KflowError as error:
            log.warning("parked=%d its claim goes back at the next start: %s", number, error)
        self.done(number, death.error if death else _INTERRUPTED)
