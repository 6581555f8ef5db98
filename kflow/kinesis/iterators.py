"""Where reading begins, and the tokens that say so: shard iterators, opaque and sealed, valid for five minutes."""

from __future__ import annotations

import struct
import time
from typing import Final, NamedTuple

from kflow import limits
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import Parsed, parse, shard_id
from kflow.broker.streammap import ShardInfo
from kflow.errors import ExpiredIterator, InvalidArgument
from kflow.kinesis.registry import Stream
from kflow.kinesis.seals import Seal
from kflow.records import Position

AT_NUMBER: Final = "AT_SEQUENCE_NUMBER"
AFTER_NUMBER: Final = "AFTER_SEQUENCE_NUMBER"
TRIM_HORIZON: Final = "TRIM_HORIZON"
LATEST: Final = "LATEST"
AT_TIMESTAMP: Final = "AT_TIMESTAMP"

_KIND = b"shard iterator"
_FORM = struct.Struct(">QQQQII")
_VERSION = 1
"""Source: recorded: AWS's tokens begin with 00 00 00 00 00 00 00 01."""
_BEGINNING = Position(0, 0)


class Start(NamedTuple):
    """Where reading begins.

    Attributes:
        kind: one of AWS's five types.
        counter: for the types that name a number: the one in it.
        arrival_s: likewise the second of arrival. A record of that counter may have another: heartbeats of
            subscriptions name numbers that no record has.
        epoch_ms: for `AT_TIMESTAMP`: arrival of the first record that is wanted, milliseconds since the epoch.
    """

    kind: str
    counter: int = 0
    arrival_s: int = 0
    epoch_ms: int = 0

    def look(self, reader: ShardReader) -> Position:
        """The position, looked up in the files; for a thread."""
        if self.kind == TRIM_HORIZON:
            return _BEGINNING
        if self.kind == LATEST:
            return Position(reader.tail, 0)
        if self.kind == AT_TIMESTAMP:
            return reader.seek_time(self.epoch_ms)
        position = reader.seek_counter(self.counter)
        blocks = reader.read(position.offset, 1)
        if blocks and blocks[0].offset == position.offset:
            first = blocks[0].first_counter + position.index
            if first == self.counter and self._is_before(blocks[0].arrival_ms):
                return reader.seek_counter(self.counter + 1)
        return position

    def _is_before(self, arrival_ms: int) -> bool:
        """Whether a record of this counter that arrived then is not wanted any more."""
        arrival_s = arrival_ms // 1000
        return arrival_s < self.arrival_s or (arrival_s == self.arrival_s and self.kind == AFTER_NUMBER)

    def glance(self, reader: ShardReader | None) -> Position | None:
        """The position where no file need be looked at; None where one must be."""
        if self.kind == TRIM_HORIZON:
            return _BEGINNING  # resolved when it is read
        if reader is None:
            return None
        if self.kind == LATEST:
            return Position(reader.tail, 0)
        if self.kind == AT_TIMESTAMP:
            return None
        tail = reader.tail
        # The counter is stored before the tail: they go together only where the tail stands still meanwhile.
        left = reader.next_counter - self.counter
        is_tip = left <= 0 or (left == 1 and self._is_before(reader.last_arrival_ms))
        return Position(tail, 0) if is_tip and reader.tail == tail else None


def start_of(
    stream: Stream, shard: ShardInfo, kind: str, number: str | None, epoch_ms: int | None, now_ms: int
) -> Start:
    """Where a caller wants to begin.

    Args:
        stream: the stream.
        shard: the shard.
        kind: one of AWS's five types.
        number: StartingSequenceNumber, or None.
        epoch_ms: Timestamp in milliseconds, or None.
        now_ms: milliseconds since the epoch.

    Raises:
        InvalidArgument: what is given does not go together, or the number is not one of this shard.

    Source: recorded: GetShardIterator, order and texts.
    """
    by_number = kind in (AT_NUMBER, AFTER_NUMBER)
    if kind != AT_TIMESTAMP and by_number is (number is None):
        raise InvalidArgument(
            "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) "
            f"TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and "
            f"{'no' if by_number else 'also a'} StartingSequenceNumber."
        )
    if by_number:
        assert number is not None
        parsed = _parsed(stream, shard, number)
        return Start(kind, counter=parsed.counter, arrival_s=parsed.arrival_s)
    if kind == AT_TIMESTAMP:
        if epoch_ms is None:
            raise InvalidArgument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                "Current request has no timestamp parameter."
            )
        if epoch_ms > now_ms:
            raise InvalidArgument(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {epoch_ms}, currentTimestampInMillis: {now_ms}"
            )
        return Start(kind, epoch_ms=epoch_ms)
    return Start(kind)


def _parsed(stream: Stream, shard: ShardInfo, text: str) -> Parsed:
    invalid = (
        f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard_id(shard.index)} in stream "
        f"{stream.name} under account {stream.account} is invalid"
    )
    try:
        found = parse(int(text))
    except ValueError as error:
        raise InvalidArgument(f"{invalid}.") from error
    if found.shard_index != shard.index:
        raise InvalidArgument(
            f"Invalid StartingSequenceNumber. It encodes {shard_id(found.shard_index)}, "
            f"while it was used in a call to a shard with {shard_id(shard.index)}"
        )
    if found.created_s != shard.created_s:
        raise InvalidArgument(f"{invalid} because it did not come from this stream.")
    return found


class Place(NamedTuple):
    """What a token says.

    Attributes:
        stream_id: id of the stream; one that is created anew under the name has another.
        name: of the stream, for whoever must be told that it is gone.
        shard: index of the shard.
        position: where to read next.
    """

    stream_id: int
    name: str
    shard: int
    position: Position


def encode(seal: Seal, place: Place, now_ms: int) -> str:
    """A new token; no two are alike, even for the same place."""
    stream_id, name, shard, position = place
    form = _FORM.pack(_VERSION, now_ms, stream_id, position.offset, shard, position.index)
    return seal.close(_KIND, form + name.encode())


def decode(seal: Seal, token: str, now_ms: int) -> Place:
    """What a token says.

    Raises:
        InvalidArgument: no token of ours.
        ExpiredIterator: older than five minutes.

    Source: recorded: surrounding double quotes are tolerated; texts as of 2015.
    """
    payload = seal.open(_KIND, token.strip('"'))
    if payload is None or len(payload) < _FORM.size:
        raise InvalidArgument("Invalid ShardIterator.")
    version, issued_ms, stream_id, offset, shard, index = _FORM.unpack_from(payload)
    if version != _VERSION:
        raise InvalidArgument("Invalid ShardIterator.")
    if now_ms - issued_ms > limits.ITERATOR_SECONDS * 1000:
        raise ExpiredIterator(
            f"Iterator expired. The iterator was created at time {_spelled(issued_ms)} while right now it is "
            f"{_spelled(now_ms)} which is further in the future than the tolerated delay of "
            f"{limits.ITERATOR_SECONDS * 1000} milliseconds."
        )
    return Place(stream_id, payload[_FORM.size :].decode(), shard, Position(offset, index))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _spelled(epoch_ms: int) -> str:
    """As Java's `Date` prints it, in English whatever the locale."""
    at = time.gmtime(epoch_ms / 1000)
    return f"{_DAYS[at.tm_wday]} {_MONTHS[at.tm_mon - 1]} {time.strftime('%d %H:%M:%S UTC %Y', at)}"
