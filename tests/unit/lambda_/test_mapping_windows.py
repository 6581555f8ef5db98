"""Tumbling windows: which invocation gets which records and which state, and what crashes and failures leave of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kflow.broker.checkpoints import SlotState, WindowFlag
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_.mapping import StepKind
from kflow.records import Window
from tests.stepping import Killed, MemoryFunction, Rig

START_S = 1_699_999_980
"""The window of 60 s that the manual clock's first moment, 1,700,000,000, lies in."""

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")
TOO_LARGE = {"blob": "x" * (1 << 20)}

Answer = Callable[[list[bytes], Window], Any]


def counting(datas: list[bytes], window: Window) -> Any:
    """Adds the payloads up in the state."""
    window.state["sum"] = window.state.get("sum", 0) + sum(int(data) for data in datas)
    return {"state": window.state}


class WindowFunction(MemoryFunction):
    """Answers with a state; notes the windows it was called with."""

    def __init__(self, rig: Rig, answer: Answer) -> None:
        super().__init__(lambda datas: None, rig.clock)
        self.answer = answer
        self.calls: list[tuple[list[int], int, dict[str, Any], bool, bool]] = []

    def invoke(self, invocation: Invocation) -> Outcome:
        window = invocation.window
        assert window is not None
        datas = [record.data for record in invocation.records]
        self.invocations.append(invocation)
        self.calls.append(
            (
                [int(data) for data in datas],
                window.start_s - START_S,
                dict(window.state),
                window.is_final,
                window.is_terminated_early,
            )
        )
        response = self.answer(datas, window)
        return Outcome(error=response) if isinstance(response, FunctionError) else Outcome(response)


def windowed(answer: Answer = counting, seconds: int = 60, **options: Any) -> tuple[Rig, WindowFunction]:
    rig = Rig(tumbling_window_in_seconds=seconds, **options)
    function = WindowFunction(rig, answer)
    rig.function = function
    rig.drop()
    rig.grant()
    return rig, function


def put(rig: Rig, *numbers: int) -> None:
    rig.put(*[b"%d" % number for number in numbers])


def test_state_goes_from_call_to_call_and_a_final_call_without_records_ends_the_window() -> None:
    rig, function = windowed(batch_size=2)
    put(rig, 1, 2, 3)
    rig.run()
    rig.clock.advance(60_000)
    put(rig, 4)
    rig.grant()
    rig.run()
    assert function.calls == [
        ([1, 2], 0, {}, False, False),
        ([3], 0, {"sum": 3}, False, False),
        ([], 0, {"sum": 6}, True, False),
        ([4], 60, {}, False, False),
    ]
    assert rig.slot.checkpoint_counter == 5


def test_windows_are_aligned_to_the_epoch() -> None:
    rig, function = windowed(seconds=120)
    rig.clock.epoch_ms = 1_607_497_475_000
    put(rig, 1)
    rig.run()
    window = function.invocations[0].window
    assert window is not None
    assert (window.start_s, window.end_s) == (1_607_497_440, 1_607_497_560)  # 07:04:00 to 07:06:00


def test_a_batch_is_cut_before_the_first_record_of_the_next_window() -> None:
    rig, function = windowed()
    put(rig, 1, 2)
    rig.clock.advance(39_999)
    put(rig, 3)
    rig.clock.advance(1)
    put(rig, 4)
    rig.run()
    assert [(numbers, start) for numbers, start, *_ in function.calls] == [([1, 2, 3], 0), ([], 0), ([4], 60)]


def test_an_open_window_waits_for_its_end_and_a_grace_and_for_any_record() -> None:
    rig, function = windowed(maximum_batching_window_in_seconds=2)
    put(rig, 1)
    rig.run_waits(until="tumbling")
    rig.grant()
    step = rig.run()
    end_ms = (START_S + 60) * 1000
    assert (step.kind, step.reason, step.want_counter) == (StepKind.WAIT, "tumbling", 3)
    assert rig.clock.epoch_ms + (step.due_in_ms or 0) == end_ms + 3_000 + 1
    rig.clock.advance((step.due_in_ms or 0) - 1)
    rig.grant()
    assert rig.run().due_in_ms == 1
    rig.clock.advance(1)
    rig.grant()
    assert rig.run().kind is StepKind.IDLE
    assert function.calls[-1] == ([], 0, {"sum": 1}, True, False)
    assert (rig.slot.window_start_s, rig.slot.state_bytes, rig.slot.window_flags) == (0, 0, 0)


