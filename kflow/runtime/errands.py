"""Administration's file work, one errand after the other, each in as many steps as it needs.

Streams are made, deleted, emptied and resharded by threads, for the loop never waits for a disk. But creation seconds
and the catalogue are the whole folder's, so two errands never overlap.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from kflow.errors import InternalError, KflowError

log = logging.getLogger(__name__)

T = TypeVar("T")

Errand = Callable[[Callable[[], None]], None]
"""Begins something, raises nothing, and calls what it is given once that is over, on the loop, exactly once."""


class Errands:
    """Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._waiting: deque[Errand] = deque()
        self._is_busy = False

    def add(self, errand: Errand) -> None:
        """Begin an errand, now or when those before it are over."""
        self._waiting.append(errand)
        self._next()

    def _next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        self._is_busy = True
        errand, over = self._waiting.popleft(), self._end()
        try:
            errand(over)
        except Exception:
            log.exception("an errand failed")
            over()  # or all behind it would wait for ever

    def _end(self) -> Callable[[], None]:
        """What ends the errand that is begun now; a second call does nothing."""
        is_over = False

        def over() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._is_busy = False
                self._next()

        return over


def guarded(work: Callable[[], T]) -> Callable[[], T]:
    """The same work, whose every exception is a `KflowError`: an errand that never ends would stop all behind it."""

    def run() -> T:
        try:
            return work()
        except KflowError:
            raise
        except Exception as error:
            raise _reported(error) from error

    return run


def attempt(work: Callable[[], T]) -> T | KflowError:
    """Do something; what it returned, or why it could not be done. Raises nothing."""
    try:
        return work()
    except KflowError as error:
        return error
    except Exception as error:  # noqa: BLE001 # it is logged, and told
        return _reported(error)


def _reported(error: Exception) -> InternalError:
    log.error("work failed", exc_info=error)
    return InternalError(f"{type(error).__name__}: {error}; please report it")
