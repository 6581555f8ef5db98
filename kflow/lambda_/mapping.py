"""The event source mapping of one shard: from stored records to settled ones, one step at a time.

                      resume(grant)
                           |
                         ENTER      reads the slot
                           |-- idle ------------------------------------------------------> GATHER
                           |-- failed ---- parked already? then exactly that range is settled --> PIECE or GATHER
                           |-- running --- its death was reported: a failed attempt ------> conclude, as below
                           |-- running --- nobody saw it end: an interruption, never counted, never parked
                           |-- three interruptions by nodes that went down: WAIT "suspect" until granted alone
                           |-- batches are formed otherwise now, or retention passed it: void --> GATHER
      +--------------------v
      |  +-----------> GATHER ---- nothing to read: IDLE ---- batching window open: WAIT "window"
      |  |                 v
      |  |  +--------> PIECE ----- expired prefix, all attempts spent, above the event limit --> PARK
      |  |  |              v
      |  |  |          INTENT ---- cannot be written: WAIT "storage", uncounted
      |  |  |              v
      |  |  |          invoke ---- the process may die here: the slot says RUNNING
      |  |  |              v
      |  |  |          conclude -- all done ------------------------------> SETTLE
      |  |  |              |------ partial at k > 0 ----------------------> SETTLE k, the rest is a new PIECE
      |  |  |              |------ bisect: left PIECE, right onto the stack
      |  |  |              |------ attempts left: WAIT "backoff", then PIECE
      |  |  |              +------ spent: PARK
      |  |  |          PARK ------ cannot be written: WAIT "storage", uncounted
      |  |  |              v
      |  |  +--------- SETTLE ---- cannot be written: HOLD the outcome, write again
      |  |   stack         |
      |  +-----------------+  nothing left of the batch
      +-- retention passed what was to be read next: recorded as lost

Every arrow into SETTLE, and every failure, is one slot store; nothing is told, and nothing follows, before it is
durable. The engine has no clock and no thread: whoever holds the lease calls `step` with the time. Delivery is at least
once: a success that is killed before its checkpoint is delivered again.

Source: documented: Lambda Developer Guide, event source mappings for Kinesis; chosen: what it leaves open.
"""

from __future__ import annotations

import logging
import os
from typing import Final, NamedTuple

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkCondition, ParkedBatch
from kflow.broker.sequence import shard_id
from kflow.clock import Now
from kflow.declarations import MappingOptions
from kflow.errors import StorageError
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError, Invocation, Invoker, Outcome
from kflow.lambda_ import settle
from kflow.lambda_.consumer import Consumer
from kflow.lambda_.event_size import record_bytes
from kflow.lambda_.gather import Gap, Gatherer, Source
from kflow.lambda_.grants import Death, Grant, Parking, Slots, Step, StepKind
from kflow.lambda_.pieces import Piece
from kflow.lambda_.responses import Verdict, judge
from kflow.lambda_.settle import Action
from kflow.lambda_.shapes import Shape
from kflow.lambda_.takeover import counted_death, interrupted, membership, parked_records
from kflow.records import Position

__all__ = ["Death", "EventSourceMapping", "Grant", "Step", "StepKind"]

log = logging.getLogger(__name__)

STORAGE_WAIT_MS: Final = 1_000
"""How long to wait before a write that failed is tried again."""

SUSPECT_WAIT_MS: Final = 10_000
"""How long a batch waits that is suspected of bringing nodes down."""

_TOO_LARGE = FunctionError(
    type="RequestTooLargeException",
    message="Request must be smaller than 6291456 bytes for the InvokeFunction operation",
)


class _Change(NamedTuple):
    """A slot to store, and what is so once it is stored."""

    slot: Slot
    piece: Piece | None = None
    following: tuple[Piece, ...] = ()
    outcome: BatchOutcome | None = None
    error: FunctionError | None = None
    wait_ms: int = 0