def test_a_drain_leaves_the_window_open() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.grant(window_over=True)
    assert rig.run().reason == "tumbling"
    assert [is_final for *_, is_final, _ in function.calls] == [False]


def test_a_closed_shard_ends_its_window_at_once() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.run()
    rig.shard.closed = True
    rig.grant()
    assert rig.run().kind is StepKind.IDLE
    assert function.calls[-1] == ([], 0, {"sum": 1}, True, False)


def test_a_window_without_records_is_never_called_for() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.clock.advance(600_000)
    put(rig, 2)
    rig.clock.advance(600_000)
    rig.run_waits()
    assert [(start, is_final) for _, start, _, is_final, _ in function.calls] == [
        (0, False),
        (0, True),
        (600, False),
        (600, True),
    ]


def test_a_record_older_than_the_open_window_is_put_into_it() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.run()
    rig.clock.epoch_ms -= 120_000
    put(rig, 2)
    rig.grant()
    rig.run()
    assert function.calls[-1] == ([2], 0, {"sum": 1}, False, False)


@pytest.mark.parametrize(
    "response", [None, {}, {"batchItemFailures": []}, "done", 7, {"state": None}, {"state": [1]}, {"state": 1}]
)
def test_a_response_without_an_object_as_its_state_is_a_failed_attempt(response: Any) -> None:
    rig, _ = windowed(lambda datas, window: response, maximum_retry_attempts=1)
    put(rig, 1)
    rig.run_waits(until="tumbling")
    (entry,) = rig.parking.entries
    assert entry.error is not None
    assert (entry.error.type, entry.attempts, entry.error.reported) == ("InvalidWindowState", 2, True)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {"deep": [float("-inf")]}, "\ud800"],
    ids=["nan", "infinity", "below", "surrogate"],
)
def test_a_state_that_json_cannot_hold_is_a_failed_attempt_and_never_becomes_another(value: Any) -> None:
    rig, function = windowed(lambda datas, window: {"state": {"n": value}}, maximum_retry_attempts=0)
    put(rig, 1)
    rig.run_waits(until="tumbling")
    (entry,) = rig.parking.entries
    assert entry.error is not None
    assert (entry.error.type, entry.error.reported) == ("InvalidWindowState", True)
    assert "the state of the tumbling window is not JSON" in entry.error.message
    put(rig, 2)
    rig.run_waits(until="tumbling")
    assert [call[2] for call in function.calls] == [{}, {}]


@pytest.mark.parametrize(
    "state",
    [{"n": 2**70}, {"n": -(10**400)}, {"n": 1e308}, {"é\u2028": "\x00"}, {"": None, "a": [[], {}]}, {"n": -0.0}],
)
def test_a_state_comes_back_as_it_was_returned(state: dict[str, Any]) -> None:
    rig, function = windowed(lambda datas, window: {"state": state})
    put(rig, 1)
    rig.run_waits(until="tumbling")
    rig.restart()
    put(rig, 2)
    rig.run_waits(until="tumbling")
    assert [call[2] for call in function.calls] == [{}, state]


def test_a_failed_call_is_retried_with_the_same_records_and_the_same_state() -> None:
    failures = [True, True, False]

    def answer(datas: list[bytes], window: Window) -> Any:
        counting(datas, window)
        if b"2" in datas and failures.pop(0):
            return EXIT
        return {"state": window.state}

    rig, function = windowed(answer)
    put(rig, 1)
    rig.run()
    put(rig, 2)
    rig.run_waits(until="tumbling")
    assert [call[:3] for call in function.calls] == [([1], 0, {}), *[([2], 0, {"sum": 1})] * 3]


def test_a_batch_that_is_given_up_leaves_the_state_and_the_window_as_they_were() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        return EXIT if b"2" in datas else counting(datas, window)

    rig, function = windowed(answer, batch_size=1, maximum_retry_attempts=0)
    put(rig, 1, 2, 3)
    rig.run_waits(until="tumbling")
    assert [call[:3] for call in function.calls] == [([1], 0, {}), ([2], 0, {"sum": 1}), ([3], 0, {"sum": 1})]
    assert [record.data for record in rig.parking.entries[0].records] == [b"2"]


def test_halves_are_calls_of_their_own_and_the_second_gets_the_state_of_the_first() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        return EXIT if len(datas) > 1 else counting(datas, window)

    rig, function = windowed(answer, bisect_batch_on_function_error=True)
    put(rig, 1, 2)
    rig.run()
    assert [call[:3] for call in function.calls] == [([1, 2], 0, {}), ([1], 0, {}), ([2], 0, {"sum": 1})]


