"""From records to the bodies of blocks: validate, route, group by shard, put into columns.

Runs in the producer's process. One pass over a call's records, no Python statement per record where keys have been seen
before (`tests/bench` "put_many").
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import count as counting
from itertools import islice, repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

from crc32c import crc32c

from kflow import limits
from kflow.broker.block import HASH_KEYS, WIDE_KEYS, words_u16, words_u32
from kflow.broker.hashkeys import HASH_KEY_END, LANES, digest, md5
from kflow.broker.sequence import STEP, number, shard_id
from kflow.broker.streammap import StreamMap
from kflow.errors import InvalidArgument, UsageError, ValidationFailed
from kflow.records import Placed

_CACHED_KEYS: Final = 32_768
"""Keys remembered at most: bounds the memory of a producer whose keys never repeat."""
_ONE: Final = words_u32(1).pack
_SHARD: Final = struct.Struct("<I").unpack_from
_SIZES: Final = tuple(bytes((size >> 8, size & 255)) for size in range(4 * limits.PARTITION_KEY_CHARACTERS + 1))
_LANES: Final = tuple(lane.to_bytes(2, "little") for lane in range(LANES))
"""Parts of what is remembered of a key, ready made: `struct` would cost a never seen key a tenth more."""


class Part(NamedTuple):
    """The records of one call that go into one block.

    Attributes:
        shard: index of the shard.
        indexes: which records of the call, in order; None for all of them.
        count: how many.
        body: the block's body.
        crc: CRC32C of the body.
        flags: of the block.
    """

    shard: int
    indexes: Sequence[int] | None
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    body: bytes
    crc: int
    flags: int


class Encoder:
    """Encodes for one generation of a stream's map. Not thread-safe; keys seen before cost a dictionary look-up."""

    def __init__(self, stream: StreamMap, *, cached_keys: int = _CACHED_KEYS) -> None:
        self.map = stream
        self._cached_keys = cached_keys
        shards = stream.open_shards
        if not shards:
            raise InvalidArgument(f"stream {stream.name} has no open shard")
        self._ends = [shard.end.to_bytes(16, "big") for shard in shards]
        self._shards = [shard.index for shard in shards]
        self._groups = max(self._shards) + 1
        self._prefixes = [index.to_bytes(4, "little") for index in self._shards]
        self._entries: dict[str, bytes] = {}
        """By key: index of its shard u32, high and low byte of its length in bytes, lane u16. As bytes, so that one
        join makes the columns of a block out of many."""
        self._ids = [shard_id(index) for index in range(len(stream.shards))]
        self._numbers = [number(shard.created_s, shard.index, 0, 0) for shard in stream.shards]
        self._record_bytes = stream.max_record_bytes

    def encode_many(
        self, keys: Sequence[str], datas: Sequence[bytes], hash_keys: Sequence[int | None] | None = None
    ) -> list[Part]:
        """Encode one call.

        Args:
            keys: partition keys, 1 to 256 characters each; at least one.
            datas: payloads, as many.
            hash_keys: explicit hash keys, as many, None where the partition key decides.

        Returns:
            One part or more for each shard that gets records. The records of a key keep their order.

        Raises:
            ValidationFailed: a key or payload breaks a constraint; names the first such record in AWS's words.
            InvalidArgument: a record's data and key are too large together, or a hash key is out of range.
            UsageError: a key is no text, or a payload no bytes; names the record.
        """
        try:
            return self._encode(keys, datas, hash_keys)
        except (TypeError, AttributeError, UnicodeEncodeError) as error:
            # Types are not looked at per record: what is neither text nor bytes fails in the C calls.
            problem = _mistyped(keys, datas)
            if problem is None:
                raise
            raise problem from error

    def _encode(
        self, keys: Sequence[str], datas: Sequence[bytes], hash_keys: Sequence[int | None] | None
    ) -> list[Part]:
        if len(keys) != len(datas):
            raise UsageError(f"{len(keys)} partition keys for {len(datas)} payloads")
        if len(keys) < 2:
            if not keys:
                raise ValidationFailed(
                    "1 validation error detected: Value at 'records' failed to satisfy constraint: "
                    "Member must have length greater than or equal to 1"
                )
            keys, datas = tuple(keys), tuple(datas)
            entries = self._learn(keys, datas)
        else:
            try:
                entries = itemgetter(*keys)(self._entries)
            except KeyError:
                entries = self._learn(keys, datas)
        if hash_keys is not None:
            entries = self._route_explicit(entries, hash_keys)
        if self._groups == 1:
            return self._parts(0, None, keys, datas, entries, hash_keys)
        groups: list[list[int]] = [[] for _ in range(self._groups)]
        add = [group.append for group in groups]
        for index, shard in enumerate(memoryview(b"".join(entries)).cast("I")[::2]):
            add[shard](index)
        parts: list[Part] = []
        for shard, indexes in enumerate(groups):
            if not indexes:
                continue
            take = _taker(indexes)
            explicit = None if hash_keys is None else take(hash_keys)
            parts += self._parts(shard, indexes, take(keys), take(datas), take(entries), explicit)
        return parts

    def encode_spread(self, keys: Sequence[str], datas: Sequence[bytes], first: int) -> list[Part]:
        """Encode one call whose records go to the open shards in turn, whatever their keys.

        Args:
            keys: partition keys, 0 to 256 characters each; at least one.
            datas: payloads, as many.
            first: the turn of the first record; the others follow by 1.

        Returns:
            One part or more for each shard that gets records.

        Raises:
            ValidationFailed, InvalidArgument: as `encode_many`.
        """
        known = self._entries
        size_of, lanes = _SIZES, _LANES
        entries: list[bytes] = []
        for key in keys:
            entry = known.get(key)
            if entry is None:
                encoded = key.encode()
                if len(key) > limits.PARTITION_KEY_CHARACTERS:
                    _check_records(None, keys, datas, self._record_bytes)
                lane = lanes[int.from_bytes(md5(encoded).digest()) % LANES]
                entry = b"\0\0\0\0" + size_of[len(encoded)] + lane
            entries.append(entry)
        shards = self._shards
        parts: list[Part] = []
        for turn in range(min(len(shards), len(keys))):
            cut = slice(turn, None, len(shards))
            indexes = range(turn, len(keys), len(shards))
            shard = shards[(first + turn) % len(shards)]
            parts += self._parts(shard, indexes, keys[cut], datas[cut], entries[cut], None)
        return parts

    def encode_one(self, data: bytes, key: str, hash_key: int | None = None) -> Part:
        """Encode one record.

        Raises:
            ValidationFailed: the key or payload breaks a constraint.
            InvalidArgument: data and key are too large together, or the hash key is out of range.
        """
        entry = self._entries.get(key)
        if entry is None or hash_key is not None or type(data) is not bytes:
            return self._encode_one_slowly(data, key, hash_key)
        if entry[4] or len(data) + entry[5] > self._record_bytes:
            return self._encode_one_slowly(data, key, hash_key)
        body = b"".join((_ONE(len(data)), entry[5:], key.encode(), data))
        return Part(_SHARD(entry)[0], None, 1, body, crc32c(body), 0)

    def placed(self, total: int, parts: Sequence[Part], answers: Iterable[tuple[int, int]]) -> list[Placed]:
        """Where each record of a call was stored, in the order of the call.

        Args:
            total: number of records in the call.
            parts: what `encode_many` returned.
            answers: first counter and arrival (milliseconds) of each part.
        """
        found: list[Any] = [None] * total
        for part, (first_counter, arrival_ms) in zip(parts, answers, strict=True):
            first = self._numbers[part.shard] | first_counter << 80 | arrival_ms // 1000 << 36
            places = map(Placed, repeat(self._ids[part.shard], part.count), counting(first, STEP))
            if part.indexes is None:
                return list(places)
            for index, place in zip(part.indexes, places):  # noqa: B905  # both have `count`; strict costs per record
                found[index] = place
        return found

    def columns(
        self, total: int, parts: Sequence[Part], answers: Sequence[tuple[int, int]]
    ) -> tuple[list[str], list[str]]:
        """As `placed`, by column, as texts: sequence numbers and shard ids. Records of no part have empty texts."""
        numbers: list[str] = []
        ids: list[str] = []
        if len(parts) == 1 and parts[0].indexes is None:
            part = parts[0]
            return self._numbers_of(part, *answers[0]), [self._ids[part.shard]] * part.count
        numbers, ids = [""] * total, [""] * total
        for part, answer in zip(parts, answers, strict=True):
            id_ = self._ids[part.shard]
            for index, text in zip(part.indexes or range(total), self._numbers_of(part, *answer), strict=True):
                numbers[index] = text
                ids[index] = id_
        return numbers, ids

    def shard_id(self, part: Part) -> str:
        """The id of a part's shard."""
        return self._ids[part.shard]

    def _numbers_of(self, part: Part, first_counter: int, arrival_ms: int) -> list[str]:
        first = self._numbers[part.shard] | first_counter << 80 | arrival_ms // 1000 << 36
        if part.count == 1:
            return [str(first)]
        return list(map(str, islice(counting(first, STEP), part.count)))

    def shard_of(self, key: str) -> int:
        """Index of the open shard that owns a partition key."""
        return self._shards[bisect_left(self._ends, digest(key))]

    def _learn(self, keys: Sequence[str], datas: Sequence[bytes]) -> tuple[bytes, ...]:
        """The entries of all keys, computed where they are not remembered; a key is checked when it is learnt."""
        known = self._entries
        if len(known) > self._cached_keys:
            known.clear()
        ends, prefixes, sizes, lanes = self._ends, self._prefixes, _SIZES, _LANES
        whole, longest = int.from_bytes, limits.PARTITION_KEY_CHARACTERS
        entries: list[bytes] = []
        recall, add = known.get, entries.append
        for key in keys:
            entry = recall(key)
            if entry is None:
                encoded = key.encode()
                if not 1 <= len(key) <= longest:
                    _check_records(None, keys, datas, self._record_bytes)
                hashed = md5(encoded).digest()
                lane = lanes[whole(hashed) % LANES]
                known[key] = entry = prefixes[bisect_left(ends, hashed)] + sizes[len(encoded)] + lane
            add(entry)
        return tuple(entries)

    def _route_explicit(self, entries: Sequence[bytes], hash_keys: Sequence[int | None]) -> tuple[bytes, ...]:
        routed = list(entries)
        for index, hash_key in enumerate(hash_keys):
            if hash_key is None:
                continue
            if not isinstance(hash_key, int):
                raise UsageError(f"an explicit hash key is an int from 0 to 2**128 - 1, not {hash_key!r}")
            if not 0 <= hash_key <= HASH_KEY_END:
                raise InvalidArgument(
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                    f"Specified value was {hash_key}"
                )
            shard = self._shards[bisect_left(self._ends, hash_key.to_bytes(16, "big"))]
            routed[index] = shard.to_bytes(4, "little") + entries[index][4:]
        return tuple(routed)

    def _parts(
        self,
        shard: int,
        indexes: Sequence[int] | None,
        keys: Sequence[str],
        datas: Sequence[bytes],
        entries: Sequence[bytes],
        hash_keys: Sequence[int | None] | None,
    ) -> list[Part]:
        """The records of one shard as one part, or as several where the body would be too large."""
        body, flags, fits = self._body(indexes, keys, datas, entries, hash_keys)
        count = len(keys)
        if fits or count == 1:
            return [Part(shard, indexes, count, body, crc32c(body), flags)]
        where = range(count) if indexes is None else indexes
        parts: list[Part] = []
        begin = size = 0
        for index, data in enumerate(datas):
            more = len(data) + 4 * len(keys[index]) + 32  # never less than what it takes in the body
            if size + more > limits.BLOCK_BYTES and index > begin:
                parts += self._slice(shard, where, keys, datas, entries, hash_keys, begin, index)
                begin, size = index, 0
            size += more
        return parts + self._slice(shard, where, keys, datas, entries, hash_keys, begin, count)

    def _slice(
        self,
        shard: int,
        where: Sequence[int],
        keys: Sequence[str],
        datas: Sequence[bytes],
        entries: Sequence[bytes],
        hash_keys: Sequence[int | None] | None,
        begin: int,
        end: int,
    ) -> list[Part]:
        cut = slice(begin, end)
        explicit = None if hash_keys is None else hash_keys[cut]
        body, flags, _ = self._body(where[cut], keys[cut], datas[cut], entries[cut], explicit)
        return [Part(shard, where[cut], end - begin, body, crc32c(body), flags)]

    def _body(
        self,
        indexes: Sequence[int] | None,
        keys: Sequence[str],
        datas: Sequence[bytes],
        entries: Sequence[bytes],
        hash_keys: Sequence[int | None] | None,
    ) -> tuple[bytes, int, bool]:
        """Columns of some records of one shard: body, flags, and whether it is small enough for a block."""
        count = len(keys)
        key_bytes = "".join(keys).encode()
        table = b"".join(entries)
        lanes = memoryview(table).cast("H")[3::4].tobytes()
        packed_lens = table[5::8]
        flags = 0
        if table[4::8].strip(b"\0"):  # a key of more than 255 bytes
            flags = WIDE_KEYS
            packed_lens = words_u16(count).pack(*[size[4] << 8 | size[5] for size in entries])
        lens = list(map(len, datas))
        expected = (8 if flags else 7) * count + len(key_bytes) + sum(lens)
        if expected > self._record_bytes:
            _check_records(indexes, keys, datas, self._record_bytes)
        words = words_u32(count).pack
        if hash_keys is None or hash_keys.count(None) == count:
            body = b"".join((words(*lens), packed_lens, lanes, key_bytes, *datas))
        else:
            flags |= HASH_KEYS
            explicit = _pack_hash_keys(hash_keys)
            expected += len(explicit)
            body = b"".join((words(*lens), packed_lens, lanes, explicit, key_bytes, *datas))
        if len(body) != expected:
            raise TypeError("the length of a payload is not its number of bytes")
        return body, flags, expected <= limits.BLOCK_BYTES

    def _encode_one_slowly(self, data: bytes, key: str, hash_key: int | None) -> Part:
        explicit = None if hash_key is None else (hash_key,)
        try:
            part = self.encode_many((key,), (data,), explicit)[0]
        except ValidationFailed as error:
            # PutRecord names the member itself, PutRecords its place in the list.
            raise ValidationFailed(str(error).replace("records.1.member.", "")) from error
        return part._replace(indexes=None)


