"""From the records of a call to where they were stored: encoded for the stream's shards, put, encoded again if need be.

    put ── encode, Host.put ── all at once ────────────────────────────> Outcome, at once
              ^    └── later ── all parts settled ── stale? ──no──> then(Outcome)
              └─────────── with the newer map <────── yes

A large call is encoded in slices, one a round of the loop. Calls for a stream begin in the order in which they came:
while one is in slices, or waits for the shards that replace its own, the next ones wait behind it; so a connection that
does not wait for its answers keeps its order. All else goes side by side.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final, cast

from kflow.broker.block import KMS
from kflow.broker.encode import Encoder, Part
from kflow.broker.sequence import shard_id
from kflow.errors import InternalError, KflowError, ProvisionedThroughputExceeded, StaleMap
from kflow.kinesis.host import Host, PutResult, Stored
from kflow.kinesis.putcalls import SLICE_BYTES, Entries, Outcome, PutCall, Then, rate_exceeded, slices, taker
from kflow.kinesis.registry import Stream
from kflow.kinesis.throttle import ShardLimits

_WRITERS: Final = 16
_CACHED_KEYS: Final = 32_768
"""Streams whose routes are kept, and keys of each: 100 MiB at most, if no key of any of them ever comes again."""
_PAUSE_S: Final = 0.01
_LOOKS: Final = 500
"""A map that is stale while no newer one is told of is looked at again this often, every 10 ms."""


class Puts:
    """Puts records of all streams. Belongs to the loop.

    Args:
        host: appends.
        throttle: the shards' limits; None where they are not enforced.
    """

    def __init__(self, host: Host, throttle: ShardLimits | None = None) -> None:
        self.host = host
        self.throttle = throttle
        self._writers: OrderedDict[int, _Writer] = OrderedDict()

    def put(self, stream: Stream, entries: Entries, then: Then, faults: Collection[int] = ()) -> Outcome | None:
        """Put the records of one call.

        Args:
            stream: to put to; it serves.
            entries: at least one record.
            then: told what came of it, on the loop, where that takes longer.
            faults: places of records that are to be refused as if their shard had taken too much.

        Returns:
            What came of it, if that was quick: `then` is not called. None: it will be.

        Raises:
            InvalidArgument, ValidationFailed: a record breaks a constraint; nothing was stored.
        """
        writer = self._writers.get(stream.id)
        if writer is None:
            writer = self._writers[stream.id] = _Writer(self, stream)
            self._evict()
        elif len(self._writers) > 1:
            self._writers.move_to_end(stream.id)
        return writer.put(entries, then, faults)

    def _evict(self) -> None:
        """Let go of streams that nobody has put to for longest; those that are in the middle of something stay."""
        if len(self._writers) > _WRITERS:
            for stream_id, writer in list(self._writers.items())[:-_WRITERS]:
                if writer.is_idle:
                    del self._writers[stream_id]

    def forget(self, stream_id: int) -> None:
        """A stream is gone; what is under way is still told."""
        self._writers.pop(stream_id, None)


class _Writer:
    """The puts of one stream.

    Attributes:
        encoder: for the map by which records are routed just now.
        flying: how many times parts are under way.
        stale: calls with records that must be routed again.
        waiting: calls with records whose turn has not come; where there are any, new calls go behind them.
    """

    __slots__ = (
        "_is_due",
        "_is_looking",
        "_looks",
        "_order",
        "_puts",
        "_stream",
        "_turn",
        "encoder",
        "flying",
        "stale",
        "waiting",
    )

    def __init__(self, puts: Puts, stream: Stream) -> None:
        self._puts = puts
        self._stream = stream
        self._turn = 0
        self._order = 0
        self._looks = 0
        self._is_due = False
        self._is_looking = False
        self.encoder = Encoder(stream.map, cached_keys=_CACHED_KEYS)
        self.flying = 0
        self.stale: list[PutCall] = []
        self.waiting: deque[PutCall] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self.flying and not self.waiting and not self.stale

    def put(self, entries: Entries, then: Then, faults: Collection[int]) -> Outcome | None:
        self._order += 1
        is_current = self.encoder.map is self._stream.map
        is_free = not self.waiting and not self.stale and (is_current or self._has_routes())
        if is_free and entries.size <= SLICE_BYTES and self._puts.throttle is None and not faults:
            return self._put_at_once(entries, then)
        call = PutCall(self._order, entries, then, faults)
        call.todo.extend((indexes, False) for indexes in slices(entries))
        if is_free:
            self._go_on(call)
        else:
            self.waiting.append(call)
        return None

    def _put_at_once(self, entries: Entries, then: Then) -> Outcome | None:
        """The way of nearly all calls, with as few steps as there can be."""
        parts = self._encode(entries)
        order = self._order
        landed = partial(self._landed_as_a_whole, order, entries, then, parts)
        results = self._puts.host.put(self.encoder.map, parts, landed)
        if results is None:
            self.flying += 1
            return None
        for result in results:
            if type(result) is not Stored:
                break
        else:
            numbers, ids = self.encoder.columns(len(entries.keys), parts, cast("list[Stored]", results))
            return Outcome(numbers, ids, {})
        self._settle(PutCall(order, entries, then, ()), parts, results)
        return None

    def _landed_as_a_whole(
        self, order: int, entries: Entries, then: Then, parts: list[Part], results: list[PutResult]
    ) -> None:
        call = PutCall(order, entries, then, ())
        call.open = 1
        self._landed(call, parts, results)

    def _has_routes(self) -> bool:
        """Whether records may be routed now: by the newest map, and behind all that went by an older one."""
        encoder, current = self.encoder, self._stream.map
        if encoder.map is not current:
            if encoder.map.generation != current.generation and self.flying:
                return False
            self.encoder = Encoder(current, cached_keys=_CACHED_KEYS)
        return True

    def _encode(self, entries: Entries) -> list[Part]:
        keys, datas, hash_keys, _ = entries
        kept = self._stream.attributes
        if kept.distribution == "AUTO":
            parts = self.encoder.encode_spread(keys, datas, self._turn)
            self._turn += len(keys)
        elif len(keys) == 1:
            parts = [self.encoder.encode_one(datas[0], keys[0], None if hash_keys is None else hash_keys[0])]
        else:
            parts = self.encoder.encode_many(keys, datas, hash_keys)
        if kept.key_id:
            parts = [part._replace(flags=part.flags | KMS) for part in parts]
        return parts

    def _begin(self) -> None:
        """Put a slice of the first call that waits; the others in rounds to come."""
        self._is_due = False
        if self.waiting and not self.stale and self._has_routes():
            self._go_on(self.waiting.popleft())

    def _go_on(self, call: PutCall) -> None:
        indexes, is_admitted = call.todo.popleft()
        if call.todo:
            self.waiting.appendleft(call)
        if self.waiting and not self._is_due:
            self._is_due = True
            self._puts.host.call_later(0, self._begin)
        try:
            parts = self._encode_some(call.entries, indexes)
        except KflowError as error:  # the stream takes smaller records than when they were checked
            call.refuse(indexes, error)
            parts = []
        if not is_admitted:
            parts = self._admitted(call, parts)
        if not parts:
            self._settle(call, parts, [])
            return
        call.open += 1
        results = self._puts.host.put(self.encoder.map, parts, lambda late: self._landed(call, parts, late))
        if results is None:
            self.flying += 1
        else:
            call.open -= 1
            self._settle(call, parts, results)

    def _encode_some(self, entries: Entries, indexes: Sequence[int]) -> list[Part]:
        """Encode some records of a call; the parts name their places in the call."""
        keys, datas, hash_keys, _ = entries
        take = taker(indexes)
        some = Entries(take(keys), take(datas), None if hash_keys is None else take(hash_keys), 0)
        return [
            part._replace(indexes=indexes if part.indexes is None else [indexes[at] for at in part.indexes])
            for part in self._encode(some)
        ]

    def _admitted(self, call: PutCall, parts: list[Part]) -> list[Part]:
        """What the shards take; all else is refused."""
        throttle, faults = self._puts.throttle, call.faults
        if throttle is None and not faults:
            return parts
        keys, datas = call.entries.keys, call.entries.datas
        now_ms = self._puts.host.now_ms()
        found: list[Part] = []
        full: set[int] = set()
        for part in parts:
            assert part.indexes is not None  # as `_encode_some` makes them
            good = [index for index in part.indexes if index not in faults]
            if part.shard in full:  # nothing overtakes what was refused
                good = []
            elif throttle is not None:
                sizes = [len(datas[index]) + len(keys[index].encode()) for index in good]
                good = good[: throttle.admit(self._stream.id, part.shard, sizes, now_ms)]
                if len(good) < len(sizes):
                    full.add(part.shard)
            if len(good) == part.count:
                found.append(part)
                continue
            kept = set(good)
            error = rate_exceeded(self._stream, shard_id(part.shard))
            call.refuse((index for index in part.indexes if index not in kept), error)
            if good:
                found += self._encode_some(call.entries, good)
        return found

    def _landed(self, call: PutCall, parts: list[Part], results: list[PutResult]) -> None:
        """What was under way is settled."""
        self.flying -= 1
        call.open -= 1
        self._settle(call, parts, results)
        if not self.flying:
            self._next()

    def _settle(self, call: PutCall, parts: list[Part], results: list[PutResult]) -> None:
        numbers, ids, _ = call.outcome
        total = len(numbers)
        stale: list[tuple[Sequence[int], bool]] = []
        for part, result in zip(parts, results, strict=True):
            indexes = range(total) if part.indexes is None else part.indexes
            if isinstance(result, Stored):
                texts, names = self.encoder.columns(part.count, [part._replace(indexes=None)], [result])
                for index, text, name in zip(indexes, texts, names, strict=True):
                    numbers[index] = text
                    ids[index] = name
            elif isinstance(result, StaleMap):
                stale.append((indexes, True))
            elif isinstance(result, ProvisionedThroughputExceeded):
                call.refuse(indexes, rate_exceeded(self._stream, shard_id(part.shard)))
            else:
                call.refuse(indexes, result)
        if stale:
            call.todo.extendleft(reversed(stale))  # in front of its slices that come later
            if call not in self.stale:
                self.stale.append(call)
            if not self.flying:
                self._next()
        elif not call.todo and not call.open:
            call.then(call.outcome)

    def _next(self) -> None:
        """Nothing is under way: route again what was stale, then go on with what waits."""
        if self.stale:
            stream = self._stream
            if stream.is_gone:
                self._fail(stream.not_found())
                return
            if not self._is_newer():
                return
            # In the order of the calls, and before all that came later.
            again = sorted(self.stale, key=lambda call: call.order)
            self.stale = []
            rest = [call for call in self.waiting if call not in again]
            self.waiting = deque(sorted(again + rest, key=lambda call: call.order))
        if self.waiting and not self._is_due:
            self._is_due = True
            self._puts.host.call_later(0, self._begin)

    def _is_newer(self) -> bool:
        """Whether there is a newer map than the one that is stale; else somebody looks again soon."""
        if self._stream.map.generation != self.encoder.map.generation:
            self._looks = 0
            return True
        if self._is_looking:
            return False
        self._looks += 1
        if self._looks > _LOOKS:
            self._looks = 0
            error = InternalError(f"the shards of stream {self._stream.name} are said to have changed, and have not")
            self._fail(error)
        else:
            self._is_looking = True
            self._puts.host.call_later(_PAUSE_S, self._look)
        return False

    def _look(self) -> None:
        self._is_looking = False
        if not self.flying:
            self._next()

    def _fail(self, error: KflowError) -> None:
        """Give up what is stale, and with it what waits."""
        failed = {id(call): call for call in (*self.stale, *self.waiting)}
        self.stale = []
        self.waiting.clear()
        for call in failed.values():
            for indexes, _ in call.todo:
                call.refuse(indexes, error)
            call.todo.clear()
            if not call.open:
                call.then(call.outcome)
