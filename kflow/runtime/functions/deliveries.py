"""Sends what asynchronous invocations came to: to queues, topics and functions of this node, and into its buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kflow.aws.calls import CallService, Context, Place
from kflow.broker.objects import About, Objects
from kflow.errors import KflowError, UsageError
from kflow.interfaces import Done
from kflow.lambda_ import destined
from kflow.lambda_.control.host import Host
from kflow.lambda_.destined import Delivery


class Deliveries:
    """Belongs to the loop's thread.

    Args:
        host: folder and threads.
        invoke: calls services of this process.
    """

    def __init__(self, host: Host, invoke: CallService) -> None:
        self._host = host
        self._invoke = invoke
        self._objects: Objects | None = None

    def send(self, delivery: Delivery, told: Done) -> None:
        """Send something; told None when whoever gets it keeps it."""
        try:
            where = destined.target(delivery.target)
            if where.service == "s3":
                self._put(where.name, delivery, told)
                return
            where, operation, parameters = destined.call(delivery)
        except KflowError as error:
            told(error)
            return

        def replied(reply: Mapping[str, Any] | KflowError) -> None:
            told(reply if isinstance(reply, KflowError) else None)

        context = Context(place=Place(where.account, where.region), request_id="")
        self._invoke(context, where.service, operation, parameters, replied)

    def _put(self, bucket: str, delivery: Delivery, told: Done) -> None:
        objects = self._objects
        if objects is None:
            objects = self._objects = Objects.of(self._host.folder)

        def put() -> None:
            if not objects.has_bucket(bucket):
                raise UsageError(f"there is no bucket {bucket}: make the folder s3/{bucket} in the data folder")
            objects.put(bucket, delivery.key, delivery.body.encode(), About(content_type="application/json"))

        self._host.submit(put, told)
