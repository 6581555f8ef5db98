"""Records of Lambda's event as the text that they are sent as: for functions that get their events over a connection.

Nobody can change a text, so lanes share it, and a retry writes the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Any, Final, overload

import msgspec
import pybase64

from kflow.broker import sequence
from kflow.lambda_.event_size import escapes
from kflow.lambda_.shapes import Columns, numbers_of, record_of

_BEGIN: Final = '{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"'
_NUMBER: Final = '","sequenceNumber":"'
_DATA: Final = '","data":"'
_PARTS: Final = 10


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
        datas, keys = block.columns()
        return EventTexts(_Block(self, block, datas, keys), start, min(stop, block.count))

    def sequence_number(self, record: str) -> int:
        """The sequence number of a record in this shape. No key can hold what is looked for: its quotes are escaped."""
        begin = record.index(_NUMBER) + len(_NUMBER)
        return int(record[begin : record.index('"', begin)])

    def rebuild(self, records: Sequence[Mapping[str, Any] | Any]) -> list[str]:
        """The shape of records that were kept by themselves."""
        texts: list[str] = []
        for kept in records:
            record = record_of(kept)
            number = [record.sequence_number]
            parts = self._parts([record.data], [record.partition_key], number, record.shard_id, record.arrival_ms)
            texts.append("".join(parts[:-1]))
        return texts

    def texts(self, block: Columns, datas: list[bytes], keys: list[str], start: int, stop: int) -> list[str]:
        """Some records of a block."""
        parts = self._of(block, datas, keys, start, stop)
        return ["".join(parts[at : at + _PARTS - 1]) for at in range(0, len(parts), _PARTS)]

    def joined(self, block: Columns, datas: list[bytes], keys: list[str], start: int, stop: int) -> bytes:
        """Some records of a block with commas between. 0.7 us a record of 200 bytes; objects and their JSON: 1.8."""
        parts = self._of(block, datas, keys, start, stop)
        return "".join(parts[:-1]).encode()

    def _of(self, block: Columns, datas: list[bytes], keys: list[str], start: int, stop: int) -> list[str]:
        numbers = numbers_of(block, start, stop, self._zero) if start < stop else ()
        return self._parts(datas[start:stop], keys[start:stop], numbers, self.shard_id, block.arrival_ms)

    def _parts(
        self, datas: list[bytes], keys: list[str], numbers: Iterable[int], shard_id: str, arrival_ms: int
    ) -> list[str]:
        """`_PARTS` texts for each record, the last of them a comma: joined once, however many they are."""
        middle = (
            f'","approximateArrivalTimestamp":{arrival_ms / 1000!r}}},"eventSource":"aws:kinesis","eventVersion":"1.0",'
            f'"eventID":"{shard_id}:'
        )
        written = keys if not escapes(keys) else map(_escaped, keys)
        texts = list(map(str, islice(numbers, len(datas))))
        data = map(pybase64.b64encode_as_string, datas)
        parts = (repeat(_BEGIN), written, repeat(_NUMBER), texts, repeat(_DATA), data, repeat(middle), texts)
        return list(chain.from_iterable(zip(*parts, repeat(self._rest), repeat(","), strict=False)))


class _Block:
    """A block, and its columns.

    Attributes:
        ahead: records that are joined already: from where to where, and their text.
    """

    __slots__ = ("ahead", "block", "datas", "keys", "shape")

    def __init__(self, shape: EventTextShape, block: Columns, datas: list[bytes], keys: list[str]) -> None:
        self.shape = shape
        self.block = block
        self.datas = datas
        self.keys = keys
        self.ahead: tuple[int, int, bytes] | None = None


class EventTexts(Sequence[str]):
    """Some texts of one block: a list that is written only where somebody looks, for an event is written as a whole."""

    __slots__ = ("_block", "_start", "_stop")

    def __init__(self, block: _Block, start: int, stop: int) -> None:
        self._block = block
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return EventTexts(self._block, self._start + start, self._start + max(start, stop))
        return self.texts()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts())

    def texts(self) -> list[str]:
        """All of them."""
        block = self._block
        return block.shape.texts(block.block, block.datas, block.keys, self._start, self._stop)

    def joined(self) -> bytes:
        """All of them with commas between, as UTF-8."""
        block, start, stop = self._block, self._start, self._stop
        ahead = block.ahead
        if ahead is not None:
            block.ahead = None
            if ahead[:2] == (start, stop):
                return ahead[2]
        return block.shape.joined(block.block, block.datas, block.keys, start, stop)

    def prepare(self) -> None:
        """Join as many of the block's records that follow: most likely they come next, and there is time now."""
        block, start = self._block, self._stop
        stop = min(2 * start - self._start, block.block.count)
        if start < stop:
            text = block.shape.joined(block.block, block.datas, block.keys, start, stop)
            block.ahead = (start, stop, text)


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _escaped(text: str) -> str:
    """What stands between the quotes of a JSON string."""
    return _json(text)[1:-1]
