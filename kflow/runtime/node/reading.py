"""What functions read while they run: streams, their shards, and the leases that come and go with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from kflow.broker import streammap
from kflow.broker.log import Log
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.declarations import StreamTrigger
from kflow.errors import KflowError
from kflow.runtime import messages
from kflow.runtime.consumers import beginning
from kflow.runtime.consumers.children import Children, Reader
from kflow.runtime.loop import Loop
from kflow.runtime.node.dispatching import Dispatcher
from kflow.runtime.node.supervisor import Supervisor
from kflow.runtime.plan import functions
from kflow.runtime.plan.functions import FunctionPlan
from kflow.runtime.plan.leases import Lease, LeaseTable
from kflow.runtime.plan.leaving import Leaving
from kflow.runtime.upkeep import Upkeep

log = logging.getLogger(__name__)


class Reads:
    """Belongs to the node's loop; never waits for a disk.

    Attributes:
        leaving: leases that were taken away, and who waits until what they run is over.
    """

    def __init__(
        self,
        store: Log,
        plans: dict[str, FunctionPlan],
        *,
        table: LeaseTable,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        upkeep: Upkeep,
        notice: Callable[[str, str], None],
        loop: Loop,
    ) -> None:
        self.leaving = Leaving()
        self._log = store
        self._plans = plans
        self._table = table
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._children = Children(store, upkeep, loop, notice, self._add_children)
        self._last_lease = 0

    @property
    def are_under_way(self) -> bool:
        """Whether there are shards that their readers have no leases for yet."""
        return self._children.under_way

    def add(
        self,
        leases: Iterable[Lease],
        ends: Mapping[tuple[int, int], tuple[int, int]],
        closed: Iterable[tuple[int, int]],
    ) -> None:
        """Take in leases; the ends of their shards as far as these are known, and which of those are closed.

        Leases without a number get one. Dispatch afterwards.
        """
        now = time.monotonic()
        for place, end in ends.items():
            self._table.ends[place] = max(end, self._table.ends.get(place, end))
        for lease in leases:
            lease.id = lease.id or self._last_lease + 1
            self._last_lease = max(self._last_lease, lease.id)
            self._table.add(lease)
            if self._dispatcher.drain is not None:
                self._dispatcher.drain.add(lease, self._table.ends.get(lease.place_in_log, (0, 0))[0])
        for stream_id, shard in closed:
            self._table.close_shard(stream_id, shard, now)

    def map_changed(self, old: StreamMap, new: StreamMap) -> None:
        """The shards of a stream have changed, and the new map is published. From the loop; never waits for a disk.

        Parents close here: what has settled all of one is drained. Children get their leases once their slots are
        durable; each waits until all lanes of all its parents are drained. Workers learn of the map before the first
        grant that needs it.
        """
        now = time.monotonic()
        text = b""
        readers = []
        for name, plan in list(self._plans.items()):
            for trigger in plan.triggers_on(new):
                self._plans[name] = self._plans[name].with_map(trigger, new)
                for handle in self._supervisor.handles.values():
                    if handle.function == name:
                        text = text or streammap.encode(new)
                        self._supervisor.send(handle, messages.Map(trigger, text))
                if plan.handler.triggers[trigger].enabled:
                    readers.append(Reader(plan.handler, trigger))
        known = {shard.index: shard for shard in old.shards}
        for shard in new.shards:
            if not shard.is_open and (shard.index not in known or known[shard.index].is_open):
                self._close_shard(new, shard.index, now)
        born = tuple(shard for shard in new.shards if shard.index not in known)
        self._children.born(new, born, tuple(readers))
        self._dispatcher.go_on()

    def stream_gone(self, stream: StreamMap) -> list[str]:
        """A stream is about to be deleted: nothing of it is granted any more, and who holds a lease returns it.

        What a handler is in the middle of ends as it ends; its outcome is kept nowhere.

        Returns:
            The functions that read it.
        """
        readers = sorted(name for name, plan in self._plans.items() if plan.triggers_on(stream))
        now = time.monotonic()
        for action in self._table.remove_stream(stream.id):
            self._dispatcher.carry_out(action, now)
        self._dispatcher.go_on()
        return readers

    def stream_born(self, stream: StreamMap) -> list[str]:
        """A home stream was made: functions that name it, and whose stream of that name is gone, read it from now on.

        From its beginning, whatever their starting position: they were there before it.

        Returns:
            Those functions.
        """
        text = streammap.encode(stream)
        readers = []
        for name, plan in list(self._plans.items()):
            for trigger, each in enumerate(plan.maps):
                if each.name != stream.name or each.id == stream.id:
                    continue
                self._plans[name] = self._plans[name].with_map(trigger, stream)
                for handle in self._supervisor.handles.values():
                    if handle.function == name:
                        self._supervisor.send(handle, messages.Map(trigger, text))
                if plan.handler.triggers[trigger].enabled:
                    readers.append(Reader(plan.handler, trigger))
        self._children.born(stream, stream.shards, tuple(readers))
        return sorted({reader.handler.name for reader in readers})

    def _close_shard(self, stream: StreamMap, index: int, now: float) -> None:
        try:
            writer = self._log.shard(stream, index)
            self._table.news(stream.id, index, writer.readable_end, writer.readable_counter, now)
        except KflowError as error:  # its end is what the last append told, and that is where it ends
            log.warning("closed shard cannot be opened stream=%s shard=%d: %s", stream.name, index, error)
        self._table.close_shard(stream.id, index, now)

    def _add_children(self, reader: Reader, stream: StreamMap, shards: tuple[ShardInfo, ...]) -> None:
        begin = beginning.Begin(reader.handler, reader.trigger, stream)
        if self._reads(begin):
            own = [each for each in shards if not self._table.has(reader.handler.name, stream.id, each.index)]
            self.add(beginning.leases_of(begin, own, self._table.ends, time.monotonic()), {}, ())
        self._dispatcher.go_on()

    def _reads(self, begin: beginning.Begin) -> bool:
        """Whether a function reads a stream still: its mapping may have been stopped meanwhile."""
        plan = self._plans.get(begin.handler.name)
        if plan is None or not plan.handler.triggers[begin.trigger].enabled:
            return False
        return plan.maps[begin.trigger].id == begin.stream.id

    def set_trigger(self, function: str, index: int, trigger: StreamTrigger, stream: StreamMap, source: str) -> None:
        """A function reads this from now on, in place of what it read as that trigger, or beside all others.

        Its environments learn of it. Leases are added afterwards.

        Args:
            function: its key; where there is none, this waits for it.
            index: of the trigger.
            trigger: with its options.
            stream: that it reads.
            source: ARN that its events name.
        """
        plan = self._plans.get(function) or functions.absent(function)
        self._plans[function] = plan.with_trigger(index, trigger, stream, source)
        self._table.exists(function, time.monotonic(), exists=plan.exists)
        message = messages.Trigger(index, trigger, streammap.encode(stream), source)
        for handle in self._supervisor.handles.values():
            if handle.function == function:
                self._supervisor.send(handle, message)

    def stop(self, function: str, index: int, then: Callable[[], object]) -> None:
        """A function reads nothing by a trigger any more; `then` is called once nothing that it read is running."""
        plan = self._plans[function]
        trigger, stream = plan.handler.triggers[index], plan.maps[index]
        off = msgspec.structs.replace(trigger, enabled=False)
        self._plans[function] = plan.with_trigger(index, off, stream, "")
        now = time.monotonic()
        held, actions = self._table.remove_consumer(function, stream.id)
        self.leaving.wait(held, then)
        for action in actions:
            self._dispatcher.carry_out(action, now)
        self._dispatcher.go_on()

    def looked_at_damage(self, stream_id: int, shard: int) -> None:
        """The writer has looked at what could not be read there: who waits for that may try again."""
        for lease in self._table.leases.values():
            if lease.place_in_log == (stream_id, shard) and lease.reason == "damage":
                self._table.hurry(lease, time.monotonic())
        self._dispatcher.dispatch()
