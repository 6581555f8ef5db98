"""Frames between producers, tools and the node, over a unix stream socket; blocks travel as they are stored.

    frame    | bytes after this header u32 | request u32 | kind u16 | count u16 |            little endian, 12 bytes
    HELLO    JSON of `Hello`, first in both directions
    PUT      | stream id u64 | map generation u32 | seen u32 | count x BLOCK | count bodies
    RESEND   as PUT, with count x RESENT instead of the BLOCKs
    BLOCK    | shard u32 | records u32 | body bytes u32 | body CRC32C u32 | flags u16 | reserved u16 |
    RESENT   BLOCK | tail u64 |      the shard's tail that the producer knew before it first sent the block
    ANSWER   count x | first counter u64 | arrival ms u64 | tail u64 | status u64 |, then JSON errors of failed blocks
    CONTROL  JSON {"op": ...}; answered by CONTROL_ANSWER, JSON {"ok": ...} or {"error": {"type", "message"}}
    CALL     MessagePack of `Call`, an operation of an AWS service; answered by CALL_ANSWER, of `CallAnswer`,
             which CALL_EVENTs of `CallEvent` follow where it says so

A request's number is the producer's frame number: together with the producer's id and the block's place in the frame it
stands in the stored block's header, so that a frame which is sent again after a lost connection is found and not stored
twice. `seen` is the last frame whose answer the producer has read: until it has read of a failure, the node fails all
later blocks of that connection for the same shard, so that nothing overtakes a failed record of its key.

Blocks of one connection are answered in order. Bodies are the stored bytes: nothing is encoded twice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

FRAME = struct.Struct("<IIHH")
PUT_HEAD = struct.Struct("<QII")
BLOCK = struct.Struct("<IIIIH2x")
RESENT = struct.Struct("<IIIIH2xQ")
ANSWER = struct.Struct("<QQQQ")
_ONE = struct.Struct("<IIHHQIIIIIIH2x")
ANSWER_ONE = struct.Struct("<IIHHQQQQ")
PUT_ONE = struct.Struct("<QIIIIIIH2x")
"""`PUT_HEAD` and one `BLOCK`."""

HELLO, PUT, RESEND, ANSWERED, CONTROL, CONTROL_ANSWER = 1, 2, 3, 4, 5, 6
CALL, CALL_ANSWER, CALL_EVENT = 7, 8, 9

OK, STALE, REFUSED = 0, 1, 2
"""Status of one block: stored; the map it was routed by is no longer valid; refused, nothing of it is stored."""

FRAME_BYTES = 32 << 20
"""Largest frame a node accepts; producers stay below half of it."""

Buffer = bytes | bytearray | memoryview


class Block(NamedTuple):
    """One block of a PUT frame, its body a view of the received bytes.

    Attributes:
        shard: index of the shard.
        records: how many are in it.
        body: the block's body, as it is stored.
        crc: CRC32C of the body.
        flags: of the block.
        tail: for a block that is sent again: where to begin looking for it; else 0.
    """

    shard: int
    records: int
    body: memoryview
    crc: int
    flags: int
    tail: int


class Received(NamedTuple):
    """One frame as it was received.

    Attributes:
        kind: `HELLO` to `CONTROL_ANSWER`.
        request: number of the frame, or of the one it answers.
        blocks: how many it is about.
        payload: what follows the header.
    """

    kind: int
    request: int
    blocks: int
    payload: bytes


def frame(kind: int, request: int, payload: bytes, count: int = 0) -> bytes:
    """One whole frame."""
    return FRAME.pack(len(payload), request, kind, count) + payload


def put_one(
    request: int,
    stream_id: int,
    generation: int,
    seen: int,
    shard: int,
    records: int,
    body: bytes,
    crc: int,
    flags: int,
) -> bytes:
    """A whole PUT frame of one block: one pack instead of four."""
    size = len(body)
    length = _ONE.size - FRAME.size + size
    return _ONE.pack(length, request, PUT, 1, stream_id, generation, seen, shard, records, size, crc, flags) + body


def answer_one(request: int, first_counter: int, arrival_ms: int, tail: int) -> bytes:
    """The whole answer to a frame of one block that was stored."""
    return ANSWER_ONE.pack(ANSWER.size, request, ANSWERED, 1, first_counter, arrival_ms, tail, OK)


def put_many(
    request: int,
    stream_id: int,
    generation: int,
    seen: int,
    blocks: Sequence[tuple[int, int, bytes, int, int]],
    tails: Sequence[int] | None = None,
) -> tuple[list[Buffer], int]:
    """The buffers of a PUT frame, or with `tails` of a RESEND frame, and their length together.

    Args:
        request: number of the frame.
        stream_id: id of the stream.
        generation: of the map by which the blocks were routed.
        seen: last frame whose answer was read.
        blocks: (shard, records, body, CRC, flags) of each.
        tails: of each block's shard, as known before it was first sent.
    """
    if tails is None:
        kind = PUT
        heads = [BLOCK.pack(shard, records, len(body), crc, flags) for shard, records, body, crc, flags in blocks]
    else:
        kind = RESEND
        heads = [
            RESENT.pack(shard, records, len(body), crc, flags, tail)
            for (shard, records, body, crc, flags), tail in zip(blocks, tails, strict=True)
        ]
    bodies: list[Buffer] = [block[2] for block in blocks]
    head = PUT_HEAD.pack(stream_id, generation, seen) + b"".join(heads)
    length = len(head) + sum(map(len, bodies))
    return [FRAME.pack(length, request, kind, len(blocks)) + head, *bodies], FRAME.size + length


def json_frame(kind: int, request: int, value: object) -> bytes:
    """One whole frame that carries JSON."""
    return frame(kind, request, msgspec.json.encode(value))


def packed_frame(kind: int, request: int, value: object) -> bytes:
    """One whole frame that carries MessagePack."""
    return frame(kind, request, msgspec.msgpack.encode(value))


def blocks_of(payload: memoryview, count: int, *, resent: bool) -> tuple[int, int, int, list[Block]]:
    """Take a PUT or RESEND frame apart.

    Returns:
        Stream id, map generation, last frame seen, blocks.

    Raises:
        ValueError: lengths do not add up.
    """
    head = RESENT if resent else BLOCK
    at = PUT_HEAD.size + count * head.size
    if len(payload) < at:
        raise ValueError("frame is shorter than its own headers")
    stream_id, generation, seen = PUT_HEAD.unpack_from(payload)
    blocks: list[Block] = []
    heads = head.iter_unpack(payload[PUT_HEAD.size : at])
    if resent:
        for shard, records, length, crc, flags, tail in heads:
            blocks.append(Block(shard, records, payload[at : at + length], crc, flags, tail))
            at += length
    else:
        for shard, records, length, crc, flags in heads:
            blocks.append(Block(shard, records, payload[at : at + length], crc, flags, 0))
            at += length
    if at != len(payload):
        raise ValueError("lengths of the blocks do not add up to the frame's")
    return stream_id, generation, seen, blocks
