"""Records of Lambda's event as the text that they are sent as: for functions that get their events over a connection.

Built once, sliced and joined as it is. Nobody can change a text, so lanes share it, and a retry sends it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import msgspec
import pybase64

from kflow.broker import sequence
from kflow.lambda_.event_size import escapes
from kflow.lambda_.shapes import Columns, numbers_of, record_of, slices_of

_BEGIN: Final = '{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":'
_NUMBER: Final = '"sequenceNumber":"'


class EventTextShape:
    """JSON texts of the event's records: what `EventShape` builds, written."""

    __slots__ = ("_rest", "_zero", "shard_id", "source_arn")

    is_shared = False  # what lanes share are `Record`s, which know their data

    def __init__(self, created_s: int, shard: int, *, arn: str, region: str, role: str) -> None:
        """Make it.

        Args:
            created_s: when the shard was created, seconds since the epoch.
            shard: its index.
            arn: the mapping's event source ARN.
            region: region of the stream.
            role: ARN of the function's execution role.
        """
        self._zero = sequence.number(created_s, shard, 0, 0)
        self.source_arn = arn
        self.shard_id = sequence.shard_id(shard)
        self._rest = (
            f'","eventName":"aws:kinesis:record","invokeIdentityArn":{_json(role)},"awsRegion":{_json(region)},'
            f'"eventSourceARN":{_json(arn)}}}'
        )

    def build(self, block: Columns, start: int, stop: int) -> EventTexts:
        """The records `start` to `stop` (exclusive) of a block, written when they are needed."""
        datas, keys = slices_of(block, start, stop)
        numbers = numbers_of(block, start, stop, self._zero)
        made = _Made(self, datas, keys, iter(numbers), block.arrival_ms)
        return EventTexts(made, 0, len(datas))

    def sequence_number(self, record: str) -> int:
        """The sequence number of a record in this shape. No key can hold what is looked for: its quotes are escaped."""
        begin = record.index(_NUMBER) + len(_NUMBER)
        return int(record[begin : record.index('"', begin)])

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[str]:
        """The shape of records that were kept by themselves."""
        texts: list[str] = []
        for kept in records:
            record = record_of(kept)
            texts += self.written(
                [record.data],
                [record.partition_key],
                iter([record.sequence_number]),
                record.shard_id,
                record.arrival_ms,
            )
        return texts

    def written(
        self, datas: list[bytes], keys: list[str], numbers: Iterator[int], shard_id: str, arrival_ms: int
    ) -> list[str]:
        """The texts of some records; takes as many numbers. 0.8 us a record of 200 bytes; its object takes 1.2."""
        encode = pybase64.b64encode_as_string
        middle = (
            f'","approximateArrivalTimestamp":{arrival_ms / 1000!r}}},"eventSource":"aws:kinesis","eventVersion":"1.0",'
            f'"eventID":"{shard_id}:'
        )
        rest = self._rest
        quoted = [f'"{key}"' for key in keys] if not escapes(keys) else map(_json, keys)
        return [
            f'{_BEGIN}{key},{_NUMBER}{number}","data":"{encode(data)}{middle}{number}{rest}'
            for data, key, number in zip(datas, quoted, map(str, numbers), strict=False)
        ]


class _Made:
    """The texts of a block's records: those at the front are there, the others are written when they are needed."""

    __slots__ = ("_arrival_ms", "_datas", "_keys", "_numbers", "_shape", "ahead", "texts")

    def __init__(
        self, shape: EventTextShape, datas: list[bytes], keys: list[str], numbers: Iterator[int], arrival_ms: int
    ) -> None:
        self._shape = shape
        self._datas = datas
        self._keys = keys
        self._numbers = numbers
        self._arrival_ms = arrival_ms
        self.texts: list[str] = []
        self.ahead = (0, 0, b"")

    @property
    def count(self) -> int:
        """How many there are, written or not."""
        return len(self._datas)

    def reach(self, stop: int) -> list[str]:
        """Have the first `stop` texts, or all where there are fewer."""
        texts = self.texts
        begin = len(texts)
        if begin < stop:
            datas, keys = self._datas[begin:stop], self._keys[begin:stop]
            texts += self._shape.written(datas, keys, self._numbers, self._shape.shard_id, self._arrival_ms)
        return texts


class EventTexts(Sequence[str]):
    """Some texts of one block, as a list that is written only where somebody looks.

    So the records of one invocation can be written while the one before runs (`prepare`).
    """

    __slots__ = ("_made", "_start", "_stop")

    def __init__(self, made: _Made, start: int, stop: int) -> None:
        self._made = made
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> EventTexts | list[str]: ...
    def __getitem__(self, index: int | slice) -> str | EventTexts | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return EventTexts(self._made, self._start + start, self._start + max(start, stop))
        return self.texts()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts())

    def __add__(self, others: Iterable[str]) -> list[str]:
        return [*self.texts(), *others]

    def __radd__(self, others: Iterable[str]) -> list[str]:
        return [*others, *self.texts()]

    def texts(self) -> list[str]:
        """All of them."""
        return self._made.reach(self._stop)[self._start : self._stop]

    def joined(self) -> bytes:
        """All of them with commas between, as UTF-8."""
        start, stop, text = self._made.ahead
        if (start, stop) == (self._start, self._stop):
            return text
        return ",".join(self.texts()).encode()

    def prepare(self) -> None:
        """Join as many of those that follow, for whoever asks for just those: there is nothing better to do now."""
        made = self._made
        start, stop = self._stop, 2 * self._stop - self._start
        texts = made.reach(stop)
        made.ahead = (start, min(stop, made.count), ",".join(texts[start:stop]).encode())


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
