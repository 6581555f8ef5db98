"""Faults on request."""

from __future__ import annotations

import pytest

from kflow.errors import AwsError, LimitExceeded, ProvisionedThroughputExceeded, Throttling, UsageError
from kflow.runtime.endpoint.faults import Faults

PUT_ERRORS = ("ResourceNotFoundException", "InvalidArgumentException", "ProvisionedThroughputExceededException")


def met(faults: Faults, operation: str, times: int) -> list[int]:
    return [index for index in range(times) if faults.meet("kinesis", operation) is not None]


def test_a_rule_without_a_rate_happens_to_every_call():
    faults = Faults(["kinesis.PutRecord: ProvisionedThroughputExceededException"])
    error = faults.meet("kinesis", "PutRecord")

    assert isinstance(error, ProvisionedThroughputExceeded)
    assert str(error) == "Injected by the fault 'kinesis.PutRecord: ProvisionedThroughputExceededException'"
    assert faults.meet("kinesis", "PutRecords") is None
    assert faults.meet("sqs", "PutRecord") is None


def test_a_rate_meets_about_that_share_of_the_calls_and_the_same_ones_each_time():
    rules = ["kinesis.GetRecords: 5% InternalFailure"]
    calls = met(Faults(rules, 7), "GetRecords", 2000)

    assert calls == met(Faults(rules, 7), "GetRecords", 2000)
    assert calls != met(Faults(rules, 8), "GetRecords", 2000)
    assert 60 < len(calls) < 140


def test_one_rule_does_not_disturb_another():
    alone = met(Faults(["kinesis.PutRecord: 10% InternalFailure"], 3), "PutRecord", 300)
    faults = Faults(["kinesis.PutRecord: 10% InternalFailure", "kinesis.Get*: 50% InternalFailure"], 3)
    found = []
    for index in range(300):
        faults.meet("kinesis", "GetRecords")
        if faults.meet("kinesis", "PutRecord"):
            found.append(index)

    assert found == alone


def test_an_internal_failure_is_the_server_s_fault():
    error = Faults(["kinesis.*: InternalFailure"]).meet("kinesis", "ListStreams")

    assert type(error) is AwsError
    assert (error.code, error.http_status, error.sender_fault) == ("InternalFailure", 500, False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms latency", 0.1), ("2s", 2.0), ("1.5 s delay", 1.5), ("100ms, 20ms latency", 0.12), ("100% 5ms", 0.005)],
)
def test_delays_add_up(text, seconds):
    assert Faults([f"kinesis.*: {text}"]).meet("kinesis", "PutRecord") == pytest.approx(seconds)


def test_an_error_comes_at_once():
    assert isinstance(Faults(["*.*: 1s, throttle"]).meet("kinesis", "CreateStream"), LimitExceeded)


def test_a_throttle_is_what_the_operation_s_model_lists():
    faults = Faults(["kinesis.*: throttle"])

    assert isinstance(faults.meet("kinesis", "PutRecord", PUT_ERRORS), ProvisionedThroughputExceeded)
    assert isinstance(faults.meet("kinesis", "ReceiveQueueRecords", ("ThrottlingException",)), Throttling)
    assert isinstance(faults.meet("kinesis", "CreateStream", ("LimitExceededException",)), LimitExceeded)


@pytest.mark.parametrize("what", ["throttle", "ProvisionedThroughputExceeded"])
def test_put_records_throttles_entries_and_not_the_call(what):
    faults = Faults([f"kinesis.Put*: 50% {what}"], 1)
    throttled = [faults.entries("kinesis", "PutRecords", 100) or frozenset() for _ in range(10)]

    assert met(faults, "PutRecords", 100) == []
    assert 400 < sum(map(len, throttled)) < 600
    assert all(0 <= index < 100 for some in throttled for index in some)
    assert faults.entries("kinesis", "PutRecord", 1) is None
    assert Faults(["kinesis.PutRecords: 0% throttle"]).entries("kinesis", "PutRecords", 500) is None


def test_put_records_as_a_whole_fails_of_anything_else():
    assert Faults(["kinesis.PutRecords: InternalFailure"]).meet("kinesis", "PutRecords") is not None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("PutRecords: 5%", "at character 1 there should be a service and an operation with a colon behind"),
        ("", "at character 1 there should be a service and an operation"),
        ("kinesis.PutRecords:", "at character 20 there should be a rate such as 5%"),
        ("kinesis.PutRecords: 5%", "at character 23 there should be a rate such as 5%"),
        ("kinesis.PutRecords: 500% throttle", "at character 21 there should be a rate of at most 100%"),
        ("kinesis.PutRecords: -5% throttle", "at character 21 there should be a rate such as 5%"),
        ("kinesis.PutRecords: 5% Throtle", r"at character 24 .* not Throtle \(did you mean throttle\?\)"),
        ("kinesis.PutRecords: throttle 100ms", "at character 21 there should be a rate such as 5%, a delay"),
        ("kinesis.PutRecords: 0ms", "at character 21 there should be a delay of more than 0"),
        ("kinesis.PutRecords: 11m", "at character 21 there should be a rate"),
        ("kinesis.PutRecords: 5000s", "at character 21 there should be a delay of more than 0 and at most 600 s"),
        ("kinesis.PutRecords: throttle,", "at character 30 there should be a rate"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_the_place_and_an_example(rule, text):
    with pytest.raises(UsageError, match=text) as refused:
        Faults([rule])
    assert str(refused.value).endswith("for example 'kinesis.PutRecords: 5% ProvisionedThroughputExceeded'")


def test_an_operation_that_the_service_has_not_is_refused():
    faults = Faults(["kinesis.PutRecordz: throttle", "sqs.Anything: throttle"])

    with pytest.raises(UsageError, match=r"kinesis has no operation PutRecordz; did you mean PutRecord\?"):
        faults.check("kinesis", ["PutRecord", "PutRecords"])
    Faults(["kinesis.Put*: throttle"]).check("kinesis", ["PutRecord"])


def test_without_rules_there_are_none():
    assert not Faults([])
    assert Faults(["kinesis.*: 5ms"])
