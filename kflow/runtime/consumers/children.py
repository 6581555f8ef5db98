"""Shards that come to be while functions run: their slots are made durable first, then their leases are added."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kflow.broker.log import Log
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.declarations import Handler
from kflow.errors import KflowError
from kflow.runtime.consumers import beginning
from kflow.runtime.loop import Loop
from kflow.runtime.upkeep import Upkeep

RETRY_S = 1.0
"""Slots that cannot be written are tried again this much later; nobody reads the children until then."""


class Reader(NamedTuple):
    """A function that reads a stream."""

    handler: Handler
    trigger: int


class _Change(NamedTuple):
    stream: StreamMap
    shards: tuple[ShardInfo, ...]
    readers: tuple[Reader, ...]


class Children:
    """Brings new shards to their readers, in the order in which their maps were published.

    Args:
        store: the log.
        upkeep: whose threads write the slots.
        loop: for another try.
        notice: tells people, as (level, text).
        ready: called on the loop for each reader of new shards, once their slots are durable.
    """

    def __init__(
        self,
        store: Log,
        upkeep: Upkeep,
        loop: Loop,
        notice: Callable[[str, str], None],
        ready: Callable[[Reader, StreamMap, tuple[ShardInfo, ...]], None],
    ) -> None:
        self._log = store
        self._upkeep = upkeep
        self._loop = loop
        self._notice = notice
        self._ready = ready
        self._changes: deque[_Change] = deque()
        self._is_told = False

    def born(self, stream: StreamMap, shards: tuple[ShardInfo, ...], readers: tuple[Reader, ...]) -> None:
        """New shards of a stream are there, for these readers."""
        if not shards or not readers:
            return
        self._changes.append(_Change(stream, shards, readers))
        if len(self._changes) == 1:
            self._make_slots()

    @property
    def under_way(self) -> bool:
        """Whether there are shards that their readers have no leases for yet."""
        return bool(self._changes)

    def _make_slots(self) -> None:
        change = self._changes[0]

        def work() -> None:
            for reader in change.readers:
                beginning.add_children(self._log.folder, reader.handler, reader.trigger, change.stream, change.shards)

        self._upkeep.submit(work, self._made)

    def _made(self, failure: KflowError | None) -> None:
        change = self._changes[0]
        if failure is not None and change.readers:
            if not self._is_told:
                self._is_told = True
                self._notice("error", f"the new shards of {change.stream.name} wait for their checkpoints: {failure}")
            self._loop.call_later(RETRY_S, self._make_slots)
            return
        self._is_told = False
        self._changes.popleft()
        for reader in change.readers:
            self._ready(reader, change.stream, change.shards)
        if self._changes:
            self._make_slots()
