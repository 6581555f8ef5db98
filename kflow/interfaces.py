"""The nouns that pass between floors, on one page: what an engine is given, what it gives back."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from kflow.errors import KflowError
from kflow.records import Window

__all__ = ["BatchOutcome", "BatchResult", "FunctionError", "Invocation", "Invoker", "Outcome", "RuntimeInfo", "Window"]

T = TypeVar("T")


class FunctionError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an invocation failed, in the words of Lambda's error payload.

    Attributes:
        type: `errorType`.
        message: `errorMessage`.
        trace: `stackTrace`; None where Lambda's payload has none.
        request_id: `requestId`; empty for a failure before the first invocation, None where the payload has none.
        file: the user's own innermost frame as `file:line`, for people; empty where unknown.
        reported: whether the function returned and its response named the failure: Lambda's `functionError` is null.

    Source: recorded: spec of Lambda error payloads, section 9.6.
    """

    type: str
    message: str
    trace: tuple[str, ...] | None = None
    request_id: str | None = None
    file: str = ""
    reported: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What one invocation came to: a JSON value, or an error.

    Attributes:
        response: what the handler returned, as JSON holds it.
        error: set where the function failed.
        duration_us: time in the handler, microseconds.
        fresh: whether the environment must be thrown away (its import failed).
        cause: what made the response name a failed item, where that is known: for people, decides nothing.
    """

    response: Any = None
    error: FunctionError | None = None
    duration_us: int = 0
    fresh: bool = False
    cause: FunctionError | None = None


class Invocation(msgspec.Struct, frozen=True):
    """One call to make.

    Attributes:
        request_id: UUID, 16 bytes; new for each attempt.
        records: in the shape that the handler's form asks for (event records, or `Record`s), at least one but for the
            end of a tumbling window.
        stream: name of the stream.
        shard_id: the shard they come from.
        attempt: 1 for the first; for logs only, the handler never sees it.
        redrive: whether these are parked records that somebody sent again.
        window: the tumbling window, with a state that is the handler's to change; None without windows.
    """

    request_id: bytes
    records: Sequence[Any]
    stream: str
    shard_id: str
    attempt: int = 1
    redrive: bool = False
    window: Window | None = None


Done = Callable[[KflowError | None], object]
"""Called once, on the loop: None when it is done, and kept if it is to be; else why it is not, and did not happen."""


class Cancellable(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make sure that it never happens; after it did, this does nothing."""
        ...


class Loop(Protocol):
    """The node's loop, and its threads. Everything here belongs to the loop's thread, and never waits for a disk."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Cancellable:
        """Call once, `seconds` from now, on the loop."""
        ...

    def submit(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """Do file work in a thread; `then` is called on the loop. Any exception becomes a `KflowError`."""
        ...

    def at_once(self, work: Callable[[], T], then: Callable[[T | KflowError], object]) -> None:
        """As `submit`, here and now: for what is certain to be quick. `then` is called once the caller has returned."""
        ...


class Invoker(Protocol):
    """Runs a function once. Called by the engine from its own thread, one call at a time per engine."""

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run the function and wait. A failure of the function is an `Outcome`, never an exception."""
        ...


class BatchResult(enum.StrEnum):
    """How an attempt ended for its batch."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    BISECT = "bisect"
    PARKED = "parked"
    EXPIRED = "expired"
    DROPPED = "dropped"
    LOST = "lost"


class BatchOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What people and plugins are told after an attempt's outcome is durable.

    Attributes:
        function: name of the function.
        stream: name of the stream, or of the queue.
        shard_id: the shard; empty for a queue, whose messages are its records here.
        records: how many the attempt was given (for `expired`, `dropped` and `lost`: how many expired, were given up
            and kept nowhere, or were lost to retention or to damage).
        succeeded: how many it settled by success.
        result: how it ended.
        attempt: which attempt at this batch it was, from 1; of a queue, how often a message of it was received at most.
        attempts_allowed: `maximum_retry_attempts` + 1, or -1 for no end; of a queue what its redrive policy says, or 0.
        duration_us: time in the handler.
        error: the failure, where there was one.
        failed_sequence_number: the first failed record, where the response named it; of a queue, its `messageId`.
        sample: the first failed record's data, cut to 200 bytes; empty where unknown.
        parked: number of the parked entry; 0 where none.
        batches: how many attempts this line sums up (lines of success are summed when many).
    """

    function: str
    stream: str
    shard_id: str
    records: int
    succeeded: int
    result: BatchResult
    attempt: int = 1
    attempts_allowed: int = -1
    duration_us: int = 0
    error: FunctionError | None = None
    failed_sequence_number: str = ""
    sample: bytes = b""
    parked: int = 0
    batches: int = 1


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What plugins are told when a runtime is ready.

    Attributes:
        data_dir: absolute path of the data folder.
        functions: names of the functions that run.
    """

    data_dir: str
    functions: tuple[str, ...] = ()
