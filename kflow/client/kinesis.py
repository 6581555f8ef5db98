"""The Kinesis client for local data. Absent: consumers, resharding, retention, tags, policies, encryption, queues."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from kflow import limits
from kflow.arn import stream_arn, stream_name
from kflow.aws.calls import Place
from kflow.broker import wire
from kflow.broker.asking import around_damage
from kflow.broker.attributes import DEFAULTS
from kflow.broker.folder import DataFolder
from kflow.broker.forgetting import forget
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import parse, shard_id, shard_index
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.broker.writing import writing
from kflow.client import shapes
from kflow.client.faults import Exceptions, metadata, raise_as_client_error, raise_invalid
from kflow.client.parameters import blob, check, check_record, hash_key
from kflow.client.shapes import records
from kflow.errors import (
    InvalidArgument,
    KflowError,
    NoNode,
    ResourceNotFound,
    ValidationFailed,
)
from kflow.kinesis import iterators, pages, shards
from kflow.kinesis.page import read_page, trim_ms
from kflow.kinesis.registry import Stream
from kflow.kinesis.seals import Seal
from kflow.producing import local
from kflow.producing.pipeline import Entries
from kflow.records import Position

_DESCRIBED = 100
_LISTED = 1000
_LIST = b"shards"
_TYPES = ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")

Answer = dict[str, Any]
Body = Callable[["KinesisClient", Mapping[str, Any]], Answer]


def _operation(body: Body) -> Callable[..., Answer]:
    """A client method: parameters checked, our errors raised as boto3's, `ResponseMetadata` added."""
    name = "".join(word.capitalize() for word in body.__name__.split("_"))

    @functools.wraps(body)
    def method(self: KinesisClient, **parameters: Any) -> Answer:
        check(name, parameters)
        try:
            answer = body(self, parameters)
        except KflowError as error:
            raise_as_client_error(error, name)
        answer["ResponseMetadata"] = metadata()
        return answer

    return method


