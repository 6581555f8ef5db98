"""The queue of administration: one errand at a time, and none that stops those behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kflow.runtime.errands import Errands


def test_an_errand_begins_when_the_one_before_it_is_over() -> None:
    errands = Errands()
    begun: list[Callable[[], None]] = []
    errands.add(begun.append)
    errands.add(begun.append)
    assert len(begun) == 1
    begun[0]()
    assert len(begun) == 2


def test_an_errand_that_is_over_twice_lets_only_one_begin() -> None:
    errands = Errands()
    begun: list[Callable[[], None]] = []
    for _ in range(3):
        errands.add(begun.append)
    begun[0]()
    begun[0]()
    assert len(begun) == 2


def test_an_errand_that_breaks_stops_none_of_those_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    errands = Errands()
    begun: list[Callable[[], None]] = []

    def broken(over: Callable[[], None]) -> None:
        raise ValueError(f"{over} comes to nothing")

    errands.add(broken)
    errands.add(begun.append)
    assert len(begun) == 1
    assert caplog.messages == ["an errand failed"]
