"""Asynchronous invocations: what follows from one attempt. Pure, told the time.

    due --too old--> over: EventAgeExceeded          (of a function that may not run at all: ZeroReservedConcurrency)
     |
     +--run--> response --------------------------> over: Success
         |  error, and there are retries left ----> due again, a minute later, then two
         |  error ---------------------------------> over: RetriesExhausted
         |  not run (throttled, or ended by the runtime) --> due again, a second later, doubled up to five minutes
         +--there is no such function any more ---> dropped

Source: documented: Lambda Developer Guide, asynchronous invocation; recorded: conditions, and what documents say then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from kflow.errors import KflowError
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Reply

PAYLOAD_BYTES: Final = 1_048_576
"""The largest event of an asynchronous invocation. Source: documented: Invoke."""
RETRIES: Final = 2
AGE_S: Final = 21_600
RETRY_S: Final = (60.0, 120.0)
"""Before the first retry, and before the second. Scaled by `retry_backoff_scale`."""
REFUSED_S: Final = (1.0, 300.0)
"""Before what was not run is tried again: the first value, doubled up to the second. Scaled likewise."""
REFUSED_MIN_S: Final = 0.05
"""It is not tried in a circle, whatever the scale."""

SUCCESS: Final = "Success"
RETRIES_EXHAUSTED: Final = "RetriesExhausted"
EVENT_AGE_EXCEEDED: Final = "EventAgeExceeded"
ZERO_CONCURRENCY: Final = "ZeroReservedConcurrency"


class Policy(NamedTuple):
    """How a function's asynchronous invocations are retried, and who is told what they came to.

    Attributes:
        key: names what is to be run, for the fleet.
        arn: of the function, with the qualifier that it is invoked by, if there is one.
        version: that is run: `$LATEST`, or a number.
        retries: 0 to 2.
        age_s: an event that is older is not run any more, seconds.
        on_success: ARN of who is told; empty: nobody.
        on_failure: likewise.
        dead_letter: ARN of the queue or the topic that gets events that failed; empty: there is none.
        most: reserved concurrency; None: there is none.
    """

    key: str
    arn: str
    version: str
    retries: int = RETRIES
    age_s: int = AGE_S
    on_success: str = ""
    on_failure: str = ""
    dead_letter: str = ""
    most: int | None = None


class Functions(Protocol):
    """Knows the functions."""

    def policy(self, function: str, qualifier: str) -> Policy:
        """What holds for a function now.

        Args:
            function: its ARN, without a qualifier.
            qualifier: as the caller gave it; empty for none.

        Raises:
            ResourceNotFound: there is no such function, version or alias.
        """
        ...


class Accepts(Protocol):
    """Takes asynchronous invocations in."""

    def accept(
        self,
        function: str,
        qualifier: str,
        request_id: bytes,
        payload: bytes,
        told: Callable[[KflowError | None], object],
    ) -> None:
        """Run it as soon as that may be, again where it fails; `told` is called when it is durable."""
        ...


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the function answered.

    Attributes:
        payload: the response, JSON text unless the runtime's own; of an error its payload.
        version: that was run: `$LATEST`, or a number.
        message: of the error; None: it worked.
    """

    payload: bytes
    version: str
    message: str | None = None


class Tried(NamedTuple):
    """What is known of an event before an attempt.

    Attributes:
        received_ms: when it was taken in, milliseconds since the epoch.
        attempts: how often the function has failed with it.
        refusals: how often in a row it could not be run.
        last: what it answered last; None: it was not run yet.
    """

    received_ms: int
    attempts: int
    refusals: int
    last: Answered | None = None

    def is_too_old(self, policy: Policy, now_ms: int) -> bool:
        """Whether it is run no more."""
        return now_ms >= self.received_ms + policy.age_s * 1000


class Retry(NamedTuple):
    """It is to be run again.

    Attributes:
        due_ms: from when on; at the latest when it is too old.
        last: what it answered last.
    """

    due_ms: int
    attempts: int
    refusals: int
    last: Answered | None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What an event came to.

    Attributes:
        condition: in AWS's words.
        attempts: how often the function was run with it.
        last: what it answered last; None: it was never run.
    """

    condition: str
    attempts: int
    last: Answered | None = None

    @property
    def is_success(self) -> bool:
        """Whether the function worked."""
        return self.condition == SUCCESS


class Gone(NamedTuple):
    """There is nothing to run any more, and nobody to tell."""


def before(tried: Tried, policy: Policy, now_ms: int) -> End | None:
    """Whether an event that is due is over without being run."""
    if policy.most == 0:
        return End(condition=ZERO_CONCURRENCY, attempts=tried.attempts, last=tried.last)
    if tried.is_too_old(policy, now_ms):
        return End(condition=EVENT_AGE_EXCEEDED, attempts=tried.attempts, last=tried.last)
    return None


def after(tried: Tried, reply: Reply | KflowError, policy: Policy, now_ms: int, scale: float) -> Retry | End | Gone:
    """What follows from an attempt.

    Args:
        tried: as it was before.
        reply: what it came to.
        policy: of the function, at this moment.
        now_ms: milliseconds since the epoch.
        scale: of all waits.
    """
    last_ms = max(now_ms, tried.received_ms + policy.age_s * 1000)
    if isinstance(reply, ResourceNotFound):
        return Gone()
    if isinstance(reply, KflowError):
        wait_s = max(REFUSED_MIN_S, min(REFUSED_S[0] * 2 ** min(tried.refusals, 16), REFUSED_S[1]) * scale)
        return Retry(min(now_ms + int(wait_s * 1000), last_ms), tried.attempts, tried.refusals + 1, tried.last)
    attempts = tried.attempts + 1
    message = None if reply.error is None else reply.error.message or reply.error.type
    last = Answered(payload=reply.payload, version=policy.version, message=message)
    if reply.error is None:
        return End(condition=SUCCESS, attempts=attempts, last=last)
    if attempts > policy.retries:
        return End(condition=RETRIES_EXHAUSTED, attempts=attempts, last=last)
    wait_s = RETRY_S[min(tried.attempts, len(RETRY_S) - 1)] * scale
    return Retry(min(now_ms + int(wait_s * 1000), last_ms), attempts, 0, last)
