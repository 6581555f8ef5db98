"""Waiting for what another process or thread does, without sleeping for a guessed time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Eventually(Protocol):
    """The type of `eventually`."""

    def __call__(self, condition: Callable[[], T], seconds: float = 30, what: str = "") -> T:
        """Wait for `condition`."""
        ...


def eventually(condition: Callable[[], T], seconds: float = 30, what: str = "") -> T:
    """Wait until `condition()` is true, and return what it returned; fail once the deadline has passed.

    Looks again after 1 ms, then 2, 4 ... up to 50: quick where the wait is short, gentle to the machine where not.

    Args:
        condition: asked again and again; what it raises is not caught.
        seconds: the deadline. Make it generous: a passing test never waits for it.
        what: what is awaited, for the failure's text.
    """
    deadline = time.monotonic() + seconds
    pause = 0.001
    nobody = threading.Event()
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        nobody.wait(pause)
        pause = min(pause * 2, 0.05)
    return result
