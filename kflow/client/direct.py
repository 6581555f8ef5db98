"""The short ways: records put by the producers' line to the writer, and read from the log by this process.

They are for what is plain: a home stream that serves, is not encrypted and keeps its partition keys, on a folder whose
node lets clients go around its services, and parameters that are well-formed. All else returns None, and goes the long
way, which says what is wrong in AWS's words.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kflow import limits
from kflow.arn import stream_arn
from kflow.aws.calls import Place
from kflow.aws.local import LocalOutput
from kflow.broker import attributes as attributefiles
from kflow.broker.asking import around_damage
from kflow.broker.attributes import DEFAULTS, Attributes
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import shard_index
from kflow.broker.streammap import StreamMap
from kflow.client.service import Service
from kflow.errors import AwsError, InvalidArgument, ResourceNotFound, StorageError, ValidationFailed
from kflow.kinesis import answers, iterators
from kflow.kinesis.reading import Rows, read_page, trim_ms
from kflow.kinesis.registry import Stream
from kflow.kinesis.seals import Seal
from kflow.producing import local
from kflow.producing.frames import Failure
from kflow.producing.pipeline import Entries
from kflow.records import Placed, Position

Answer = dict[str, Any] | None

_NAMES: Final = {"StreamName", "StreamARN"}
_ENTRY: Final = {"Data", "PartitionKey", "ExplicitHashKey"}
_RECORD: Final = _NAMES | _ENTRY
_RECORDS: Final = _NAMES | {"Records"}
_PLACE: Final = _NAMES | {"ShardId", "ShardIteratorType", "StartingSequenceNumber"}
_NUMBER_KINDS: Final = (iterators.AT_NUMBER, iterators.AFTER_NUMBER)
_READ: Final = {"ShardIterator", "Limit"}
_REFUSED: Final = (ResourceNotFound, InvalidArgument, ValidationFailed)
"""Nothing was stored."""
_HASH_KEYS: Final = 1 << 128


class _Seen(NamedTuple):
    """A stream as it was last seen.

    Attributes:
        map: the map then.
        path: of the file of its attributes.
        stamp: of that file; None: there was none.
        stream: both.
    """

    map: StreamMap
    path: str
    stamp: tuple[int, int, int] | None
    stream: Stream


class Direct:
    """Of one client. Any thread may use it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._path = service.path
        self._output = LocalOutput()
        self._seen: dict[str, _Seen] = {}

    # ------------------------------------------------------------------ writing

    def put_record(self, given: Mapping[str, Any]) -> Answer:
        """PutRecord."""
        if not given.keys() <= _RECORD:
            return None
        entries = _entries((given,))
        stream = None if entries is None else self._open_to_puts(given)
        if stream is None or entries is None or not _fit(entries, stream.map):
            return None
        hash_key = None if entries.hash_keys is None else entries.hash_keys[0]
        try:
            placed = local.put_one(self._path, stream.name, entries.datas[0], entries.keys[0], hash_key)
        except _REFUSED:
            return None
        return {"ShardId": placed.shard_id, "SequenceNumber": str(placed.sequence_number)}

    def put_records(self, given: Mapping[str, Any]) -> Answer:
        """PutRecords."""
        records = given.get("Records")
        if type(records) is not list or not 1 <= len(records) <= limits.PUT_RECORDS_ENTRIES:
            return None
        if not given.keys() <= _RECORDS or not all(
            type(record) is dict and record.keys() <= _ENTRY for record in records
        ):
            return None
        entries = _entries(records)
        stream = None if entries is None else self._open_to_puts(given)
        if stream is None or entries is None or not _fit(entries, stream.map):
            return None
        try:
            placed, failures = local.put_each(self._path, stream.name, entries)
        except _REFUSED:
            return None
        if len(failures) == len(records) and all(isinstance(each.error, _REFUSED) for each in failures.values()):
            return None
        return {"FailedRecordCount": len(failures), "Records": _results(placed, failures)}

    def _open_to_puts(self, given: Mapping[str, Any]) -> Stream | None:
        """The stream, if records may be put to it as they are."""
        try:
            home = local.home(self._path)
            name = self._name(given)
            stream = None if name is None else self._stream(home.stream(name))
        except (ResourceNotFound, StorageError):
            return None
        if stream is None or stream.is_encrypted or stream.is_auto or not stream.serves(_now_ms()):
            return None
        return None if self._service.links.is_guarded(home.folder) else stream

    # ------------------------------------------------------------------ reading

    def get_shard_iterator(self, given: Mapping[str, Any]) -> Answer:
        """GetShardIterator, but for AT_TIMESTAMP."""
        if not given.keys() <= _PLACE:
            return None
        kind, number, shard_id = (
            given.get(name) for name in ("ShardIteratorType", "StartingSequenceNumber", "ShardId")
        )
        if kind not in (*_NUMBER_KINDS, iterators.TRIM_HORIZON, iterators.LATEST):
            return None
        if type(shard_id) is not str or (number is not None and not _is_decimal(number)):
            return None
        try:
            home = local.home(self._path)
            name = self._name(given)
            if name is None or self._service.links.is_guarded(home.folder):
                return None
            stream = self._stream(home.folder.map(name))
            index = shard_index(shard_id)
            now_ms = _now_ms()
            if not stream.serves(now_ms) or not stream.map.knows(index):
                return None
            start = iterators.start_of(stream, stream.map.shards[index], kind, number, None, now_ms)
            reader = ShardReader(home.folder, stream.map, index)
        except (AwsError, StorageError, ValueError):
            return None
        try:
            position = around_damage(home.folder, stream.map, index, lambda: start.look(reader))
        finally:
            reader.close()
        return {"ShardIterator": self._token(stream, index, position)}

    def get_records(self, given: Mapping[str, Any]) -> Answer:
        """GetRecords."""
        token = given.get("ShardIterator")
        limit = given.get("Limit", limits.GET_RECORDS_ENTRIES)
        if not given.keys() <= _READ or type(token) is not str or type(limit) is not int:
            return None
        if not 1 <= limit <= limits.GET_RECORDS_ENTRIES or not token:
            return None
        now_ms = _now_ms()
        try:
            folder = local.home(self._path).folder
            place = iterators.decode(self._seal(), token, now_ms)
            stream = self._stream(folder.map_by_id(place.stream_id))
            if not stream.serves(now_ms) or self._service.links.is_guarded(folder):
                return None
            shard = stream.map.shards[place.shard]
            reader = ShardReader(folder, stream.map, place.shard)
        except (AwsError, StorageError):
            return None
        try:
            page = around_damage(
                folder,
                stream.map,
                place.shard,
                lambda: read_page(reader, shard, place.position, limit=limit, oldest_ms=trim_ms(stream.map, now_ms)),
            )
        finally:
            reader.close()
        assert page is not None  # it waits for the disk
        rows = Rows()
        rows.add(page)
        answer = answers.get_records(
            stream.map, shard, rows, page, now_ms, lambda position: self._token(stream, place.shard, position)
        )
        operation = self._service.model.operation("GetRecords")
        assert operation is not None
        return self._output.read(operation, answer)

    # ------------------------------------------------------------------ what they share

    def _name(self, given: Mapping[str, Any]) -> str | None:
        """The name of a home stream that is meant; None where that is not plain."""
        name, arn = given.get("StreamName"), given.get("StreamARN")
        if arn is not None:
            folder = local.home(self._path).folder
            prefix = stream_arn(folder.region, folder.account, "")
            if type(arn) is not str or not arn.startswith(prefix):
                return None
            named = arn[len(prefix) :]
            if name is not None and name != named:
                return None
            name = named
        return name if type(name) is str and ":" not in name and "/" not in name else None

    def _stream(self, found: StreamMap) -> Stream:
        """The stream of a map with what is kept beside it, as both are now."""
        folder = local.home(self._path).folder
        known = self._seen.get(found.name)
        if known is not None and known.map is found:
            stamp = _stamp(known.path)
            if stamp == known.stamp:
                return known.stream
        path = folder.stream_dir(found)
        file = f"{path}/{attributefiles.FILE_NAME}"
        stamp = _stamp(file)
        kept: Attributes = DEFAULTS if stamp is None else attributefiles.load(path, folder.files)
        made = Stream(found, Place(*folder.place_of(found)), kept)
        if found.is_home:
            self._seen[found.name] = _Seen(found, file, stamp, made)
        return made

    def _seal(self) -> Seal:
        """Tokens of this client and of a node are the same."""
        return Seal(local.home(self._path).folder.id.encode())

    def _token(self, stream: Stream, shard: int, position: Position) -> str:
        return iterators.encode(self._seal(), iterators.Place(stream.id, stream.name, shard, position), _now_ms())


