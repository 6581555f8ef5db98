"""Delivers a message to the queues and functions that are subscribed, and says when all that can have it have it.

    send -> kept by the queue, or as an asynchronous invocation of the function
         -> refused by it, or it is not there: to the dead-letter queue of the subscription, or nowhere
         -> failed: again, up to three times (of FIFO topics: once); then the publisher is told, and publishes again

So a message that was acknowledged is in every queue whose subscription lets it pass, at least once. On AWS the service
tries on for days after it has acknowledged; here nothing is promised before it is done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from kflow.aws.calls import Reply
from kflow.countdown import countdown
from kflow.errors import AwsError, KflowError
from kflow.interfaces import Cancellable
from kflow.messaging import functions
from kflow.messaging.errors import InternalError
from kflow.messaging.filters import ON_ATTRIBUTES, Passes, compile_policy
from kflow.messaging.messages import Message
from kflow.messaging.topics import LAMBDA, Subscription, Topic

log = logging.getLogger(__name__)

TRIES: Final = 3
PAUSE_S: Final = 0.05
"""Before the second try; the third comes after twice that (chosen)."""
_FILTERS: Final = 10_000
_HINTS: Final = 100

Send = Callable[[str, Mapping[str, Any], Reply], object]
"""Send to the queue of an ARN; the parameters of SendMessage. Or to a function; the parameters of Invoke."""


class Host(Protocol):
    """The node, as far as it is needed."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Cancellable:
        """Call once, `seconds` from now, on the loop."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Tell people something."""
        ...


class Delivering:
    """Belongs to the loop's thread.

    Args:
        host: the node.
        send: to a queue.
    """

    def __init__(self, host: Host, send: Send) -> None:
        self._host = host
        self._send = send
        self._filters: dict[tuple[str, str], Passes] = {}
        self._hinted: set[str] = set()
        self._last = 0

    def publish(
        self, topic: Topic, message: Message, base_url: str, then: Callable[[KflowError | None], object]
    ) -> None:
        """Deliver a message.

        Args:
            topic: where it is published.
            message: gets its sequence number here, where the topic has an order.
            base_url: where the endpoint is.
            then: called on the loop, perhaps before this returns: None: every queue that can have it keeps it.
        """
        now_ms = self._host.now_ms()
        if topic.is_fifo:
            # Of twenty digits, and larger than all before, also those before a restart: the clock went on meanwhile.
            self._last = max(self._last + 1, now_ms * 1000)
            message.sequence = str(10**19 + self._last)
        chosen = [each for each in topic.subscriptions.values() if self._passes(each, message)]
        failure: KflowError | None = None
        over = countdown(len(chosen) + 1, lambda: then(failure))

        def told(problem: KflowError | None) -> None:
            nonlocal failure
            failure = failure or problem
            over()

        for each in chosen:
            made_of = functions.invocation if each.protocol == LAMBDA else Message.delivered
            parameters = made_of(message, each, topic, now_ms, base_url)
            # What is tried again comes behind what was published meanwhile: not where there is an order.
            self._try(each, each.endpoint, parameters, told, 1 if topic.is_fifo else TRIES)
        over()

    def _passes(self, subscription: Subscription, message: Message) -> bool:
        policy = subscription.attributes.get("FilterPolicy")
        if policy is None:
            return True
        scope = subscription.attributes.get("FilterPolicyScope", ON_ATTRIBUTES)
        found = self._filters.get((policy, scope))
        if found is None:
            if len(self._filters) >= _FILTERS:
                self._filters.clear()
            found = self._filters[policy, scope] = compile_policy(policy, scope)
        return found(message)

    def _try(
        self,
        subscription: Subscription,
        queue: str,
        parameters: Mapping[str, Any],
        told: Callable[[KflowError | None], object],
        left: int,
    ) -> None:
        def replied(reply: Mapping[str, Any] | KflowError) -> None:
            if not isinstance(reply, KflowError):
                told(None)
            elif isinstance(reply, AwsError) and reply.sender_fault and reply.code not in _AGAIN:
                self._undelivered(subscription, queue, parameters, reply, told, left)
            elif left > 1:
                pause_s = PAUSE_S * 2 ** (TRIES - left)
                self._host.call_later(pause_s, lambda: self._try(subscription, queue, parameters, told, left - 1))
            else:
                log.warning("a message was not delivered queue=%s error=%s", queue, reply)
                told(InternalError(f"the queue {queue} could not keep the message, publish it again: {reply}"))

        self._send(queue, parameters, replied)

    def _undelivered(
        self,
        subscription: Subscription,
        queue: str,
        parameters: Mapping[str, Any],
        error: KflowError,
        told: Callable[[KflowError | None], object],
        left: int,
    ) -> None:
        """The queue will never have it."""
        policy = subscription.attributes.get("RedrivePolicy")
        dead: str = json.loads(policy)["deadLetterTargetArn"] if policy else ""
        if dead and dead != queue:
            if subscription.protocol == LAMBDA:
                parameters = {"MessageBody": parameters["Payload"].decode()}  # chosen: what the function would have got
            self._try(subscription, dead, parameters, told, left)
            return
        if subscription.arn not in self._hinted and len(self._hinted) < _HINTS:
            self._hinted.add(subscription.arn)
            self._host.notice(
                "warning", f"messages of {subscription.topic} do not come to {queue}, which is subscribed: {error}"
            )
        told(None)


_AGAIN: Final = frozenset({"ThrottlingException", "RequestThrottled", "OverLimit", "LimitExceededException"})
"""Refusals that pass."""
