"""What follows from an attempt: the decision, and the slot that makes it durable. Pure functions.

    attempt ended
      |-- all done ---------------------------------------------> SUCCEED    settled: next piece, or gather
      |-- response names record k > 0 as first failed ----------> ADVANCE    settled up to k; the rest is a new batch
      |-- failed, bisect on, more than one record --------------> SPLIT      two pieces; costs no retry
      |-- failed, attempts left --------------------------------> RETRY      after a back-off
      |-- failed, none left ------------------------------------> GIVE_UP    parked, then settled

A response that names the batch's first record as failed is an ordinary failed attempt: it is never halved.
"""

from __future__ import annotations

import enum

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.declarations import MappingOptions
from kflow.interfaces import FunctionError
from kflow.lambda_.gather import Gap
from kflow.lambda_.pieces import Piece
from kflow.lambda_.responses import Verdict

_BACKOFF_MS = (1_000, 2_000, 4_000, 8_000, 10_000)
"""Waits after the first, second ... failed attempt; the last one stays. Chosen: AWS does not publish its own."""


class Action(enum.Enum):
    """What follows from an attempt; drawn in the module's docstring."""

    SUCCEED = "succeed"
    ADVANCE = "advance"
    SPLIT = "split"
    RETRY = "retry"
    GIVE_UP = "give up"


def decide(options: MappingOptions, *, count: int, attempt: int, verdict: Verdict) -> Action:
    """What follows from an attempt.

    Args:
        options: of the mapping.
        count: records in the batch.
        attempt: which attempt it was, from 1.
        verdict: what it came to.

    Source: documented: Lambda Developer Guide, Kinesis error handling; order of the rules chosen.
    """
    if verdict.error is None:
        return Action.SUCCEED
    if verdict.is_partial and verdict.done > 0:
        return Action.ADVANCE
    if options.bisect_batch_on_function_error and count > 1 and not verdict.is_partial:
        return Action.SPLIT
    return Action.GIVE_UP if is_spent(options, attempt) else Action.RETRY


def is_spent(options: MappingOptions, attempts: int) -> bool:
    """Whether so many failed attempts are all that a batch is allowed."""
    return 0 <= options.maximum_retry_attempts < attempts


def backoff_ms(attempts: int, scale: float) -> int:
    """How long to wait after so many failed attempts, in milliseconds."""
    return int(_BACKOFF_MS[min(attempts, len(_BACKOFF_MS)) - 1] * scale)


def running(
    slot: Slot, piece: Piece, *, attempt: int, request_id: bytes, membership: int, worker_pid: int, epoch: int
) -> Slot:
    """The intent, written before an invocation: who tries what, for which time."""
    return replace(
        slot,
        state=SlotState.RUNNING,
        start=piece.start,
        end=piece.end,
        count=piece.count,
        attempt=attempt,
        request_id=request_id,
        membership=membership,
        worker_pid=worker_pid,
        epoch=epoch,
        delivered=slot.delivered + piece.count,
        invocations=slot.invocations + 1,
    )


def kept(slot: Slot, piece: Piece, *, membership: int) -> Slot:
    """A batch that has been gathered and not tried."""
    return replace(
        slot,
        state=SlotState.FAILED,
        start=piece.start,
        end=piece.end,
        count=piece.count,
        attempt=0,
        membership=membership,
    )


def failed(slot: Slot, piece: Piece, error: FunctionError) -> Slot:
    """The running attempt has failed, and somebody saw how."""
    return replace(_failure(slot, error), start=piece.start, end=piece.end, count=piece.count)


def split(slot: Slot, left: Piece, right: Piece, error: FunctionError) -> Slot:
    """The running attempt has failed and its batch is cut in two; the left part comes first, with all attempts."""
    slot = _failure(slot, error)
    return replace(slot, start=left.start, end=left.end, count=left.count, attempt=0, stack=(*slot.stack, right.count))


def settled(
    slot: Slot, done: Piece, following: Piece | None, *, succeeded: int = 0, parked: int = 0, attempt: int = 0
) -> Slot:
    """`done` is settled: the checkpoint passes it.

    Args:
        slot: the state before.
        done: what is settled; begins at the checkpoint.
        following: the batch that comes next, where one is known: the rest of the same batch, or a piece of the stack
            (which the caller takes off).
        succeeded: how many of the records by success.
        parked: how many by parking.
        attempt: failed attempts that the following batch has had.
    """
    end = done.end
    if following is None:
        return replace(
            slot,
            checkpoint=end,
            checkpoint_counter=done.end_counter,
            state=SlotState.IDLE,
            start=end,
            end=end,
            count=0,
            attempt=0,
            interruptions=0,
            succeeded=slot.succeeded + succeeded,
            parked=slot.parked + parked,
            error_type="",
            error_message="",
        )
    return replace(
        slot,
        checkpoint=end,
        checkpoint_counter=done.end_counter,
        state=SlotState.FAILED,
        start=following.start,
        end=following.end,
        count=following.count,
        attempt=attempt,
        interruptions=0,
        succeeded=slot.succeeded + succeeded,
        parked=slot.parked + parked,
    )


def void(slot: Slot) -> Slot:
    """The batch, its attempts and its stack mean nothing any more: gathering restarts at the checkpoint."""
    return replace(
        slot,
        state=SlotState.IDLE,
        start=slot.checkpoint,
        end=slot.checkpoint,
        count=0,
        attempt=0,
        interruptions=0,
        stack=(),
        error_type="",
        error_message="",
    )


def lost(slot: Slot, gap: Gap) -> Slot:
    """Retention passed the checkpoint: it moves on, and what was not settled is counted as lost."""
    count = max(0, gap.counter - slot.checkpoint_counter)
    moved = replace(slot, checkpoint=gap.position, checkpoint_counter=gap.counter, lost=slot.lost + count)
    return void(moved)


def _failure(slot: Slot, error: FunctionError) -> Slot:
    return replace(
        slot,
        state=SlotState.FAILED,
        interruptions=0,
        failures=slot.failures + 1,
        error_type=error.type,
        error_message=error.message,
    )
