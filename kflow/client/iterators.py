"""Shard iterators: opaque signed tokens that are valid for five minutes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
from typing import NamedTuple

from kflow import limits
from kflow.errors import ExpiredIterator, InvalidArgument
from kflow.records import Position

_FORM = struct.Struct(">QQQIQI8s")
_VERSION = 1
_SIGNATURE_BYTES = 32


class Place(NamedTuple):
    """What a token says.

    Attributes:
        stream_id: id of the stream; one created anew under the same name has another.
        shard: index of the shard.
        position: where to read next.
        issued_ms: when it was made, milliseconds since the epoch.
    """

    stream_id: int
    shard: int
    position: Position
    issued_ms: int


def encode(folder_id: str, stream_id: int, shard: int, position: Position, now_ms: int) -> str:
    """A new token; no two are alike, even for the same place."""
    payload = _FORM.pack(_VERSION, now_ms, stream_id, shard, position.offset, position.index, os.urandom(8))
    return base64.b64encode(payload + _signature(folder_id, payload)).decode()


def decode(folder_id: str, token: str, now_ms: int) -> Place:
    """What a token says.

    Raises:
        InvalidArgument: no token of ours.
        ExpiredIterator: older than five minutes.

    Source: recorded: surrounding double quotes are tolerated; texts as of 2015.
    """
    try:
        raw = base64.b64decode(token.strip('"'), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument("Invalid ShardIterator.") from error
    payload, signature = raw[: _FORM.size], raw[_FORM.size :]
    if len(payload) != _FORM.size or not hmac.compare_digest(signature, _signature(folder_id, payload)):
        raise InvalidArgument("Invalid ShardIterator.")
    _, issued_ms, stream_id, shard, offset, index, _ = _FORM.unpack(payload)
    if now_ms - issued_ms > limits.ITERATOR_SECONDS * 1000:
        raise ExpiredIterator(
            f"Iterator expired. The iterator was created at time {_spelled(issued_ms)} while right now it is "
            f"{_spelled(now_ms)} which is further in the future than the tolerated delay of "
            f"{limits.ITERATOR_SECONDS * 1000} milliseconds."
        )
    return Place(stream_id, shard, Position(offset, index), issued_ms)


def _signature(folder_id: str, payload: bytes) -> bytes:
    """Nobody makes tokens up by accident, and none of another folder passes."""
    return hashlib.blake2b(payload, key=folder_id.encode(), digest_size=_SIGNATURE_BYTES).digest()


def _spelled(epoch_ms: int) -> str:
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(epoch_ms / 1000))
