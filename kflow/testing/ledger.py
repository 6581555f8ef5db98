"""What must be true of a simulation, kept beside the real thing and compared with it at every step.

The ledger knows each record that was put: where the log has it, whether it was acknowledged, what each function made of
it. It learns of records from the append, and reads the log itself where an append did not return. What a slot says
counts from the moment it is stored. It holds all that to these rules:

- a record that was acknowledged is in the log, once, in the order of its key, until retention or a loss of power that
  the policy allows took it; offsets and counters are never issued twice;
- an invocation is of exactly the records that follow the checkpoint of its lane, under the attempt that is due;
- a tumbling window gets the state that its last call returned, and a fresh one at its beginning;
- nobody else runs the lane meanwhile, and all that the parents of its shard hold is settled;
- a checkpoint passes only records that succeeded, are parked, were dropped after all attempts, or are gone from the
  log; it never goes back, nor past the readable end, while the machine has power.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from hashlib import md5
from itertools import pairwise
from typing import Any, Final

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.declarations import MappingOptions
from kflow.records import Window

SUCCEEDED: Final = 1
PARKED: Final = 2
DROPPED: Final = 3
GONE: Final = 4
BEFORE: Final = 5
"""What became of a record for a function; 0 while nothing did. BEFORE: settled before the power was lost."""

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


class Consumer:
    """One function on one lane of one shard.

    Attributes:
        front: how many records of the lane are settled.
        fates: what became of each record of the lane.
        failures: by (place, count) of a batch at the front, how many attempts at it have failed.
        attempted: the batch of the last invocation, while what followed is not stored.
        done: how many records at its front that invocation settled.
        outcome: what followed: `ok`, `failed`, `died`; empty where nothing is to land.
        window: beginning and state of the tumbling window that is open, as far as it is stored.
        returned: those that the last call returned.
        running: an invocation is under way.
        slot: as it was stored last.
        furthest: the greatest checkpoint counter that was ever stored.
        exact: totals can be compared: no power was lost.
    """

    def __init__(self, function: str, shard: ShardTruth, lane: int) -> None:
        self.name = f"{function} on shard {shard.index} lane {lane}"
        self.shard = shard
        self.lane = lane
        self.front = 0
        self.fates = bytearray()
        self.failures: dict[tuple[int, int], int] = {}
        self.attempted: tuple[int, int] | None = None
        self.done = 0
        self.window: tuple[Any, Any] | None = None
        self.returned: tuple[Any, Any] | None = None
        self.outcome = ""
        self.running = False
        self.slot = Slot()
        self.furthest = 0
        self.exact = True

    @property
    def records(self) -> LaneTruth:
        """What it is to see."""
        return self.shard.lanes[self.lane]

    def place(self, counter: int) -> int:
        """How many of its records come before a counter."""
        return bisect_left(self.records.counters, counter)

    def settle(self, first: int, count: int, fate: int) -> None:
        """Note what became of records."""
        fates = self.fates
        if len(fates) < first + count:
            fates += bytes(first + count - len(fates))
        fates[first : first + count] = bytes((fate,)) * count


class Ledger:
    """The truth about all records and functions of one stream."""

    def __init__(
        self,
        options: MappingOptions,
        functions: Sequence[str],
        *,
        wanted: Callable[[bytes], bool],
        read: Callable[[int, int], Sequence[tuple[int, int, list[bytes], list[str]]]],
    ) -> None:
        """Begin with nothing.

        Args:
            options: of the mapping.
            functions: who reads the stream.
            wanted: whether a payload passes the filters.
            read: reads the log of a shard from an offset on: (first counter, end, payloads, keys) of its blocks.
        """
        self.options = options
        self.functions = tuple(functions)
        self.shards: dict[int, ShardTruth] = {}
        self.consumers: dict[tuple[str, int, int], Consumer] = {}
        self.appended = 0
        self.delivered = 0
        self.invocations = 0
        self._wanted = wanted if options.filters else None
        self._read = read
        self._lanes: dict[str, int] = {}
        self._stored: set[bytes] = set()
        self._acknowledged: dict[bytes, int] = {}
        self._last_of_key: dict[str, int] = {}
        self._serials: dict[bytes, int] = {}
        self._excused: set[bytes] = set()

    # ------------------------------------------------------------------ the log

    def add_shard(self, index: int, parents: tuple[int, ...] = ()) -> None:
        """A shard is there."""
        if index in self.shards:
            return
        factor = self.options.parallelization_factor
        self.shards[index] = ShardTruth(index, parents, factor)
        for function in self.functions:
            for lane in range(factor):
                self.consumers[function, index, lane] = Consumer(function, self.shards[index], lane)

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
                raise Violation(f"{_show(data)} is stored twice, again in shard {index}")
            stored.add(data)
            serial = serials.get(data)
            if serial is None:
                raise Violation(f"{_show(data)} was refused, and is stored in shard {index}")
            if serial < last_of_key.get(key, -1) and data not in self._excused:
                raise Violation(f"{_show(data)} of key {key} is stored after a later one")
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
            lane = self._lanes[key] = number % _LANES % self.options.parallelization_factor
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
            raise Violation(f"shard {index} acknowledged {_show(datas[0])} as counter {first}, and does not hold it")
        for data in datas:
            if data in self._acknowledged:
                raise Violation(f"{_show(data)} is acknowledged twice")
            self._acknowledged[data] = index

    def refuse(self, datas: Sequence[bytes]) -> None:
        """Records were refused: they must never be found in the log."""
        for data in datas:
            del self._serials[data]

    def excuse(self, datas: Sequence[bytes]) -> None:
        """Records under way when the power went: a later call may have reached the disk where an earlier one did not.

        Sent again, the earlier one comes after it. Nobody was told of either.
        """
        self._excused.update(datas)

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
                    raise Violation(f"shard {index} came back with {_show(data)} as counter {counter}, never put there")
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
                raise Violation(f"shard {index} lost {_show(data)} with the power, and it was durable")
            if always and data in self._acknowledged:
                raise Violation(f"shard {index} lost {_show(data)} with the power, and it was acknowledged")
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

    # ------------------------------------------------------------------ invocations

    def invoked(self, consumer: Consumer, datas: Sequence[bytes], attempt: int) -> tuple[int, int]:
        """An invocation begins. Returns its batch: place in the lane, and count."""
        if consumer.running:
            raise Violation(f"{consumer.name} runs twice at the same time")
        first, count = consumer.front, len(datas)
        if consumer.records.datas[first : first + count] != datas:
            self.catch_up(consumer.shard.index)
            expected = consumer.records.datas[first : first + count]
            if expected != datas:
                raise Violation(
                    f"{consumer.name} was given {_list(datas)}, and after its checkpoint come {_list(expected)}"
                )
        if count > self.options.batch_size:
            raise Violation(f"{consumer.name} was given {count} records at once")
        due = consumer.failures.get((first, count), 0) + 1
        if attempt != due:
            raise Violation(f"{consumer.name} made attempt {attempt} at {_list(datas)}, and attempt {due} was due")
        retries = self.options.maximum_retry_attempts
        if 0 <= retries < attempt - 1:
            raise Violation(f"{consumer.name} made attempt {attempt} with {retries} retries")
        self._parents_are_drained(consumer)
        consumer.settle(first, count, 0)
        consumer.attempted = (first, count)
        consumer.outcome = ""
        consumer.running = True
        self.delivered += count
        self.invocations += 1
        return first, count

    def _parents_are_drained(self, consumer: Consumer) -> None:
        function = consumer.name.partition(" ")[0]
        for parent in consumer.shard.parents:
            if parent not in self.shards:
                continue
            for lane in range(self.options.parallelization_factor):
                other = self.consumers[function, parent, lane]
                if other.front < len(other.records.counters):
                    raise Violation(f"{consumer.name} runs before {other.name} has settled everything")

    def ended(self, consumer: Consumer, done: int, *, failed: bool) -> None:
        """An invocation has ended: how many records at its front succeeded, and whether the attempt failed."""
        consumer.running = False
        first, count = consumer.attempted or (0, 0)
        consumer.settle(first, done, SUCCEEDED)
        consumer.done = done
        consumer.outcome = "failed" if failed and not done else "ok"
        if done < count and not failed:
            raise ValueError("what did not fail succeeded in whole")

    def window(self, consumer: Consumer, window: Window, count: int) -> object:
        """A tumbling window's call has succeeded: the state that it returns."""
        before = consumer.window
        due = before[1] if before is not None and before[0] == window.start_s else {}
        # What a partial response returns is the engine's to judge, and power may bring an older state back.
        if consumer.exact and not self.options.report_batch_item_failures and window.state != due:
            raise Violation(f"{consumer.name} was given the state {window.state!r}, and {due!r} was due")
        seen = window.state.get("count", 0)
        consumer.returned = None if window.is_final else (window.start_s, {"count": seen + count})
        return {"count": seen + count}

    def park(self, consumer: Consumer, entry: ParkedBatch) -> tuple[int, int]:
        """Records are about to be parked. Returns their place and count, for `parked`."""
        first = consumer.place(entry.first_counter)
        datas = [record.data for record in entry.records]
        count = len(datas)
        if first != consumer.front or consumer.records.datas[first : first + count] != datas:
            raise Violation(f"{consumer.name} parks {_list(datas)}, which are not those after its checkpoint")
        if entry.condition is ParkCondition.RETRY_ATTEMPTS_EXHAUSTED:
            self._is_spent(consumer, first, count)
        return first, count

    def parked(self, consumer: Consumer, entry: ParkedBatch) -> None:
        """Records are parked: their file is there."""
        first = consumer.place(entry.first_counter)
        datas = [record.data for record in entry.records]
        if consumer.records.datas[first : first + len(datas)] == datas:
            consumer.settle(first, len(datas), PARKED)

    def _is_spent(self, consumer: Consumer, first: int, count: int) -> None:
        allowed = self.options.maximum_retry_attempts + 1
        failed = consumer.failures.get((first, count), 0) + (consumer.outcome in {"failed", "died"})
        if allowed < 1 or failed < allowed:
            raise Violation(f"{consumer.name} gives up {count} records after {failed} of {allowed} attempts")

    # ------------------------------------------------------------------ slots

    def stored(self, consumer: Consumer, slot: Slot, *, readable_end: int) -> None:
        """A slot was stored, or found to have been."""
        before, old = consumer.slot, consumer.front
        if slot == before:
            return
        new = consumer.place(slot.checkpoint_counter)
        if slot.checkpoint_counter < before.checkpoint_counter or slot.checkpoint < before.checkpoint:
            raise Violation(f"the checkpoint of {consumer.name} went back")
        if slot.checkpoint.offset > readable_end and slot.checkpoint != before.checkpoint:
            raise Violation(f"the checkpoint of {consumer.name} is ahead of the log")
        if slot.state is SlotState.RUNNING:
            consumer.outcome = ""
        elif consumer.outcome:
            self._land(consumer, slot, old, new)
        if new > old:
            self._pass(consumer, slot, old, new)
        elif slot.checkpoint_counter != before.checkpoint_counter:
            consumer.failures.clear()  # it passed what is not there any more
        consumer.slot = slot
        consumer.furthest = max(consumer.furthest, slot.checkpoint_counter)

    def _land(self, consumer: Consumer, slot: Slot, old: int, new: int) -> None:
        """What followed from the last invocation is durable."""
        outcome, attempted = consumer.outcome, consumer.attempted
        consumer.outcome = ""
        if outcome == "ok":
            consumer.window = consumer.returned
        if outcome == "ok" and new - old != consumer.done:
            raise Violation(f"{consumer.name} settled {new - old} records where {consumer.done} succeeded")
        if attempted is None or new > old or outcome == "ok" or slot.state is not SlotState.FAILED:
            return
        first, count = attempted
        if slot.count == count:
            consumer.failures[first, count] = consumer.failures.get((first, count), 0) + 1
        elif not self.options.bisect_batch_on_function_error or slot.count != count // 2 or slot.attempt:
            raise Violation(f"{consumer.name} has {slot.count} of {count} records left to attempt after a failure")

    def _pass(self, consumer: Consumer, slot: Slot, old: int, new: int) -> None:
        """The checkpoint has passed records: something must have become of each."""
        before = consumer.slot
        dropped = slot.dropped - before.dropped
        if dropped:
            self._is_spent_or_old(consumer, old, new)
            consumer.settle(old, new - old, DROPPED)
        if old < consumer.place(consumer.shard.expired_counter) or slot.lost > before.lost:
            self._lose(consumer, old, new, slot)
        fates = consumer.fates[old:new]
        missing = new - old if len(fates) < new - old else fates.find(0)
        if missing >= 0 and (len(fates) < new - old or 0 in fates):
            raise Violation(
                f"{consumer.name} settled {_list(consumer.records.datas[old:new])}; "
                f"of that number {missing} was neither delivered nor given up"
            )
        rest = consumer.failures.get((old, new - old + slot.count), 0)
        consumer.failures.clear()
        expired = consumer.fates[old] in (PARKED, DROPPED) and slot.attempt
        if rest and expired:  # the front of the batch was too old; the rest keeps the attempts it has had
            consumer.failures[new, slot.count] = rest
        consumer.front = new

    def _lose(self, consumer: Consumer, old: int, new: int, slot: Slot) -> None:
        """Records that expired before anything became of them. A lane, or a filter, counts a share of them only."""
        before, counted = consumer.slot, slot.lost - consumer.slot.lost
        gone = min(consumer.place(consumer.shard.expired_counter), new) - old
        sees_all = self._wanted is None and self.options.parallelization_factor == 1
        if sees_all and consumer.exact and counted > max(0, gone):
            raise Violation(f"{consumer.name} counts {counted} records as lost, and {gone} are")
        if sees_all and not counted:
            return
        # What succeeded, or was parked, by somebody who died before he could store that is lost all the same.
        void = {0}
        if slot.succeeded == before.succeeded:
            void.add(SUCCEEDED)
        if slot.parked == before.parked:
            void.add(PARKED)
        for at in range(old, old + gone):
            if at >= len(consumer.fates) or consumer.fates[at] in void:
                consumer.settle(at, 1, GONE)

    def _is_spent_or_old(self, consumer: Consumer, old: int, new: int) -> None:
        if self.options.maximum_record_age_in_seconds < 0:
            self._is_spent(consumer, old, new - old)

    def died(self, consumer: Consumer, *, counted: bool) -> None:
        """The holder of a lane ended in an invocation: whether the next one is to count that as a failed attempt."""
        consumer.running = False
        consumer.outcome = "died" if counted else ""
        if counted:  # also where it died between the intent and the invocation: nobody can tell
            consumer.attempted = (consumer.front, consumer.slot.count)

    def restored(self, consumer: Consumer, slot: Slot) -> None:
        """After a loss of power: the slot is one that was stored before, maybe not the last one."""
        if slot.checkpoint_counter > max(consumer.furthest, consumer.slot.checkpoint_counter):
            raise Violation(f"the checkpoint of {consumer.name} came back ahead of all that was stored")
        consumer.front = consumer.place(slot.checkpoint_counter)
        consumer.fates = bytearray(bytes((BEFORE,)) * consumer.front)
        consumer.failures.clear()
        consumer.running = False
        consumer.attempted = None
        consumer.outcome = ""
        consumer.slot = slot
        consumer.exact = False
        failed = slot.attempt - (slot.state is SlotState.RUNNING)
        if slot.state is not SlotState.IDLE and failed > 0:
            consumer.failures[consumer.front, slot.count] = failed

    # ------------------------------------------------------------------ the end

    def unsettled(self) -> list[str]:
        """Who has not settled everything."""
        return [
            f"{consumer.name} settled {consumer.front} of {len(consumer.records.counters)}"
            for consumer in self.consumers.values()
            if consumer.front < len(consumer.records.counters)
        ]

    def kept(self, entries: Iterable[ParkedBatch]) -> None:
        """What counts as parked must be in the parked store."""
        found = {(entry.function, record.data) for entry in entries for record in entry.records}
        for (function, _, _), consumer in self.consumers.items():
            for fate, data in zip(consumer.fates, consumer.records.datas, strict=False):
                if fate == PARKED and (function, data) not in found:
                    raise Violation(f"{consumer.name} parked {_show(data)}, and the parked store does not hold it")

    def totals(self) -> None:
        """What the slots count must be what happened."""
        for consumer in self.consumers.values():
            slot, fates = consumer.slot, consumer.fates
            if not consumer.exact:
                continue
            counted = (slot.succeeded, slot.parked, slot.dropped)
            happened = (fates.count(SUCCEEDED), fates.count(PARKED), fates.count(DROPPED))
            if counted != happened:
                raise Violation(
                    f"the slot of {consumer.name} counts {counted} records succeeded, parked, dropped; "
                    f"that happened to {happened}"
                )


def _show(data: bytes) -> str:
    return data[:40].decode(errors="replace").strip()


def _list(datas: Sequence[bytes]) -> str:
    shown = ", ".join(_show(data) for data in datas[:6])
    return f"[{shown}{', ...' if len(datas) > 6 else ''}] ({len(datas)})"
