"""The node's loop: order within a round, timers, calls from elsewhere."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from kflow.runtime.loop import READ, WRITE, Loop
from kflow.runtime.poller import EpollPoller, SelectorPoller


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_a_round_serves_lower_priorities_first(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(3)]
    served: list[int] = []
    for priority, (read, write) in zip((2, 0, 1), pipes, strict=True):
        os.write(write, b"x")
        loop.add(read, lambda mask, priority=priority: served.append(priority), priority=priority)  # type: ignore[misc]

    loop.round(0)

    assert served == [0, 1, 2]
    for read, write in pipes:
        loop.remove(read)
        os.close(read)
        os.close(write)


def test_a_descriptor_removed_in_the_round_is_not_served_any_more(loop: Loop) -> None:
    first, second = os.pipe(), os.pipe()
    served: list[str] = []

    def remove_other(mask: int) -> None:
        served.append("first")
        loop.remove(second[0])

    loop.add(first[0], remove_other, priority=0)
    loop.add(second[0], lambda mask: served.append("second"), priority=1)
    os.write(first[1], b"x")
    os.write(second[1], b"x")

    loop.round(0)

    assert served == ["first"]
    loop.remove(first[0])
    for fd in (*first, *second):
        os.close(fd)


def test_messages_are_served_before_timers(loop: Loop) -> None:
    read, write = os.pipe()
    order: list[str] = []
    loop.add(read, lambda mask: order.append(os.read(read, 1).decode()))
    os.write(write, b"m")
    loop.call_at(time.monotonic() - 1, lambda: order.append("t"))

    loop.round(0)

    assert order == ["m", "t"]
    loop.remove(read)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("chunks", [1, 5])
def test_all_messages_are_served_before_timers_also_where_the_wait_missed_them(loop: Loop, chunks: int) -> None:
    """A wait that the process was stopped in (SIGSTOP) ends with its time over, and nothing looked at."""
    ours, theirs = socket.socketpair()
    order: list[str] = []

    def read(mask: int) -> None:
        ours.recv(1)
        order.append("message")

    def poll(timeout: float | None) -> list[tuple[int, int]]:
        loop._poller.poll = plain  # type: ignore[method-assign]
        theirs.send(b"x" * chunks)
        return []

    plain = loop._poller.poll
    loop._poller.poll = poll  # type: ignore[method-assign]
    loop.add(ours.fileno(), read, priority=0)
    loop.call_later(0, lambda: order.append("timer"))

    loop.round(0)

    assert order == ["message"] * chunks + ["timer"]
    loop.remove(ours.fileno())
    ours.close()
    theirs.close()


def test_a_worker_that_never_stops_talking_does_not_keep_timers_from_firing(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    fired: list[bool] = []
    theirs.send(b"x")
    loop.add(ours.fileno(), lambda mask: None, priority=0)
    loop.call_later(0, lambda: fired.append(True))

    loop.round(0)

    assert fired
    loop.remove(ours.fileno())
    ours.close()
    theirs.close()


def test_a_cancelled_timer_never_fires(loop: Loop) -> None:
    fired: list[int] = []
    timer = loop.call_later(0, lambda: fired.append(1))
    timer.cancel()

    loop.round(0)

    assert fired == []


def test_a_call_from_another_thread_ends_the_wait(loop: Loop) -> None:
    other = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    other.start()

    loop.run()  # without the wake-up this would never return
    other.join()


def test_no_call_of_many_threads_is_left_lying_while_the_loop_sleeps(loop: Loop) -> None:
    each, many = 2_000, 4
    seen: list[int] = []

    def note(number: int) -> None:
        seen.append(number)
        if len(seen) == each * many:
            loop.stop()

    def call(first: int) -> None:
        for number in range(first, first + each):
            loop.call_soon_threadsafe(partial(note, number))

    others = [threading.Thread(target=call, args=(first * each,)) for first in range(many)]
    for other in others:
        other.start()

    loop.run()  # it would never return if one was left

    for other in others:
        other.join()
    assert sorted(seen) == list(range(each * many))


def test_a_call_that_came_before_the_wait_ends_it(loop: Loop) -> None:
    loop.call_soon_threadsafe(loop.stop)
    loop.run()  # it would never return
    assert loop._stopped


def test_a_call_soon_is_made_in_this_round_after_all_that_is_ready_and_from_a_timer_in_the_next(loop: Loop) -> None:
    made: list[str] = []
    ours, theirs = socket.socketpair()
    more, others = socket.socketpair()
    theirs.send(b"x")
    others.send(b"x")
    loop.add(ours.fileno(), lambda _: loop.call_soon(partial(made.append, "soon")))
    loop.add(more.fileno(), lambda _: made.append("ready"), priority=2)
    loop.round(0)
    loop.remove(ours.fileno())
    loop.remove(more.fileno())
    assert made == ["ready", "soon"]

    loop.call_later(0, lambda: loop.call_soon(partial(made.append, "from a timer")))
    loop.round(0)
    assert made == ["ready", "soon"]
    loop.round()  # it does not wait
    assert made == ["ready", "soon", "from a timer"]
    for each in (ours, theirs, more, others):
        each.close()


def test_calls_that_bring_further_calls_keep_nobody_waiting(loop: Loop) -> None:
    made: list[str] = []
    ours, theirs = socket.socketpair()

    def again() -> None:
        made.append("soon")
        if made.count("soon") == 2:
            theirs.send(b"x")
        if made.count("soon") < 4:
            loop.call_soon(again)
        else:
            loop.stop()

    def ready(mask: int) -> None:
        del mask
        ours.recv(1)
        made.append("ready")

    loop.add(ours.fileno(), ready)
    loop.call_soon(again)
    loop.run()
    loop.remove(ours.fileno())
    for each in (ours, theirs):
        each.close()
    assert made == ["soon", "soon", "ready", "soon", "soon"]


@pytest.mark.parametrize("make", [EpollPoller, SelectorPoller])
def test_both_pollers_tell_the_same(make: type[EpollPoller | SelectorPoller]) -> None:
    poller = make()
    ours, theirs = socket.socketpair()
    poller.add(ours.fileno(), READ)
    before = poller.poll(0)
    theirs.send(b"x")
    readable = poller.poll(0)
    poller.modify(ours.fileno(), READ | WRITE)
    both = poller.poll(0)
    poller.remove(ours.fileno())

    assert before == []
    assert readable == [(ours.fileno(), READ)]
    assert both == [(ours.fileno(), READ | WRITE)]
    assert poller.poll(0) == []
    poller.close()
    ours.close()
    theirs.close()


def test_writing_is_watched_only_when_asked_for(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    masks: list[int] = []
    loop.add(ours.fileno(), masks.append)
    loop.round(0)
    loop.modify(ours.fileno(), READ | WRITE)
    loop.round(0)

    assert masks == [WRITE]
    loop.remove(ours.fileno())
    ours.close()
    theirs.close()
