"""What runs a function in a worker: handlers of the project in its own process, all others in one beside it.

Handler.package is None    invoking.Environment         imports the module, calls the function
Handler.package            hosted.HostedEnvironment     a runtime process, over the Runtime API
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from kflow import arn
from kflow.broker.parked import ParkedBatch
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.declarations import Handler
from kflow.interfaces import Invocation, Outcome
from kflow.lambda_.requests import new_request_id
from kflow.lambda_.responses import judge
from kflow.lambda_.shapes import Shape
from kflow.lambda_.tumbling import redriven
from kflow.runtime.messages import Invoke, Invoked, WorkerSpec

INIT_S: Final = 10
"""How long an import may take by itself. Source: documented: Lambda execution environment lifecycle, init phase."""


class ExecutionEnvironment(Protocol):
    """Runs one function, one invocation at a time; an `Invoker`. Belongs to the worker's thread."""

    @property
    def broken(self) -> bool:
        """It is of no more use, and its worker neither."""
        ...

    def shape(self, stream: StreamMap, shard: int) -> Shape:
        """How records of a shard are shown to the function."""
        ...

    def reads(self, spec: WorkerSpec) -> None:
        """The function has other triggers from now on; nothing else of it is another."""
        ...

    def enter(self, reader: ShardReader | None) -> None:
        """From here on this shard is read."""
        ...

    def enter_lease(self, lease: int, generation: int) -> None:
        """From here on invocations belong to this lease; (0, 0) where they belong to none."""
        ...

    def guard(self, fds: Iterable[int]) -> None:
        """Descriptors that user code must leave alone."""
        ...

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run the function once with records of a stream."""
        ...

    def call(self, message: Invoke) -> Invoked:
        """Run the function once, with an event as somebody sent it."""
        ...

    def redrive(self, entry: ParkedBatch, stream: StreamMap) -> Outcome:
        """Send parked records to the function once more, marked as such in its log."""
        ...

    def close(self) -> None:
        """The worker ends: leave nothing behind."""
        ...


def source_arn(spec: WorkerSpec, stream: str) -> str:
    """The event source ARN of a stream: the registered consumer's, where it is read as one."""
    for trigger, source in zip(spec.handler.triggers, spec.sources, strict=False):
        if source and arn.stream_name(trigger.stream) == stream:
            return source
    return arn.stream_arn(spec.region, spec.account, stream)


def redrive(environment: ExecutionEnvironment, handler: Handler, entry: ParkedBatch, stream: StreamMap) -> Outcome:
    """Send parked records to the function once more, marked as such in its log.

    A response that names one of them as failed is a failure of all: they stay parked together.
    """
    environment.enter(None)
    environment.enter_lease(0, 0)
    shape = environment.shape(stream, entry.shard)
    options = next(each.options for each in handler.triggers if arn.stream_name(each.stream) == entry.stream)
    outcome = environment.invoke(
        Invocation(
            request_id=new_request_id(),
            records=shape.rebuild(entry.records),
            stream=entry.stream,
            shard_id=entry.shard_id,
            attempt=entry.attempts + 1,
            redrive=True,
            window=redriven(options, entry.records[0].arrival_ms, shape.source_arn),
        )
    )
    verdict = judge(
        outcome,
        len(entry.records),
        lambda: [record.sequence_number for record in entry.records],
        report_batch_item_failures=options.report_batch_item_failures,
    )
    return outcome if verdict.error is outcome.error else msgspec.structs.replace(outcome, error=verdict.error)
