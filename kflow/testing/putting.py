"""A simulated producer: it sends again, in order, what was not answered when a node died, routed by today's map."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kflow.broker.encode import Encoder
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, NotDurable

if TYPE_CHECKING:
    from kflow.testing.world import World


class Put:
    """One call of a producer.

    Attributes:
        stream: the map it was routed by.
        frame: its number.
        parts: its blocks.
        tails: by shard, a tail that was known before it was first sent.
        open: numbers of the parts that are not answered.
    """

    def __init__(self, world: World, stream: StreamMap, frame: int, keys: list[str], datas: list[bytes]) -> None:
        self.stream = stream
        self.frame = frame
        self.keys = keys
        self.datas = datas
        self.parts = world.producer.encoder(stream).encode_many(keys, datas)
        self.tails = dict(world.producer.tails)
        self.open = list(range(len(self.parts)))
        self._world = world
        self._counters: dict[int, int] = {}

    def records(self, number: int) -> tuple[list[bytes], list[str]]:
        """Payloads and keys of a part."""
        indexes = self.parts[number].indexes
        if indexes is None:
            return self.datas, self.keys
        return [self.datas[at] for at in indexes], [self.keys[at] for at in indexes]

    def stored(self, number: int, first: int, tail: int) -> None:
        """A part was committed."""
        datas, keys = self.records(number)
        self._counters[number] = first
        self._world.truth.add(self.parts[number].shard, first, tail, datas, keys)

    def found(self, number: int, first: int) -> None:
        """A part had been stored before the node died."""
        self._counters[number] = first
        self._world.truth.catch_up(self.parts[number].shard)

    def acknowledged(self, number: int) -> None:
        """A part was answered with its numbers."""
        shard = self.parts[number].shard
        self._world.truth.acknowledge(shard, self._counters[number], self.records(number)[0])
        self._world.producer.tails[shard] = self._world.view.tail(shard)
        self.open.remove(number)
        if not self.open:
            self._world.producer.answered(self)

    def failed(self, number: int, error: KflowError) -> None:
        """A part was refused; where it may have been stored all the same it is sent again to the next node."""
        self._world.note(f"put refused: {type(error).__name__}")
        if not isinstance(error, NotDurable):
            self._world.truth.refuse(self.records(number)[0])
            self.open.remove(number)


class Producer:
    """All producers of a simulation, as one.

    Attributes:
        tails: by shard, its tail as far as answers told.
        pending: calls that are not answered in full, oldest first.
    """

    def __init__(self, world: World) -> None:
        self.tails: dict[int, int] = {}
        self.pending: deque[Put] = deque()
        self._world = world
        self._frame = 0
        self._encoder: Encoder | None = None
        self._resend = False

    def encoder(self, stream: StreamMap) -> Encoder:
        """Routes by a map."""
        if self._encoder is None or self._encoder.map is not stream:
            self._encoder = Encoder(stream)
        return self._encoder

    def put(self, stream: StreamMap, keys: list[str], datas: list[bytes]) -> None:
        """Put records; without a node they are sent as soon as there is one."""
        self._frame += 1
        put = Put(self._world, stream, self._frame, keys, datas)
        self.pending.append(put)
        node = self._world.node
        if node is None or put.stream.generation != node.stream.generation:
            self._resend = True
        if not self._resend and node is not None:
            node.append(put)
            self._drop_answered()

    def lost_node(self) -> None:
        """The node is gone: what is not answered is sent again."""
        self._drop_answered()
        self._resend = bool(self.pending)

    def resend(self) -> None:
        """Send again what was not answered: found is acknowledged, else it is appended; in order."""
        node = self._world.node
        if node is None:
            return
        for put in list(self.pending):
            missing = [number for number in list(put.open) if not node.find(put, number)]
            if missing:
                self._again(put, missing)
        self._resend = False
        self._drop_answered()

    def _again(self, put: Put, missing: list[int]) -> None:
        """Append what was not found, as a call of its own, routed by the map of today."""
        node = self._world.node
        if node is None:
            return
        records = sorted(at for number in missing for at in (put.parts[number].indexes or range(len(put.datas))))
        put.open = [number for number in put.open if number not in missing]
        self._frame += 1
        again = Put(
            self._world,
            node.stream,
            self._frame,
            [put.keys[at] for at in records],
            [put.datas[at] for at in records],
        )
        self.pending.insert(self.pending.index(put), again)
        node.append(again)

    def answered(self, put: Put) -> None:
        """A call was answered in full."""
        if put in self.pending:
            self.pending.remove(put)

    def _drop_answered(self) -> None:
        if any(not put.open for put in self.pending):
            self.pending = deque(put for put in self.pending if put.open)

    def give_up(self) -> None:
        """No producer waits for hours: whether what is not answered was stored is never known."""
        self.pending.clear()
        self._resend = False

    def lost_power(self) -> None:
        """Nothing that was known of tails holds.

        Where records are acknowledged before they are durable, a later call that is not answered either may have
        reached the disk where an earlier one did not, and is kept: the producer has gone with its machine. Where none
        is, it may be elsewhere, and sends again.
        """
        if self._world.options.fsync != "always":
            self.give_up()
        self.tails.clear()
        for put in self.pending:
            put.tails.clear()

    @property
    def resends(self) -> bool:
        """Whether something waits to be sent again."""
        return self._resend and bool(self.pending)
