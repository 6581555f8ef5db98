"""What follows from an attempt of an asynchronous invocation."""

from __future__ import annotations

import pytest

from kflow.interfaces import FunctionError
from kflow.lambda_.asynchronous import Answered, End, Gone, Policy, Retry, Tried, after, before
from kflow.lambda_.errors import ResourceNotFound, TooManyRequests
from kflow.lambda_.fleet import Interrupted, Reply

NOW = 1_764_000_000_000
POLICY = Policy(key="bill", arn="arn:aws:lambda:us-east-1:123456789012:function:bill", version="$LATEST")
FAILED = Reply(payload=b'{"errorMessage":"no"}', error=FunctionError(type="ValueError", message="no"))
ANSWER = Answered(payload=b'{"errorMessage":"no"}', version="$LATEST", message="no")


def test_a_response_ends_it() -> None:
    found = after(Tried(NOW, 1, 0), Reply(payload=b"null"), POLICY, NOW, 1.0)

    assert found == End(condition="Success", attempts=2, last=Answered(payload=b"null", version="$LATEST"))
    assert found.is_success


def test_an_error_is_tried_again_after_a_minute_and_after_two_and_then_given_up() -> None:
    assert after(Tried(NOW, 0, 0), FAILED, POLICY, NOW, 1.0) == Retry(NOW + 60_000, 1, 0, ANSWER)
    assert after(Tried(NOW, 1, 0), FAILED, POLICY, NOW, 1.0) == Retry(NOW + 120_000, 2, 0, ANSWER)
    assert after(Tried(NOW, 2, 0), FAILED, POLICY, NOW, 1.0) == End(
        condition="RetriesExhausted", attempts=3, last=ANSWER
    )


def test_retries_are_the_configurations_and_waits_are_scaled() -> None:
    none, one = POLICY._replace(retries=0), POLICY._replace(retries=1)

    assert after(Tried(NOW, 0, 0), FAILED, none, NOW, 1.0) == End(condition="RetriesExhausted", attempts=1, last=ANSWER)
    assert after(Tried(NOW, 0, 0), FAILED, one, NOW, 0.5) == Retry(NOW + 30_000, 1, 0, ANSWER)
    assert after(Tried(NOW, 1, 0), FAILED, one, NOW, 0.5) == End(condition="RetriesExhausted", attempts=2, last=ANSWER)


@pytest.mark.parametrize("error", [TooManyRequests(), Interrupted("ended")])
def test_what_was_not_run_costs_no_attempt_and_waits_longer_each_time(error: Exception) -> None:
    waits = []
    tried = Tried(NOW, 1, 0, ANSWER)
    for _ in range(11):
        found = after(tried, error, POLICY, NOW, 1.0)  # type: ignore[arg-type]  # both are
        assert isinstance(found, Retry)
        assert (found.attempts, found.last) == (1, ANSWER)
        waits.append((found.due_ms - NOW) // 1000)
        tried = Tried(NOW, found.attempts, found.refusals, found.last)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_what_was_not_run_is_not_tried_in_a_circle_where_nothing_waits() -> None:
    assert after(Tried(NOW, 0, 0), TooManyRequests(), POLICY, NOW, 0.0) == Retry(NOW + 50, 0, 1, None)


def test_it_is_given_up_when_it_is_too_old_and_not_later() -> None:
    policy = POLICY._replace(age_s=60)
    received = NOW - 50_000

    retry = after(Tried(received, 0, 0), FAILED, policy, NOW, 1.0)
    assert retry == Retry(received + 60_000, 1, 0, ANSWER)

    assert before(Tried(received, 1, 0, ANSWER), policy, received + 59_999) is None
    assert before(Tried(received, 1, 0, ANSWER), policy, received + 60_000) == End(
        condition="EventAgeExceeded", attempts=1, last=ANSWER
    )


def test_an_event_is_given_up_after_six_hours_where_nobody_says_otherwise() -> None:
    tried = Tried(NOW, 0, 7)

    assert before(tried, POLICY, NOW + 21_600_000 - 1) is None
    assert before(tried, POLICY, NOW + 21_600_000) == End(condition="EventAgeExceeded", attempts=0)


def test_a_function_that_may_not_run_at_all_is_not_waited_for() -> None:
    assert before(Tried(NOW, 0, 0), POLICY._replace(most=0), NOW) == End(
        condition="ZeroReservedConcurrency", attempts=0
    )
    assert before(Tried(NOW, 0, 0), POLICY._replace(most=1), NOW) is None


def test_an_event_of_a_function_that_is_gone_is_dropped() -> None:
    assert after(Tried(NOW, 0, 0), ResourceNotFound("Function not found"), POLICY, NOW, 1.0) == Gone()


def test_an_error_without_a_message_is_told_by_its_type() -> None:
    reply = Reply(payload=b"{}", error=FunctionError(type="KeyError", message=""))

    found = after(Tried(NOW, 2, 0), reply, POLICY, NOW, 1.0)

    assert isinstance(found, End)
    assert found.last is not None
    assert found.last.message == "KeyError"
