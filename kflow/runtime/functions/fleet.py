"""The node as services see it: functions by key, run by payload, at most so many at once.

A key is a function with or without a qualifier: `f`, `f:3`, `f:live`; what a function may is counted over all its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from kflow.errors import KflowError
from kflow.lambda_.errors import ResourceNotFound, TooManyRequests
from kflow.lambda_.fleet import Published, Replied, Reply, Request
from kflow.limits import CONCURRENT_EXECUTIONS
from kflow.runtime.node.node import Node
from kflow.runtime.plan.functions import FunctionPlan
from kflow.runtime.streams.kinesis_host import guarded

HELD_BYTES: Final = 256 << 20
"""Payloads of them in memory (chosen): beyond, it is as if there were as many as may be."""
RESERVED: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"
UNRESERVED: Final = "ConcurrentInvocationLimitExceeded"


def function_of(key: str) -> str:
    """A key without its qualifier."""
    return key.partition(":")[0]


class Fleet:
    """A `kflow.lambda_.fleet.Fleet`. Belongs to the loop's thread.

    Attributes:
        retry_backoff_scale: of the waits between attempts.
        changed: told the key of a function that is another one, or that may run more or less often.
    """

    def __init__(self, node: Node) -> None:
        self.changed: Callable[[str], object] = lambda _: None
        self.retry_backoff_scale = node.options.retry_backoff_scale
        self._node = node
        self._limits: dict[str, int] = {}
        self._defaults: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._all = 0
        self._held = 0  # bytes of their payloads

    def declared(self) -> Mapping[str, Published]:
        """The decorated handlers, by name."""
        return {
            name: Published(
                handler=plan.handler,
                timeout_s=plan.timeout_s,
                memory_mb=plan.memory_mb,
                environment=plan.environment,
            )
            for name, plan in self._node.functions.items()
            if plan.exists and plan.handler.package is None
        }

    def publish(self, function: Published) -> None:
        """From the next invocation on a key means this. A function of the same key keeps its mappings."""
        before = self._node.functions.get(function.handler.name)
        handler = function.handler
        if before is not None:
            handler = msgspec.structs.replace(handler, triggers=before.handler.triggers)
        self._node.publish(
            FunctionPlan(
                handler=handler,
                maps=() if before is None else before.maps,
                timeout_s=function.timeout_s,
                memory_mb=function.memory_mb,
                environment=function.environment,
                sources={} if before is None else before.sources,
            )
        )
        self.changed(function.handler.name)

    def withdraw(self, key: str) -> None:
        """There is no such function any more."""
        self._node.withdraw(key)

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        """Run a function once, as soon as there is a place for it."""
        function = function_of(key)
        if not self._node.knows(key):
            replied(ResourceNotFound(f"Function not found: {request.arn}"))
            return
        most = self._limits.get(function)
        if most is not None and self.running(function) >= most:
            self._node.function_measures.throttled(key)
            replied(TooManyRequests(RESERVED))
            return
        size = len(request.payload)
        if self._all >= CONCURRENT_EXECUTIONS or (self._all and self._held + size > HELD_BYTES):
            self._node.function_measures.throttled(key)
            replied(TooManyRequests(UNRESERVED))
            return
        self._running[function] = self._running.get(function, 0) + 1
        self._all += 1
        self._held += size
        tell = guarded(replied)

        def done(reply: Reply | KflowError) -> None:
            self._over(function, size)
            if isinstance(reply, Reply):
                self._node.function_measures.invoked(key, reply.duration_us, reply.error)
            tell(reply)

        self._node.invoke(key, request, done)

    def limit(self, function: str, most: int | None) -> None:
        """At most so many invocations of a function run at once, over all its keys."""
        if most is None:
            most = self._defaults.get(function)
        if most is None:
            self._limits.pop(function, None)
        else:
            self._limits[function] = most
        self._node.limit(function, most)
        self.changed(function)

    def reserve(self, function: str, most: int) -> None:
        """What the settings say: it holds for as long as no limit is set."""
        self._defaults[function] = most
        if function not in self._limits:
            self.limit(function, None)

    def most(self, function: str) -> int | None:
        """How many invocations of a function may run at once; None: as many as there are places."""
        return self._limits.get(function)

    def running(self, function: str) -> int:
        """How many invocations of a function run or wait for a place now, batches of its mappings among them."""
        return self._running.get(function, 0) + self._node.table.busy(function)

    def _over(self, function: str, size: int) -> None:
        self._all -= 1
        self._held -= size
        left = self._running[function] - 1
        if left:
            self._running[function] = left
        else:
            del self._running[function]
