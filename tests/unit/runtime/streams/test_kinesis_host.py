"""News of shards reach those who wait for them, and nobody else."""

from __future__ import annotations

import pytest

from kflow.broker.streammap import StreamMap
from kflow.runtime.streams.kinesis_host import Watches, guarded

ORDERS = StreamMap(name="orders", id=7, created_s=1, generation=1)


def test_an_append_is_told_to_the_readers_of_that_shard() -> None:
    watches = Watches()
    told: list[str] = []
    watches.add(7, 0, lambda: told.append("first"))
    watches.add(7, 0, lambda: told.append("second"))
    watches.add(7, 1, lambda: told.append("other shard"))
    watches.add(8, 0, lambda: told.append("other stream"))

    watches.appended(ORDERS, 0)

    assert told == ["first", "second"]


def test_a_stream_that_changes_or_goes_is_told_to_all_its_readers() -> None:
    watches = Watches()
    told: list[int] = []
    for shard in (0, 1):
        watches.add(7, shard, lambda shard=shard: told.append(shard))
    watches.add(8, 0, lambda: told.append(8))

    watches.moved(7)

    assert told == [0, 1]


def test_a_closed_watch_is_told_nothing_more() -> None:
    watches = Watches()
    told: list[str] = []
    first = watches.add(7, 0, lambda: told.append("first"))
    watches.add(7, 0, lambda: told.append("second"))

    first.close()
    first.close()
    watches.appended(ORDERS, 0)

    assert told == ["second"]


def test_a_reader_may_close_its_watch_while_it_is_told() -> None:
    watches = Watches()
    told: list[str] = []

    def once() -> None:
        told.append("once")
        watch.close()

    watch = watches.add(7, 0, once)
    watches.add(7, 0, lambda: told.append("always"))

    watches.appended(ORDERS, 0)
    watches.appended(ORDERS, 0)
    watches.moved(7)

    assert told == ["once", "always", "always", "always"]


def test_a_service_that_breaks_in_a_callback_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def broken(number: int) -> None:
        told.append(number)
        raise ValueError("a bug")

    guarded(broken)(7)

    assert told == [7]
    assert "a callback of a service failed" in caplog.text
    assert "ValueError: a bug" in caplog.text
