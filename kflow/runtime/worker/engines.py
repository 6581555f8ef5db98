"""The engines of a worker: one a lane, kept between grants as long as that costs little memory and few descriptors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from kflow.broker import streammap
from kflow.broker.checkpoints import SlotFile
from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.windows import WindowStore
from kflow.lambda_.lanes import SharedSource
from kflow.lambda_.mapping import EventSourceMapping
from kflow.records import Position
from kflow.runtime.descriptors import kept_engines
from kflow.runtime.messages import WorkerSpec
from kflow.runtime.worker.environments import ExecutionEnvironment
from kflow.runtime.worker.parking import Parking, origin_of

WARM_SHARDS: Final = 2
"""Shards whose records stay in memory after they were returned with something left to do: up to an event and a read."""


class ShardEngines:
    """The engines of one shard's lanes, and what they read it by.

    Attributes:
        reader: of the shard; its descriptors are looked at after user code ran.
        lanes: by lane.
    """

    __slots__ = ("key", "lanes", "reader", "source")

    def __init__(self, key: tuple[int, int], reader: ShardReader, *, shared: bool) -> None:
        self.key = key
        self.reader = reader
        self.source: ShardReader | SharedSource = SharedSource(reader) if shared else reader
        self.lanes: dict[int, EventSourceMapping] = {}


class Engines:
    """Makes engines and keeps some. Belongs to the worker's thread."""

    def __init__(
        self,
        spec: WorkerSpec,
        folder: DataFolder,
        parked: ParkedStore,
        environment: ExecutionEnvironment,
        tell_parked: Callable[[int], object],
    ) -> None:
        """Make none yet.

        Args:
            spec: of the worker.
            folder: the data folder.
            parked: where records go that are given up.
            environment: runs the function.
            tell_parked: called with the number of what was parked and has a destination.
        """
        self._spec = spec
        self._tell_parked = tell_parked
        self._folder = folder
        self._parked = parked
        self._environment = environment
        self._windows = WindowStore(folder.path, folder.files, folder.fsync)
        self._most = kept_engines()
        self._slots: dict[int, SlotFile] = {}
        self._shards: OrderedDict[tuple[int, int], ShardEngines] = OrderedDict()
        self._warm: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.maps = [streammap.decode(text) for text in spec.maps]

    def learn(self, trigger: int, text: bytes) -> None:
        """A trigger's stream has this map from now on; another stream of that name begins with nothing kept.

        The old slots stay open, for their descriptor is among those that user code must leave alone.
        """
        found = streammap.decode(text)
        if found.id != self.maps[trigger].id:
            for key in [key for key in self._shards if key[0] == trigger]:
                self._drop(key)
            self._slots.pop(trigger, None)
        self.maps[trigger] = found

    def reads(self, spec: WorkerSpec, trigger: int) -> None:
        """The function has another trigger in one place, or one more: nothing is kept of what was there.

        As above, the old slots stay open.
        """
        self._spec = spec
        for key in [key for key in self._shards if key[0] == trigger]:
            self._drop(key)
        self._slots.pop(trigger, None)
        self.maps[trigger : trigger + 1] = [streammap.decode(spec.maps[trigger])]

    def shard(self, trigger: int, index: int) -> ShardEngines:
        """The engines of a shard, made where they are not kept.

        Raises:
            StorageError: the shard cannot be opened.
        """
        key = (trigger, index)
        found = self._shards.get(key)
        if found is None:
            factor = self._spec.handler.triggers[trigger].options.parallelization_factor
            reader = ShardReader(self._folder, self.maps[trigger], index)
            found = ShardEngines(key, reader, shared=factor > 1)
            self.keep(found)
        self._shards.move_to_end(key)
        self._warm.pop(key, None)
        return found

    def keep(self, shard: ShardEngines) -> None:
        """Keep a shard's engines, and drop those that were not used for longest where there are too many."""
        self._shards[shard.key] = shard
        most = self._most // self._spec.handler.triggers[shard.key[0]].options.parallelization_factor
        while len(self._shards) > most:
            self._drop(next(iter(self._shards)))

    def lane(self, shard: ShardEngines, lane: int) -> EventSourceMapping:
        """The engine of a lane of it, made where it is not kept."""
        found = shard.lanes.get(lane)
        if found is None:
            found = shard.lanes[lane] = self._engine(shard, lane)
            if isinstance(shard.source, SharedSource):
                shard.source.readers = len(shard.lanes)
        return found

    def returned(self, shard: ShardEngines, *, holds: bool) -> None:
        """All lanes of it have been returned.

        Args:
            shard: which.
            holds: whether records of it are in memory.
        """
        if not holds:
            if isinstance(shard.source, SharedSource):
                shard.source.forget()
            return
        self._warm[shard.key] = None
        while len(self._warm) > WARM_SHARDS:
            self._drop(next(iter(self._warm)))

    def _drop(self, key: tuple[int, int]) -> None:
        self._warm.pop(key, None)
        dropped = self._shards.pop(key, None)
        if dropped is not None:
            dropped.reader.close()

    def _engine(self, shard: ShardEngines, lane: int) -> EventSourceMapping:
        spec, environment = self._spec, self._environment
        trigger, index = shard.key
        stream = self.maps[trigger]
        options = spec.handler.triggers[trigger].options
        slots = self._slots_of(trigger)
        factor = options.parallelization_factor

        def floor() -> tuple[Position, int]:
            return slots.least(index, factor)

        return EventSourceMapping(
            options=options,
            function=spec.handler.name,
            stream=stream.name,
            stream_id=stream.id,
            shard=index,
            lane=lane,
            source=shard.source,
            slots=slots,
            invoker=environment,
            parking=Parking(self._parked, origin_of(spec, trigger, stream, self._folder), self._tell_parked),
            shape=environment.shape(stream, index),
            windows=self._windows,
            floor=floor if factor > 1 else None,
            retry_backoff_scale=spec.retry_backoff_scale,
        )

    def _slots_of(self, trigger: int) -> SlotFile:
        slots = self._slots.get(trigger)
        if slots is None:
            stream, files = self.maps[trigger], self._folder.files
            slots = SlotFile.open(
                self._folder.path, self._spec.handler.name, stream.id, stream=stream.name, files=files
            )
            self._slots[trigger] = slots
            self._environment.guard([fd for fd, _, _ in slots.fds()])
        return slots