def _entries(records: Sequence[Mapping[str, Any]]) -> Entries | None:
    """The records by column; None where one is not as most are."""
    keys: list[str] = []
    datas: list[bytes] = []
    hash_keys: list[int | None] = []
    for record in records:
        key, data, hash_key = record.get("PartitionKey"), record.get("Data"), record.get("ExplicitHashKey")
        if type(data) is not bytes:
            if not isinstance(data, str | bytearray):
                return None
            data = data.encode() if isinstance(data, str) else bytes(data)
        if type(key) is not str or not 1 <= len(key) <= limits.PARTITION_KEY_CHARACTERS:
            return None
        if hash_key is not None:
            if not _is_decimal(hash_key) or (number := int(hash_key)) >= _HASH_KEYS:
                return None
            hash_keys.append(number)
        else:
            hash_keys.append(None)
        keys.append(key)
        datas.append(data)
    return Entries(keys, datas, None if hash_keys.count(None) == len(hash_keys) else hash_keys)


def _fit(entries: Entries, stream: StreamMap) -> bool:
    """Whether the stream takes records of these sizes, and a call takes them together."""
    try:
        sizes = [len(data) + len(key.encode()) for data, key in zip(entries.datas, entries.keys, strict=True)]
    except UnicodeEncodeError:
        return False
    return max(sizes) <= stream.max_record_bytes and sum(sizes) <= limits.PUT_RECORDS_BYTES


def _results(placed: Sequence[Placed | None], failures: Mapping[int, Failure]) -> list[dict[str, str]]:
    return [
        {"ErrorCode": "InternalFailure", "ErrorMessage": str(failures[index].error)}
        if place is None
        else {"SequenceNumber": str(place.sequence_number), "ShardId": place.shard_id}
        for index, place in enumerate(placed)
    ]


def _is_decimal(text: Any) -> bool:
    """Whether it is a number as the model's patterns for hash keys and sequence numbers want it."""
    return (
        type(text) is str and text.isascii() and text.isdigit() and (text[0] != "0" or text == "0") and len(text) < 100
    )


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Tells one version of a file from another; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # before each put: a `Path` costs as much again
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
