"""Places for long answers: so many at a time, in order, a beginning a round of the loop."""

from __future__ import annotations

from kflow.kinesis.assembly import Assembly
from tests.unit.aws.fakes import Timers


class Desk:
    def __init__(self, places: int) -> None:
        self.timers = Timers()
        self.assembly = Assembly(self.timers.call_later, places=places)
        self.begun: list[int] = []

    def ask(self, number: int) -> bool:
        return self.assembly.ask(lambda: self.begun.append(number))


def test_who_finds_a_place_has_it_at_once_and_others_begin_in_order_when_one_is_free():
    desk = Desk(2)
    assert [desk.ask(number) for number in range(5)] == [True, True, False, False, False]
    assert (desk.begun, desk.timers.waiting) == ([], [])
    desk.assembly.leave()
    desk.timers.fire()
    assert desk.begun == [2]
    desk.assembly.leave()
    desk.assembly.leave()
    desk.timers.fire()
    assert desk.begun == [2, 3]
    desk.timers.fire()
    assert desk.begun == [2, 3, 4]


def test_nobody_overtakes_those_who_wait():
    desk = Desk(1)
    assert desk.ask(1)
    assert not desk.ask(2)
    desk.assembly.leave()
    assert not desk.ask(3)
    desk.timers.fire()
    assert desk.begun == [2]


def test_ten_thousand_that_leave_as_soon_as_they_begin_are_no_deep_stack():
    desk = Desk(1)
    assert desk.ask(0)
    for _ in range(10_000):
        assert not desk.assembly.ask(desk.assembly.leave)
    desk.assembly.leave()
    rounds = 0
    while desk.timers.waiting:
        desk.timers.fire()
        rounds += 1
    assert rounds == 10_000
    assert desk.ask(1)
