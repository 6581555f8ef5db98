"""The engine of a lease against a list: failures, partial responses, bisection, storage errors, and crashes everywhere.

The model knows the records by their counters, which of them are the lease's (of its lane, and past its filters), which
are settled, and the pieces of the batch in front with the failed attempts of each. An outcome enters the model when the
slot that holds it becomes durable, and not before. Each invocation must then be of exactly the model's front piece,
under exactly the attempt that the protocol counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.interfaces import FunctionError
from kflow.lambda_.mapping import Death, Step, StepKind
from tests.stepping import Killed, Raised, Rig

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")
AGE_S = 60

ENDS = ["reported", "timed out", "stale", "same node", "clean stop", "node killed"]
"""What is known of the end of a process: see `takeover`."""

FAULTS = ["none"] * 15 + [
    "store fails",
    "second store fails",
    "dies before the store",
    "dies after the store",
    "dies before the second store",
    "dies after the second store",
    "park fails",
    "dies before the park",
    "dies after the park",
    "read fails",
]

BEHAVIOURS = ["ok", "ok", "raise", "raise", "poison", "poison", "partial", "partial", "invalid", "die"]


MOVES = st.tuples(st.sampled_from(BEHAVIOURS), st.integers(0, 8), st.sampled_from(FAULTS), st.sampled_from(ENDS))
SELDOM = st.sampled_from([True, False, False, False])


FILTERS = ('{"data":{"passes":[true]}}',)
KEYS = [f"key-{number}" for number in range(6)]


def key_of(counter: int) -> str:
    return KEYS[counter * 7 % 6]


def payload_of(counter: int) -> bytes:
    return b'{"counter": %d, "passes": %s}' % (counter, b"false" if counter % 4 == 0 else b"true")


def number_of(data: bytes) -> int:
    found: int = msgspec.json.decode(data)["counter"]
    return found


def lane_of(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest())


class Front:
    """One piece of the batch in front: how many records, and how many attempts at it have failed."""

    def __init__(self, count: int, attempts: int = 0) -> None:
        self.count = count
        self.attempts = attempts


class MappingMachine(RuleBasedStateMachine):
    @initialize(
        batch_size=st.integers(1, 9),
        retries=st.sampled_from([-1, 0, 0, 1, 2]),
        bisect=st.sampled_from([True, True, False]),
        report=st.sampled_from([True, True, False]),
        ages=st.booleans(),
        window=st.sampled_from([0, 0, 0, 2]),
        scale=st.sampled_from([0.0, 0.0, 1.0]),
        factor=st.sampled_from([1, 1, 2, 3]),
        filters=st.sampled_from([(), (), FILTERS]),
        drop=st.sampled_from([False, False, True]),
    )
    def begin(
        self,
        batch_size: int,
        retries: int,
        bisect: bool,
        report: bool,
        ages: bool,
        window: int,
        scale: float,
        factor: int,
        filters: tuple[str, ...],
        drop: bool,
    ) -> None:
        self.rig = Rig(
            self.handle,
            lane=factor - 1,
            parallelization_factor=factor,
            filters=filters,
            on_failure="drop" if drop else None,
            batch_size=batch_size,
            maximum_retry_attempts=retries,
            bisect_batch_on_function_error=bisect,
            report_batch_item_failures=report,
            maximum_record_age_in_seconds=AGE_S if ages else -1,
            maximum_batching_window_in_seconds=window,
        )
        self.rig.scale = scale
        self.rig.slots.store = self.store  # type: ignore[method-assign]
        self.rig.parking.park = self.park  # type: ignore[method-assign]
        self.arrivals: list[int] = []  # of the record with counter 1, 2 ...
        self.front = 1
        self.pieces: list[Front] = []
        self.succeeded: set[int] = set()
        self.parked: set[int] = set()
        self.dropped: set[int] = set()
        self.lost: set[int] = set()
        self.lost_count = 0
        self.interruptions = 0
        self.landing: Callable[[Slot], None] | None = None
        self.parking: ParkedBatch | None = None
        self.behaviour = "ok"
        self.index = 0
        self.fault = "none"
        self.stores = 0
        self.rig.drop()
        self.rig.grant()

    # ------------------------------------------------------------ what the engine calls

    def handle(self, datas: list[bytes]) -> Any:
        counters = [number_of(data) for data in datas]
        invocation = self.rig.function.invocations[-1]
        assert self.rig.slot.state is SlotState.RUNNING
        assert self.rig.slot.request_id == invocation.request_id
        if not self.pieces:
            assert 1 <= len(counters) <= self.rig.options.batch_size
            self.pieces = [Front(len(counters))]
        piece = self.pieces[0]
        assert counters == self.next_ones(piece.count)
        assert invocation.attempt == piece.attempts + 1
        assert self.landing is None, "an outcome is known and not written: the function must not run again"
        self.refuse_expired(counters, expired=False)
        behaviour = self.behaviour
        index = self.index % len(counters)
        if behaviour == "poison":
            behaviour = "raise" if any(counter % 5 == 0 for counter in counters) else "ok"
        if behaviour == "partial" and self.rig.options.report_batch_item_failures:
            self.landing = self.partial(index)
            number = invocation.records[index].sequence_number
            return {"batchItemFailures": [{"itemIdentifier": str(number)}]}
        if behaviour == "invalid" and self.rig.options.report_batch_item_failures:
            self.landing = self.failure
            return {"batchItemFailures": [{"itemIdentifier": "1"}]}
        if behaviour == "die":
            raise Killed
        if behaviour == "raise":
            self.landing = self.failure
            raise Raised
        self.landing = self.partial(piece.count)
        return "anything" if not self.rig.options.report_batch_item_failures else None

    def store(self, shard: int, lane: int, slot: Slot) -> None:
        self.stores += 1
        which = {1: "store", 2: "second store"}.get(self.stores, "")
        if self.fault == f"{which} fails":
            raise OSError(28, "No space left on device")
        if self.fault == f"dies before the {which}":
            raise Killed
        self.rig.slots.slot = slot
        self.rig.slots.stored.append(slot)
        self.landed(slot)
        if self.fault == f"dies after the {which}":
            raise Killed

    def park(self, entry: ParkedBatch) -> int:
        if self.fault == "park fails":
            raise OSError(28, "No space left on device")
        if self.fault == "dies before the park":
            raise Killed
        assert self.rig.slot.state is SlotState.FAILED
        counters = [number_of(record.data) for record in entry.records]
        if not self.pieces:
            self.pieces = [Front(self.rig.slot.count)]
        piece = self.pieces[0]
        assert counters == self.next_ones(len(counters))
        assert entry.attempts == piece.attempts
        if entry.condition is ParkCondition.RECORD_AGE_EXCEEDED:
            assert len(counters) <= piece.count
            self.refuse_expired(counters, expired=True)
        else:
            assert len(counters) == piece.count
            assert piece.attempts == self.rig.options.maximum_retry_attempts + 1
        assert self.parking is None, "these records are parked already"
        number = len(self.rig.parking.entries) + 1
        self.parking = msgspec.structs.replace(entry, number=number)
        self.rig.parking.entries.append(self.parking)
        if self.fault == "dies after the park":
            raise Killed
        return number

    def refuse_expired(self, counters: list[int], *, expired: bool) -> None:
        if self.rig.options.maximum_record_age_in_seconds > 0:
            limit = self.rig.clock.epoch_ms - AGE_S * 1000
            assert all((self.arrivals[counter - 1] < limit) == expired for counter in counters)

    # ------------------------------------------------------------ what becomes durable

    def landed(self, slot: Slot) -> None:
        settled = (slot.succeeded, slot.parked, slot.dropped)
        passed = any(self.mine(counter) for counter in range(self.front, slot.checkpoint_counter))
        if slot.lost > self.lost_count:
            self.lose(slot)
        elif passed and settled == (len(self.succeeded), len(self.parked), len(self.dropped)):
            self.lose(slot)  # of one record, the share of most lanes is none
        elif slot.dropped > len(self.dropped):
            self.settle_dropped(slot)
        elif slot.state is not SlotState.RUNNING and self.landing is not None:
            self.landing(slot)
            self.landing = None
        elif self.parking is not None and slot.parked > len(self.parked):
            self.settle_parked(self.parking)
            self.parking = None
        elif slot.state is not SlotState.IDLE and not self.pieces:
            self.pieces = [Front(slot.count)]

    def partial(self, done: int) -> Callable[[Slot], None]:
        def land(slot: Slot) -> None:
            piece = self.pieces[0]
            if not done:
                piece.attempts += 1
            else:
                self.succeeded |= set(self.next_ones(done))
                self.advance(done, attempts=0)
            self.interruptions = 0

        return land

    def failure(self, slot: Slot) -> None:
        self.interruptions = 0
        piece = self.pieces[0]
        if self.rig.options.bisect_batch_on_function_error and piece.count > 1:
            left = piece.count // 2
            self.pieces[:1] = [Front(left), Front(piece.count - left)]
        else:
            piece.attempts += 1

    def settle_parked(self, entry: ParkedBatch) -> None:
        count = len(entry.records)
        counters = set(self.next_ones(count))
        assert not counters & self.parked
        self.parked |= counters
        self.interruptions = 0
        self.advance(count, attempts=self.pieces[0].attempts)

    def settle_dropped(self, slot: Slot) -> None:
        """The first of the batch are spent or expired, and kept nowhere."""
        count = slot.dropped - len(self.dropped)
        counters = self.next_ones(count)
        if not self.pieces:
            self.pieces = [Front(count + slot.count)]
        piece = self.pieces[0]
        if self.rig.options.maximum_retry_attempts < 0 or piece.attempts <= self.rig.options.maximum_retry_attempts:
            self.refuse_expired(counters, expired=True)
            assert self.rig.options.maximum_record_age_in_seconds > 0
        else:
            assert count == piece.count
        self.dropped |= set(counters)
        self.interruptions = 0
        self.landing = None
        self.advance(count, attempts=piece.attempts)

    def mine(self, counter: int) -> bool:
        """Whether a record is of the lane, and passes the filters."""
        options = self.rig.options
        if options.filters and counter % 4 == 0:
            return False
        return lane_of(key_of(counter)) % options.parallelization_factor == self.rig.lane

    def next_ones(self, count: int) -> list[int]:
        """The next records to settle."""
        found: list[int] = []
        counter = self.front
        while len(found) < count:
            assert counter < self.rig.shard.next_counter
            if self.mine(counter):
                found.append(counter)
            counter += 1
        return found

    def advance(self, count: int, *, attempts: int) -> None:
        self.front = self.next_ones(count)[-1] + 1
        piece = self.pieces.pop(0)
        if count < piece.count:
            self.pieces.insert(0, Front(piece.count - count, attempts))

    def lose(self, slot: Slot) -> None:
        gone = set(range(self.front, slot.checkpoint_counter))
        blocks = self.rig.shard.blocks
        assert max(gone) < (blocks[0].first_counter if blocks else self.rig.shard.next_counter)
        # Whose they were is not known once they are gone: a lane counts its share of all of them.
        counted = slot.lost - self.lost_count
        if self.rig.options.parallelization_factor == 1 and not self.rig.options.filters:
            assert counted == len(gone)
        assert 0 <= counted <= len(gone)
        self.lost_count = slot.lost
        self.lost |= {counter for counter in gone if self.mine(counter)}
        self.front = slot.checkpoint_counter
        self.pieces = []
        self.landing = None
        self.parking = None
        self.interruptions = 0

    def interrupted(self, slot: Slot) -> None:
        """An attempt that never was: nothing is counted."""

    def interrupted_by_a_node(self, slot: Slot) -> None:
        self.interruptions += 1

    # ------------------------------------------------------------ what happens

    @rule(count=st.integers(1, 9))
    def append(self, count: int) -> None:
        first = self.rig.shard.next_counter
        counters = range(first, first + count)
        self.rig.put_keyed(*[(key_of(counter), payload_of(counter)) for counter in counters])
        self.arrivals += [self.rig.clock.epoch_ms] * count

    @rule(milliseconds=st.sampled_from([500, 2_000, 20_000, 45_000]))
    def wait(self, milliseconds: int) -> None:
        self.rig.clock.advance(milliseconds)

    @precondition(lambda self: len(self.rig.shard.blocks) > 1 and self.parking is None)
    @rule(seldom=SELDOM)
    def expire(self, seldom: bool) -> None:
        if seldom:
            self.rig.shard.expire(1)

    @rule(script=st.lists(MOVES, min_size=4, max_size=12))
    def run(self, script: list[tuple[str, int, str, str]]) -> None:
        for move in script:
            self.step(*move)

    def step(self, behaviour: str, index: int, fault: str, end: str) -> None:
        self.behaviour, self.index, self.fault, self.stores = behaviour, index, fault, 0
        self.rig.shard.broken = OSError(5, "Input/output error") if fault == "read fails" else None
        try:
            step = self.rig.step()
        except Killed:
            self.take_over(end)
        else:
            self.follow(step)
        finally:
            self.fault = "none"
            self.rig.shard.broken = None
        self.the_slot_is_what_the_model_says()

    @rule(end=st.sampled_from(ENDS))
    def die_between_steps(self, end: str) -> None:
        self.take_over(end)

    @rule(end=st.sampled_from(["reported", "clean stop"]), seldom=SELDOM)
    def die_twice_between_steps(self, end: str, seldom: bool) -> None:
        """The second holder ends before its first step: what the parent said of the first one is forgotten."""
        if seldom:
            self.take_over("reported")
            self.take_over(end)

    @rule()
    def resume_the_same_engine(self) -> None:
        self.resume()

    def follow(self, step: Step) -> None:
        """As a host does."""
        assert step.position == self.rig.slot.checkpoint
        if step.kind is StepKind.IDLE:
            assert not self.pieces
            assert step.read_offset == self.rig.shard.tail
            self.resume()
        elif step.kind is StepKind.WAIT:
            assert step.due_in_ms is not None
            self.rig.clock.advance(step.due_in_ms)
            if step.reason == "suspect":
                assert self.rig.slot.suspect
            self.resume(alone=step.reason == "suspect", window_over=step.reason == "window")

    def resume(self, **changes: Any) -> None:
        """A grant to the engine there is. What it held is void; an attempt that it began is one that nobody saw end."""
        self.landing = self.interrupted if self.rig.slot.state is SlotState.RUNNING else None
        self.rig.grant(**changes)

    def take_over(self, end: str) -> None:
        """The process is gone; the lease is granted anew."""
        rig = self.rig
        running = rig.slot.state is SlotState.RUNNING
        seen = rig.slot.worker_pid == rig.pid and rig.slot.epoch == rig.epoch
        death: Death | None = None
        if end == "reported":
            death = Death(rig.pid, None, EXIT)
        elif end == "timed out":
            death = Death(rig.pid, rig.slot.request_id, EXIT)
        elif end == "stale":
            death = Death(rig.pid, b"another request!", EXIT)
        counted = running and seen and end in ("reported", "timed out")
        went_down = end == "node killed"
        if counted:
            self.landing = self.failure
        elif running:
            self.landing = self.interrupted_by_a_node if went_down else self.interrupted
        else:
            self.landing = None
        if end in ("clean stop", "node killed"):
            rig.restart(clean=not went_down)
        else:
            rig.pid += 1
            rig.drop()
            rig.grant(death=death)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def the_slot_is_what_the_model_says(self) -> None:
        if not hasattr(self, "rig"):
            return
        slot = self.rig.slot
        # What is not the lease's may be settled with what lies around it, or later.
        between = range(self.front, slot.checkpoint_counter)
        assert not any(self.mine(counter) for counter in between)
        assert slot.checkpoint_counter >= self.front or not any(
            self.mine(counter) for counter in range(slot.checkpoint_counter, self.front)
        )
        counts = (len(self.succeeded), len(self.parked), len(self.dropped), self.lost_count)
        assert (slot.succeeded, slot.parked, slot.dropped, slot.lost) == counts
        settled = {counter for counter in range(1, self.front) if self.mine(counter)}
        assert self.succeeded | self.parked | self.dropped | self.lost == settled
        assert not self.succeeded & self.parked
        assert not self.succeeded & self.dropped
        if slot.state is SlotState.IDLE:
            assert not self.pieces
        else:
            assert [slot.count, *reversed(slot.stack)] == [piece.count for piece in self.pieces]
            begun = slot.state is SlotState.RUNNING
            assert slot.attempt == self.pieces[0].attempts + begun
            assert slot.interruptions == self.interruptions

    @invariant()
    def the_checkpoint_is_where_its_counter_says(self) -> None:
        if not hasattr(self, "rig"):
            return
        slot = self.rig.slot
        for block in self.rig.shard.blocks:
            if block.offset <= slot.checkpoint.offset < block.end:
                assert block.first_counter + slot.checkpoint.index == slot.checkpoint_counter

    def teardown(self) -> None:
        """With a function that works, everything is settled."""
        if not hasattr(self, "rig"):
            return
        self.behaviour, self.fault = "ok", "none"
        for _ in range(2000):
            step = self.rig.step()
            if step.kind is StepKind.IDLE:
                break
            if step.kind is StepKind.WAIT and step.due_in_ms is not None:
                self.rig.clock.advance(step.due_in_ms)
                self.resume(alone=True, window_over=True)
        else:
            raise AssertionError("never idle")
        assert self.rig.slot.checkpoint_counter == self.rig.shard.next_counter
        self.the_slot_is_what_the_model_says()


TestMappingModel = MappingMachine.TestCase
TestMappingModel.settings = settings(max_examples=300, stateful_step_count=30)
