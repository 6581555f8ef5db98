from __future__ import annotations

from typing import Any

import pytest

from kflow.broker.parked import ParkCondition
from kflow.broker.sequence import number
from kflow.interfaces import Invocation, Outcome
from kflow.lambda_.mapping import StepKind
from kflow.lambda_.shapes import EventShape
from tests.stepping import STREAM, Raised, Rig, fails_on, payloads


def sequence_number(rig: Rig, counter: int) -> str:
    return str(number(STREAM.created_s, 0, counter, rig.clock.epoch_ms))


def reports(rig_of: list[Rig], *failed: bytes) -> Any:
    """A handler that names the records of `failed` it was given, as a partial batch response."""

    def handler(datas: list[bytes]) -> Any:
        items = [
            {"itemIdentifier": str(record.sequence_number)}
            for record in rig_of[0].function.invocations[-1].records
            if record.data in failed
        ]
        return {"batchItemFailures": items}

    return handler


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3), (3, 4)])
def test_a_failing_batch_is_attempted_once_more_than_its_retries_then_parked(retries: int, attempts: int) -> None:
    rig = Rig(fails_on(b"2"), batch_size=3, maximum_retry_attempts=retries)
    rig.put(*payloads(4))
    rig.run_waits()
    assert rig.function.seen == [[b"1", b"2", b"3"]] * attempts + [[b"4"]]
    (entry,) = rig.parking.entries
    assert [record.data for record in entry.records] == [b"1", b"2", b"3"]
    assert (entry.attempts, entry.condition) == (attempts, ParkCondition.RETRY_ATTEMPTS_EXHAUSTED)
    assert (rig.slot.parked, rig.slot.succeeded, rig.slot.failures) == (3, 1, attempts)
    assert rig.results == ["failed"] * retries + ["parked", "ok"]


def test_waits_between_attempts_double_up_to_ten_seconds() -> None:
    rig = Rig(fails_on(b"1"))
    rig.put(b"1")
    waits = []
    for _ in range(7):
        rig.grant()
        step = rig.run()
        assert (step.kind, step.reason) == (StepKind.WAIT, "backoff")
        waits.append(step.due_in_ms)
    assert waits == [1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]


def test_the_scale_shortens_waits_and_zero_removes_them() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=2)
    rig.scale = 0.0
    rig.drop()
    rig.put(b"1")
    rig.grant()
    assert rig.run().kind is StepKind.IDLE
    assert len(rig.function.seen) == 3


def test_a_step_before_the_wait_is_over_invokes_nothing() -> None:
    rig = Rig(fails_on(b"1"))
    rig.put(b"1")
    rig.grant()
    rig.run()
    rig.clock.advance(400)
    step = rig.step()
    assert (step.kind, step.reason, step.due_in_ms) == (StepKind.WAIT, "backoff", 600)
    assert len(rig.function.seen) == 1


def test_without_a_limit_a_failing_batch_blocks_its_shard() -> None:
    rig = Rig(fails_on(b"1"), batch_size=1)
    rig.put(b"1", b"2")
    for _ in range(50):
        rig.grant()
        rig.run()
    assert rig.function.seen == [[b"1"]] * 50
    assert rig.outcomes[-1].attempt == 50
    assert rig.outcomes[-1].attempts_allowed == -1
    assert rig.parking.entries == []


def test_retries_never_gather_more() -> None:
    fails = [True]

    def handler(datas: list[bytes]) -> None:
        if fails[0]:
            raise Raised

    rig = Rig(handler, batch_size=10)
    rig.put(b"1", b"2")
    rig.grant()
    rig.run()
    rig.put(b"3")
    fails[0] = False
    rig.drop()
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1", b"2"], [b"1", b"2"], [b"3"]]


def test_a_failure_is_durable_before_it_is_told() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=5)
    rig.put(b"1")
    rig.grant()
    rig.run()
    slot = rig.slot
    assert (slot.state.name, slot.attempt, slot.error_type, slot.error_message) == (
        "FAILED",
        1,
        "ValueError",
        "1 is poison",
    )
    (outcome,) = rig.outcomes
    assert (outcome.attempt, outcome.attempts_allowed, outcome.sample) == (1, 6, b"1")
    assert outcome.failed_sequence_number == sequence_number(rig, 1)


