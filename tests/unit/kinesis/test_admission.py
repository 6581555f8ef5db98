"""Who may subscribe to a shard as a consumer, and who takes over from whom."""

from __future__ import annotations

import pytest

from kflow.errors import KflowError, LimitExceeded, ResourceInUse
from kflow.kinesis.admission import Admission, Key

NOW = 1_700_000_000_000
KEY = Key(7, "arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/fast:1700000000", 0)
LABEL = "123456789012:orders:shardId-000000000000:fast"
TEXT = f"Another active subscription exists for this consumer: {LABEL}"


class Holder:
    """A subscription that remembers how it ended."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def fail(self, error: KflowError) -> None:
        self.errors.append(str(error))


def admitted(admission: Admission, now_ms: int, key: Key = KEY) -> Holder:
    holder = Holder()
    admission.admit(key, LABEL, now_ms).granted(holder)
    return holder


def test_within_five_seconds_another_call_is_refused_and_the_first_one_lives():
    admission = Admission()
    first = admitted(admission, NOW)
    with pytest.raises(ResourceInUse) as caught:
        admission.admit(KEY, LABEL, NOW + 4_999)
    assert str(caught.value) == TEXT
    assert first.errors == []


def test_a_call_that_was_refused_does_not_begin_the_five_seconds_anew():
    admission = Admission()
    admitted(admission, NOW)
    with pytest.raises(ResourceInUse):
        admission.admit(KEY, LABEL, NOW + 4_999)
    admitted(admission, NOW + 5_000)


def test_after_five_seconds_another_call_takes_over_and_the_first_one_fails():
    admission = Admission()
    first = admitted(admission, NOW)
    second = admitted(admission, NOW + 5_000)
    assert first.errors == [TEXT]
    assert second.errors == []


def test_the_first_one_lives_until_the_one_that_takes_over_has_succeeded():
    admission = Admission()
    first = admitted(admission, NOW)
    seat = admission.admit(KEY, LABEL, NOW + 5_000)
    assert first.errors == []
    seat.refused()
    assert first.errors == []
    third = admitted(admission, NOW + 5_001)
    assert first.errors == [TEXT]
    assert third.errors == []


def test_within_five_seconds_a_call_is_refused_though_the_first_one_has_ended():
    admission = Admission()
    seat = admission.admit(KEY, LABEL, NOW)
    seat.granted(Holder())
    seat.over()
    with pytest.raises(ResourceInUse):
        admission.admit(KEY, LABEL, NOW + 4_999)


def test_a_call_that_failed_leaves_its_place_free():
    admission = Admission()
    admission.admit(KEY, LABEL, NOW).refused()
    admitted(admission, NOW)
    assert len(admission) == 1


def test_a_slow_call_that_was_taken_over_before_it_succeeded_ends_at_once():
    admission = Admission()
    slow = admission.admit(KEY, LABEL, NOW)
    second = admitted(admission, NOW + 5_000)
    first = Holder()
    slow.granted(first)
    assert first.errors == [TEXT]
    assert second.errors == []


def test_a_slow_call_that_was_taken_over_and_then_fails_changes_nothing():
    admission = Admission()
    slow = admission.admit(KEY, LABEL, NOW)
    admitted(admission, NOW + 5_000)
    slow.refused()
    with pytest.raises(ResourceInUse):
        admission.admit(KEY, LABEL, NOW + 9_999)


def test_when_two_calls_wait_the_last_one_ends_the_subscription_before_both():
    admission = Admission()
    first = admitted(admission, NOW)
    admission.admit(KEY, LABEL, NOW + 5_000)
    admitted(admission, NOW + 10_000)
    assert first.errors == [TEXT]


def test_other_shards_and_other_consumers_are_others():
    admission = Admission()
    first = admitted(admission, NOW)
    admitted(admission, NOW, Key(7, KEY.consumer_arn, 1))
    admitted(admission, NOW, Key(7, KEY.consumer_arn + "1", 0))
    admitted(admission, NOW, Key(8, KEY.consumer_arn, 0))
    assert first.errors == []


def test_a_clock_that_went_back_refuses_nobody():
    admission = Admission()
    admitted(admission, NOW)
    admitted(admission, NOW - 60_000)


def test_with_limits_a_second_call_within_a_second_is_refused_and_does_not_count():
    admission = Admission(is_limited=True)
    admission.admit(KEY, LABEL, NOW).refused()
    for passed in (0, 500, 999):
        with pytest.raises(LimitExceeded) as caught:
            admission.admit(KEY, LABEL, NOW + passed)
        assert str(caught.value) == f"Rate exceeded for consumer and shard {LABEL}."
    admitted(admission, NOW + 1_000)


def test_with_limits_a_call_right_after_a_successful_one_is_in_use():
    admission = Admission(is_limited=True)
    admitted(admission, NOW)
    with pytest.raises(ResourceInUse):
        admission.admit(KEY, LABEL, NOW + 1)


def test_without_limits_calls_that_failed_may_be_repeated_at_once():
    admission = Admission()
    for _ in range(3):
        admission.admit(KEY, LABEL, NOW).refused()


def test_what_ended_long_ago_is_forgotten_though_old_ones_live():
    admission = Admission(is_limited=True)
    for shard in range(20):
        admitted(admission, NOW, Key(7, "living", shard))
    for shard in range(500):
        seat = admission.admit(Key(7, "ended", shard), LABEL, NOW + shard)
        seat.granted(Holder())
        seat.over()
    for shard in range(500):
        admitted(admission, NOW + 10_000 + shard, Key(7, "new", shard))
    assert len(admission) < 20 + 500 + 100
