"""Which service a request is meant for that nobody signed, and how its constraints are worded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kflow.aws.models import load
from kflow.errors import ValidationFailed
from kflow.monitoring.errors import InvalidQuery
from kflow.services.forms import Forms, service_of


@pytest.mark.parametrize(
    ("target", "body", "expected"),
    [
        ("/", b"Action=GetCallerIdentity&Version=2011-06-15", "sts"),
        ("/?Action=ListTopics&Version=2010-03-31", b"", "sns"),
        ("/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-east-1:123456789012:t:1", b"", "sns"),
        ("/", b"Action=SendMessage&MessageBody=Version%3D2010-03-31&Version=2012-11-05", ""),
        ("/", b"", ""),
    ],
)
def test_the_version_says_which_service_is_meant(target: str, body: bytes, expected: str) -> None:
    exchange: Any = SimpleNamespace(target=target, body=body)
    assert service_of(exchange) == expected


def test_a_broken_constraint_is_a_validation_error() -> None:
    operation = load("sts").operation("AssumeRole")
    status, _, body = Forms().error(operation, ValidationFailed("1 validation error detected: ..."), "id")
    assert status == 400
    assert b"<Type>Sender</Type><Code>ValidationError</Code><Message>1 validation error detected: ..." in body


def test_a_query_of_metrics_that_is_none_is_a_validation_error_too() -> None:
    operation = load("cloudwatch").operation("GetMetricData")
    _, _, body = Forms().error(operation, InvalidQuery("Error in expression: it ends too soon"), "id")
    assert b"<Code>ValidationError</Code><Message>Error in expression: it ends too soon" in body
