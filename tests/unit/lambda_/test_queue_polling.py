"""The engine of a queue's mapping, stepped by hand."""

from __future__ import annotations

from typing import Any

import pytest

from kflow.declarations import QueueOptions
from kflow.lambda_.queue_polling import (
    EVENT_BYTES,
    IDLE_S,
    CancelReceive,
    Delete,
    GiveBack,
    Invoke,
    Item,
    Polling,
    Receive,
    event,
)


def item(name: str, group: str = "", size: int = 2) -> Item:
    return Item(f"d-{name}", name, b"x" * size, group)


def items(*names: str) -> list[Item]:
    """`a1` of a FIFO queue is in the group `a`."""
    return [item(name, name[0]) for name in names]


def plain(*names: str) -> list[Item]:
    return [item(name) for name in names]


def polling(most: int = 2, scale: float = 1.0, **options: Any) -> Polling:
    return Polling(QueueOptions(**options), most=most, backoff_scale=scale)


def names(action: Any) -> list[str]:
    assert isinstance(action, Invoke)
    return [each.id for each in action.items]


def begun(engine: Polling, *received: Item, now: float = 0.0, visible_s: float = 30.0) -> list[Any]:
    """One receive, and what follows from it."""
    assert any(isinstance(each, Receive) for each in engine.step(now)) or engine._is_receiving
    engine.received(received, [], now, visible_s)
    return engine.step(now)


def test_it_waits_at_the_queue_and_needs_no_timer():
    engine = polling()
    assert engine.step(0.0) == [Receive(10, IDLE_S)]
    assert engine.step(5.0) == []
    assert engine.next_due(5.0) is None
    assert engine.is_idle


def test_what_is_received_runs_at_once_and_the_next_receive_begins():
    engine = polling(batch_size=3)
    assert engine.step(0.0) == [Receive(3, IDLE_S)]
    engine.received(plain("a", "b"), [], 0.0, 30.0)
    invoke, receive = engine.step(0.0)
    assert (names(invoke), invoke.until, receive) == (["a", "b"], 30.0, Receive(3, IDLE_S))


def test_no_more_batches_run_than_may_and_nothing_is_received_for_others():
    engine = polling(most=2)
    begun(engine, *plain("a"))
    (second,) = begun(engine, *plain("b"))
    assert names(second) == ["b"]
    assert engine.step(1.0) == []
    engine.done(1, frozenset())
    assert engine.step(2.0) == [Delete(1, ["d-a"]), Receive(10, IDLE_S)]


def test_maximum_concurrency_goes_before_what_the_runtime_has():
    engine = polling(most=8, maximum_concurrency=2)
    begun(engine, *plain("a"))
    assert len(begun(engine, *plain("b"))) == 1
    few = polling(most=1, maximum_concurrency=2)
    assert len(begun(few, *plain("a"))) == 1  # what had to wait for a place might wait too long


def test_a_failed_batch_stays_in_the_queue():
    engine = polling(most=1)
    begun(engine, *plain("a", "b"))
    engine.done(1, frozenset({0, 1}))
    assert engine.step(0.0) == [Receive(10, IDLE_S)]


def test_of_a_partial_response_the_others_are_deleted():
    engine = polling(most=1)
    begun(engine, *plain("a", "b", "c"))
    engine.done(1, frozenset({1}))
    assert engine.step(0.0)[0] == Delete(1, ["d-a", "d-c"])


def test_filtered_messages_are_deleted():
    engine = polling()
    engine.step(0.0)
    engine.received([], ["d-a"], 0.0, 30.0)
    assert engine.step(0.0) == [Delete(0, ["d-a"]), Receive(10, IDLE_S)]


def test_a_window_gathers_from_its_first_message_on():
    engine = polling(batch_size=25, maximum_batching_window_in_seconds=5)
    assert engine.step(0.0) == [Receive(10, IDLE_S)]
    engine.received(plain("a"), [], 100.0, 30.0)
    assert engine.step(100.0) == [Receive(24, 5.0)]
    assert engine.next_due(100.0) == 105.0
    engine.received(plain(*(f"b{place}" for place in range(10))), [], 102.0, 30.0)
    assert engine.step(102.0) == [Receive(14, 3.0)]
    engine.received([], [], 105.0, 30.0)
    first, second = engine.step(105.0)
    assert (len(first.items), second) == (11, Receive(25, IDLE_S))