class EventSourceMapping:
    """The engine of one lease. Not thread-safe; hosted by whoever holds the lease, kept or dropped between grants."""

    def __init__(
        self,
        *,
        options: MappingOptions,
        function: str,
        stream: str,
        stream_id: int,
        shard: int,
        source: Source,
        slots: Slots,
        invoker: Invoker,
        parking: Parking,
        shape: Shape,
        lane: int = 0,
        retry_backoff_scale: float = 1.0,
    ) -> None:
        """Make the engine; `resume` comes before the first `step`.

        Args:
            options: of the mapping.
            function: name of the function.
            stream: name of the stream.
            stream_id: its id.
            shard: index of the shard.
            source: reads the shard.
            slots: where the lease's state is kept.
            invoker: runs the function.
            parking: where records go that are given up.
            shape: how records are shown to the handler.
            lane: which lane of the shard.
            retry_backoff_scale: factor on the waits between attempts; 0 for none.
        """
        retries = options.maximum_retry_attempts
        self._options = options
        self._consumer = Consumer(
            function=function,
            stream=stream,
            stream_id=stream_id,
            shard=shard,
            shard_id=shard_id(shard),
            attempts_allowed=retries + 1 if retries >= 0 else -1,
            shape=shape,
        )
        self._lane = lane
        self._slots = slots
        self._invoker = invoker
        self._parking = parking
        self._shape = shape
        self._scale = retry_backoff_scale
        self._membership = membership(options)
        self._window_ms = options.maximum_batching_window_in_seconds * 1_000
        self._age_ms = options.maximum_record_age_in_seconds * 1_000
        self._gatherer = Gatherer(source, shape, record_bytes=record_bytes(stream=stream, function=function))
        self._grant = Grant(0, 0)
        self._entering = True
        self._slot = Slot()
        self._piece: Piece | None = None
        self._following: tuple[Piece, ...] = ()
        self._unwritten: _Change | None = None
        self._outcomes: list[BatchOutcome] = []
        self._error: FunctionError | None = None
        self._duration_us = 0
        self._not_before_ms = 0
        self._completed_ms: int | None = None
        self._window_end_ms: int | None = None

    def resume(self, grant: Grant) -> None:
        """Begin with a grant. What an earlier grant left unwritten is void: the slot says what is so.

        The slot is read by the first `step`. What has been read ahead is kept where the slot has not changed since.
        """
        if self._unwritten is not None:
            self._unwritten = None
            self._slot = Slot()  # what is in memory is ahead of the slot: read everything again
        self._grant = grant
        self._entering = True
        self._duration_us = 0
        self._not_before_ms = 0
        self._completed_ms = None

    def step(self, now: Now) -> Step:
        """Do one unit of work: at most one invocation.

        What the invoker raises passes through (a worker that is told to exit), and the slot then says RUNNING. Errors
        of the storage never pass through.

        Args:
            now: both clocks.
        """
        if self._unwritten is not None:
            return self._commit(self._unwritten, now)
        try:
            prepared = self._prepare(now)
        except (OSError, StorageError) as error:
            return self._blocked(error)
        if isinstance(prepared, Step):
            return prepared
        return self._conclude(now, self._invoker.invoke(prepared))

    def _prepare(self, now: Now) -> Invocation | Step:
        """What to invoke, with the intent written; or what was to be done instead."""
        if self._entering:
            entered = self._enter(now)
            if entered is not None:
                return entered
        if self._piece is None:
            waiting = self._gather(now)
            if waiting is not None:
                return waiting
        return self._attempt(now)

    # ------------------------------------------------------------------ enter

    def _enter(self, now: Now) -> Step | None:
        """Take over from whoever held the lease before. None: go on with the batch, or gather."""
        if self._completed_ms is None:
            self._completed_ms = now.monotonic_ms - self._grant.since_completion_ms
        slot = self._slots.load(self._consumer.shard, self._lane)
        if slot is not self._slot or slot.state is SlotState.RUNNING:
            self._slot = slot
            self._go_on_at(slot.checkpoint, slot.checkpoint_counter)
        if slot.state is not SlotState.IDLE:
            entered = self._enter_batch(slot, now)
            if entered is not None:
                return entered
        self._entering = False
        return None

    def _enter_batch(self, slot: Slot, now: Now) -> Step | None:
        if slot.membership != self._membership:
            return self._void(now, "batches are formed otherwise now")
        if self._piece is None:
            found = self._gatherer.take_again((slot.count, *reversed(slot.stack)))
            if isinstance(found, Gap):
                return self._lose(found, now)
            if found is None or (found[0].start, found[0].end) != (slot.start, slot.end):
                return self._void(now, "its records are not what they were")
            self._piece, self._following = found[0], tuple(reversed(found[1:]))
        if slot.state is SlotState.FAILED:
            self._error = self._error or self._grant.last_error
            parked = self._parked_already(slot, self._piece)
            if parked is not None:
                self._entering = False
                return self._commit(parked, now)
        else:
            error = counted_death(slot, self._grant)
            if error is not None:
                self._entering = False
                return self._conclude_failure(now, Verdict(0, error))
            self._store(interrupted(slot, self._grant))
        if self._slot.suspect and not self._grant.alone:
            return self._say(StepKind.WAIT, SUSPECT_WAIT_MS, "suspect")
        return None

    def _parked_already(self, slot: Slot, piece: Piece) -> _Change | None:
        """The change that settles what the last holder parked just before it ended, if it did."""
        consumer = self._consumer
        entry = self._parking.find(consumer.function, consumer.stream_id, consumer.shard, piece.counter)
        count = parked_records(slot, piece, entry)
        return None if entry is None or not count else self._parked(slot, piece, count, entry)

    def _void(self, now: Now, why: str) -> Step:
        """The batch means nothing any more; what is known of its last attempt is still said."""
        slot, consumer = self._slot, self._consumer
        log.warning(
            "batch is formed anew function=%s stream=%s shard=%s: %s",
            consumer.function,
            consumer.stream,
            consumer.shard_id,
            why,
        )
        error = counted_death(slot, self._grant)
        told = None
        if error is not None:
            told = consumer.told(BatchResult.FAILED, slot.count, attempt=slot.attempt, error=error)
            slot = replace(slot, failures=slot.failures + 1)
        self._entering = False
        self._go_on_at(slot.checkpoint, slot.checkpoint_counter)
        return self._commit(_Change(settle.void(slot), outcome=told), now)

    # ------------------------------------------------------------------ gather

    def _gather(self, now: Now) -> Step | None:
        """Form the next batch, by at most one read. None: it is there."""
        gatherer = self._gatherer
        wanted = self._options.batch_size
        if gatherer.held < wanted and gatherer.has_more:
            gap = gatherer.fill()
            if gap is not None:
                return self._lose(gap, now)
            if gatherer.held < wanted and not gatherer.caught_up:
                return self._say(StepKind.AGAIN)
        if not gatherer.held:
            return self._say(StepKind.IDLE)
        fitting = gatherer.fitting(wanted)
        grant = self._grant
        if self._window_ms and fitting == gatherer.held < wanted and not (grant.window_over or grant.window_due):
            due = self._window_due(now)
            if due > 0:
                return self._say(StepKind.WAIT, due, "window", gatherer.counter + wanted - gatherer.held)
        self._window_end_ms = None
        if grant.window_due:
            self._grant = grant._replace(window_due=False)
        self._piece = gatherer.take(fitting)
        return None

    def _window_due(self, now: Now) -> int:
        """How long the batching window has still to go, in milliseconds; 0 where it is over.

        Windows follow each other from the last completion on; one that ends with nothing to deliver starts the next.
        Source: documented: a window starts when the previous invocation ends; chosen: the rest.
        """
        if self._window_end_ms is None:
            elapsed = now.monotonic_ms - (self._completed_ms or 0)
            self._window_end_ms = now.monotonic_ms + self._window_ms - elapsed % self._window_ms
        return max(0, self._window_end_ms - now.monotonic_ms)

    def _lose(self, gap: Gap, now: Now) -> Step:
        """Record that retention passed the checkpoint, and go on behind what it removed."""
        slot, consumer = self._slot, self._consumer
        error = counted_death(slot, self._grant)
        if error is not None:
            slot = replace(slot, failures=slot.failures + 1)
        moved = settle.lost(slot, gap)
        count = moved.lost - slot.lost
        log.warning(
            "retention removed records before they were settled function=%s stream=%s shard=%s count=%d",
            consumer.function,
            consumer.stream,
            consumer.shard_id,
            count,
        )
        self._entering = False
        self._go_on_at(gap.position, gap.counter)
        return self._commit(_Change(moved, outcome=consumer.told(BatchResult.LOST, count, error=error)), now)

    # ------------------------------------------------------------------ attempt

    def _attempt(self, now: Now) -> Invocation | Step:
        """Write the intent of the next attempt at the batch; or give up what must not be attempted."""
        slot, piece, consumer = self._slot, self._some_piece(), self._consumer
        remaining = self._not_before_ms - now.monotonic_ms
        if remaining > 0:
            return self._say(StepKind.WAIT, remaining, "backoff")
        attempts = slot.attempt if slot.state is SlotState.FAILED else 0
        if settle.is_spent(self._options, attempts):
            return self._park(now, piece.count, ParkCondition.RETRY_ATTEMPTS_EXHAUSTED, self._last_error())
        if self._age_ms > 0:
            expired = piece.older_than(now.epoch_ms - self._age_ms)
            if expired:
                error = self._last_error() if attempts else None
                return self._park(now, expired, ParkCondition.RECORD_AGE_EXCEEDED, error)
        if piece.count == 1 and not self._gatherer.fits(piece):
            return self._park(now, 1, ParkCondition.RETRY_ATTEMPTS_EXHAUSTED, _TOO_LARGE)
        request_id = new_request_id()
        self._store(
            settle.running(
                slot,
                piece,
                attempt=attempts + 1,
                request_id=request_id,
                membership=self._membership,
                worker_pid=self._grant.worker_pid,
                epoch=self._grant.epoch,
            )
        )
        return Invocation(request_id, piece.records, consumer.stream, consumer.shard_id, attempts + 1)

    def _conclude(self, now: Now, outcome: Outcome) -> Step:
        """An attempt has ended: make durable what follows from it."""
        slot, piece = self._slot, self._some_piece()
        self._duration_us = outcome.duration_us
        self._completed_ms = now.monotonic_ms + outcome.duration_us // 1_000
        report = self._options.report_batch_item_failures
        verdict = judge(outcome, piece, self._shape, report_batch_item_failures=report)
        if verdict.error is not None:
            self._piece = piece.rebuilt(self._shape)
            return self._conclude_failure(now, verdict)
        told = self._consumer.succeeded(piece, attempt=slot.attempt, duration_us=outcome.duration_us)
        return self._commit(self._settled(slot, piece, piece.count, told, succeeded=piece.count), now)

    def _conclude_failure(self, now: Now, verdict: Verdict) -> Step:
        slot, piece, error = self._slot, self._some_piece(), verdict.error
        if error is None:
            raise ValueError("a failure has an error")
        action = settle.decide(self._options, count=piece.count, attempt=slot.attempt, verdict=verdict)
        result = _RESULTS.get(action, BatchResult.FAILED)
        told = self._consumer.failed(result, piece, verdict, attempt=slot.attempt, duration_us=self._duration_us)
        if action is Action.ADVANCE:
            return self._commit(self._settled(slot, piece, verdict.done, told, succeeded=verdict.done), now)
        if action is Action.SPLIT:
            left, right = piece.split(piece.count // 2)
            change = _Change(settle.split(slot, left, right, error), left, (*self._following, right), told)
            return self._commit(change, now)
        failed = _Change(settle.failed(slot, piece, error), piece, self._following, error=error)
        if action is Action.GIVE_UP:
            return self._commit(failed, now)  # people are told when it is parked
        wait_ms = settle.backoff_ms(slot.attempt, self._scale)
        return self._commit(failed._replace(outcome=told, wait_ms=wait_ms), now)

    def _park(self, now: Now, count: int, condition: ParkCondition, error: FunctionError | None) -> Step:
        """Give up the first `count` records of the batch.

        The slot names the batch before the parked file exists, so that whoever comes next looks for the file.
        """
        piece = self._some_piece()
        if self._slot.state is not SlotState.FAILED:
            self._store(settle.kept(self._slot, piece, membership=self._membership))
        slot = self._slot
        entry = self._consumer.entry(piece.front(count), slot, condition, error, now_ms=now.epoch_ms)
        number = self._parking.park(entry)
        return self._commit(self._parked(slot, piece, count, replace(entry, number=number)), now)

    # ------------------------------------------------------------------ settle

    def _parked(self, slot: Slot, piece: Piece, count: int, entry: ParkedBatch) -> _Change:
        told = self._consumer.parked(piece.front(count), entry, duration_us=self._duration_us)
        # Records that expire leave their batch as it is otherwise: the rest keeps the attempts it has had.
        return self._settled(slot, piece, count, told, parked=count, attempt=slot.attempt)

    def _settled(
        self,
        slot: Slot,
        piece: Piece,
        count: int,
        told: BatchOutcome,
        *,
        succeeded: int = 0,
        parked: int = 0,
        attempt: int = 0,
    ) -> _Change:
        """The change by which the first `count` records of the batch are settled."""
        after = self._following
        error = None
        following: Piece | None = None
        if count < piece.count:
            piece, following = piece.split(count)
            error = self._error
        elif after:
            following, after = after[-1], after[:-1]
            slot = replace(slot, stack=slot.stack[:-1])
            attempt = 0
        moved = settle.settled(slot, piece, following, succeeded=succeeded, parked=parked, attempt=attempt)
        return _Change(moved, following, after, told, error)

    def _commit(self, change: _Change, now: Now) -> Step:
        """Store the slot; only then is it so. What cannot be stored is held: the handler never runs again for it."""
        was_suspect = self._slot.suspect
        try:
            self._store(change.slot)
        except (OSError, StorageError) as error:
            if self._unwritten is None:
                log.warning("an outcome cannot be written, and is held function=%s: %s", self._consumer.function, error)
            self._unwritten = change
            return self._say(StepKind.HOLD, STORAGE_WAIT_MS, "storage", detail=str(error))
        self._unwritten = None
        self._piece, self._following, self._error = change.piece, change.following, change.error
        if change.outcome is not None:
            self._outcomes.append(change.outcome)
        if change.wait_ms > 0:
            self._not_before_ms = now.monotonic_ms + change.wait_ms
            return self._say(StepKind.WAIT, change.wait_ms, "backoff")
        if was_suspect and self._grant.alone:
            return self._say(StepKind.WAIT, 0, "alone")
        gatherer = self._gatherer
        if change.piece is None and not gatherer.held and not gatherer.has_more:
            return self._say(StepKind.IDLE)
        return self._say(StepKind.AGAIN)

    def _store(self, slot: Slot) -> None:
        self._slots.store(self._consumer.shard, self._lane, slot)
        self._slot = slot

    def _go_on_at(self, position: Position, counter: int) -> None:
        """Drop what has been read, and the batch; gathering goes on at a position."""
        self._gatherer.restart(position, counter)
        self._piece = None
        self._following = ()
        self._error = None
        self._window_end_ms = None

    def _blocked(self, error: Exception) -> Step:
        """The storage stands in the way, before anything was decided: wait, and look at the slot again."""
        # A death is told once: the lease is kept until it has been counted.
        keep = self._entering and self._grant.death is not None
        self._entering = True
        return self._say(StepKind.HOLD if keep else StepKind.WAIT, STORAGE_WAIT_MS, "storage", detail=str(error))

    def _say(
        self, kind: StepKind, due_in_ms: int | None = None, reason: str = "", want_counter: int = 0, detail: str = ""
    ) -> Step:
        outcomes = tuple(self._outcomes)
        if outcomes:
            self._outcomes.clear()
        read_offset = self._gatherer.read_offset
        return Step(kind, due_in_ms, reason, self._slot.checkpoint, read_offset, want_counter, outcomes, detail)

    @property
    def last_error(self) -> FunctionError | None:
        """What the batch at the checkpoint failed with last, in full; None where it did not fail."""
        return self._error

    def _last_error(self) -> FunctionError:
        """Why the batch failed last: in full, or what of it the slot has kept."""
        slot = self._slot
        return self._error or FunctionError(type=slot.error_type, message=slot.error_message)

    def _some_piece(self) -> Piece:
        if self._piece is None:
            raise ValueError("there is no batch")
        return self._piece


_RESULTS: Final = {Action.ADVANCE: BatchResult.PARTIAL, Action.SPLIT: BatchResult.BISECT}


def new_request_id() -> bytes:
    """A random UUID, version 4, 16 bytes."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
