"""What asynchronous invocations came to is sent in the place of whoever gets it, and into buckets that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Context, Place
from kflow.broker.folder import DataFolder
from kflow.broker.objects import Objects
from kflow.clock import ManualClock
from kflow.errors import KflowError, UsageError
from kflow.lambda_.destined import Delivery
from kflow.lambda_.errors import InvalidParameterValue
from kflow.messaging.errors import NotFound
from kflow.runtime.functions.deliveries import Deliveries
from tests.looping import SteppedLoop


class Node(SteppedLoop):
    """A host, and its services."""

    def __init__(self, path: Path) -> None:
        super().__init__(ManualClock())
        self.folder = DataFolder.open(path, create=True)
        self.transition_s = 0.0
        self.calls: list[tuple[Context, str, str, Mapping[str, Any]]] = []
        self.answer: dict[str, Any] | KflowError = {}
        self.deliveries = Deliveries(self, self.invoke)

    def notice(self, level: str, text: str) -> None:
        raise AssertionError(f"{level}: {text}")

    def invoke(
        self,
        context: Context,
        service: str,
        operation: str,
        parameters: Mapping[str, Any],
        done: Callable[[Mapping[str, Any] | KflowError], object],
    ) -> None:
        self.calls.append((context, service, operation, parameters))
        done(self.answer)

    def send(self, delivery: Delivery) -> KflowError | None:
        told: list[KflowError | None] = []
        self.deliveries.send(delivery, told.append)
        self.run()
        (result,) = told
        return result


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "data")


def test_a_queue_of_another_place_is_called_there(node: Node) -> None:
    assert node.send(Delivery(target="arn:aws:sqs:eu-west-1:210987654321:q", body="{}")) is None

    ((context, service, operation, parameters),) = node.calls
    assert context.place == Place("210987654321", "eu-west-1")
    assert (service, operation) == ("sqs", "SendMessage")
    assert parameters == {"QueueUrl": "/210987654321/q", "MessageBody": "{}"}


def test_a_refusal_is_told(node: Node) -> None:
    node.answer = NotFound("Topic does not exist")

    assert node.send(Delivery(target="arn:aws:sns:us-east-1:123456789012:t", body="{}")) is node.answer
    assert isinstance(node.send(Delivery(target="nowhere", body="{}")), InvalidParameterValue)


def test_a_bucket_gets_an_object_where_it_is_there(node: Node) -> None:
    delivery = Delivery(target="arn:aws:s3:::failures", body='{"é":1}', key="aws/lambda/async/f/2025/11/24/x")

    failure = node.send(delivery)
    assert isinstance(failure, UsageError)
    assert str(failure) == "there is no bucket failures: make the folder s3/failures in the data folder"

    objects = Objects.of(node.folder)
    objects.create_bucket("failures")
    assert node.send(delivery) is None
    found, content = objects.get("failures", "aws/lambda/async/f/2025/11/24/x")
    assert content == '{"é":1}'.encode()
    assert found.about.content_type == "application/json"
