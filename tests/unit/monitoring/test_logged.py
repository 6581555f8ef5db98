"""Ids of log events."""

from __future__ import annotations

from kflow.monitoring.logged import LAST_ID, NO_ID, Logged, event_id, first_id, is_id, time_of


def test_ids_rise_with_time_then_kind_then_source_then_place() -> None:
    ids = [NO_ID, first_id(5), event_id(5, 0, 0, 0), event_id(5, 0, 0, 1), event_id(5, 0, 1, 0), event_id(5, 1, 0, 0)]
    assert [*ids, first_id(6), LAST_ID] == sorted([*ids, first_id(6), LAST_ID])
    assert {len(each) for each in ids} == {56}
    assert time_of(event_id(1_790_000_000_000, 1, 2, 3)) == 1_790_000_000_000


def test_what_is_no_id() -> None:
    assert is_id(NO_ID)
    assert not is_id(NO_ID[1:])
    assert not is_id("x" * 56)


def test_an_event_is_counted_with_26_bytes_more_than_its_text() -> None:
    assert Logged(NO_ID, 0, "one", "é", 0).size == 28