def test_after_a_partial_response_its_state_is_that_of_the_settled_records() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        if len(datas) < 3:
            return counting(datas, window)
        number = function.invocations[-1].records[2].sequence_number
        return {"state": {"sum": 3}, "batchItemFailures": [{"itemIdentifier": str(number)}]}

    rig, function = windowed(answer, report_batch_item_failures=True)
    put(rig, 1, 2, 3)
    rig.run()
    assert [call[:3] for call in function.calls] == [([1, 2, 3], 0, {}), ([3], 0, {"sum": 3})]
    assert rig.slot.succeeded == 3


def test_a_state_that_is_too_large_ends_the_window_early_and_it_goes_on_with_a_fresh_one() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        return {"state": TOO_LARGE} if b"2" in datas else counting(datas, window)

    rig, function = windowed(answer, batch_size=1)
    put(rig, 1, 2, 3)
    rig.run()
    assert function.calls == [
        ([1], 0, {}, False, False),
        ([2], 0, {"sum": 1}, False, False),
        ([], 0, {"sum": 1}, True, True),
        ([3], 0, {}, False, False),
    ]
    assert (rig.slot.succeeded, rig.slot.window_start_s, rig.slot.window_flags) == (3, START_S, 0)


def test_a_state_of_1_mib_is_kept() -> None:
    state = {"blob": "x" * ((1 << 20) - len('{"blob":""}'))}
    rig, function = windowed(lambda datas, window: {"state": state})
    put(rig, 1)
    rig.run()
    put(rig, 2)
    rig.grant()
    rig.run()
    assert function.calls[1][2] == state


def test_an_early_end_comes_before_the_rest_of_a_bisected_batch_also_after_a_crash() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        if len(datas) > 2:
            return EXIT
        return {"state": TOO_LARGE} if b"1" in datas else counting(datas, window)

    rig, function = windowed(answer, bisect_batch_on_function_error=True)
    put(rig, 1, 2, 3, 4)
    rig.step()
    rig.step()
    assert (rig.slot.count, rig.slot.stack) == (0, (2,))
    assert rig.slot.window_flags == WindowFlag.FINAL | WindowFlag.EARLY
    rig.restart()
    rig.run()
    assert function.calls[1:] == [([1, 2], 0, {}, False, False), ([], 0, {}, True, True), ([3, 4], 0, {}, False, False)]
    assert (rig.slot.succeeded, rig.slot.stack) == (4, ())


def test_a_final_call_that_fails_blocks_the_shard_until_it_succeeds() -> None:
    failing = [True]

    def answer(datas: list[bytes], window: Window) -> Any:
        return EXIT if window.is_final and failing else counting(datas, window)

    rig, function = windowed(answer)
    put(rig, 1)
    rig.clock.advance(60_000)
    put(rig, 2)
    rig.run()
    for _ in range(5):
        rig.clock.advance(10_000)
        rig.grant()
        assert rig.run().reason == "backoff"
    assert (rig.slot.attempt, rig.slot.count, rig.slot.state) == (6, 0, SlotState.FAILED)
    assert rig.slot.checkpoint_counter == 2
    rig.restart()
    assert function.calls[-1] == ([], 0, {"sum": 1}, True, False)
    failing.clear()
    rig.run()
    assert [call[:3] for call in function.calls[-3:-1]] == [([], 0, {"sum": 1}), ([2], 60, {})]


def test_a_final_call_without_attempts_left_drops_the_state_and_the_next_window_opens() -> None:
    rig, function = windowed(
        lambda datas, window: EXIT if window.is_final else counting(datas, window), maximum_retry_attempts=1
    )
    put(rig, 1)
    rig.clock.advance(60_000)
    put(rig, 2)
    rig.run_waits(until="tumbling")
    assert [(numbers, start, state) for numbers, start, state, *_ in function.calls] == [
        ([1], 0, {}),
        ([], 0, {"sum": 1}),
        ([], 0, {"sum": 1}),
        ([2], 60, {}),
    ]
    assert rig.parking.entries == []
    assert rig.results.count("dropped") == 1


def test_a_final_call_is_tried_once_and_given_up_when_its_window_is_too_old() -> None:
    rig, function = windowed(
        lambda datas, window: EXIT if window.is_final else counting(datas, window),
        maximum_record_age_in_seconds=600,
    )
    put(rig, 1)
    rig.run()
    rig.clock.advance(700_000)
    rig.run_waits()
    assert [call[3] for call in function.calls] == [False, True]
    assert rig.slot.window_start_s == 0


