"""What a slot holds, and its bytes: two copies of 256, each complete by itself.

    copy:  crc u32 | version, state, stack depth, length of the error's type: u8 each | write count u64 |
           shard u32 | lane u16 | length of the error's message u8 | window flags u8 |
           checkpoint offset, its counter, start offset, end offset: u64 each |
           checkpoint, start and end index, count, worker pid, attempt, interruptions: u32 each |
           epoch u64 | membership u64 | six totals u64 | request id, 16 bytes | stack u16[14] |
           dropped u64 | window start, state number, its CRC, its length: u32 each | 4 bytes of zero | error, 36 bytes

Version 1 had 64 bytes of error text, and nothing of windows and drops: such copies are read, and no longer written.

The CRC starts from a seed that stands for the function and the stream, and a copy names its shard and lane: one that
lies in the wrong place is not valid there.
"""

from __future__ import annotations

import enum
import struct
from typing import Any, Final

import msgspec
from crc32c import crc32c

from kflow.records import BEGIN_COUNTER, Position

STACK_LIMIT: Final = 14
"""Pending right halves of a bisected batch: halving 10,000 records leaves at most 14."""

SUSPECT_INTERRUPTIONS: Final = 3
"""After so many interruptions of one batch by nodes that did not stop cleanly, it is suspected of causing them."""

COPY_BYTES: Final = 256
SLOT_BYTES: Final = 2 * COPY_BYTES

_VERSION: Final = 2
_TEXT_BYTES: Final = 36
_TYPE_BYTES: Final = 32
_COPY = struct.Struct("<I4BQIHBB4Q7IQQ6Q16s28sQ4I4x36s")
_COPY_1 = struct.Struct("<I4BQIHBB4Q7IQQ6Q16s28s64s")
_STACK = struct.Struct("<14H")
_CRC = struct.Struct("<I")
_NO_STACK: Final = bytes(28)
_NO_REQUEST: Final = bytes(16)
_ORIGIN: Final = Position(0, 0)


class SlotState(enum.IntEnum):
    """What a slot says about the batch behind its checkpoint."""

    IDLE = 0
    """No batch: gathering restarts at the checkpoint."""
    RUNNING = 1
    """`attempt` at the batch has begun; how it ended is not known."""
    FAILED = 2
    """The batch is kept and not running; `attempt` attempts at it have failed (0 for a piece not tried yet)."""


class WindowFlag(enum.IntFlag):
    """What the batch of a tumbling window is, beyond its records."""

    FINAL = 1
    """It is the call that ends the window; it has no records."""
    EARLY = 2
    """The window goes on after it, with a fresh state: its state grew too large."""


