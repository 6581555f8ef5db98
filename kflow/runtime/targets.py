"""Queues, topics and buckets as destinations: whether one is there, making it, and sending to it.

All through the node's own services, as any client of theirs; buckets are plain files.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kflow.aws.calls import CallService, Context, Place
from kflow.broker.host import Host
from kflow.broker.objects import Objects
from kflow.errors import AwsError, KflowError
from kflow.lambda_.destinations import Destination, Kind

T = TypeVar("T")

Done = Callable[[KflowError | None], object]

_MISSING = {"QueueDoesNotExist", "NotFound", "NoSuchBucket"}


def is_missing(error: KflowError) -> bool:
    """Whether what was called says that it is not there."""
    return isinstance(error, AwsError) and error.code in _MISSING


class Targets:
    """Belongs to the loop's thread. `done` is called on it, perhaps before a call returns: with None, or what failed.

    Attributes:
        objects: the buckets.
    """

    def __init__(self, host: Host, invoke: CallService) -> None:
        self.objects = Objects.of(host.folder)
        self._host = host
        self._invoke = invoke

    def send(self, target: Destination, text: str, done: Done) -> None:
        """Send a message to a queue or a topic."""
        if target.kind is Kind.SQS:
            url = f"/{target.account}/{target.name}"
            self._call(target, "SendMessage", {"QueueUrl": url, "MessageBody": text}, done)
        else:
            self._call(target, "Publish", {"TopicArn": target.arn, "Message": text}, done)

    def look(self, target: Destination, done: Done) -> None:
        """See whether it is there; `is_missing` tells that it is not."""
        if target.kind is Kind.SQS:
            self._call(target, "GetQueueUrl", {"QueueName": target.name}, done)
        elif target.kind is Kind.SNS:
            self._call(target, "GetTopicAttributes", {"TopicArn": target.arn}, done)
        else:
            self._host.submit(lambda: self.objects.list(target.name, limit=1), _ended(done))

    def make(self, target: Destination, done: Done) -> None:
        """Make it, with the attributes that AWS gives one by itself."""
        if target.kind is Kind.SQS:
            self._call(target, "CreateQueue", {"QueueName": target.name}, done)
        elif target.kind is Kind.SNS:
            self._call(target, "CreateTopic", {"Name": target.name}, done)
        else:
            self._host.submit(lambda: self.objects.ensure_bucket(target.name), _ended(done))

    def _call(self, target: Destination, operation: str, parameters: Mapping[str, Any], done: Done) -> None:
        context = Context(place=Place(target.account, target.region), request_id=str(uuid.uuid4()))
        self._invoke(context, str(target.kind), operation, parameters, _ended(done))


def _ended(done: Done) -> Callable[[object], object]:
    """Only whether it failed is of interest."""
    return lambda result: done(result if isinstance(result, KflowError) else None)
