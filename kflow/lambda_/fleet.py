"""What services and mappings ask of whoever runs functions: the node. Everything here belongs to the loop's thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from kflow.declarations import Handler
from kflow.errors import AwsError, KflowError
from kflow.interfaces import FunctionError


class Interrupted(AwsError):
    """The runtime ended the environment: nobody knows what the invocation came to, and it counts as no attempt."""

    code = "ServiceException"
    http_status = 500


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation by payload.

    Attributes:
        request_id: UUID, 16 bytes; the same one again for the retries of an asynchronous invocation.
        payload: the event, JSON text; never empty.
        arn: of the function, with the qualifier that the caller used, if any.
        client_context: JSON text; empty: none.
        tail: whether the end of its log is wanted.
        trace: `X-Amzn-Trace-Id` of whoever waits for the reply: it may be a function itself; empty: unknown.
        until: where no place is free for it until then, it is `Interrupted`; monotonic seconds.
    """

    request_id: bytes
    payload: bytes
    arn: str
    client_context: str = ""
    tail: bool = False
    trace: str = ""
    until: float = math.inf


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an invocation came to.

    Attributes:
        payload: the response as JSON text; with an error Lambda's payload of it.
        error: set where the function failed.
        log: the last 4 KiB of the invocation's log, where it was wanted.
        duration_us: time in the function, microseconds.
    """

    payload: bytes
    error: FunctionError | None = None
    log: bytes = b""
    duration_us: int = 0


Replied = Callable[[Reply | KflowError], object]
"""Told once, on the loop: the reply; or why the function was not run, or nobody knows what it came to. Such an error
costs no attempt: `TooManyRequests` where it may not run now, `ResourceNotFound` where there is none, `Interrupted`
where the runtime ended its environment."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A function as it is from now on.

    Attributes:
        handler: by `handler.name`, its key; with its package.
        timeout_s: 1 to 900.
        memory_mb: 128 to 10,240.
        environment: variables of the user's.
    """

    handler: Handler
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str]


class Fleet(Protocol):
    """Runs functions, by key: `f`, `f:3`, `f:live`; `f@ACCOUNT.REGION` for those of another place than home."""

    def declared(self) -> Mapping[str, Published]:
        """The decorated handlers, by name. Their code and their options are the source's."""
        ...

    def publish(self, function: Published) -> None:
        """From the next invocation on a key means this; environments of what it meant before end with what they run.

        Its mappings stay as they are.
        """
        ...

    def withdraw(self, key: str) -> None:
        """There is no such function any more; what runs ends as it ends. Its mappings wait."""
        ...

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        """Run a function once, as soon as there is a place for it."""
        ...

    def limit(self, function: str, most: int | None) -> None:
        """At most so many invocations of a function run at once, over all its keys; 0: none; None: as many as may.

        Args:
            function: its key without a qualifier.
            most: reserved concurrency.
        """
        ...

    def running(self, function: str) -> int:
        """How many invocations of a function run or wait for a place now."""
        ...
