"""What a new holder of a lease makes of the batch that its slot names. Pure functions.

A slot that says RUNNING was left by a holder that ended inside an attempt. Whether that was a failed attempt depends on
who saw it end: only a wait status that the parent reported counts, and where the node did the killing, only for the
very invocation that it timed out. All else (a stop, a reload, the death of the node or the zygote) is an interruption:
the batch is delivered again, the attempt never was, and nothing is ever parked for it.
"""

from __future__ import annotations

import hashlib

from msgspec.structs import replace

from kflow.broker.checkpoints import Slot, SlotState
from kflow.broker.parked import ParkedBatch
from kflow.declarations import MappingOptions
from kflow.interfaces import FunctionError
from kflow.lambda_.grants import Grant
from kflow.lambda_.pieces import Piece
from kflow.lambda_.shapes import Shape


def counted_death(slot: Slot, grant: Grant) -> FunctionError | None:
    """The error of the attempt that the slot says is running, if its end was seen and counts."""
    death = grant.death
    if death is None or slot.state is not SlotState.RUNNING:
        return None
    if (slot.epoch, slot.worker_pid) != (grant.epoch, death.worker_pid):
        return None
    return death.error if death.request_id in (None, slot.request_id) else None


def interrupted(slot: Slot, grant: Grant) -> Slot:
    """The running attempt ended and nobody saw how: it never was.

    Only interruptions by nodes that went down make a batch suspect: the batch may be what brings them down.
    """
    went_down = slot.epoch != grant.epoch and not grant.previous_epoch_clean
    return replace(slot, state=SlotState.FAILED, attempt=slot.attempt - 1, interruptions=slot.interruptions + went_down)


def parked_records(slot: Slot, piece: Piece, entry: ParkedBatch | None, shape: Shape) -> int:
    """How many records at the front of the batch the last holder parked before it ended; 0 for none.

    A file of an earlier pass over the same records is not taken for its: it was parked when this consumer had parked
    fewer. Nor is one of other records in the same place, from before the lanes or the filters changed.
    """
    if entry is None or entry.first_counter != piece.counter or entry.parked_before != slot.parked:
        return 0
    count = len(entry.records)
    if count > piece.count:
        return 0
    numbers = [record.sequence_number for record in entry.records]
    return count if piece.front(count).numbers(shape) == numbers else 0


def membership(options: MappingOptions) -> int:
    """A hash of the options that decide which records are in a batch (not of those that decide what follows)."""
    text = f"1 {options.batch_size} {options.maximum_batching_window_in_seconds}"
    further = (options.parallelization_factor, options.tumbling_window_in_seconds, options.filters)
    if further != (1, 0, ()):
        text += f" {further}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
