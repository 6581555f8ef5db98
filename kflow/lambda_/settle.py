"""What follows from an attempt: the decision, and the slot that makes it durable. Pure functions.

    attempt ended
      |-- all done ---------------------------------------------> SUCCEED    settled: next piece, or gather
      |-- response names record k > 0 as first failed ----------> ADVANCE    settled up to k; the rest is a new batch
      |-- failed, bisect on, more than one record --------------> SPLIT      two pieces; costs no retry
      |-- failed, attempts left --------------------------------> RETRY      after a back-off
      |-- failed, none left ------------------------------------> GIVE_UP    parked (or dropped), then settled

A response that names the batch's first record as failed is an ordinary failed attempt: it is never halved.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.declarations import MappingOptions
from kflow.interfaces import FunctionError
from kflow.lambda_.gather import Gap
from kflow.lambda_.pieces import Piece
from kflow.lambda_.responses import Verdict
from kflow.records import Position

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


def unread(slot: Slot, error: FunctionError) -> Slot:
    """As `failed`, for a batch that cannot be read now: whoever reads it decides what follows."""
    return _failure(slot, error)


def split(slot: Slot, left: Piece, right: Piece, error: FunctionError) -> Slot:
    """The running attempt has failed and its batch is cut in two; the left part comes first, with all attempts."""
    slot = _failure(slot, error)
    return replace(slot, start=left.start, end=left.end, count=left.count, attempt=0, stack=(*slot.stack, right.count))


def cut(slot: Slot, left: Piece, right: Piece) -> Slot:
    """The batch is cut in two, and nothing was tried."""
    return replace(slot, start=left.start, end=left.end, count=left.count, stack=(*slot.stack, right.count))


class Fate(NamedTuple):
    """What became of settled records: how many of them succeeded, were parked, or are kept nowhere."""

    succeeded: int = 0
    parked: int = 0
    dropped: int = 0


def settled(
    slot: Slot,
    done: Piece,
    following: Piece | None,
    edge: tuple[Position, int],
    fate: Fate,
    *,
    attempt: int = 0,
) -> Slot:
    """`done` is settled: the checkpoint passes it.

    Args:
        slot: the state before.
        done: what is settled; begins at the checkpoint, or behind records that are not this lease's.
        following: the batch that comes next, where one is known: the rest of the same batch, or a piece of the stack
            (which the caller takes off).
        edge: up to where nothing is left to deliver, and the counter there, if nothing follows: past `done`, and what
            has been read behind it and is not this lease's.
        fate: what became of the records.
        attempt: failed attempts that the following batch has had.
    """
    succeeded, parked, dropped = fate
    if following is None:
        position, counter = edge
        return replace(
            slot,
            checkpoint=position,
            checkpoint_counter=counter,
            state=SlotState.IDLE,
            start=position,
            end=position,
            count=0,
            attempt=0,
            interruptions=0,
            succeeded=slot.succeeded + succeeded,
            parked=slot.parked + parked,
            dropped=slot.dropped + dropped,
            error_type="",
            error_message="",
        )
    return replace(
        slot,
        checkpoint=done.end,
        checkpoint_counter=done.end_counter,
        state=SlotState.FAILED,
        start=following.start,
        end=following.end,
        count=following.count,
        attempt=attempt,
        interruptions=0,
        succeeded=slot.succeeded + succeeded,
        parked=slot.parked + parked,
        dropped=slot.dropped + dropped,
    )


def scanned(slot: Slot, position: Position, counter: int) -> Slot:
    """Nothing is left to deliver before a position: the checkpoint moves there, and there is no batch."""
    return replace(
        slot,
        checkpoint=position,
        checkpoint_counter=counter,
        state=SlotState.IDLE,
        start=position,
        end=position,
        count=0,
        attempt=0,
        error_type="",
        error_message="",
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
        window_flags=0,
        error_type="",
        error_message="",
    )


def lost(slot: Slot, gap: Gap, count: int) -> Slot:
    """Retention (or damage) passed the checkpoint: it moves on, and `count` records are lost."""
    moved = replace(slot, checkpoint=gap.position, checkpoint_counter=gap.counter, lost=slot.lost + count)
    return void(moved)


def share(records: int, *, factor: int, lane: int) -> int:
    """How many of the records that are gone count as a lane's: nobody knows whose they were, and in sum it is right."""
    return (records + factor - 1 - lane) // factor


def _failure(slot: Slot, error: FunctionError) -> Slot:
    return replace(
        slot,
        state=SlotState.FAILED,
        interruptions=0,
        failures=slot.failures + 1,
        error_type=error.type,
        error_message=error.message,
    )
