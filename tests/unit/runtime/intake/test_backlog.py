"""The bound on what a node keeps over all connections."""

from __future__ import annotations

import pytest

from kflow.runtime.intake import backlog
from kflow.runtime.intake.backlog import Backlog


class Waiter:
    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def go_on(self) -> None:
        self.told.append(self.name)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES", 100)


def test_there_is_room_up_to_the_bound() -> None:
    kept = Backlog()
    kept.add(100)
    assert kept.has_room()
    kept.add(1)
    assert not kept.has_room()


def test_who_waits_is_told_in_order_once_there_is_room_and_nobody_overtakes() -> None:
    kept, told = Backlog(), list[str]()
    kept.add(130)
    kept.wait(Waiter("first", told))
    kept.wait(Waiter("second", told))
    kept.remove(20)
    assert (told, kept.has_room()) == ([], False)
    kept.remove(20)
    assert told == ["first", "second"]
    assert kept.has_room()