class Slot(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The durable state of one lease.

    Attributes:
        checkpoint: everything before it is settled.
        checkpoint_counter: counter of the next record to settle.
        state: of the batch at the checkpoint.
        worker_pid: process that wrote this.
        epoch: epoch of the node that granted the lease to it.
        start: before the batch's first record.
        end: past its last.
        count: records in the batch.
        attempt: the running attempt, or the failed ones, from 1.
        interruptions: ends of attempts at this batch that nobody saw, with a node that did not stop cleanly.
        request_id: of the running or last attempt.
        stack: record counts of the pieces that follow the batch, the next one last.
        membership: hash of the options that decided which records are in the batch.
        succeeded: records settled by success, ever.
        delivered: records handed to attempts, ever; counted before the attempt.
        invocations: attempts begun, ever.
        failures: attempts that failed, ever.
        parked: records parked, ever.
        lost: records that retention removed before they were settled, ever.
        dropped: records given up and kept nowhere, ever.
        window_start_s: where the open tumbling window begins, seconds since the epoch; 0 where none is open.
        state_number: number of the side file that was written last for this slot; rises as long as the slot lives.
        state_crc: CRC32C of the window's state.
        state_bytes: length of that state; 0 for the fresh one, which has no side file.
        window_flags: of the batch, see `WindowFlag`.
        error_type: of the last failed attempt at the batch; cut to fit.
        error_message: likewise.
    """

    checkpoint: Position = _ORIGIN
    checkpoint_counter: int = BEGIN_COUNTER
    state: SlotState = SlotState.IDLE
    worker_pid: int = 0
    epoch: int = 0
    start: Position = _ORIGIN
    end: Position = _ORIGIN
    count: int = 0
    attempt: int = 0
    interruptions: int = 0
    request_id: bytes = _NO_REQUEST
    stack: tuple[int, ...] = ()
    membership: int = 0
    succeeded: int = 0
    delivered: int = 0
    invocations: int = 0
    failures: int = 0
    parked: int = 0
    lost: int = 0
    dropped: int = 0
    window_start_s: int = 0
    state_number: int = 0
    state_crc: int = 0
    state_bytes: int = 0
    window_flags: int = 0
    error_type: str = ""
    error_message: str = ""

    @property
    def suspect(self) -> bool:
        """Whether the batch is suspected of bringing nodes down: it then runs alone, and later."""
        return self.interruptions >= SUSPECT_INTERRUPTIONS


def new_slot(slot: Slot, shard: int, lane: int, seed: int) -> bytes:
    """The bytes of a new slot, both copies filled: the file has its blocks before anything depends on a store."""
    return pack(slot, shard, lane, 1, seed) + pack(slot, shard, lane, 0, seed)


def _cut(text: str, limit: int) -> bytes:
    """As much of `text` as fits into `limit` bytes of UTF-8, whole characters only."""
    encoded = text.encode("utf-8", "replace")
    return encoded if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore").encode()


def pack(slot: Slot, shard: int, lane: int, writes: int, seed: int) -> bytes:
    """The bytes of one copy.

    Args:
        slot: the content; the error's text is cut to what fits.
        shard: index of the shard.
        lane: which lane of it.
        writes: the copy's write count.
        seed: where the CRC starts.
    """
    kind = message = b""
    if slot.error_type:
        kind = _cut(slot.error_type, _TYPE_BYTES)
        message = _cut(slot.error_message, _TEXT_BYTES - len(kind))
    stack = slot.stack
    raw = _COPY.pack(
        0,
        _VERSION,
        slot.state,
        len(stack),
        len(kind),
        writes,
        shard,
        lane,
        len(message),
        slot.window_flags,
        slot.checkpoint[0],
        slot.checkpoint_counter,
        slot.start[0],
        slot.end[0],
        slot.checkpoint[1],
        slot.start[1],
        slot.end[1],
        slot.count,
        slot.worker_pid,
        slot.attempt,
        slot.interruptions,
        slot.epoch,
        slot.membership,
        slot.succeeded,
        slot.delivered,
        slot.invocations,
        slot.failures,
        slot.parked,
        slot.lost,
        slot.request_id,
        _STACK.pack(*stack, *(0,) * (STACK_LIMIT - len(stack))) if stack else _NO_STACK,
        slot.dropped,
        slot.window_start_s,
        slot.state_number,
        slot.state_crc,
        slot.state_bytes,
        kind + message,
    )
    checked = raw[4:]
    return _CRC.pack(crc32c(checked, seed)) + checked


def _fields(copy: bytes, seed: int) -> tuple[Any, ...] | None:
    """What a copy holds, in the order of version 2; None where it is not valid."""
    if len(copy) != COPY_BYTES or crc32c(copy[4:], seed) != _CRC.unpack_from(copy)[0]:
        return None
    version = copy[4]
    if version == _VERSION:
        return _COPY.unpack(copy)
    if version == 1:
        fields = _COPY_1.unpack(copy)
        return (*fields[:-1], 0, 0, 0, 0, 0, fields[-1])
    return None


def key_of(raw: bytes, seed: int) -> tuple[int, int] | None:
    """Shard and lane of a slot, by the first of its copies that is valid; None where neither is."""
    for copy in (raw[:COPY_BYTES], raw[COPY_BYTES:]):
        fields = _fields(copy, seed)
        if fields is not None:
            return fields[6], fields[7]
    return None


def unpack(copy: bytes, shard: int, lane: int, seed: int) -> tuple[int, Slot] | None:
    """Write count and content; None where the copy is torn, damaged, or of another slot."""
    fields = _fields(copy, seed)
    if fields is None or (fields[6], fields[7]) != (shard, lane):
        return None
    depth, kind, message = fields[3], fields[4], fields[8]
    text: bytes = fields[36]
    return fields[5], Slot(
        checkpoint=Position(fields[10], fields[14]),
        checkpoint_counter=fields[11],
        state=SlotState(fields[2]),
        worker_pid=fields[18],
        epoch=fields[21],
        start=Position(fields[12], fields[15]),
        end=Position(fields[13], fields[16]),
        count=fields[17],
        attempt=fields[19],
        interruptions=fields[20],
        request_id=fields[29],
        stack=_STACK.unpack(fields[30])[:depth],
        membership=fields[22],
        succeeded=fields[23],
        delivered=fields[24],
        invocations=fields[25],
        failures=fields[26],
        parked=fields[27],
        lost=fields[28],
        dropped=fields[31],
        window_start_s=fields[32],
        state_number=fields[33],
        state_crc=fields[34],
        state_bytes=fields[35],
        window_flags=fields[9],
        error_type=text[:kind].decode(),
        error_message=text[kind : kind + message].decode(),
    )
