from __future__ import annotations

import pytest

from kflow.errors import UsageError
from kflow.lambda_.destinations import Destination, Kind, declared_mapping, parse


@pytest.mark.parametrize(
    ("text", "kind", "name", "arn"),
    [
        ("sqs:dead", Kind.SQS, "dead", "arn:aws:sqs:us-east-1:123456789012:dead"),
        ("sns:alerts_1", Kind.SNS, "alerts_1", "arn:aws:sns:us-east-1:123456789012:alerts_1"),
        ("s3:my.graves", Kind.S3, "my.graves", "arn:aws:s3:::my.graves"),
    ],
)
def test_a_logical_destination_is_of_the_function_s_place(text: str, kind: Kind, name: str, arn: str) -> None:
    found = parse(text)
    assert (found.kind, found.name, found.is_logical) == (kind, name, True)
    assert found.within("123456789012", "us-east-1").arn == arn


@pytest.mark.parametrize(
    "text",
    ["arn:aws:sqs:eu-west-1:210987654321:dead", "arn:aws:sns:eu-west-1:210987654321:alerts", "arn:aws:s3:::graves"],
)
def test_an_arn_has_its_place(text: str) -> None:
    found = parse(text)
    assert not found.is_logical
    assert found.within("123456789012", "us-east-1").arn == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no destination"),
        ("dead", "'dead' is no destination"),
        ("drop", "'drop' is no destination"),
        ("sqs:", "sqs:: a queue's name is 1 to 80 letters, digits, - and _"),
        ("sqs:a b", "sqs:a b: a queue's name is 1 to 80 letters"),
        ("sqs:" + "a" * 81, "a queue's name is 1 to 80"),
        ("sns:a.b", "sns:a.b: a topic's name is 1 to 256 letters"),
        ("s3:ab", "s3:ab: a bucket's name is 3 to 63 small letters"),
        ("s3:..", "s3:..: a bucket's name is 3 to 63 small letters"),
        ("lambda:other", "lambda:other: failure documents of a stream's mapping go to a queue"),
        ("sqs:dead.fifo", "a FIFO queue cannot be the destination of a stream's mapping: name a standard queue"),
        ("arn:aws:sqs:us-east-1:123456789012:dead.fifo", "a FIFO queue cannot be"),
        ("sns:alerts.fifo", "a FIFO topic cannot be"),
        ("arn:aws:events:us-east-1:123456789012:event-bus/x", "go to a queue (sqs), a topic (sns) or a bucket (s3)"),
        ("arn:aws:sqs:::dead", "is not the ARN of a queue: arn:aws:sqs:REGION:ACCOUNT:NAME"),
        ("arn:aws:s3:us-east-1:123456789012:graves", "is not the ARN of a bucket: arn:aws:s3:::BUCKET"),
        ("arn:aws:s3:::graves/folder", "a bucket's name is 3 to 63 small letters"),
        ("arn:aws:sns:us-east-1:123456789012:a:b", "a topic's name is 1 to 256"),
    ],
)
def test_what_is_no_destination_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert why in str(refused.value)


def test_a_destination_is_said_in_words() -> None:
    assert Destination(Kind.SQS, "dead").words == "queue dead"
    assert Destination(Kind.S3, "graves").words == "bucket graves"


def test_a_declared_mapping_has_always_the_same_uuid() -> None:
    assert declared_mapping("123456789012", "us-east-1", "bill", "orders") == declared_mapping(
        "123456789012", "us-east-1", "bill", "orders"
    )
    assert declared_mapping("123456789012", "us-east-1", "bill", "orders") != declared_mapping(
        "123456789012", "us-east-1", "bill", "returns"
    )
