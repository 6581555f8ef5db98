"""The state of one lease in memory, and its changes: none is so before its slot is stored.

    a change -- `commit` --> stored: batch, outcomes and what is said next follow
                        |--> not stored: HELD, and stored again; the handler never runs again for it

Used by the engine and by `entering`; nothing here decides what happens to a batch.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkedBatch
from kflow.clock import Now
from kflow.errors import Damaged, StorageError
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.lambda_ import settle
from kflow.lambda_.batching import Batcher, Pause
from kflow.lambda_.consumer import Consumer
from kflow.lambda_.gather import Gap
from kflow.lambda_.grants import Grant, Slots, Step, StepKind
from kflow.lambda_.pieces import Piece
from kflow.lambda_.settle import Fate
from kflow.lambda_.takeover import counted_death
from kflow.lambda_.tumbling import Tumbling
from kflow.records import Position

log = logging.getLogger(__name__)

STORAGE_WAIT_MS: Final = 1_000
"""How long to wait before a write that failed is tried again."""


class Change(NamedTuple):
    """A slot to store, and what is so once it is stored.

    Attributes:
        slot: to store.
        piece: the batch at hand then.
        following: the pieces that come after it, the next one last.
        outcome: what people are told.
        error: what the batch failed with last.
        state: state of the window, kept before the slot, which names it.
        then: what the host does next, where that is known.
    """

    slot: Slot
    piece: Piece | None = None
    following: tuple[Piece, ...] = ()
    outcome: BatchOutcome | None = None
    error: FunctionError | None = None
    state: bytes | None = None
    then: Pause | None = None


class Work:
    """One lease as its holder sees it.

    Attributes:
        consumer: whose it is.
        lane: which lane of the shard.
        batcher: forms its batches.
        tumbling: its tumbling windows, if it has some.
        grant: under which it is held.
        entering: whether the slot is still to be read.
        slot: as it was last stored or read.
        piece: the batch at hand.
        following: the pieces of the same batch that come after it, the next one last.
        error: what the batch failed with last, in full, if that is known.
        unwritten: a change that could not be stored.
        duration_us: of the last attempt.
        not_before_ms: monotonic time before which the batch is not tried again.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        lane: int,
        factor: int,
        slots: Slots,
        batcher: Batcher,
        tumbling: Tumbling | None,
    ) -> None:
        """Make it, with nothing read.

        Args:
            consumer: whose the lease is.
            lane: which lane of the shard.
            factor: how many lanes there are.
            slots: where its state is kept.
            batcher: forms its batches.
            tumbling: its tumbling windows, if it has some.
        """
        self.consumer = consumer
        self.lane = lane
        self.batcher = batcher
        self.tumbling = tumbling
        self.grant = Grant(0, 0)
        self.entering = True
        self.slot = Slot()
        self.piece: Piece | None = None
        self.following: tuple[Piece, ...] = ()
        self.error: FunctionError | None = None
        self.unwritten: Change | None = None
        self.duration_us = 0
        self.not_before_ms = 0
        self._factor = factor
        self._slots = slots
        self._outcomes: list[BatchOutcome] = []

    @property
    def batch(self) -> Piece:
        """The batch at hand."""
        if self.piece is None:
            raise ValueError("there is no batch")
        return self.piece

    @property
    def last_error(self) -> FunctionError:
        """Why the batch failed last: in full, or what of it the slot has kept."""
        return self.error or FunctionError(type=self.slot.error_type, message=self.slot.error_message)

    def load(self) -> Slot:
        """Read the slot; where it is not what was last seen, what has been read ahead means nothing.

        Raises:
            OSError, StorageError: it cannot be read.
        """
        slot = self._slots.load(self.consumer.shard, self.lane)
        if slot is not self.slot or slot.state is SlotState.RUNNING:
            self.slot = slot
            self.go_on_at(slot.checkpoint, slot.checkpoint_counter)
        return slot

    def before(self) -> Slot | None:
        """The slot before it was last stored, if that is known."""
        return self._slots.before(self.consumer.shard, self.lane)

    def store(self, slot: Slot) -> None:
        """Make a slot durable.

        Raises:
            OSError, StorageError: it was not stored, and nothing has changed.
        """
        self._slots.store(self.consumer.shard, self.lane, slot)
        self.slot = slot

    def go_on_at(self, position: Position, counter: int) -> None:
        """Drop what has been read, and the batch; gathering goes on at a position."""
        self.batcher.restart(position, counter)
        self.piece = None
        self.following = ()
        self.error = None

    def settled(
        self,
        slot: Slot,
        piece: Piece,
        count: int,
        told: BatchOutcome,
        fate: Fate,
        *,
        attempt: int = 0,
        returned: bytes | None = None,
    ) -> Change:
        """The change by which the first `count` records of the batch are settled.

        Args:
            slot: the state before.
            piece: the batch.
            count: how many records at its front; the rest is tried as a new batch.
            told: what people are told.
            fate: what became of the records.
            attempt: failed attempts that the rest has had.
            returned: state of the tumbling window that the handler returned: it goes with the checkpoint.
        """
        after = self.following
        error = None
        following: Piece | None = None
        if count < piece.count:
            piece, following = piece.split(count)
            error = self.error
        elif after:
            following, after = after[-1], after[:-1]
            slot = replace(slot, stack=slot.stack[:-1])
            attempt = 0
        state = None
        tumbling = self.tumbling
        if tumbling is not None and returned is not None:
            if not piece.count:
                slot = tumbling.ended(slot)
            else:
                slot, state = tumbling.accepted(slot, returned)
                if slot.window_flags:  # the window ends early: that comes first
                    if following is not None:
                        after = (*after, following)
                        slot = replace(slot, stack=(*slot.stack, following.count))
                    following = Piece([], (), 0, (piece.end, piece.end_counter))
        moved = settle.settled(slot, piece, following, self.batcher.gatherer.edge, fate, attempt=attempt)
        return Change(moved, following, after, told, error, state)

    def cut(self, count: int) -> Change:
        """The change by which the batch goes on with its first `count` records, and the others come after them."""
        left, right = self.batch.split(count)
        return Change(settle.cut(self.slot, left, right), left, (*self.following, right), error=self.error)

    def parked(self, slot: Slot, piece: Piece, count: int, entry: ParkedBatch) -> Change:
        """The change by which the first `count` records of the batch are settled, which have been parked."""
        told = self.consumer.parked(piece.front(count), entry, duration_us=self.duration_us)
        # Records that expire leave their batch as it is otherwise: the rest keeps the attempts it has had.
        return self.settled(slot, piece, count, told, Fate(parked=count), attempt=slot.attempt)

    def commit(self, change: Change, now: Now) -> Step:
        """Store the slot; only then is it so. What cannot be stored is held: the handler never runs again for it."""
        was_suspect = self.slot.suspect
        tumbling = self.tumbling
        try:
            if change.state is not None and tumbling is not None:
                tumbling.keep(change.slot, change.state)
            self.store(change.slot)
        except (OSError, StorageError) as error:
            if self.unwritten is None:
                log.warning("an outcome cannot be written, and is held function=%s: %s", self.consumer.function, error)
            self.unwritten = change
            return self.say(StepKind.HOLD, STORAGE_WAIT_MS, "storage", detail=str(error))
        self.unwritten = None
        if change.state is not None and tumbling is not None:
            tumbling.tidy(change.slot)
        self.piece, self.following, self.error = change.piece, change.following, change.error
        if change.outcome is not None:
            self._outcomes.append(change.outcome)
        if change.then is not None:
            if change.then.reason == "backoff":
                self.not_before_ms = now.monotonic_ms + (change.then.due_in_ms or 0)
            return self.say(*change.then)
        if was_suspect and self.grant.alone:
            return self.say(StepKind.WAIT, 0, "alone")
        gatherer = self.batcher.gatherer
        if change.piece is None and not gatherer.held and not gatherer.has_more and not change.slot.window_start_s:
            return self.say(StepKind.IDLE)
        return self.say(StepKind.AGAIN)

    def void(self, now: Now, why: str, slot: Slot) -> Step:
        """The batch means nothing any more; what is known of its last attempt is still said."""
        consumer = self.consumer
        log.warning(
            "batch is formed anew function=%s stream=%s shard=%s: %s",
            consumer.function,
            consumer.stream,
            consumer.shard_id,
            why,
        )
        error = counted_death(slot, self.grant)
        told = None
        if error is not None:
            told = consumer.told(BatchResult.FAILED, slot.count, attempt=slot.attempt, error=error)
            slot = replace(slot, failures=slot.failures + 1)
        self.entering = False
        self.go_on_at(slot.checkpoint, slot.checkpoint_counter)
        return self.commit(Change(settle.void(slot), outcome=told), now)

    def lose(self, gap: Gap, now: Now) -> Step:
        """Record that retention passed the checkpoint, and go on behind what it removed."""
        slot, consumer = self.slot, self.consumer
        error = counted_death(slot, self.grant)
        if error is not None:
            slot = replace(slot, failures=slot.failures + 1)
        count = settle.share(gap.records, factor=self._factor, lane=self.lane)
        told = None
        if count or error is not None:
            log.warning(
                "records are gone before they were settled function=%s stream=%s shard=%s count=%d",
                consumer.function,
                consumer.stream,
                consumer.shard_id,
                count,
            )
            told = consumer.told(BatchResult.LOST, count, error=error)
        self.entering = False
        self.go_on_at(gap.position, gap.counter)
        return self.commit(Change(settle.lost(slot, gap, count), outcome=told), now)

    def blocked(self, error: Exception) -> Step:
        """The storage stands in the way, before anything was decided: wait, and look at the slot again."""
        # A death is told once: the lease is kept until it has been counted.
        keep = self.entering and self.grant.death is not None
        self.entering = True
        if isinstance(error, Damaged) and error.offset is not None and (not keep or self._have_counted_death()):
            return self.say(StepKind.WAIT, STORAGE_WAIT_MS, "damage", detail=str(error), damaged_at=error.offset)
        return self.say(StepKind.HOLD if keep else StepKind.WAIT, STORAGE_WAIT_MS, "storage", detail=str(error))

    def _have_counted_death(self) -> bool:
        """Note the attempt that a death ended, though its batch cannot be read; False where that cannot be stored."""
        error = counted_death(self.slot, self.grant)
        try:
            if error is not None:
                self.store(settle.unread(self.slot, error))
        except (OSError, StorageError):
            return False  # the lease is held, and all of it tried again
        return True

    def say(
        self,
        kind: StepKind,
        due_in_ms: int | None = None,
        reason: str = "",
        want_counter: int = 0,
        *,
        detail: str = "",
        damaged_at: int = -1,
    ) -> Step:
        """What the host is told, with the outcomes that have become durable."""
        outcomes = tuple(self._outcomes)
        if outcomes:
            self._outcomes.clear()
        read_offset = self.batcher.gatherer.read_offset
        checkpoint = self.slot.checkpoint
        return Step(kind, due_in_ms, reason, checkpoint, read_offset, want_counter, outcomes, detail, damaged_at)
