"""The event source mapping of one lane of one shard: from stored records to settled ones, one step at a time.

                      resume(grant)
                           |
                         ENTER      reads the slot (`entering`), and the state of an open tumbling window
                           |-- idle ------------------------------------------------------> GATHER
                           |-- failed ---- parked already? then exactly that range is settled --> PIECE or GATHER
                           |-- running --- its death was reported: a failed attempt ------> conclude, as below
                           |-- running --- nobody saw it end: an interruption, never counted, never parked
                           |-- three interruptions by nodes that went down: WAIT "suspect" until granted alone
                           |-- batches are formed otherwise now, or retention passed it: void --> GATHER
      +--------------------v
      |  +-----------> GATHER      takes what is of this lane and passes the filters (`batching`)
      |  |                 |------ nothing to read: SCAN past what was not taken, then IDLE or WAIT "tumbling"
      |  |                 |------ WAIT "window", "look-ahead"
      |  |                 |------ a tumbling window is over: a PIECE without records, FINAL
      |  |                 v
      |  |  +--------> PIECE ----- expired prefix, all attempts spent, above the event limit --> GIVE UP
      |  |  |              |------ the function may not run now: WAIT "throttled", uncounted
      |  |  |              v           `look` ends here: a batch is at hand
      |  |  |          INTENT ---- cannot be written: WAIT "storage", uncounted
      |  |  |              v
      |  |  |          invoke ---- the process may die here: the slot says RUNNING
      |  |  |              v
      |  |  |          conclude -- all done ------------------------------> SETTLE, with the state returned
      |  |  |              |------ partial at k > 0 ----------------------> SETTLE k, the rest is a new PIECE
      |  |  |              |------ bisect: left PIECE, right onto the stack
      |  |  |              |------ attempts left: WAIT "backoff", then PIECE
      |  |  |              +------ spent: GIVE UP
      |  |  |          GIVE UP --- parked, which cannot be written: WAIT "storage", uncounted; or dropped
      |  |  |              v           a FINAL piece has no records: its window is dropped with its state
      |  |  +--------- SETTLE ---- cannot be written: HOLD the outcome, write again
      |  |   stack         |------ the state returned is too large: a PIECE without records, FINAL and EARLY, comes next
      |  +-----------------+  nothing left of the batch
      +-- retention (or damage) took what was to be read next: recorded as lost

Every arrow into SETTLE, and every failure, is one slot store; nothing is told, and nothing follows, before it is
durable. The engine has no clock and no thread: whoever holds the lease calls `step` with the time. Delivery is at least
once: a success that is killed before its checkpoint is delivered again.

Source: documented: Lambda Developer Guide, event source mappings for Kinesis; chosen: what it leaves open.
"""

from __future__ import annotations

import logging
from typing import Final

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkCondition
from kflow.broker.sequence import shard_id
from kflow.clock import Now
from kflow.declarations import MappingOptions
from kflow.errors import StorageError
from kflow.interfaces import BatchResult, FunctionError, Invocation, Invoker, Outcome
from kflow.lambda_ import settle
from kflow.lambda_.batching import Batcher, Floor, Pause
from kflow.lambda_.consumer import Consumer
from kflow.lambda_.entering import Entering
from kflow.lambda_.event_size import record_bytes
from kflow.lambda_.gather import Gap, Gatherer
from kflow.lambda_.grants import Death, Grant, Parking, Slots, Step, StepKind, Windows
from kflow.lambda_.pieces import Piece
from kflow.lambda_.requests import new_request_id, request_text
from kflow.lambda_.responses import Verdict, judge
from kflow.lambda_.selection import selection_for
from kflow.lambda_.settle import Action, Fate
from kflow.lambda_.shapes import Shape
from kflow.lambda_.sources import Source
from kflow.lambda_.takeover import membership
from kflow.lambda_.tumbling import tumbling_for
from kflow.lambda_.work import Change, Work

__all__ = ["Death", "EventSourceMapping", "Grant", "Step", "StepKind"]

log = logging.getLogger(__name__)

SCAN_BYTES: Final = 8 << 20
"""Where nothing is taken of what is read, the checkpoint follows after so many bytes."""

THROTTLED_MS: Final = 3_600_000
"""A batch whose function may not run is looked at again after this long at the latest."""