def _taker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(indexes) > 1:
        return itemgetter(*indexes)
    (only,) = indexes
    return lambda column: (column[only],)


def _pack_hash_keys(hash_keys: Sequence[int | None]) -> bytes:
    present = bytes(hash_key is not None for hash_key in hash_keys)
    return present + b"".join(hash_key.to_bytes(16, "big") for hash_key in hash_keys if hash_key is not None)


def _mistyped(keys: Sequence[Any], datas: Sequence[Any]) -> UsageError | None:
    """The first record whose key is no text or whose payload is no bytes, as an error."""
    for index, (key, data) in enumerate(zip(keys, datas, strict=True)):
        if not isinstance(key, str):
            return UsageError(f"record {index}: the partition key must be a str, not {type(key).__name__}")
        if not isinstance(data, bytes | bytearray):
            return UsageError(f"record {index}: data must be bytes, not {type(data).__name__}")
        try:
            key.encode()
        except UnicodeEncodeError as error:
            return UsageError(f"record {index}: the partition key is no Unicode text: {error}")
    return None


def _check_records(
    indexes: Sequence[int] | None, keys: Sequence[str], datas: Sequence[bytes], record_bytes: int
) -> None:
    """Find the first record that breaks a constraint and say so in AWS's words.

    Source: recorded: constraint texts as of December 2025, the value left out for payloads.
    """
    for at, (key, data) in enumerate(zip(keys, datas, strict=True)):
        index = at if indexes is None else indexes[at]
        path = f"records.{index + 1}.member"
        if len(data) > record_bytes:
            raise ValidationFailed(
                f"1 validation error detected: Value at '{path}.data' failed to satisfy constraint: "
                f"Member must have length less than or equal to {record_bytes}"
            )
        if not 1 <= len(key) <= limits.PARTITION_KEY_CHARACTERS:
            bound = (
                "greater than or equal to 1" if not key else f"less than or equal to {limits.PARTITION_KEY_CHARACTERS}"
            )
            raise ValidationFailed(
                f"1 validation error detected: Value '{key}' at '{path}.partitionKey' failed to satisfy constraint: "
                f"Member must have length {bound}"
            )
        size = len(data) + len(key.encode())
        if size > record_bytes:
            # chosen: AWS's text for this sum is unknown
            raise InvalidArgument(
                f"Record {index} is too large: data and partition key take {size} bytes, "
                f"and the stream takes {record_bytes} a record"
            )