def test_a_success_clears_what_the_slot_says_of_the_failure() -> None:
    attempts = []

    def handler(datas: list[bytes]) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise Raised

    rig = Rig(handler)
    rig.put(b"1")
    rig.run_waits()
    assert (rig.slot.state.name, rig.slot.attempt, rig.slot.error_type) == ("IDLE", 0, "")
    assert [(outcome.result.value, outcome.attempt) for outcome in rig.outcomes] == [("failed", 1), ("ok", 2)]


def test_each_attempt_has_its_own_request_id() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=3)
    rig.put(b"1")
    rig.run_waits()
    assert len({invocation.request_id for invocation in rig.function.invocations}) == 4
    assert [invocation.attempt for invocation in rig.function.invocations] == [1, 2, 3, 4]


def test_a_retry_gets_the_records_as_they_were_though_the_handler_changed_them() -> None:
    shape = EventShape(STREAM.created_s, 0, arn="arn", region="r", role="role")
    rig = Rig(maximum_retry_attempts=1, report_batch_item_failures=True, shape=shape)
    vandal = Vandal()
    rig.function = vandal  # type: ignore[assignment]
    rig.drop()
    rig.put(b"1", b"2")
    rig.run_waits()
    assert len(vandal.events) == 2
    assert vandal.events[0] == vandal.events[1]
    assert len(vandal.events[0]) == 2
    assert [record.data for record in rig.parking.entries[0].records] == [b"1", b"2"]