def test_a_full_batch_does_not_wait_for_the_window():
    engine = polling(batch_size=12, maximum_batching_window_in_seconds=5)
    engine.step(0.0)
    engine.received(plain(*"abcdefghij"), [], 0.0, 30.0)
    assert engine.step(0.0) == [Receive(2, 5.0)]
    engine.received(plain("k", "l"), [], 1.0, 30.0)
    assert names(engine.step(1.0)[0]) == list("abcdefghijkl")


def test_small_messages_are_received_in_greater_numbers_and_large_ones_are_not():
    engine = polling(batch_size=1000, maximum_batching_window_in_seconds=5)
    assert begun(engine, *plain(*"abcdefghij")) == [Receive(100, 5.0)]
    engine.received([item("k", size=EVENT_BYTES // 20)], [], 0.0, 30.0)
    assert engine.step(0.0) == [Receive(20, 5.0)]
    engine.received([item("l", size=EVENT_BYTES // 6)], [], 0.0, 30.0)
    assert engine.step(0.0) == [Receive(10, 5.0)]


def test_in_a_hurry_a_window_ends_when_the_queue_has_nothing_more():
    engine = polling(batch_size=25, maximum_batching_window_in_seconds=300)
    assert begun(engine, *plain("a")) == [Receive(24, 300.0)]
    engine.hurry()
    assert engine.step(0.0) == [CancelReceive(), Receive(24, 0.0)]
    engine.received(plain("b"), [], 1.0, 30.0)
    assert engine.step(1.0) == [Receive(23, 0.0)]
    engine.received([], [], 1.0, 30.0)
    batch, receive = engine.step(1.0)
    assert (names(batch), receive) == (["a", "b"], Receive(25, IDLE_S))
    engine.received(plain("c"), [], 2.0, 30.0)
    assert engine.step(2.0) == [Receive(24, 0.0)]


def test_an_event_is_at_most_six_megabytes():
    engine = polling(most=8)
    third = EVENT_BYTES // 3
    first, second, _ = begun(engine, *(item(name, size=third) for name in "abcd"))
    assert (names(first), names(second)) == (["a", "b"], ["c", "d"])
    assert len(event(first.items)) <= EVENT_BYTES


def test_an_event_of_exactly_six_megabytes_is_one():
    engine = polling(most=8)
    whole = EVENT_BYTES - len(b'{"Records":[]}')
    first, *_ = begun(engine, item("a", size=whole - 11), item("b", size=10))
    assert names(first) == ["a", "b"]
    assert len(event(first.items)) == EVENT_BYTES


def test_the_event_is_json():
    assert event([item("a", size=1), item("b", size=1)]) == b'{"Records":[x,x]}'


# ---------------------------------------------------------------------- throttles and troubles


def test_a_throttled_batch_is_tried_again_and_nothing_is_received_meanwhile():
    engine = polling()
    begun(engine, *plain("a"))
    engine.received([], [], 0.0, 30.0)
    engine.throttled(1, 0.0)
    assert engine.step(0.0) == []
    assert engine.next_due(0.0) == 1.0
    assert engine.step(0.5) == []
    assert [names(each) for each in engine.step(1.0)[:1]] == [["a"]]
    engine.throttled(1, 1.0)
    assert engine.next_due(1.0) == 3.0


def test_a_throttled_batch_is_tried_again_as_soon_as_another_one_ends():
    engine = polling()
    begun(engine, *plain("a"))
    begun(engine, *plain("b"))
    engine.throttled(2, 0.0)
    assert engine.step(0.1) == []
    engine.done(1, frozenset())
    delete, invoke = engine.step(0.2)
    assert (delete, invoke.number, names(invoke)) == (Delete(1, ["d-a"]), 2, ["b"])


def test_a_throttled_batch_is_forgotten_when_its_messages_are_visible_again():
    engine = polling(most=1)
    begun(engine, *plain("a"), visible_s=2.0)
    engine.throttled(1, 0.0)
    engine.step(1.0)
    engine.throttled(1, 1.0)
    assert engine.step(3.0) == [Receive(10, IDLE_S)]


def test_after_a_throttle_no_more_run_than_ran_then_for_a_while():
    engine = polling(most=8)
    begun(engine, *plain("a"))
    begun(engine, *plain("b"))
    engine.received([], [], 0.0, 30.0)
    engine.throttled(2, 0.0)
    engine.done(1, frozenset())
    engine.step(0.0)
    engine.done(2, frozenset())
    assert Receive(10, IDLE_S) in engine.step(1.0)
    engine.received(plain("c"), [], 1.0, 30.0)
    assert [type(each) for each in engine.step(1.0)] == [Invoke]
    assert engine.next_due(1.0) == 10.0
    assert engine.step(10.0) == [Receive(10, IDLE_S)]


def test_what_nobody_knows_the_end_of_goes_back_and_there_is_a_pause():
    engine = polling(most=1)
    begun(engine, *plain("a"))
    engine.unknown(1, 0.0)
    assert engine.step(0.0) == [GiveBack(["d-a"])]
    assert engine.next_due(0.0) == 1.0
    assert engine.step(1.0) == [Receive(10, IDLE_S)]


def test_a_pause_holds_for_a_receive_that_is_under_way_too():
    engine = polling(most=2)
    begun(engine, *plain("a"))
    engine.unknown(1, 0.0)
    assert engine.step(0.0) == [CancelReceive(), GiveBack(["d-a"])]


def test_pauses_grow_up_to_ten_seconds_and_end_with_a_success():
    engine = polling()
    pauses = []
    now = 0.0
    for _ in range(6):
        engine.step(now)
        engine.failed(now)
        due = engine.next_due(now)
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    begun(engine, *plain("a"), now=now)
    engine.done(1, frozenset())
    engine.failed(now)
    assert engine.next_due(now) == now + 1.0


def test_pauses_are_scaled_and_never_nothing():
    engine = polling(scale=0.0)
    engine.step(0.0)
    engine.failed(0.0)
    assert engine.next_due(0.0) == 0.05


def test_a_queue_that_is_gone_is_waited_for_without_a_timer():
    engine = polling()
    engine.step(0.0)
    engine.failed(0.0, is_gone=True)
    assert (engine.step(1e9), engine.next_due(1e9)) == ([], None)
    engine.wake()
    assert engine.step(1e9) == [Receive(10, IDLE_S)]


def test_a_function_that_is_gone_is_told_from_a_queue_that_is():
    engine = polling()
    engine.step(0.0)
    engine.functionless()
    assert (engine.step(1e9), engine.next_due(1e9), engine.state) == ([], None, "functionless")
    engine.wake()
    engine.step(1e9)
    engine.failed(1e9, is_gone=True)
    assert engine.state == "gone"


def test_what_is_gathered_and_visible_to_others_is_theirs():
    engine = polling(batch_size=20, maximum_batching_window_in_seconds=50)
    begun(engine, *plain("a"), visible_s=30.0)
    engine.received(plain("b"), [], 25.0, 30.0)
    (invoke,) = (each for each in engine.step(50.0) if isinstance(each, Invoke))
    assert (names(invoke), invoke.until) == (["b"], 55.0)


# ---------------------------------------------------------------------- order


def test_nothing_of_a_group_begins_while_something_of_it_runs():
    engine = polling(most=8)
    begun(engine, *items("a1", "b1"))
    waits, receive = begun(engine, *items("a1", "c1"))  # visible again, for it took too long
    assert (names(waits), receive) == (["c1"], Receive(9, IDLE_S))
    engine.done(1, frozenset())
    assert names(engine.step(1.0)[1]) == ["a1"]


def test_what_was_cut_off_of_a_group_runs_after_what_comes_before_it():
    engine = polling(most=8)
    half = EVENT_BYTES // 2
    first, second, _ = begun(engine, item("a1", "a", half), item("a2", "a", half), item("b1", "b", 10))
    assert (names(first), names(second)) == (["a1"], ["b1"])
    engine.done(1, frozenset())
    assert [names(each) for each in engine.step(1.0) if isinstance(each, Invoke)] == [["a2"]]


def test_what_waited_for_its_group_too_long_does_not_run_before_what_comes_first():
    engine = polling(most=8)
    half = EVENT_BYTES // 2
    begun(engine, item("a1", "a", half), item("a2", "a", half), visible_s=30.0)
    engine.received(items("b1"), [], 20.0, 30.0)
    engine.step(20.0)
    engine.received(items("a1"), [], 31.0, 30.0)  # the first run takes too long: both are visible again
    engine.received(items("a2"), [], 31.0, 30.0)
    engine.done(1, frozenset())
    assert [names(each) for each in engine.step(32.0) if isinstance(each, Invoke)] == [["a1", "a2"]]


def test_what_goes_back_with_a_batch_that_is_too_late_goes_back_at_once():
    engine = polling(most=1)
    half = EVENT_BYTES // 2
    begun(engine, item("a1", "a", half), item("a2", "a", half), visible_s=2.0)
    engine.throttled(1, 0.0)
    assert engine.step(2.0) == [Receive(10, IDLE_S), GiveBack(["d-a2"])]


def test_what_is_gathered_of_a_group_that_failed_goes_back():
    engine = polling(most=8)
    half = EVENT_BYTES // 2
    begun(engine, item("a1", "a", half), item("a2", "a", half))
    engine.done(1, frozenset({0}))
    assert engine.step(1.0)[0] == GiveBack(["d-a2"])


# ---------------------------------------------------------------------- the end


def test_a_stop_gives_back_what_is_gathered_and_waits_for_what_runs():
    engine = polling(batch_size=20, maximum_batching_window_in_seconds=300)
    begun(engine, *plain("a", "b"))
    engine.stop()
    assert engine.step(1.0) == [CancelReceive(), GiveBack(["d-a", "d-b"])]
    assert engine.is_over
    running = polling(most=1)
    begun(running, *plain("a"))
    running.stop()
    assert (running.step(0.0), running.is_over) == ([], False)
    running.done(1, frozenset())
    assert running.step(0.0) == [Delete(1, ["d-a"])]
    assert (running.is_over, running.next_due(0.0)) == (True, None)


def test_a_stop_gives_back_what_is_throttled():
    engine = polling(most=1)
    begun(engine, *plain("a"))
    engine.throttled(1, 0.0)
    engine.stop()
    assert engine.step(0.0) == [GiveBack(["d-a"])]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_message_is_settled_once_and_a_group_runs_in_order(seed):
    """A queue that is a list: what it gives is in flight until it is deleted, given back, or let go by a failure."""
    import random

    chance = random.Random(seed)
    engine = polling(most=3, batch_size=chance.choice([1, 3, 10]))
    left = {group: [f"{group}{number}" for number in range(6)] for group in "abc"}
    flying: set[str] = set()
    running: dict[int, list[str]] = {}
    done: list[str] = []
    receiving: Receive | None = None
    now = 0.0
    for _ in range(5000):
        if not any(left.values()):
            break
        now += 0.3
        for action in engine.step(now):
            if isinstance(action, Receive):
                assert receiving is None
                receiving = action
            elif isinstance(action, CancelReceive):
                receiving = None
            elif isinstance(action, Invoke):
                ids = names(action)
                for other in running.values():
                    assert not {each[0] for each in other} & {each[0] for each in ids}, "a group runs twice"
                running[action.number] = ids
            elif isinstance(action, Delete):
                for each in (text.removeprefix("d-") for text in action.deliveries):
                    assert left[each[0]][0] == each, "a group is out of order"
                    left[each[0]].remove(each)
                    flying.discard(each)
                    done.append(each)
            elif isinstance(action, GiveBack):
                flying -= {text.removeprefix("d-") for text in action.deliveries}
        if receiving is not None and chance.random() < 0.7:
            free = [group for group in left if not any(each[0] == group for each in flying)]
            given = [each for group in free for each in left[group]][: receiving.limit]
            flying |= set(given)
            receiving = None
            engine.received(items(*given), [], now, 30.0)
        elif running:
            number = chance.choice(list(running))
            ids = running.pop(number)
            fate = chance.random()
            if fate < 0.1:
                engine.unknown(number, now)
                continue
            first = chance.randrange(len(ids)) if fate < 0.4 else len(ids)
            failed = {ids[first][0]} if first < len(ids) else set()
            out = {place for place, each in enumerate(ids) if place >= first and each[0] in failed}
            flying -= {ids[place] for place in out}
            engine.done(number, frozenset(out))
    assert sorted(done) == sorted(f"{group}{number}" for group in "abc" for number in range(6))
