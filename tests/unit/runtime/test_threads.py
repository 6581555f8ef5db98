"""Threads that wait for disks: as many as are needed, and no more than there may be."""

from __future__ import annotations

import threading

import pytest

from kflow.runtime.threads import Threads

DEADLINE_S = 20.0


def test_one_thread_serves_who_comes_one_after_the_other():
    threads = Threads(8, "test")
    seen = set()
    for _ in range(20):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            seen.add(threading.current_thread().name)
            done.set()

        threads.submit(work)
        assert done.wait(DEADLINE_S)
    threads.close()
    assert seen <= {"test_0", "test_1"}  # the second where one was told before its thread had taken note


def test_so_many_work_at_once_and_the_rest_waits_for_them():
    threads = Threads(2, "test")
    both = threading.Barrier(3)
    go, done = threading.Event(), []

    def held() -> None:
        both.wait(DEADLINE_S)
        go.wait(DEADLINE_S)
        done.append("held")

    threads.submit(held)
    threads.submit(held)
    threads.submit(lambda: done.append("next"))
    both.wait(DEADLINE_S)
    assert done == []
    go.set()
    threads.close()
    assert sorted(done) == ["held", "held", "next"]


def test_all_that_was_submitted_is_done_before_it_is_closed():
    threads = Threads(1, "test")
    done: list[int] = []
    for number in range(100):
        threads.submit(lambda number=number: done.append(number))
    threads.close()
    assert done == list(range(100))
    threads.close()


def test_nothing_is_taken_once_it_is_closed():
    threads = Threads(1, "test")
    threads.close()
    with pytest.raises(RuntimeError, match="the threads test are closed"):
        threads.submit(list)


def test_where_the_system_allows_no_more_threads_those_that_there_are_do_the_work(monkeypatch):
    threads = Threads(4, "test")
    start, allowed = threading.Thread.start, iter([False, True])

    def starting(thread: threading.Thread) -> None:
        if not next(allowed, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starting)
    done: list[int] = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        threads.submit(lambda: done.append(0))
    for number in (1, 2, 3):
        threads.submit(lambda number=number: done.append(number))
    threads.close()
    assert done == [1, 2, 3]
