"""Tumbling windows under crashes at every store: a window's state counts each of its records once, in order.

The function notes in the state which records it saw. Delivery is at least once, but state and checkpoint are one store:
whatever dies in between, the state that ends a window names exactly the records that were settled by success in it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.broker.checkpoints import Slot
from kflow.interfaces import FunctionError, Invocation, Outcome
from kflow.lambda_.mapping import StepKind
from tests.stepping import Killed, MemoryFunction, Rig

EXIT = FunctionError(type="Runtime.ExitError", message="Runtime exited")
FAULTS = ["none"] * 6 + ["store fails", "dies before store", "dies after store", "state fails", "dies after state"]
BEHAVIOURS = ["ok", "ok", "ok", "raise", "no state", "partial", "die"]

PUT = st.tuples(st.just("put"), st.integers(1, 5))
WAIT = st.tuples(st.just("wait"), st.sampled_from([100, 1_000, 7_000, 25_000]))
STEP = st.tuples(st.sampled_from(BEHAVIOURS), st.sampled_from(FAULTS), st.integers(1, 2))
RESTART = st.tuples(st.just("restart"), st.booleans())


class World:
    """One lease with windows of 10 s, and what is known of its records."""

    def __init__(self, **options: Any) -> None:
        self.rig = Rig(tumbling_window_in_seconds=10, report_batch_item_failures=True, **options)
        self.rig.scale = 0.1
        self.store, self.keep = self.rig.slots.store, self.rig.windows.put
        self.rig.slots.store = self.stored  # type: ignore[method-assign]
        self.rig.windows.put = self.kept  # type: ignore[method-assign]
        self.rig.function = Noting(self)
        self.window_of: dict[int, int] = {}  # by counter
        self.final: dict[int, list[int]] = {}  # by start of the window
        self.behaviour = self.fault = "none"
        self.fault_at = self.stores = 0
        self.rig.drop()
        self.rig.grant()

    def stored(self, shard: int, lane: int, slot: Slot) -> None:
        self.stores += 1
        hits = self.stores == self.fault_at
        if hits and self.fault == "store fails":
            raise OSError(28, "No space left on device")
        if hits and self.fault == "dies before store":
            raise Killed
        self.store(shard, lane, slot)
        if hits and self.fault == "dies after store":
            raise Killed

    def kept(self, function: str, stream_id: int, shard: int, number: int, state: bytes) -> None:
        if self.fault == "state fails":
            raise OSError(28, "No space left on device")
        self.keep(function, stream_id, shard, number, state)
        if self.fault == "dies after state":
            raise Killed

    def put(self, count: int) -> None:
        first = self.rig.shard.next_counter
        counters = range(first, first + count)
        self.rig.put(*[b"%d" % counter for counter in counters])
        for counter in counters:
            self.window_of[counter] = self.rig.shard.blocks[-1].arrival_ms // 10_000 * 10

    def step(self, behaviour: str, fault: str, fault_at: int) -> bool:
        """One step; False where all is done."""
        self.behaviour, self.fault, self.fault_at, self.stores = behaviour, fault, fault_at, 0
        try:
            step = self.rig.step()
        except Killed:
            self.fault = "none"
            self.rig.restart(clean=fault_at == 1)
            return True
        self.fault = "none"
        if step.kind in (StepKind.WAIT, StepKind.HOLD):
            self.rig.clock.advance(step.due_in_ms or 0)
        if step.kind in (StepKind.WAIT, StepKind.IDLE):
            self.rig.grant(alone=step.reason == "suspect")
        return step.kind is not StepKind.IDLE


class Noting(MemoryFunction):
    """Notes in the state what it was given; the state of a final call is what the window came to."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda datas: None, world.rig.clock)
        self.world = world

    def invoke(self, invocation: Invocation) -> Outcome:
        window, world = invocation.window, self.world
        assert window is not None
        counters = [int(record.data) for record in invocation.records]
        assert all(world.window_of[counter] == window.start_s for counter in counters)
        assert bool(counters) != window.is_final
        seen = window.state.setdefault("seen", [])
        assert not set(seen) & set(counters), "the state counts a record twice"
        if world.behaviour == "die":
            raise Killed
        if world.behaviour == "raise":
            seen += counters  # what a failed call did to its state is nobody's
            return Outcome(error=EXIT)
        if world.behaviour == "no state":
            return Outcome({"batchItemFailures": []})
        if world.behaviour == "partial" and len(counters) > 1:
            number = str(invocation.records[1].sequence_number)
            return Outcome({"state": {"seen": [*seen, counters[0]]}, "batchItemFailures": [{"itemIdentifier": number}]})
        if window.is_final:
            world.final[window.start_s] = list(seen)  # the same again, where its checkpoint is not written
        return Outcome(msgspec.json.decode(msgspec.json.encode({"state": {"seen": [*seen, *counters]}})))


@settings(max_examples=150, deadline=None)
@given(
    moves=st.lists(st.one_of(PUT, WAIT, STEP, STEP, STEP, RESTART), min_size=20, max_size=80),
    batch_size=st.integers(1, 4),
    bisect=st.booleans(),
    retries=st.sampled_from([-1, -1, 1]),
)
def test_the_state_that_ends_a_window_names_each_of_its_settled_records_once(
    moves: list[tuple[Any, ...]], batch_size: int, bisect: bool, retries: int
) -> None:
    world = World(batch_size=batch_size, bisect_batch_on_function_error=bisect, maximum_retry_attempts=retries)
    for move in moves:
        if move[0] == "put":
            world.put(move[1])
        elif move[0] == "wait":
            world.rig.clock.advance(move[1])
        elif move[0] == "restart":
            world.rig.restart(clean=move[1])
        else:
            world.step(*move)
    for _ in range(3000):
        if not world.step("ok", "none", 0):
            break
    else:
        raise AssertionError("never idle")
    slot = world.rig.slot
    parked = {int(record.data) for entry in world.rig.parking.entries for record in entry.records}
    assert slot.succeeded == len(world.window_of) - len(parked)
    for start_s, seen in world.final.items():
        settled = [c for c in world.window_of if world.window_of[c] == start_s and c not in parked]
        assert seen == settled
    assert (slot.window_start_s, slot.state_bytes, slot.window_flags) == (0, 0, 0)
    assert slot.checkpoint_counter == world.rig.shard.next_counter
