"""What a shard takes and gives in a second, where limits are enforced as on AWS. Pure: told the time.

Buckets fill steadily and hold one second's worth. Those of bytes may go into debt: a record, or an answer, that is
larger than the bucket passes when the bucket is full, and what follows waits until the debt is paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kflow import limits

WRITE_RECORDS: Final = 1000
WRITE_BYTES: Final = limits.MIB
"""A second. Source: documented: PutRecord, PutRecords."""
READ_CALLS: Final = 5
READ_BYTES: Final = 2 * limits.MIB
"""A second. Source: documented: GetRecords."""
_FORGET_MS: Final = 60_000


class Bucket:
    """Tokens that come at a steady rate, up to one second's worth.

    Args:
        rate: tokens a second.
        now_ms: milliseconds since the epoch; it begins full.
    """

    __slots__ = ("_level", "_rate", "_seen_ms")

    def __init__(self, rate: int, now_ms: int) -> None:
        self._rate = rate
        self._level = float(rate)
        self._seen_ms = now_ms

    def level(self, now_ms: int) -> float:
        """How many there are; negative: in debt. A clock that goes back brings none."""
        if now_ms > self._seen_ms:
            self._level = min(float(self._rate), self._level + (now_ms - self._seen_ms) * self._rate / 1000)
        self._seen_ms = now_ms
        return self._level

    def take(self, tokens: int) -> None:
        """Take some, down into debt."""
        self._level -= tokens


class _Shard:
    """The buckets of one shard."""

    __slots__ = ("calls", "read", "records", "used_ms", "written")

    def __init__(self, now_ms: int) -> None:
        self.records = Bucket(WRITE_RECORDS, now_ms)
        self.written = Bucket(WRITE_BYTES, now_ms)
        self.calls = Bucket(READ_CALLS, now_ms)
        self.read = Bucket(READ_BYTES, now_ms)
        self.used_ms = now_ms


class ShardLimits:
    """The limits of all shards. Shards that nobody used for a while are forgotten: their buckets are full."""

    def __init__(self) -> None:
        self._shards: dict[tuple[int, int], _Shard] = {}
        self._swept_ms = 0

    def admit(self, stream_id: int, shard: int, sizes: Sequence[int], now_ms: int) -> int:
        """How many records of a call, from the first on, a shard takes now; they are counted.

        Always a first part of them, so that no record of a key overtakes another one.

        Args:
            stream_id: id of the stream.
            shard: index of the shard.
            sizes: bytes of data and key of each.
            now_ms: milliseconds since the epoch.

        Source: documented: the sum of a call is rounded up to the next KiB; chosen: how far a bucket may go into debt.
        """
        found = self._shard(stream_id, shard, now_ms)
        records, level = found.records.level(now_ms), found.written.level(now_ms)
        taken = total = 0
        for size in sizes:
            fits = total + size <= level or (not total and level >= WRITE_BYTES)
            if taken + 1 > records or not fits:
                break
            taken += 1
            total += size
        found.records.take(taken)
        found.written.take(-(-total // limits.KIB) * limits.KIB)
        return taken

    def may_read(self, stream_id: int, shard: int, now_ms: int) -> bool:
        """Whether a GetRecords call is served; it is counted then."""
        found = self._shard(stream_id, shard, now_ms)
        if found.calls.level(now_ms) < 1 or found.read.level(now_ms) <= 0:
            return False
        found.calls.take(1)
        return True

    def have_read(self, stream_id: int, shard: int, size: int, now_ms: int) -> None:
        """So many bytes were answered: up to 10 MiB, which takes up to five seconds to pay for."""
        self._shard(stream_id, shard, now_ms).read.take(size)

    def _shard(self, stream_id: int, shard: int, now_ms: int) -> _Shard:
        key = (stream_id, shard)
        found = self._shards.get(key)
        if found is None:
            self._sweep(now_ms)
            found = self._shards[key] = _Shard(now_ms)
        found.used_ms = now_ms
        return found

    def _sweep(self, now_ms: int) -> None:
        if 0 <= now_ms - self._swept_ms < _FORGET_MS:
            return
        self._swept_ms = now_ms
        idle = [key for key, found in self._shards.items() if now_ms - found.used_ms > _FORGET_MS]
        for key in idle:
            del self._shards[key]