def test_state_and_checkpoint_are_one_store_so_that_a_crash_counts_nothing_twice() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.slots.refuse = lambda slot: slot.state is SlotState.IDLE
    assert rig.step().kind is StepKind.HOLD
    rig.slots.refuse = lambda slot: False
    rig.restart()
    rig.run()
    assert [call[:3] for call in function.calls] == [([1], 0, {}), ([1], 0, {})]
    put(rig, 2)
    rig.grant()
    rig.run()
    assert function.calls[-1][:3] == ([2], 0, {"sum": 1})


def test_a_state_that_cannot_be_kept_is_held_and_the_function_not_called_again() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.windows.refuse = True
    assert rig.step().kind is StepKind.HOLD
    assert rig.step().kind is StepKind.HOLD
    rig.windows.refuse = False
    assert rig.step().kind is StepKind.AGAIN
    assert len(function.calls) == 1
    assert rig.slot.state_bytes == len('{"sum":1}')


def test_a_restart_finds_the_state_with_the_checkpoint() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.run()
    rig.restart(clean=False)
    put(rig, 2)
    rig.run()
    assert function.calls[-1] == ([2], 0, {"sum": 1}, False, False)


def test_states_that_no_copy_names_are_forgotten() -> None:
    rig, _ = windowed()
    for number in range(1, 6):
        put(rig, number)
        rig.grant()
        rig.run()
    assert sorted(rig.windows.states) == [4, 5]


def test_a_damaged_state_goes_back_to_the_one_before_and_delivers_again() -> None:
    rig, function = windowed()
    for number in (1, 2):
        put(rig, number)
        rig.grant()
        rig.run()
    rig.slots.previous = rig.slots.stored[-3]  # what the copy before says: settled up to 1
    rig.windows.states[2] = b'{"sum":9}'
    rig.restart()
    rig.run()
    assert function.calls[-1][:3] == ([2], 0, {"sum": 1})
    assert rig.slot.succeeded == 3


def test_a_state_that_is_gone_with_the_one_before_restarts_the_window(caplog: pytest.LogCaptureFixture) -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.run()
    rig.windows.states.clear()
    rig.slots.previous = None
    rig.restart()
    put(rig, 2)
    rig.run()
    assert function.calls[-1][:3] == ([2], 0, {})
    assert "the state of a window is gone" in caplog.text


def test_a_death_inside_the_final_call_is_an_attempt_of_it() -> None:
    def answer(datas: list[bytes], window: Window) -> Any:
        if window.is_final and len(function.calls) < 3:
            raise Killed
        return counting(datas, window)

    rig, function = windowed(answer)
    put(rig, 1)
    rig.clock.advance(60_000)
    put(rig, 2)
    rig.step()
    with pytest.raises(Killed):
        rig.run()
    rig.died(EXIT)
    assert rig.run().reason == "backoff"
    assert (rig.slot.attempt, rig.slot.window_flags) == (1, WindowFlag.FINAL)
    rig.run_waits(until="tumbling")
    assert [invocation.attempt for invocation in function.invocations] == [1, 1, 2, 1]


def test_a_longer_window_takes_the_open_one_over_and_without_windows_it_is_dropped() -> None:
    rig, function = windowed()
    put(rig, 1)
    rig.run()
    rig.options = type(rig.options)(tumbling_window_in_seconds=120)
    rig.restart()
    put(rig, 2)
    rig.run()
    window = function.invocations[-1].window
    assert window is not None
    assert (window.start_s, window.end_s, window.state) == (START_S, START_S // 120 * 120 + 120, {"sum": 3})
    rig.options = type(rig.options)()
    plain = MemoryFunction(lambda datas: None, rig.clock)
    rig.function = plain
    rig.restart()
    put(rig, 3)
    rig.run()
    assert plain.invocations[0].window is None
    assert (rig.slot.window_start_s, rig.slot.state_bytes) == (0, 0)


def test_the_state_counts_against_the_limit_of_the_event() -> None:
    state = {"blob": "x" * 1_000_000}
    rig, function = windowed(lambda datas, window: {"state": state}, batch_size=100)
    rig.put(b"1")
    rig.run()
    for _ in range(5):
        rig.put(b"1" + b" " * 1_000_000)
    rig.grant()
    rig.run()
    assert [len(call[0]) for call in function.calls] == [1, 3, 2]
