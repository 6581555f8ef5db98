"""What runs event source mappings on a node: those of streams by leases, those of queues by polling them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from kflow import arn
from kflow.aws.calls import Place
from kflow.declarations import QueueTrigger
from kflow.errors import KflowError
from kflow.interfaces import Done
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.lambda_.control.runner import Declared
from kflow.lambda_.destinations import declared_mapping
from kflow.lambda_.queue_mapping import QueueMapping, Queues
from kflow.runtime.mappings.streamrunner import StreamRunner
from kflow.runtime.node.node import Node
from kflow.runtime.plan.functions import TIMEOUT_S


class MappingRunner:
    """A `kflow.lambda_.control.runner.Runner`. Belongs to the loop's thread.

    Args:
        node: what runs.
        home: account and region of the data folder.
        streams: runs the mappings of streams.
        queues: runs those of queues; made when there is one.
    """

    def __init__(self, node: Node, home: Place, streams: StreamRunner, queues: Callable[[], Queues]) -> None:
        self.streams = streams
        self._node = node
        self._home = home
        self._queues = queues

    def check(self, mapping: Mapping, told: Done) -> None:
        """Whether its source is there and may be read by it."""
        if mapping.is_queue:
            plan = self._node.functions.get(mapping.key(self._home))
            self._queues().check(self._queue(mapping), TIMEOUT_S if plan is None else plan.timeout_s, told)
        else:
            told(self.streams.check(mapping))

    def create(self, mapping: Mapping, told: Done) -> None:
        """Begin at its starting position."""
        if mapping.is_queue:
            self.resume(mapping)
            told(None)
        else:
            self.streams.create(mapping, told)

    def resume(self, mapping: Mapping) -> None:
        """At the start: poll a queue again. Streams are read already."""
        if mapping.is_queue and mapping.enabled:
            self._queues().start(self._queue(mapping))

    def change(self, before: Mapping, after: Mapping, told: Done) -> None:
        """Go on as it is to be."""
        if not after.is_queue:
            self.streams.change(before, after, told)
            return

        def stopped() -> None:
            self.resume(after)
            told(None)

        self._queues().stop(before.uuid, stopped)

    def remove(self, mapping: Mapping, told: Done) -> None:
        """End it, and forget where it stood."""
        if mapping.is_queue:
            self._queues().stop(mapping.uuid, lambda: told(None))
        else:
            self.streams.remove(mapping, told)

    def results(self, mappings: Sequence[Mapping], told: Callable[[list[str] | KflowError], object]) -> None:
        """What became of the last batch of each."""
        self.streams.results(mappings, told)

    def declared(self) -> Sequence[Declared]:
        """The triggers of all decorated handlers."""
        own = self._node.resumed.queues.items()
        return [*self.streams.declared(), *(self._declared_queue(*each, enabled=enabled) for each, enabled in own)]

    def switch(self, function: str, index: int, *, enabled: bool, told: Done) -> None:
        """Have a decorated handler's trigger run or not."""
        if index >= 0:
            self.streams.switch(function, index, enabled=enabled, told=told)
            return
        plan = self._node.functions[function]
        queues = list(plan.handler.queues)
        trigger = queues[-1 - index]
        if trigger.enabled == enabled:
            told(None)
            return
        queues[-1 - index] = structs.replace(trigger, enabled=enabled)
        self._node.functions[function] = replace(plan, handler=structs.replace(plan.handler, queues=tuple(queues)))
        mapping = declared_queue(self._home, function, trigger)
        if enabled:
            self._queues().start(mapping)
            told(None)
        else:
            self._queues().stop(mapping.uuid, lambda: told(None))

    def _declared_queue(self, function: str, index: int, *, enabled: bool) -> Declared:
        trigger = self._node.functions[function].handler.queues[index]
        source = arn.queue_arn(self._home.region, self._home.account, arn.queue_name(trigger.queue))
        return Declared(function, -1 - index, trigger, source, enabled)

    def _queue(self, mapping: Mapping) -> QueueMapping:
        return QueueMapping(
            uuid=mapping.uuid,
            key=mapping.key(self._home),
            function_arn=mapping.function_arn,
            queue_arn=mapping.source,
            options=mapping.queue_options,
            counts=mapping.counts,
        )


def declared_queue(home: Place, function: str, trigger: QueueTrigger) -> QueueMapping:
    """The mapping of a decorator. A queue that is named by an ARN is the local one of that name, as a stream is."""
    queue = arn.queue_arn(home.region, home.account, arn.queue_name(trigger.queue))
    return QueueMapping(
        uuid=declared_mapping(home.account, home.region, function, queue),
        key=function,
        function_arn=arn.function_arn(home.region, home.account, function),
        queue_arn=queue,
        options=trigger.options,
    )
