"""A value in memory and on the disk: who is answered when, and what a failed write takes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kflow.broker.keeping import Kept
from kflow.errors import KflowError, StorageError, StorageFull


class Disk:
    """Threads that work when told to, and what they wrote."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.full = False
        self.waiting: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []
        self.seen: list[int] = []
        self.told: list[str] = []
        self.kept = Kept(0, self.write, self, self.seen.append)

    def write(self, value: int) -> None:
        if self.full:
            raise StorageFull("no room")
        self.written.append(value)

    def submit(self, work: Callable[[], Any], then: Callable[[Any], object]) -> None:
        self.waiting.append((work, then))

    def work(self) -> None:
        (work, then) = self.waiting.pop(0)
        try:
            result: Any = work()
        except KflowError as error:
            result = error
        then(result)

    def set(self, value: int) -> None:
        self.kept.set(value, lambda failure: self.told.append(f"{value} {'no' if failure else 'yes'}"))


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_a_change_is_seen_at_once_and_answered_when_it_is_written(disk: Disk) -> None:
    disk.set(1)
    assert (disk.kept.value, disk.seen, disk.told) == (1, [1], [])
    disk.work()
    assert (disk.written, disk.told) == ([1], ["1 yes"])


def test_what_comes_while_a_write_is_under_way_is_written_together(disk: Disk) -> None:
    for value in (1, 2, 3):
        disk.set(value)
    assert len(disk.waiting) == 1
    disk.work()
    assert disk.told == ["1 yes"]
    disk.work()
    assert (disk.written, disk.told, disk.waiting) == ([1, 3], ["1 yes", "2 yes", "3 yes"], [])


def test_a_write_that_fails_takes_back_all_that_stands_on_it(disk: Disk) -> None:
    disk.set(1)
    disk.work()
    disk.full = True
    disk.set(2)
    disk.set(3)
    disk.work()
    assert (disk.kept.value, disk.seen[-1], disk.waiting) == (1, 1, [])
    assert disk.told == ["1 yes", "2 no", "3 no"]
    disk.full = False
    disk.set(4)
    disk.work()
    assert (disk.written, disk.told[-1]) == ([1, 4], "4 yes")


def test_who_is_told_may_change_it_again(disk: Disk) -> None:
    disk.kept.set(1, lambda failure: disk.set(2))
    disk.set(5)
    disk.work()
    disk.work()
    disk.work()
    assert (disk.written, disk.kept.value) == ([1, 5, 2], 2)


def test_the_error_is_the_one_of_the_write(disk: Disk) -> None:
    errors: list[KflowError | None] = []
    disk.full = True
    disk.kept.set(1, errors.append)
    disk.work()
    assert isinstance(errors[0], StorageError)
