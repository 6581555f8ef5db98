"""What a simulation holds for true of the log: each record that was put, where the log has it, and who was told so.

It learns of records from the append, and reads the log itself where an append did not return. A record that was
acknowledged is in the log, once, in the order of its key, until retention or a loss of power that the policy allows
took it; offsets and counters are never issued twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from hashlib import md5
from itertools import pairwise
from typing import Final

_LANES: Final = 2520


class Violation(AssertionError):
    """Something that must hold does not."""


class LaneTruth:
    """The records of one lane of a shard that its functions are to see, in order."""

    __slots__ = ("counters", "datas")

    def __init__(self) -> None:
        self.counters: list[int] = []
        self.datas: list[bytes] = []


class ShardTruth:
    """What a shard holds.

    Attributes:
        index: of the shard.
        parents: indexes of its parents.
        counters: of its records, in order.
        datas: their payloads.
        keys: their partition keys.
        ends: logical offset past the block of each.
        highest: the greatest counter ever issued.
        known_end: logical offset up to which the log is known.
        expired_counter: records below it have expired.
    """

    def __init__(self, index: int, parents: tuple[int, ...], factor: int) -> None:
        self.index = index
        self.parents = parents
        self.counters: list[int] = []
        self.datas: list[bytes] = []
        self.keys: list[str] = []
        self.ends: list[int] = []
        self.lanes = [LaneTruth() for _ in range(factor)]
        self.highest = 0
        self.known_end = 0
        self.expired_counter = 0


class Truth:
    """The records of one stream.

    Attributes:
        shards: by index.
        appended: records in the log, less those lost with the power.
        factor: lanes of each shard.
        filters: whether functions see a part of the records only.
    """

    def __init__(
        self,
        factor: int,
        *,
        wanted: Callable[[bytes], bool] | None,
        read: Callable[[int, int], Sequence[tuple[int, int, list[bytes], list[str]]]],
    ) -> None:
        """Begin with nothing.

        Args:
            factor: lanes of each shard.
            wanted: whether a payload passes the filters; None where there are none.
            read: reads the log of a shard from an offset on: (first counter, end, payloads, keys) of its blocks.
        """
        self.shards: dict[int, ShardTruth] = {}
        self.appended = 0
        self.factor = factor
        self.filters = wanted is not None
        self._wanted = wanted
        self._read = read
        self._lanes: dict[str, int] = {}
        self._stored: set[bytes] = set()
        self._acknowledged: dict[bytes, int] = {}
        self._last_of_key: dict[str, int] = {}
        self._serials: dict[bytes, int] = {}

    def add_shard(self, index: int, parents: tuple[int, ...]) -> ShardTruth:
        """A shard is there."""
        made = self.shards[index] = ShardTruth(index, parents, self.factor)
        return made

    def serial(self, data: bytes, number: int) -> None:
        """A record is about to be put, as the number-th of all."""
        self._serials[data] = number

    def add(self, index: int, first: int, end: int, datas: Sequence[bytes], keys: Sequence[str]) -> None:
        """A block was committed."""
        shard = self.shards[index]
        if first <= shard.highest:
            raise Violation(f"shard {index} issued counter {first} after {shard.highest}")
        if end <= shard.known_end:
            raise Violation(f"shard {index} wrote offset {end} after {shard.known_end}")
        stored, last_of_key, serials = self._stored, self._last_of_key, self._serials
        for data, key in zip(datas, keys, strict=True):
            if data in stored:
                raise Violation(f"{show(data)} is stored twice, again in shard {index}")
            stored.add(data)
            serial = serials.get(data)
            if serial is None:
                raise Violation(f"{show(data)} was refused, and is stored in shard {index}")
            if serial < last_of_key.get(key, -1):
                raise Violation(f"{show(data)} of key {key} is stored after a later one")
            last_of_key[key] = max(serial, last_of_key.get(key, -1))
        shard.highest = first + len(datas) - 1
        shard.known_end = end
        self.appended += len(datas)
        self._index(shard, range(first, first + len(datas)), datas, keys, end)

    def _index(
        self, shard: ShardTruth, counters: Sequence[int], datas: Sequence[bytes], keys: Sequence[str], end: int
    ) -> None:
        shard.counters += counters
        shard.datas += datas
        shard.keys += keys
        shard.ends += [end] * len(datas)
        if len(shard.lanes) == 1 and self._wanted is None:
            shard.lanes[0].counters += counters
            shard.lanes[0].datas += datas
            return
        wanted = self._wanted
        for counter, data, key in zip(counters, datas, keys, strict=True):
            if wanted is None or wanted(data):
                lane = shard.lanes[self._lane(key)]
                lane.counters.append(counter)
                lane.datas.append(data)

    def _lane(self, key: str) -> int:
        lane = self._lanes.get(key)
        if lane is None:
            number = int.from_bytes(md5(key.encode(), usedforsecurity=False).digest(), "big")
            lane = self._lanes[key] = number % _LANES % self.factor
        return lane

    def catch_up(self, index: int) -> None:
        """Learn of blocks whose append did not return, because the node was killed in it."""
        shard = self.shards[index]
        for first, end, datas, keys in self._read(index, shard.known_end):
            self.add(index, first, end, datas, keys)

    def acknowledge(self, index: int, first: int, datas: Sequence[bytes]) -> None:
        """Records were acknowledged."""
        shard = self.shards[index]
        place = bisect_left(shard.counters, first)
        if shard.datas[place : place + len(datas)] != list(datas):
            raise Violation(f"shard {index} acknowledged {show(datas[0])} as counter {first}, and does not hold it")
        for data in datas:
            if data in self._acknowledged:
                raise Violation(f"{show(data)} is acknowledged twice")
            self._acknowledged[data] = index

    def refuse(self, datas: Sequence[bytes]) -> None:
        """Records were refused: they must never be found in the log."""
        for data in datas:
            del self._serials[data]

    def expired(self, index: int, counter: int) -> None:
        """Retention removed what lies below a counter."""
        shard = self.shards[index]
        shard.expired_counter = max(shard.expired_counter, counter)

    def compare(self, index: int, horizon: int) -> None:
        """Read the whole log of a shard: it must hold what is known, no more and no less.

        Args:
            index: of the shard.
            horizon: logical offset below which records have expired.
        """
        shard = self.shards[index]
        found = [
            (first + at, data, key)
            for first, _, datas, keys in self._read(index, horizon)
            for at, (data, key) in enumerate(zip(datas, keys, strict=True))
        ]
        begin = bisect_left(shard.ends, horizon + 1)
        known = list(zip(shard.counters[begin:], shard.datas[begin:], shard.keys[begin:], strict=True))
        if found != known:
            wrong = next((at for at, pair in enumerate(zip(found, known, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(found), len(known)) if wrong is None else wrong
            raise Violation(
                f"shard {index} holds {len(found)} records and should hold {len(known)}; the first difference is at "
                f"{at}: {found[at : at + 1]} instead of {known[at : at + 1]}"
            )

    def lost_power(self, index: int, durable_end: int, horizon: int, *, always: bool) -> int:
        """The machine lost its power and the log was recovered: what was durable must be there.

        Args:
            index: of the shard.
            durable_end: logical offset up to which it was durable.
            horizon: logical offset below which records may have expired.
            always: whether nothing is acknowledged before it is durable.

        Returns:
            How many records were lost.
        """
        shard = self.shards[index]
        known = {
            counter: (data, key, end)
            for counter, data, key, end in zip(shard.counters, shard.datas, shard.keys, shard.ends, strict=True)
        }
        kept: list[int] = []
        blocks: list[tuple[list[int], list[bytes], list[str], int]] = []
        for first, end, datas, keys in self._read(index, 0):
            counters = list(range(first, first + len(datas)))
            for counter, data, key in zip(counters, datas, keys, strict=True):
                if counter not in known and data in self._serials and data not in self._stored:
                    # Written by an append that did not return, and cut by nobody since: it is stored after all.
                    self._stored.add(data)
                    self._last_of_key[key] = max(self._last_of_key.get(key, 0), self._serials[data])
                    self.appended += 1
                elif known.get(counter) != (data, key, end):
                    raise Violation(f"shard {index} came back with {show(data)} as counter {counter}, never put there")
            kept += counters
            blocks.append((counters, datas, keys, end))
        if any(later <= earlier for earlier, later in pairwise(kept)):
            raise Violation(f"shard {index} came back out of order")
        survivors = set(kept)
        lost = 0
        for counter, (data, key, end) in known.items():
            if counter in survivors:
                continue
            if end <= horizon or counter < shard.expired_counter:
                shard.expired_counter = max(shard.expired_counter, counter + 1)
                continue
            if end <= durable_end:
                raise Violation(f"shard {index} lost {show(data)} with the power, and it was durable")
            if always and data in self._acknowledged:
                raise Violation(f"shard {index} lost {show(data)} with the power, and it was acknowledged")
            lost += 1
            self._stored.discard(data)
            self._acknowledged.pop(data, None)
            if self._last_of_key.get(key) == self._serials[data]:
                del self._last_of_key[key]
        shard.counters, shard.datas, shard.keys, shard.ends = [], [], [], []
        shard.lanes = [LaneTruth() for _ in shard.lanes]
        for counters, datas, keys, end in blocks:
            self._index(shard, counters, datas, keys, end)
        shard.highest = max([shard.highest, *kept])
        shard.known_end = max([shard.known_end, *(end for *_, end in blocks)])
        self.appended -= lost
        return lost


def show(data: bytes) -> str:
    """A payload, for people."""
    return data[:40].decode(errors="replace").strip()


def listed(datas: Sequence[bytes]) -> str:
    """Payloads, for people."""
    shown = ", ".join(show(data) for data in datas[:6])
    return f"[{shown}{', ...' if len(datas) > 6 else ''}] ({len(datas)})"