class KinesisClient:
    """boto3's Kinesis client over a data folder. Any thread may use it.

    Attributes:
        exceptions: error classes by AWS's code, as boto3 has them.
    """

    def __init__(self, data_dir: str) -> None:
        self._path = Path(data_dir)
        self.exceptions = Exceptions()

    def __getattr__(self, name: str) -> NoReturn:
        there = ", ".join(
            sorted(known for known, _ in inspect.getmembers(type(self), inspect.isfunction) if known[0] != "_")
        )
        raise AttributeError(f"kflow's local Kinesis client has no {name!r}; it has {there}")

    def close(self) -> None:
        """Nothing is kept open; boto3's clients have this method."""

    @_operation
    def put_record(self, given: Mapping[str, Any]) -> Answer:
        """Put one record. Source: documented: PutRecord."""
        name = self._name(given)
        if "SequenceNumberForOrdering" in given:
            self._check_ordering(name, given["SequenceNumberForOrdering"])
        data = blob(given["Data"], "Data")
        key = _key(given, "partitionKey")
        try:
            placed = local.put_one(str(self._path), name, data, key, hash_key(given.get("ExplicitHashKey")))
        except ResourceNotFound as error:
            raise self._missing(name) from error
        return {"ShardId": placed.shard_id, "SequenceNumber": str(placed.sequence_number)}

    @_operation
    def put_records(self, given: Mapping[str, Any]) -> Answer:
        """Put up to 500 records; those that fail are marked in the answer. Source: documented: PutRecords."""
        name = self._name(given)
        records = given["Records"]
        if not 1 <= len(records) <= limits.PUT_RECORDS_ENTRIES:
            bound = "greater than or equal to 1" if not records else "less than or equal to 500"
            raise ValidationFailed(
                "1 validation error detected: Value at 'records' failed to satisfy constraint: "
                f"Member must have length {bound}"
            )
        for index, record in enumerate(records):
            check_record(index, record)
        datas = [blob(record["Data"], f"Records[{index}].Data") for index, record in enumerate(records)]
        keys = [_key(record, f"records.{index + 1}.member.partitionKey") for index, record in enumerate(records)]
        hash_keys = [hash_key(record.get("ExplicitHashKey")) for record in records]
        if sum(map(len, datas)) + sum(len(key.encode()) for key in keys) > limits.PUT_RECORDS_BYTES:
            raise InvalidArgument("Records size exceeds 10 MB limit")  # unverified text
        explicit = None if hash_keys.count(None) == len(hash_keys) else hash_keys
        try:
            placed, failures = local.put_each(str(self._path), name, Entries(keys, datas, explicit))
        except ResourceNotFound as error:
            raise self._missing(name) from error
        if len(failures) == len(records) and all(isinstance(f.error, ResourceNotFound) for f in failures.values()):
            raise self._missing(name)
        results = [
            {"ErrorCode": "InternalFailure", "ErrorMessage": str(failures[index].error)}
            if place is None
            else {"SequenceNumber": str(place.sequence_number), "ShardId": place.shard_id}
            for index, place in enumerate(placed)
        ]
        return {"FailedRecordCount": len(failures), "Records": results}

    @_operation
    def get_shard_iterator(self, given: Mapping[str, Any]) -> Answer:
        """A token to read a shard from. Source: documented: GetShardIterator; recorded checks and texts."""
        name = self._name(given)
        kind = given["ShardIteratorType"]
        if kind not in _TYPES:
            raise ValidationFailed(
                f"1 validation error detected: Value '{kind}' at 'shardIteratorType' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(_TYPES)}]"
            )
        stream, shard = self._shard(name, given["ShardId"])
        start = iterators.start_of(
            self._described_by(stream),
            shard,
            kind,
            given.get("StartingSequenceNumber"),
            _milliseconds(given, "Timestamp"),
            _now_ms(),
        )
        folder = self._folder()
        reader = ShardReader(folder, stream, shard.index)
        try:
            position = around_damage(folder, stream, shard.index, lambda: start.look(reader))
        finally:
            reader.close()
        return {"ShardIterator": self._token(stream, shard.index, position)}

    @_operation
    def get_records(self, given: Mapping[str, Any]) -> Answer:
        """The next records of a shard. Source: documented: GetRecords."""
        folder = self._folder()
        now_ms = _now_ms()
        place = iterators.decode(self._seal(), given["ShardIterator"], now_ms)
        limit = given.get("Limit", limits.GET_RECORDS_ENTRIES)
        if not 1 <= limit <= limits.GET_RECORDS_ENTRIES:
            bound = "greater than or equal to 1" if limit < 1 else f"less than or equal to {limits.GET_RECORDS_ENTRIES}"
            raise ValidationFailed(
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
                f"Member must have value {bound}"
            )
        try:
            stream = folder.map_by_id(place.stream_id)
        except ResourceNotFound as error:
            raise shards.absent(place.name, folder.account, place.shard) from error
        reader = ShardReader(folder, stream, place.shard)
        try:
            shard = stream.shards[place.shard]
            page = around_damage(
                folder,
                stream,
                place.shard,
                lambda: read_page(reader, shard, place.position, limit=limit, oldest_ms=trim_ms(stream, now_ms)),
            )
        finally:
            reader.close()
        assert page is not None  # it waits for the disk
        answer: Answer = {"Records": records(page), "MillisBehindLatest": page.behind_ms(now_ms)}
        # By the map, which was read before the page: what it calls closed has nothing to come.
        if not shard.is_open and not page.is_behind:
            answer["ChildShards"] = shards.child_shards(stream, place.shard)
        else:
            answer["NextShardIterator"] = self._token(stream, place.shard, page.position)
        return answer

    @_operation
    def list_shards(self, given: Mapping[str, Any]) -> Answer:
        """The shards of a stream. Source: documented: ListShards; recorded texts."""
        now_ms = _now_ms()
        after = -1
        if "NextToken" in given:
            for other in ("StreamName", "StreamARN", "ExclusiveStartShardId"):
                if other in given:
                    raise InvalidArgument(f"NextToken and {other} cannot be provided together.")
            said = pages.said(self._seal(), _LIST, given["NextToken"], now_ms)
            _, name, after, kind, wanted_shard, epoch_ms = said
        else:
            kept = given.get("ShardFilter") or {}
            name = given.get("StreamName") or stream_name(given.get("StreamARN", ""))
            kind, wanted_shard, epoch_ms = kept.get("Type"), kept.get("ShardId"), _milliseconds(kept, "Timestamp")
            if not name:
                raise InvalidArgument("Either NextToken or StreamName should be provided.")
        stream = self._stream(name)
        if "ExclusiveStartShardId" in given:
            after = self._index(stream, given["ExclusiveStartShardId"])
        listed = shards.filtered(self._described_by(stream), kind, wanted_shard, epoch_ms, now_ms)
        found = [shard for shard in listed if shard.index > after]
        size = min(given.get("MaxResults", _LISTED), _LISTED)
        answer: Answer = {"Shards": [shards.shard(shard) for shard in found[:size]]}
        if len(found) > size:
            last = found[size - 1].index
            answer["NextToken"] = pages.token(
                self._seal(), _LIST, now_ms, stream.id, name, last, kind, wanted_shard, epoch_ms
            )
        return answer

    @_operation
    def describe_stream(self, given: Mapping[str, Any]) -> Answer:
        """A stream and up to 100 of its shards. Source: documented: DescribeStream."""
        stream = self._stream(self._name(given))
        start = given.get("ExclusiveStartShardId")
        after = -1 if start is None else self._index(stream, start)
        found = [shard for shard in stream.shards if shard.index > after]
        size = min(given.get("Limit", _DESCRIBED), _DESCRIBED)
        description = self._described(stream)
        description["Shards"] = [shards.shard(shard) for shard in found[:size]]
        description["HasMoreShards"] = len(found) > size
        return {"StreamDescription": description}

    @_operation
    def describe_stream_summary(self, given: Mapping[str, Any]) -> Answer:
        """A stream without its shards. Source: documented: DescribeStreamSummary."""
        stream = self._stream(self._name(given))
        summary = self._described(stream)
        summary["OpenShardCount"] = len(stream.open_shards)
        summary["ConsumerCount"] = 0
        summary["MaxRecordSizeInKiB"] = stream.max_record_bytes // limits.KIB
        return {"StreamDescriptionSummary": summary}

    @_operation
    def list_streams(self, given: Mapping[str, Any]) -> Answer:
        """All streams by name, up to 100 a call. Source: documented: ListStreams."""
        after = given.get("NextToken") or given.get("ExclusiveStartStreamName") or ""
        found = [stream for stream in self._folder().maps() if stream.name > after]
        size = min(given.get("Limit", _DESCRIBED), _DESCRIBED)
        page = found[:size]
        answer: Answer = {
            "StreamNames": [stream.name for stream in page],
            "HasMoreStreams": len(found) > size,
            "StreamSummaries": [
                shapes.without(self._described(stream), "RetentionPeriodHours", "EnhancedMonitoring", "EncryptionType")
                for stream in page
            ],
        }
        if len(found) > size:
            answer["NextToken"] = page[-1].name
        return answer

    @_operation
    def create_stream(self, given: Mapping[str, Any]) -> Answer:
        """Create a stream; it is ACTIVE at once. Source: documented: CreateStream."""
        mode = given.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
        if mode != "PROVISIONED":
            raise InvalidArgument(f"StreamMode {mode} is not built yet: create the stream with a ShardCount")
        if "ShardCount" not in given:
            raise ValidationFailed("ShardCount must not be null for a stream in PROVISIONED mode.")  # unverified text
        folder = DataFolder.open(self._path, create=True)
        name, shards = given["StreamName"], given["ShardCount"]
        record_bytes = given.get("MaxRecordSizeInKiB", limits.RECORD_BYTES // limits.KIB) * limits.KIB
        try:
            wire.call(folder.path, "create_stream", name=name, shards=shards, max_record_bytes=record_bytes)
        except NoNode:
            with writing(folder) as log:
                log.create_stream(name, shards, max_record_bytes=record_bytes)
        return {}

    @_operation
    def delete_stream(self, given: Mapping[str, Any]) -> Answer:
        """Delete a stream with its records. Source: documented: DeleteStream."""
        name = self._name(given)
        stream = self._stream(name)
        folder = self._folder()
        try:
            wire.call(folder.path, "delete_stream", name=name)
        except NoNode:
            with writing(folder) as log:
                log.delete_stream(name)
                forget(folder, stream)
        return {}

    def _folder(self) -> DataFolder:
        return local.home(str(self._path)).folder

    def _name(self, given: Mapping[str, Any]) -> str:
        """The stream that is meant; name and ARN must agree where both are given."""
        name, arn = given.get("StreamName"), given.get("StreamARN")
        if arn is not None:
            named = stream_name(arn)
            if name is not None and name != named:
                raise InvalidArgument(f"StreamName {name} and StreamARN {arn} do not name the same stream.")
            return named
        if name is None:
            raise InvalidArgument("Neither StreamName nor StreamARN was provided.")  # unverified text
        return str(name)

    def _missing(self, name: str) -> ResourceNotFound:
        return ResourceNotFound(f"Stream {name} under account {self._folder().account} not found.")

    def _stream(self, name: str) -> StreamMap:
        try:
            return self._folder().map(name)
        except ResourceNotFound as error:
            raise self._missing(name) from error

    def _index(self, stream: StreamMap, given: str) -> int:
        try:
            return shard_index(given)
        except ValueError as error:
            account = self._folder().account
            raise ResourceNotFound(
                f"Could not find shard {given} in stream {stream.name} under account {account}."
            ) from error

    def _shard(self, name: str, given: str) -> tuple[StreamMap, ShardInfo]:
        account = self._folder().account
        try:
            index = shard_index(given)
        except ValueError as error:
            raise ResourceNotFound(f"Could not find shard {given} in stream {name} under account {account}.") from error
        absent = f"Shard {shard_id(index)} in stream {name} under account {account} does not exist"
        try:
            stream = self._folder().map(name)
        except ResourceNotFound as error:
            raise ResourceNotFound(absent) from error
        if index >= len(stream.shards):
            raise ResourceNotFound(absent)
        return stream, stream.shards[index]

    def _check_ordering(self, name: str, text: str) -> None:
        try:
            fine = parse(int(text)).arrival_s <= time.time()
        except ValueError:
            fine = False
        if not fine:
            raise InvalidArgument(
                f"ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {name} "
                f"under account {self._folder().account} is invalid."
            )

    def _token(self, stream: StreamMap, shard: int, position: Position) -> str:
        return iterators.encode(self._seal(), iterators.Place(stream.id, stream.name, shard, position), _now_ms())

    def _seal(self) -> Seal:
        """Tokens of this client and of a node are the same."""
        return Seal(self._folder().id.encode())

    def _described_by(self, stream: StreamMap) -> Stream:
        folder = self._folder()
        return Stream(stream, Place(folder.account, folder.region), DEFAULTS)

    def _described(self, stream: StreamMap) -> Answer:
        folder = self._folder()
        return shapes.description(stream, stream_arn(folder.region, folder.account, stream.name))


def _key(given: Mapping[str, Any], path: str) -> str:
    key = given.get("PartitionKey")
    if not isinstance(key, str):
        raise ValidationFailed(
            f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
        )
    return key


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _milliseconds(given: Mapping[str, Any], name: str) -> int | None:
    """A timestamp in milliseconds since the epoch: a datetime, seconds, or ISO 8601 text, as botocore takes them."""
    value = given.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        seconds = moment.timestamp() if isinstance(moment, datetime) else float(moment)
    except (TypeError, ValueError) as error:
        raise_invalid([f"Invalid type for parameter {name}, value: {value}, type: {type(value)}: {error}"])
    return int(seconds * 1000)