_TOO_LARGE = FunctionError(
    type="RequestTooLargeException",
    message="Request must be smaller than 6291456 bytes for the InvokeFunction operation",
)
_RESULTS: Final = {Action.ADVANCE: BatchResult.PARTIAL, Action.SPLIT: BatchResult.BISECT}


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
        floor: Floor | None = None,
        windows: Windows | None = None,
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
            floor: the least checkpoint of the shard's lanes and its counter; without it a lane runs ahead unbounded.
            windows: where states of tumbling windows are kept; needed for a mapping that has them.
        """
        retries = options.maximum_retry_attempts
        consumer = Consumer(
            function=function,
            stream=stream,
            stream_id=stream_id,
            shard=shard,
            shard_id=shard_id(shard),
            attempts_allowed=retries + 1 if retries >= 0 else -1,
            shape=shape,
        )
        gatherer = Gatherer(
            source,
            shape,
            record_bytes=record_bytes(stream=stream, function=function),
            selection=selection_for(options, lane, shape),
        )
        tumbling = tumbling_for(options, consumer, windows)
        self._options = options
        self._invoker = invoker
        self._parking = parking
        self._shape = shape
        self._scale = retry_backoff_scale
        self._membership = membership(options)
        self._age_ms = options.maximum_record_age_in_seconds * 1_000
        self._gatherer = gatherer
        self._tumbling = tumbling
        self._consumer = consumer
        self._work = Work(
            consumer,
            lane=lane,
            factor=options.parallelization_factor,
            slots=slots,
            batcher=Batcher(options, gatherer, tumbling=tumbling, floor=floor),
            tumbling=tumbling,
        )
        self._entering = Entering(self._work, membership=self._membership, parking=parking, shape=shape)

    def resume(self, grant: Grant) -> None:
        """Begin with a grant. What an earlier grant left unwritten is void: the slot says what is so.

        The slot is read by the first `step`. What has been read ahead is kept where the slot has not changed since.
        """
        work = self._work
        if work.unwritten is not None:
            work.unwritten = None
            work.slot = Slot()  # what is in memory is ahead of the slot: read everything again
        work.grant = grant
        work.entering = True
        work.duration_us = 0
        work.not_before_ms = 0
        work.batcher.completed_ms = None

    def step(self, now: Now) -> Step:
        """Do one unit of work: at most one invocation.

        What the invoker raises passes through (a worker that is told to exit), and the slot then says RUNNING. Errors
        of the storage never pass through.

        Args:
            now: both clocks.
        """
        waiting = self.look(now)
        if waiting is not None:
            return waiting
        try:
            invocation = self._intend()
        except (OSError, StorageError) as error:
            return self._work.blocked(error)
        return self._conclude(now, self._invoker.invoke(invocation))

    def look(self, now: Now) -> Step | None:
        """As `step`, but stop before an attempt.

        Args:
            now: both clocks.

        Returns:
            None: a batch is at hand, and the next `step` attempts it.
        """
        work = self._work
        if work.unwritten is not None:
            return work.commit(work.unwritten, now)
        try:
            return self._ready(now)
        except (OSError, StorageError) as error:
            return work.blocked(error)

    def _ready(self, now: Now) -> Step | None:
        """Come to where a batch can be tried; or do, and say, what is to be done instead."""
        work = self._work
        if work.entering:
            entered = self._entering.enter(now)
            if isinstance(entered, FunctionError):
                return self._conclude_failure(now, Verdict(0, entered))
            if entered is not None:
                return entered
        if work.piece is None:
            waiting = self._gather(now)
            if waiting is not None:
                return waiting
        held = self._hold_back(now)
        if held is None and self._work.grant.throttled:
            return self._work.say(StepKind.WAIT, self._until_it_ages(now), "throttled")
        return held

    # ------------------------------------------------------------------ gather

    def _gather(self, now: Now) -> Step | None:
        """Form the next batch, by at most one read. None: it is there."""
        work = self._work
        formed = work.batcher.form(now, work.grant, work.slot)
        if isinstance(formed, Piece):
            work.piece = formed
            if work.grant.window_due:
                work.grant = work.grant._replace(window_due=False)
            return None
        if isinstance(formed, Gap):
            return work.lose(formed, now)
        return self._scan(formed, now) or work.say(*formed)

    def _scan(self, pause: Pause, now: Now) -> Step | None:
        """Settle what has been read, if none of it is to be delivered; None where there is nothing to store."""
        work = self._work
        gatherer, checkpoint = self._gatherer, work.slot.checkpoint
        position, counter = gatherer.edge
        if gatherer.held or position == checkpoint:
            return None
        if pause.kind is StepKind.AGAIN and position.offset - checkpoint.offset < SCAN_BYTES:
            return None
        return work.commit(Change(settle.scanned(work.slot, position, counter), then=pause), now)

    # ------------------------------------------------------------------ attempt

    def _hold_back(self, now: Now) -> Step | None:
        """Wait for the next attempt at the batch, or give up what must not be attempted; None: it is to be tried."""
        work = self._work
        slot, piece = work.slot, work.batch
        remaining = work.not_before_ms - now.monotonic_ms
        if remaining > 0:
            return work.say(StepKind.WAIT, remaining, "backoff")
        attempts = slot.attempt if slot.state is SlotState.FAILED else 0
        is_spent = settle.is_spent(self._options, attempts)
        if not piece.count:
            return self._hold_back_end(now, attempts, is_spent=is_spent)
        if is_spent:
            return self._give_up(now, piece.count, ParkCondition.RETRY_ATTEMPTS_EXHAUSTED, work.last_error)
        if self._age_ms > 0:
            expired = piece.older_than(now.epoch_ms - self._age_ms)
            if expired:
                error = work.last_error if attempts else None
                return self._give_up(now, expired, ParkCondition.RECORD_AGE_EXCEEDED, error)
        besides = 0 if self._tumbling is None else self._tumbling.event_bytes(slot)
        if besides and piece.count > 1 and slot.state is SlotState.FAILED and not attempts:
            fitting = self._gatherer.fitting_of(piece, besides_bytes=besides)
            if fitting < piece.count:  # the state has grown since the batch was formed
                return work.commit(work.cut(fitting), now)
        if piece.count == 1 and not self._gatherer.fits(piece, besides_bytes=besides):
            return self._give_up(now, 1, ParkCondition.RETRY_ATTEMPTS_EXHAUSTED, _TOO_LARGE)
        return None

    def _until_it_ages(self, now: Now) -> int:
        """How long the batch at hand can wait before a record of it is too old, milliseconds.

        Source: documented: a throttle uses up no attempt and does not bisect; only age and retention limit it.
        """
        piece = self._work.batch
        if self._age_ms <= 0 or not piece.count:
            return THROTTLED_MS
        return max(1, min(piece.arrival_ms + self._age_ms + 1 - now.epoch_ms, THROTTLED_MS))

    def _hold_back_end(self, now: Now, attempts: int, *, is_spent: bool) -> Step | None:
        """The call that ends a window has no records to park: where it is given up, its window is dropped.

        Source: chosen: the age of such a call counts from the window's end, and it is tried at least once.
        """
        work = self._work
        tumbling, slot, consumer = self._tumbling, work.slot, self._consumer
        if tumbling is None:
            raise ValueError("there are no windows")
        is_old = attempts and 0 < self._age_ms < now.epoch_ms - tumbling.end_ms(slot)
        if not is_spent and not is_old:
            return None
        error = work.last_error
        log.warning(
            "a window is dropped with its state: the call that ends it failed function=%s stream=%s shard=%s",
            consumer.function,
            consumer.stream,
            consumer.shard_id,
        )
        told = consumer.told(BatchResult.DROPPED, 0, attempt=slot.attempt, error=error)
        return work.commit(work.settled(tumbling.ended(slot), work.batch, 0, told, Fate()), now)

    def _intend(self) -> Invocation:
        """Write the intent of the next attempt at the batch."""
        work = self._work
        slot, piece, tumbling = work.slot, work.batch, self._tumbling
        attempt = 1 + (slot.attempt if slot.state is SlotState.FAILED else 0)
        if tumbling is not None:
            slot = tumbling.opened(slot, piece)
        request_id = new_request_id()
        work.store(
            settle.running(
                slot,
                piece,
                attempt=attempt,
                request_id=request_id,
                membership=self._membership,
                worker_pid=work.grant.worker_pid,
                epoch=work.grant.epoch,
            )
        )
        window = None if tumbling is None else tumbling.window(work.slot)
        consumer = self._consumer
        return Invocation(request_id, piece.records, consumer.stream, consumer.shard_id, attempt, window=window)

    def _conclude(self, now: Now, outcome: Outcome) -> Step:
        """An attempt has ended: make durable what follows from it."""
        work = self._work
        slot, piece = work.slot, work.batch
        work.duration_us = outcome.duration_us
        work.batcher.completed_ms = now.monotonic_ms + outcome.duration_us // 1_000
        verdict = judge(
            outcome,
            piece.count,
            lambda: piece.numbers(self._shape),
            report_batch_item_failures=self._options.report_batch_item_failures,
            windowed=self._tumbling is not None,
        )
        if verdict.error is not None:
            if verdict.error.reported and not verdict.error.request_id:
                named = replace(verdict.error, request_id=request_text(slot.request_id))
                verdict = verdict._replace(error=named)
            work.piece = piece.rebuilt(self._shape)
            return self._conclude_failure(now, verdict)
        told = self._consumer.succeeded(piece, attempt=slot.attempt, duration_us=outcome.duration_us)
        fate = Fate(succeeded=piece.count)
        return work.commit(work.settled(slot, piece, piece.count, told, fate, returned=verdict.state), now)

    def _conclude_failure(self, now: Now, verdict: Verdict) -> Step:
        work = self._work
        slot, piece, error = work.slot, work.batch, verdict.error
        if error is None:
            raise ValueError("a failure has an error")
        action = settle.decide(self._options, count=piece.count, attempt=slot.attempt, verdict=verdict)
        result = _RESULTS.get(action, BatchResult.FAILED)
        told = self._consumer.failed(result, piece, verdict, attempt=slot.attempt, duration_us=work.duration_us)
        if action is Action.ADVANCE:
            fate = Fate(succeeded=verdict.done)
            return work.commit(work.settled(slot, piece, verdict.done, told, fate, returned=verdict.state), now)
        if action is Action.SPLIT:
            left, right = piece.split(piece.count // 2)
            change = Change(settle.split(slot, left, right, error), left, (*work.following, right), told)
            return work.commit(change, now)
        failed = Change(settle.failed(slot, piece, error), piece, work.following, error=error)
        if action is Action.GIVE_UP:
            return work.commit(failed, now)  # people are told when it is given up
        wait_ms = settle.backoff_ms(slot.attempt, self._scale)
        if wait_ms > 0:
            failed = failed._replace(then=Pause(StepKind.WAIT, wait_ms, "backoff"))
        return work.commit(failed._replace(outcome=told), now)

    def _give_up(self, now: Now, count: int, condition: ParkCondition, error: FunctionError | None) -> Step:
        """Give up the first `count` records of the batch: park them, or drop them.

        The slot names the batch before a parked file exists, so that whoever comes next looks for the file.
        """
        work = self._work
        slot, piece = work.slot, work.batch
        if self._options.on_failure == "drop":
            told = self._consumer.dropped(
                piece.front(count), attempt=slot.attempt, error=error, duration_us=work.duration_us
            )
            if slot.state is not SlotState.FAILED:
                slot = settle.kept(slot, piece, membership=self._membership)
            # As after parking, what expires leaves its batch as it is otherwise.
            return work.commit(work.settled(slot, piece, count, told, Fate(dropped=count), attempt=slot.attempt), now)
        if slot.state is not SlotState.FAILED:
            work.store(settle.kept(slot, piece, membership=self._membership))
        slot = work.slot
        entry = self._consumer.entry(piece.front(count), slot, condition, error, now_ms=now.epoch_ms)
        number = self._parking.park(entry)
        return work.commit(work.parked(slot, piece, count, replace(entry, number=number)), now)

    def take_polled(self) -> tuple[int, int]:
        """How many records of the lane were read since this was asked last, and how many of them were filtered out."""
        gatherer = self._gatherer
        found = gatherer.polled, gatherer.filtered
        gatherer.polled = gatherer.filtered = 0
        return found

    @property
    def last_error(self) -> FunctionError | None:
        """What the batch at the checkpoint failed with last, in full; None where it did not fail."""
        return self._work.error
