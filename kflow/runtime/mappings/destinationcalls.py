"""Queues, topics and buckets as destinations: whether one is there, making it, and sending to it.

All through the node's own services, as any client of theirs; buckets are plain files.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from kflow.aws.calls import CallService, Context, Place
from kflow.broker.host import Host
from kflow.broker.objects import Objects
from kflow.errors import AwsError, KflowError
from kflow.interfaces import Done
from kflow.lambda_.destinations import Destination, Kind

_MISSING = {"QueueDoesNotExist", "NotFound", "NoSuchBucket"}


def is_missing(error: KflowError) -> bool:
    """Whether what was called says that it is not there."""
    return isinstance(error, AwsError) and error.code in _MISSING


class DestinationCalls:
    """Belongs to the loop's thread. `done` is called on it, perhaps before a call returns: with None, or what failed.

    Attributes:
        objects: the buckets.
    """

    def __init__(self, host: Host, invoke: CallService) -> None:
        self.objects = Objects.of(host.folder)
        self._host = host
        self._invoke = invoke

    def send(self, destination: Destination, text: str, done: Done) -> None:
        """Send a message to a queue or a topic."""
        if destination.kind is Kind.SQS:
            url = f"/{destination.account}/{destination.name}"
            self._call(destination, "SendMessage", {"QueueUrl": url, "MessageBody": text}, done)
        else:
            self._call(destination, "Publish", {"TopicArn": destination.arn, "Message": text}, done)

    def look(self, destination: Destination, done: Done) -> None:
        """See whether it is there; `is_missing` tells that it is not."""
        if destination.kind is Kind.SQS:
            self._call(destination, "GetQueueUrl", {"QueueName": destination.name}, done)
        elif destination.kind is Kind.SNS:
            self._call(destination, "GetTopicAttributes", {"TopicArn": destination.arn}, done)
        else:
            self._host.submit(lambda: self.objects.list(destination.name, limit=1), _ended(done))

    def make(self, destination: Destination, done: Done) -> None:
        """Make it, with the attributes that AWS gives one by itself."""
        if destination.kind is Kind.SQS:
            self._call(destination, "CreateQueue", {"QueueName": destination.name}, done)
        elif destination.kind is Kind.SNS:
            self._call(destination, "CreateTopic", {"Name": destination.name}, done)
        else:
            self._host.submit(lambda: self.objects.ensure_bucket(destination.name), _ended(done))

    def _call(self, destination: Destination, operation: str, parameters: Mapping[str, Any], done: Done) -> None:
        context = Context(place=Place(destination.account, destination.region), request_id=str(uuid.uuid4()))
        self._invoke(context, str(destination.kind), operation, parameters, _ended(done))


def _ended(done: Done) -> Callable[[object], object]:
    """Only whether it failed is of interest."""
    return lambda result: done(result if isinstance(result, KflowError) else None)
