"""What must be true of a simulation, kept beside the real thing and compared with it at every step.

The ledger knows what each function made of each record (`truth` knows the records). What a slot says counts from the
moment it is stored. It holds all that to these rules:

- an invocation is of exactly the records that follow the checkpoint of its lane, under the attempt that is due;
- a tumbling window gets the state that its last call returned, and a fresh one at its beginning;
- nobody else runs the lane meanwhile, and all that the parents of its shard hold is settled;
- a checkpoint passes only records that succeeded, are parked, were dropped after all attempts, or are gone from the
  log; it never goes back, nor past the readable end, while the machine has power.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Final

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.declarations import MappingOptions
from kflow.records import Window
from kflow.testing.truth import LaneTruth, ShardTruth, Truth, Violation, listed, show

SUCCEEDED: Final = 1
PARKED: Final = 2
DROPPED: Final = 3
GONE: Final = 4
BEFORE: Final = 5
"""What became of a record for a function; 0 while nothing did. BEFORE: settled before the power was lost."""


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
        ends_window: the last call was the final one of its window.
        running: an invocation is under way.
        slot: as it was stored last.
        furthest: the greatest checkpoint counter that was ever stored.
        exact: totals can be compared: no power was lost.
        fallback: after a loss of power, the copy of the slot that stands in where the state of its window is gone.
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
        self.ends_window = False
        self.running = False
        self.slot = Slot()
        self.furthest = 0
        self.exact = True
        self.fallback: Slot | None = None

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
    """What the functions of one stream made of its records.

    Attributes:
        options: of the mapping.
        functions: who reads the stream.
        truth: the records.
        consumers: by function, shard and lane.
        delivered: records given to functions, again and again where that was due.
        invocations: how often functions ran.
    """

    def __init__(self, options: MappingOptions, functions: Sequence[str], truth: Truth) -> None:
        self.options = options
        self.functions = tuple(functions)
        self.truth = truth
        self.consumers: dict[tuple[str, int, int], Consumer] = {}
        self.delivered = 0
        self.invocations = 0

    def add_shard(self, index: int, parents: tuple[int, ...] = ()) -> None:
        """A shard is there."""
        if index in self.truth.shards:
            return
        shard = self.truth.add_shard(index, parents)
        for function in self.functions:
            for lane in range(self.truth.factor):
                self.consumers[function, index, lane] = Consumer(function, shard, lane)

    # ------------------------------------------------------------------ invocations

    def invoked(
        self, consumer: Consumer, datas: Sequence[bytes], attempt: int, *, ends_window: bool = False
    ) -> tuple[int, int]:
        """An invocation begins. Returns its batch: place in the lane, and count."""
        if consumer.running:
            raise Violation(f"{consumer.name} runs twice at the same time")
        first, count = consumer.front, len(datas)
        if consumer.records.datas[first : first + count] != datas:
            self.truth.catch_up(consumer.shard.index)
            expected = consumer.records.datas[first : first + count]
            if expected != datas:
                raise Violation(
                    f"{consumer.name} was given {listed(datas)}, and after its checkpoint come {listed(expected)}"
                )
        if count > self.options.batch_size:
            raise Violation(f"{consumer.name} was given {count} records at once")
        due = consumer.failures.get((first, count), 0) + 1
        if attempt != due:
            raise Violation(f"{consumer.name} made attempt {attempt} at {listed(datas)}, and attempt {due} was due")
        retries = self.options.maximum_retry_attempts
        if 0 <= retries < attempt - 1:
            raise Violation(f"{consumer.name} made attempt {attempt} with {retries} retries")
        self._parents_are_drained(consumer)
        consumer.settle(first, count, 0)
        consumer.attempted = (first, count)
        consumer.outcome = ""
        consumer.running = True
        consumer.ends_window = ends_window
        self.delivered += count
        self.invocations += 1
        return first, count

    def _parents_are_drained(self, consumer: Consumer) -> None:
        function = consumer.name.partition(" ")[0]
        for parent in consumer.shard.parents:
            if parent not in self.truth.shards:
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
            raise Violation(f"{consumer.name} parks {listed(datas)}, which are not those after its checkpoint")
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
        fallback, consumer.fallback = consumer.fallback, None
        if fallback is not None and fallback.checkpoint == slot.checkpoint < before.checkpoint:
            self.restored(consumer, slot, None)
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
        if consumer.ends_window and not slot.window_start_s:
            consumer.window = None  # it is over, also where its final call was given up
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
                f"{consumer.name} settled {listed(consumer.records.datas[old:new])}; "
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
        sees_all = not self.truth.filters and self.options.parallelization_factor == 1
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

    def restored(self, consumer: Consumer, slot: Slot, before: Slot | None) -> None:
        """After a loss of power: the slot is one that was stored before, maybe not the last one; and its other copy."""
        if slot.checkpoint_counter > max(consumer.furthest, consumer.slot.checkpoint_counter):
            raise Violation(f"the checkpoint of {consumer.name} came back ahead of all that was stored")
        consumer.front = consumer.place(slot.checkpoint_counter)
        consumer.fates = bytearray(bytes((BEFORE,)) * consumer.front)
        consumer.failures.clear()
        consumer.running = False
        consumer.attempted = None
        consumer.outcome = ""
        consumer.slot = slot
        consumer.fallback = before if slot.window_start_s else None
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
                    raise Violation(f"{consumer.name} parked {show(data)}, and the parked store does not hold it")

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