class Vandal:
    """A function that empties the event it was given, and fails."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []

    def invoke(self, invocation: Invocation) -> Outcome:
        self.events.append([dict(record) for record in invocation.records])
        records: Any = invocation.records
        for record in records:
            record.clear()
        records.clear()
        return Outcome({"batchItemFailures": [{"itemIdentifier": self.events[0][0]["kinesis"]["sequenceNumber"]}]})


# ---------------------------------------------------------------- bisection


def test_one_poison_record_of_128_is_isolated_in_15_invocations() -> None:
    rig = Rig(fails_on(b"77"), batch_size=128, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    rig.put(*payloads(128))
    rig.run_waits()
    assert len(rig.function.seen) == 15
    assert [[record.data for record in entry.records] for entry in rig.parking.entries] == [[b"77"]]
    assert rig.parking.entries[0].attempts == 1
    assert (rig.slot.succeeded, rig.slot.parked, rig.slot.failures) == (127, 1, 8)


@pytest.mark.parametrize("poison", payloads(13))
def test_bisection_isolates_a_poison_record_wherever_it_is(poison: bytes) -> None:
    rig = Rig(fails_on(poison), batch_size=13, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    sent = payloads(13)
    rig.put(*sent[:5])
    rig.put(*sent[5:])
    rig.run_waits()
    good = [seen for seen in rig.function.seen if poison not in seen]
    assert [data for seen in good for data in seen] == [data for data in sent if data != poison]
    assert [record.data for entry in rig.parking.entries for record in entry.records] == [poison]


def test_the_left_half_is_the_smaller_and_is_settled_before_the_right_one_starts() -> None:
    rig = Rig(fails_on(b"2"), batch_size=5, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    rig.put(*payloads(5))
    rig.run_waits()
    assert rig.function.seen == [
        [b"1", b"2", b"3", b"4", b"5"],
        [b"1", b"2"],
        [b"1"],
        [b"2"],
        [b"3", b"4", b"5"],
    ]
    assert rig.results == ["bisect", "bisect", "ok", "parked", "ok"]


def test_splitting_costs_no_retry_and_only_single_records_spend_them() -> None:
    rig = Rig(fails_on(b"1"), batch_size=4, bisect_batch_on_function_error=True, maximum_retry_attempts=2)
    rig.put(*payloads(4))
    rig.run_waits()
    assert [len(seen) for seen in rig.function.seen] == [4, 2, 1, 1, 1, 1, 2]
    assert rig.parking.entries[0].attempts == 3


def test_the_tour_of_eight_orders() -> None:
    rig = Rig(fails_on(b"5"), bisect_batch_on_function_error=True, maximum_retry_attempts=2)
    rig.put(*payloads(8))
    rig.run_waits()
    assert [len(seen) for seen in rig.function.seen] == [8, 4, 4, 2, 1, 1, 1, 1, 2]


def test_pieces_survive_the_engine() -> None:
    rig = Rig(fails_on(b"77"), batch_size=128, bisect_batch_on_function_error=True, maximum_retry_attempts=0)
    rig.put(*payloads(100))
    rig.put(*payloads(128)[100:])
    rig.grant()
    while rig.step().kind is StepKind.AGAIN:
        rig.drop()
        rig.grant()
    assert len(rig.function.seen) == 15
    assert (rig.slot.succeeded, rig.slot.parked) == (127, 1)


def test_ten_thousand_records_that_all_fail_need_at_most_fourteen_pending_pieces() -> None:
    rig = Rig(
        fails_on(*payloads(10_000)), batch_size=10_000, bisect_batch_on_function_error=True, maximum_retry_attempts=0
    )
    rig.put(*payloads(5_000))
    rig.put(*payloads(10_000)[5_000:])
    rig.grant()
    for _ in range(60):
        rig.step()
    assert max(len(slot.stack) for slot in rig.slots.stored) == 13
    assert rig.slot.stack[0] == 5_000


# ---------------------------------------------------------------- partial batch responses


@pytest.mark.parametrize(
    "response", [None, "", [], {}, {"batchItemFailures": []}, {"batchItemFailures": None}, {"ok": 1}]
)
def test_responses_that_are_complete_successes(response: Any) -> None:
    rig = Rig(lambda datas: response, report_batch_item_failures=True)
    rig.put(b"1", b"2")
    rig.grant()
    rig.run()
    assert rig.results == ["ok"]


@pytest.mark.parametrize(
    "response",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"foo": 123}]},
        {"batchItemFailures": [{"foo": None}]},
        {"batchItemFailures": [{"itemIdentifier": 123}]},
        {"batchItemFailures": [{"itemIdentifier": "123"}]},
        {"batchItemFailures": [{"itemIdentifier": "9" * 5000}]},
        {"batchItemFailures": [{"itemIdentifier": "0" * 5000}]},
        {"batchItemFailures": [{"itemIdentifier": "-1"}]},
        {"batchItemFailures": [{"itemIdentifier": "1e3"}]},
        {"batchItemFailures": [{"itemIdentifier": "\u0661"}]},
        {"batchItemFailures": [{"itemIdentifier": {"number": "1"}}]},
        {"batchItemFailures": [None]},
        {"batchItemFailures": [[]]},
        {"batchItemFailures": [{"itemIdentifier": "1"}] * 100_000},
        {"batchItemFailures": ["1"]},
        {"batchItemFailures": "x"},
        {"batchItemFailures": 1},
        {"batchItemFailures": True},
        {"batchItemFailures": {"itemIdentifier": "1"}},
        "done",
        1,
        True,
        [1],
    ],
)
def test_responses_that_are_complete_failures(response: Any) -> None:
    rig = Rig(lambda datas: response, report_batch_item_failures=True)
    rig.put(b"1", b"2")
    rig.grant()
    rig.run()
    assert rig.results == ["failed"]
    assert rig.outcomes[0].error is not None
    assert rig.outcomes[0].error.type == "InvalidBatchItemFailures"


@pytest.mark.parametrize("response", ["done", {"batchItemFailures": [{"itemIdentifier": "x"}]}])
def test_without_the_option_any_response_is_a_success(response: Any) -> None:
    rig = Rig(lambda datas: response)
    rig.put(b"1")
    rig.grant()
    rig.run()
    assert rig.results == ["ok"]


def test_identifiers_are_compared_as_numbers() -> None:
    rig = Rig(report_batch_item_failures=True)
    rig.function.handler = lambda datas: (
        {"batchItemFailures": [{"itemIdentifier": "0" * 5000 + sequence_number(rig, 2)}]} if len(datas) == 3 else None
    )
    rig.put(*payloads(3))
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"1", b"2", b"3"], [b"2", b"3"]]
    assert rig.results == ["partial", "ok"]


def test_a_mix_of_known_and_unknown_identifiers_is_a_complete_failure() -> None:
    rig = Rig(report_batch_item_failures=True)
    rig.function.handler = lambda datas: {
        "batchItemFailures": [{"itemIdentifier": sequence_number(rig, 2)}, {"itemIdentifier": "99"}]
    }
    rig.put(*payloads(3))
    rig.grant()
    rig.run()
    assert rig.results == ["failed"]
    assert rig.slot.succeeded == 0


def test_the_lowest_reported_record_is_the_checkpoint_and_the_rest_comes_again_at_once() -> None:
    box: list[Rig] = []
    rig = Rig(reports(box, b"3", b"5"), report_batch_item_failures=True)
    box.append(rig)
    rig.put(*payloads(6))
    rig.grant()
    step = rig.step()
    assert (step.kind, rig.slot.checkpoint_counter, rig.slot.attempt) == (StepKind.AGAIN, 3, 0)
    (outcome,) = step.outcomes
    assert (outcome.result.value, outcome.records, outcome.succeeded) == ("partial", 6, 2)
    assert outcome.failed_sequence_number == sequence_number(rig, 3)
    assert outcome.sample == b"3"
    rig.step()
    assert rig.function.seen[1] == [b"3", b"4", b"5", b"6"]


def test_progress_resets_the_attempts_as_recorded_on_aws() -> None:
    box: list[Rig] = []
    rig = Rig(reports(box, b"6"), batch_size=3, maximum_retry_attempts=3, report_batch_item_failures=True)
    box.append(rig)
    rig.put(*payloads(6))
    rig.run_waits()
    assert rig.function.seen == [[b"1", b"2", b"3"], [b"4", b"5", b"6"], [b"6"], [b"6"], [b"6"], [b"6"]]
    (entry,) = rig.parking.entries
    assert (entry.attempts, [record.data for record in entry.records]) == (4, [b"6"])
    assert (rig.slot.succeeded, rig.slot.parked) == (5, 1)


def test_a_report_of_the_first_record_is_an_ordinary_failed_attempt_and_is_never_halved() -> None:
    box: list[Rig] = []
    rig = Rig(
        reports(box, b"1"),
        maximum_retry_attempts=1,
        report_batch_item_failures=True,
        bisect_batch_on_function_error=True,
    )
    box.append(rig)
    rig.put(*payloads(4))
    rig.run_waits()
    assert rig.function.seen == [payloads(4)] * 2
    assert [len(entry.records) for entry in rig.parking.entries] == [4]


def test_a_partial_response_cuts_and_does_not_halve_also_with_bisection() -> None:
    box: list[Rig] = []
    rig = Rig(
        reports(box, b"7"),
        maximum_retry_attempts=0,
        report_batch_item_failures=True,
        bisect_batch_on_function_error=True,
    )
    box.append(rig)
    rig.put(*payloads(8))
    rig.run_waits()
    assert [len(seen) for seen in rig.function.seen] == [8, 2]


def test_an_invalid_response_is_halved_as_a_function_error_is() -> None:
    rig = Rig(
        lambda datas: "?" if b"2" in datas else None,
        maximum_retry_attempts=0,
        report_batch_item_failures=True,
        bisect_batch_on_function_error=True,
    )
    rig.put(*payloads(4))
    rig.run_waits()
    assert [len(seen) for seen in rig.function.seen] == [4, 2, 1, 1, 2]


def test_a_partial_response_inside_a_piece_leaves_the_other_pieces_as_they_are() -> None:
    box: list[Rig] = []
    report = reports(box, b"2")

    def handler(datas: list[bytes]) -> Any:
        if len(datas) == 8:
            raise Raised
        return report(datas)

    rig = Rig(handler, maximum_retry_attempts=0, report_batch_item_failures=True, bisect_batch_on_function_error=True)
    box.append(rig)
    rig.put(*payloads(8))
    rig.run_waits()
    assert rig.function.seen[1:] == [
        [b"1", b"2", b"3", b"4"],
        [b"2", b"3", b"4"],
        [b"5", b"6", b"7", b"8"],
    ]
    assert [len(entry.records) for entry in rig.parking.entries] == [3]


# ---------------------------------------------------------------- record age


def test_expired_records_are_a_prefix_that_is_parked_and_the_rest_is_delivered_as_recorded_on_aws() -> None:
    rig = Rig(maximum_record_age_in_seconds=60)
    rig.put(b"1")
    rig.clock.advance(61_000)
    rig.put(*payloads(6)[1:])
    rig.grant()
    rig.run()
    assert rig.function.seen == [[b"2", b"3", b"4", b"5", b"6"]]
    (entry,) = rig.parking.entries
    assert entry.condition is ParkCondition.RECORD_AGE_EXCEEDED
    assert ([record.data for record in entry.records], entry.attempts, entry.error) == ([b"1"], 0, None)
    assert rig.results == ["expired", "ok"]
    assert rig.outcomes[0].parked == 1


def test_a_record_of_exactly_the_allowed_age_is_delivered() -> None:
    rig = Rig(maximum_record_age_in_seconds=60)
    rig.put(b"1")
    rig.clock.advance(60_000)
    rig.grant()
    rig.run()
    assert rig.results == ["ok"]


def test_age_is_looked_at_before_each_attempt_and_ends_retries() -> None:
    rig = Rig(fails_on(b"1"), maximum_record_age_in_seconds=60)
    rig.put(b"1")
    rig.run_waits()
    assert len(rig.function.seen) == 9  # at 0, 1, 3, 7, 15, 25, 35, 45 and 55 seconds
    (entry,) = rig.parking.entries
    assert (entry.condition, entry.attempts) == (ParkCondition.RECORD_AGE_EXCEEDED, 9)
    assert entry.error is not None
    assert entry.error.message == "1 is poison"


def test_the_rest_of_a_batch_keeps_its_attempts_when_its_front_expires() -> None:
    rig = Rig(fails_on(b"2"), maximum_record_age_in_seconds=60, maximum_retry_attempts=2)
    rig.scale = 30.0  # waits of 30 and 60 seconds
    rig.drop()
    rig.put(b"1")
    rig.clock.advance(50_000)
    rig.put(b"2")
    rig.run_waits()
    assert rig.function.seen == [[b"1", b"2"], [b"2"]]
    assert [(entry.condition.value, entry.attempts) for entry in rig.parking.entries] == [
        ("RecordAgeExceeded", 1),
        ("RecordAgeExceeded", 2),
    ]


def test_a_piece_that_expires_whole_is_parked_and_the_next_piece_goes_on() -> None:
    rig = Rig(fails_on(b"1"), batch_size=2, maximum_record_age_in_seconds=60, bisect_batch_on_function_error=True)
    rig.put(b"1")
    rig.clock.advance(30_000)
    rig.put(b"2")
    rig.run_waits()
    assert rig.function.seen[-1] == [b"2"]
    assert [record.data for entry in rig.parking.entries for record in entry.records] == [b"1"]
    assert rig.slot.succeeded == 1


# ---------------------------------------------------------------------- on_failure="drop"


def test_with_drop_nothing_is_parked_and_what_is_given_up_is_counted() -> None:
    rig = Rig(fails_on(b"2"), maximum_retry_attempts=1, bisect_batch_on_function_error=True, on_failure="drop")
    rig.put(b"1", b"2", b"3")
    rig.run_waits()
    assert rig.parking.entries == []
    assert (rig.slot.succeeded, rig.slot.dropped, rig.slot.parked) == (2, 1, 0)
    (told,) = [outcome for outcome in rig.outcomes if outcome.result.value == "dropped"]
    assert (told.records, told.attempt, told.sample, told.parked) == (1, 2, b"2", 0)
    assert told.error is not None
    assert told.error.message == "2 is poison"


def test_with_drop_expired_records_are_dropped_and_the_rest_of_their_batch_is_taken_over() -> None:
    rig = Rig(maximum_record_age_in_seconds=60, on_failure="drop")
    rig.put(b"1", b"2")
    rig.clock.advance(61_000)
    rig.put(b"3")
    rig.grant()
    rig.step()
    assert (rig.slot.dropped, rig.slot.state.name, rig.slot.count) == (2, "FAILED", 1)
    rig.restart()
    rig.run()
    assert rig.function.seen == [[b"3"]]
    assert (rig.slot.succeeded, rig.slot.dropped, rig.slot.checkpoint_counter) == (1, 2, 4)


def test_a_record_above_the_event_limit_is_dropped_untried() -> None:
    rig = Rig(on_failure="drop")
    rig.put(b"x" * 5_000_000)
    rig.put(b"small")
    rig.run_waits()
    assert rig.function.seen == [[b"small"]]
    assert (rig.slot.dropped, rig.slot.delivered) == (1, 1)


def test_a_crash_after_the_last_attempt_drops_the_batch_and_does_not_try_it_again() -> None:
    rig = Rig(fails_on(b"1"), maximum_retry_attempts=0, on_failure="drop")
    rig.put(b"1")
    rig.grant()
    rig.step()
    assert (rig.slot.state.name, rig.slot.attempt) == ("FAILED", 1)
    rig.restart(clean=False)
    rig.run()
    assert (len(rig.function.seen), rig.slot.dropped) == (1, 1)
