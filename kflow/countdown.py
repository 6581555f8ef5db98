"""Several things that end in any order, and what comes after all of them."""

from __future__ import annotations

from collections.abc import Callable


def countdown(calls: int, then: Callable[[], object]) -> Callable[..., None]:
    """What is to be called so many times, with anything: the last call calls `then`.

    Who begins a number of things that may be none, or may end at once, counts itself among them and calls last.
    """
    left = calls

    def over(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            then()

    return over
