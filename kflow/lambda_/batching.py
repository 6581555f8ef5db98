"""When the next batch is there: batching windows, tumbling windows, and how far a lane may run ahead of the others.

    nothing more to read, nothing held ---------> IDLE, or WAIT "tumbling" while a tumbling window is open
    lanes of the shard are too far behind ------> WAIT "look-ahead", unless something is held: that goes out
    batching window open, batch not full -------> WAIT "window"
    tumbling window over -----------------------> a piece without records: the call that ends it
    else ---------------------------------------> a piece, within one tumbling window and one event

Source: documented: Lambda Developer Guide, batching behavior, tumbling windows; chosen: what they leave open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kflow.broker.checkpoints import Slot
from kflow.clock import Now
from kflow.declarations import MappingOptions
from kflow.lambda_.gather import Gap, Gatherer
from kflow.lambda_.grants import Grant, StepKind
from kflow.lambda_.pieces import Piece
from kflow.lambda_.tumbling import Tumbling
from kflow.records import Position

Floor = Callable[[], tuple[Position, int]]
"""The least checkpoint of a shard's lanes, with its counter."""

AHEAD_BATCHES: Final = 10
AHEAD_BYTES: Final = 64 << 20
"""How far a lane reads past the least checkpoint of its shard: so many batches of each lane, or so many bytes."""

_FIRST_WAIT_MS: Final = 50
_LAST_WAIT_MS: Final = 10_000


class Pause(NamedTuple):
    """There is no batch: what the host is told instead."""

    kind: StepKind
    due_in_ms: int | None = None
    reason: str = ""
    want_counter: int = 0


class LookAhead:
    """Keeps a lane from running too far ahead of its shard's other lanes: a blocked lane finally blocks the shard."""

    def __init__(self, floor: Floor, *, records: int) -> None:
        """Make it.

        Args:
            floor: asks for the least checkpoint; called only where the last answer does not allow to read on.
            records: how many records a lane may be ahead.
        """
        self._ask = floor
        self._records = records
        self._floor = (Position(0, 0), 0)
        self._wait_ms = _FIRST_WAIT_MS

    def allows(self, offset: int, counter: int) -> bool:
        """Whether a lane that has read up to `offset`, where `counter` is, may read on.

        Raises:
            StorageError: the other lanes' slots cannot be read.
        """
        if self._within(offset, counter):
            return True
        floor = self._ask()
        if floor != self._floor:
            self._floor, self._wait_ms = floor, _FIRST_WAIT_MS
        return self._within(offset, counter)

    def wait_ms(self) -> int:
        """How long to wait before the other lanes are looked at again: longer each time that they stood still."""
        wait, self._wait_ms = self._wait_ms, min(2 * self._wait_ms, _LAST_WAIT_MS)
        return wait

    def _within(self, offset: int, counter: int) -> bool:
        position, floor_counter = self._floor
        return counter - floor_counter <= self._records and offset - position.offset <= AHEAD_BYTES


class Batcher:
    """Forms batches out of what a `Gatherer` holds.

    Attributes:
        gatherer: reads the shard.
        completed_ms: monotonic time at which the last batch of this lease ended; batching windows start there.
    """

    def __init__(
        self, options: MappingOptions, gatherer: Gatherer, *, tumbling: Tumbling | None, floor: Floor | None
    ) -> None:
        """Make it.

        Args:
            options: of the mapping.
            gatherer: reads the shard.
            tumbling: the tumbling windows, where the mapping has some.
            floor: the least checkpoint of the shard's lanes; None where there is one lane.
        """
        self.gatherer = gatherer
        self.completed_ms: int | None = None
        self._batch_size = options.batch_size
        self._window_ms = options.maximum_batching_window_in_seconds * 1_000
        self._window_end_ms: int | None = None
        self._tumbling = tumbling
        self._look_ahead = None
        if floor is not None:
            records = AHEAD_BATCHES * options.batch_size * options.parallelization_factor
            self._look_ahead = LookAhead(floor, records=records)

    def restart(self, position: Position, counter: int) -> None:
        """Forget what has been read and begin at `position`, whose record has `counter`."""
        self.gatherer.restart(position, counter)
        self._window_end_ms = None

    def form(self, now: Now, grant: Grant, slot: Slot) -> Piece | Gap | Pause:
        """The next batch, by at most one read; or what is missing before it, or what there is to wait for.

        Args:
            now: both clocks.
            grant: says which windows are over.
            slot: where the lease stands; has no batch.

        Raises:
            OSError, StorageError: the shard or the slots cannot be read; nothing has changed.
        """
        gatherer = self.gatherer
        wanted = self._batch_size
        held_back = False
        if not gatherer.has(wanted) and gatherer.has_more:
            ahead = self._look_ahead
            if ahead is None or ahead.allows(gatherer.read_offset, gatherer.counter):
                gap = gatherer.fill()
                if gap is not None:
                    return gap
                if not gatherer.has(wanted) and not gatherer.caught_up:
                    return Pause(StepKind.AGAIN)
            elif gatherer.held:
                held_back = True
            else:
                return Pause(StepKind.WAIT, ahead.wait_ms(), "look-ahead")
        within = gatherer.held
        besides = 0
        if self._tumbling is not None:
            ends = self._ends(now, slot, self._tumbling)
            if ends is not None:
                return ends
            if within:
                within = gatherer.before(self._tumbling.end_ms(slot, gatherer.arrival_ms))
            besides = self._tumbling.event_bytes(slot)
        if not within:
            return Pause(StepKind.IDLE)
        fitting = gatherer.fitting(min(wanted, within), besides_bytes=besides)
        is_cut = held_back or fitting < gatherer.held or fitting == wanted
        if self._window_ms and not is_cut and not (grant.window_over or grant.window_due):
            due = self._due(now)
            if due > 0:
                return Pause(StepKind.WAIT, due, "window", gatherer.counter + wanted - gatherer.held)
        self._window_end_ms = None
        return gatherer.take(fitting)

    def _ends(self, now: Now, slot: Slot, tumbling: Tumbling) -> Piece | Pause | None:
        """The call that ends the open window, or the wait for its end; None where records of it are held."""
        gatherer = self.gatherer
        if not slot.window_start_s:
            return None
        end_ms = tumbling.end_ms(slot)
        if gatherer.held and gatherer.before(end_ms):
            return None
        due = end_ms + tumbling.grace_ms - now.epoch_ms
        if gatherer.held or gatherer.at_end or due < 0:
            return Piece([], (), 0, (slot.checkpoint, slot.checkpoint_counter))
        return Pause(StepKind.WAIT, due + 1, "tumbling", gatherer.counter + 1)

    def _due(self, now: Now) -> int:
        """How long the batching window has still to go, in milliseconds; 0 where it is over.

        Windows follow each other from the last completion on; one that ends with nothing to deliver starts the next.
        Source: documented: a window starts when the previous invocation ends; chosen: the rest.
        """
        if self._window_end_ms is None:
            elapsed = now.monotonic_ms - (self.completed_ms or 0)
            self._window_end_ms = now.monotonic_ms + self._window_ms - elapsed % self._window_ms
        return max(0, self._window_end_ms - now.monotonic_ms)
