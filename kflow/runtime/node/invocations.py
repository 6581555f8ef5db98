"""Invocations by payload that are under way: who waits for the reply, and what a death on the way means."""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from kflow.lambda_ import payloads
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Interrupted, Replied, Reply, Request
from kflow.runtime import messages
from kflow.runtime.messages import DeathNote
from kflow.runtime.plan.places import Job


class _Waiting(NamedTuple):
    request: Request
    replied: Replied


class Invocations:
    """Belongs to the node's loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0

    def begin(self, request: Request, replied: Replied) -> Job:
        """One more; `replied` is called when it has come to its end."""
        self._last += 1
        self._waiting[self._last] = _Waiting(request, replied)
        return Job(self._last, None, time.monotonic(), request.until)

    def message(self, number: int) -> messages.Invoke:
        """What a worker is told of it."""
        request = self._waiting[number].request
        return messages.Invoke(
            number, request.request_id, request.payload, request.arn, request.client_context, request.tail
        )

    def done(self, message: messages.Invoked) -> None:
        """A worker has run it."""
        waiting = self._waiting.pop(message.number, None)
        if waiting is not None:
            waiting.replied(
                Reply(payload=message.payload, error=message.error, log=message.log, duration_us=message.duration_us)
            )

    def died(self, number: int, death: DeathNote | None) -> None:
        """The worker died with it: a failure of the function where its death counts as one, else nobody knows."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        request_id = waiting.request.request_id
        if death is None or death.request_id not in (None, request_id):
            waiting.replied(Interrupted("the runtime ended the function's environment: invoke it again"))
        else:
            text = msgspec.json.encode(payloads.payload(death.error))
            waiting.replied(Reply(payload=text, error=death.error))

    def refuse(self, number: int, why: str | None) -> None:
        """It gets no place any more; `why` None: because its function is no more."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        if why is None:
            waiting.replied(ResourceNotFound(f"Function not found: {waiting.request.arn}"))
        else:
            waiting.replied(Interrupted(why))
