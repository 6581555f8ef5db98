"""Taking over a lease: what the slot says is brought into memory, and what its last holder left is concluded.

The first step under a grant reads the slot: a batch that it names is read again, and so is the state of its window; an
attempt that it says is running has ended, one way or another (`takeover`).
"""

from __future__ import annotations

import logging

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.windows import precedes
from kflow.clock import Now
from kflow.interfaces import FunctionError
from kflow.lambda_.gather import Gap
from kflow.lambda_.grants import Parking, Step, StepKind
from kflow.lambda_.pieces import Piece
from kflow.lambda_.shapes import Shape
from kflow.lambda_.takeover import counted_death, interrupted, parked_records
from kflow.lambda_.tumbling import dropped
from kflow.lambda_.work import Change, Work

log = logging.getLogger(__name__)

SUSPECT_WAIT_MS = 10_000
"""How long a batch waits that is suspected of bringing nodes down."""


class Entering:
    """Takes over one lease, under each grant anew."""

    def __init__(self, work: Work, *, membership: int, parking: Parking, shape: Shape) -> None:
        """Make it.

        Args:
            work: the lease.
            membership: hash of the options that decide which records are in a batch.
            parking: where the last holder may have parked the batch.
            shape: how records are shown to the handler.
        """
        self._work = work
        self._membership = membership
        self._parking = parking
        self._shape = shape

    def enter(self, now: Now) -> Step | FunctionError | None:
        """Take over from whoever held the lease before.

        Returns:
            None: go on with the batch, or gather. An error: of the attempt that was running, which counts.

        Raises:
            OSError, StorageError: something cannot be read or written; calling again goes on.
        """
        work = self._work
        if work.batcher.completed_ms is None:
            work.batcher.completed_ms = now.monotonic_ms - work.grant.since_completion_ms
        slot = work.load()
        entered: Step | FunctionError | None = None
        if slot.window_start_s:
            entered = self._enter_window(slot, now)
        if entered is None and work.slot.state is not SlotState.IDLE:
            entered = self._enter_batch(work.slot, now)
        if entered is None:
            work.entering = False
        return entered

    def _enter_window(self, slot: Slot, now: Now) -> Step | None:
        """Have the state of the open window at hand, or what can be had of it."""
        work = self._work
        tumbling, consumer = work.tumbling, work.consumer
        if tumbling is None:
            log.warning("an open window is dropped: there are no windows any more function=%s", consumer.function)
            work.store(dropped(slot))
            return None
        if tumbling.find(slot):
            return None
        before = work.before()
        if before is not None and precedes(before, slot) and tumbling.find(before):
            return work.void(
                now,
                "the state of its window is damaged, and goes back to the one before",
                replace(
                    slot,
                    checkpoint=before.checkpoint,
                    checkpoint_counter=before.checkpoint_counter,
                    state_number=before.state_number,
                    state_crc=before.state_crc,
                    state_bytes=before.state_bytes,
                ),
            )
        log.error(
            "the state of a window is gone: the window restarts function=%s stream=%s shard=%s",
            consumer.function,
            consumer.stream,
            consumer.shard_id,
        )
        work.store(replace(slot, state_crc=0, state_bytes=0))
        return None

    def _enter_batch(self, slot: Slot, now: Now) -> Step | FunctionError | None:
        work = self._work
        if slot.membership != self._membership:
            return work.void(now, "batches are formed otherwise now", slot)
        if work.piece is None:
            found = work.batcher.gatherer.take_again((slot.count, *reversed(slot.stack)))
            if isinstance(found, Gap):
                return work.lose(found, now)
            if found is not None and not slot.count:
                found[0] = Piece([], (), 0, (slot.checkpoint, slot.checkpoint_counter))
            if found is None or (found[0].start, found[0].end) != (slot.start, slot.end):
                return work.void(now, "its records are not what they were", slot)
            work.piece, work.following = found[0], tuple(reversed(found[1:]))
        if slot.state is SlotState.FAILED:
            work.error = work.error or work.grant.last_error
            parked = self._parked_already(slot, work.piece)
            if parked is not None:
                work.entering = False
                return work.commit(parked, now)
        else:
            error = counted_death(slot, work.grant)
            if error is not None:
                work.entering = False
                return error
            work.store(interrupted(slot, work.grant))
        if work.slot.suspect and not work.grant.alone:
            return work.say(StepKind.WAIT, SUSPECT_WAIT_MS, "suspect")
        return None

    def _parked_already(self, slot: Slot, piece: Piece) -> Change | None:
        """The change that settles what the last holder parked just before it ended, if it did."""
        work, consumer = self._work, self._work.consumer
        if not piece.count:
            return None
        entry = self._parking.find(consumer.function, consumer.stream_id, consumer.shard, piece.counter)
        count = parked_records(slot, piece, entry, self._shape)
        return None if entry is None or not count else work.parked(slot, piece, count, entry)
