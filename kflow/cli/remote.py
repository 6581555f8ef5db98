"""Streams behind an SDK client: another endpoint (`--endpoint-url`), or real AWS (`--profile`, `--region`)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from kflow.arn import stream_name
from kflow.broker.sequence import number, shard_id, shard_index
from kflow.cli.arguments import Arguments, Parser
from kflow.cli.positions import Start
from kflow.errors import ExpiredIterator, ProvisionedThroughputExceeded, UsageError

_PAUSE_S = 0.25
"""Between two reads of a shard: AWS allows five a second, of all who read it together.

Source: documented: Kinesis Data Streams quotas, GetRecords.
"""
_THROTTLED_S = 1.0


class RemoteRecord(NamedTuple):
    """One record.

    Attributes:
        shard: index of its shard.
        sequence_number: of the record.
        partition_key: empty where it has none.
        arrival_ms: milliseconds since the epoch.
        data: its payload.
    """

    shard: int
    sequence_number: int
    partition_key: str
    arrival_ms: int
    data: bytes


class Remote:
    """Kinesis somewhere else.

    Attributes:
        client: the SDK's.
        where: in words, for people.
    """

    def __init__(self, client: Any, where: str) -> None:
        self.client = client
        self.where = where

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """Call an operation, by boto3's name; its errors are ours."""
        from kflow.producing.sdk import translated

        answer: dict[str, Any] = translated(getattr(self.client, operation), **members)
        return answer

    def stream_names(self) -> Iterator[str]:
        """Names of all streams."""
        more: dict[str, Any] = {}
        while True:
            page = self.call("list_streams", **more)
            yield from page["StreamNames"]
            if not page["HasMoreStreams"]:
                return
            more = {"ExclusiveStartStreamName": page["StreamNames"][-1]}

    def summary(self, stream: str) -> dict[str, Any]:
        """`StreamDescriptionSummary` of a stream."""
        found: dict[str, Any] = self.call("describe_stream_summary", **named(stream))["StreamDescriptionSummary"]
        return found

    def shards(self, stream: str) -> list[dict[str, Any]]:
        """All shards that are kept, open and closed."""
        found: list[dict[str, Any]] = []
        members = named(stream)
        while True:
            page = self.call("list_shards", **members)
            found += page["Shards"]
            if "NextToken" not in page:
                return found
            members = {"NextToken": page["NextToken"]}


def named(stream: str) -> dict[str, Any]:
    """How a stream is named in a call, by its name or its ARN."""
    return {"StreamARN": stream} if stream.startswith("arn:") else {"StreamName": stream_name(stream)}


def add_remote_flags(parser: Parser) -> None:
    """`--endpoint-url`, `--profile`, `--region`."""
    parser.add_argument("--endpoint-url", metavar="URL", help="the streams of this endpoint, in place of the project's")
    parser.add_argument("--profile", metavar="P", help="the streams of real AWS, with this profile's credentials")
    parser.add_argument("--region", metavar="R", help="with --endpoint-url or --profile: another region")


def remote_of(arguments: Arguments) -> Remote | None:
    """What the flags name; None where they name nothing, and the command is about local data.

    Raises:
        UsageError: the flags contradict each other, or boto3 does not know what they name.
    """
    url, profile, region = arguments.endpoint_url, arguments.profile, arguments.region
    if url is None and profile is None:
        if region is not None:
            raise UsageError("--region goes with --profile or --endpoint-url; local data has the settings' region")
        return None
    if arguments.data_dir is not None:
        raise UsageError("--data-dir is local data, --endpoint-url and --profile are not: give one of them")
    from kflow.producing.sdk import make_client

    client = make_client(
        "kinesis", endpoint_url=url, profile=profile, region=region, why="--endpoint-url and --profile call Kinesis"
    )
    where = client.meta.endpoint_url if url is not None else f"AWS {client.meta.region_name}"
    return Remote(client, where if profile is None else f"{where}, profile {profile}")


def records(
    remote: Remote, stream: str, start: Start, *, shard: int | None, follow: bool, until_ms: int | None = None
) -> Iterator[RemoteRecord]:
    """Records of all shards, or of one, each shard in order, children after all of their parents.

    Args:
        remote: where the stream is.
        stream: name or ARN.
        start: where to begin in the shards that are there now; their children are read from their beginning.
        shard: index of the one shard; None for all.
        follow: wait for more; else end where each shard ended when it was read to its end first.
        until_ms: leave out what arrived after this, milliseconds since the epoch.

    Raises:
        UsageError: the stream has no such shard.
    """
    by = named(stream)
    listed = {shard_index(each["ShardId"]): _parents(each) for each in remote.shards(stream)}
    if shard is not None and shard not in listed:
        known = ", ".join(map(str, sorted(listed)))
        raise UsageError(f"stream {stream} has no shard {shard}: its shards are {known}")
    waiting = {index: parents & listed.keys() for index, parents in listed.items()} if shard is None else {shard: set()}
    seen, done = set(waiting), set[int]()
    running: deque[_Reading] = deque()
    while True:
        for index in [index for index, parents in waiting.items() if parents <= done]:
            del waiting[index]
            running.append(_Reading(remote, by, index, start if index in listed else Start("trim_horizon")))
        if not running:
            return
        reading = running.popleft()
        found, children = reading.read()
        if until_ms is not None and found and found[-1].arrival_ms > until_ms:
            yield from (each for each in found if each.arrival_ms <= until_ms)
            continue  # what follows, here and in children, arrived later still
        yield from found
        if reading.is_over:
            done.add(reading.index)
            for child in children if shard is None else ():
                born = shard_index(child["ShardId"])
                if born not in seen:
                    seen.add(born)
                    waiting[born] = {shard_index(each) for each in child["ParentShards"]} & seen
        elif follow or not reading.at_tip:
            running.append(reading)


class _Reading:
    """One shard on its way.

    Attributes:
        index: of the shard.
        at_tip: whether the last read found the end of the shard.
        is_over: whether the shard is closed and read to its end.
    """

    def __init__(self, remote: Remote, by: dict[str, Any], index: int, start: Start) -> None:
        self.index = index
        self.at_tip = False
        self.is_over = False
        self._remote = remote
        self._by = by
        self._start = start
        self._last: int | None = None
        self._token: str | None = None
        self._due = 0.0

    def read(self) -> tuple[list[RemoteRecord], list[dict[str, Any]]]:
        """The next records, and the children where the shard ends; waits until the shard may be read again."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = time.monotonic() + _PAUSE_S
        try:
            if self._token is None:
                self._token = self._iterator()
            answer = self._remote.call("get_records", ShardIterator=self._token)
        except ExpiredIterator:
            self._token = None
            return [], []
        except ProvisionedThroughputExceeded:  # others read this shard, too
            self._due = time.monotonic() + _THROTTLED_S
            return [], []
        found = [
            RemoteRecord(
                self.index,
                int(each["SequenceNumber"]),
                each.get("PartitionKey", ""),
                round(each["ApproximateArrivalTimestamp"].timestamp() * 1000),
                each["Data"],
            )
            for each in answer["Records"]
        ]
        if found:
            self._last = found[-1].sequence_number
        self._token = answer.get("NextShardIterator")
        self.is_over = self._token is None
        self.at_tip = not found and not answer.get("MillisBehindLatest", 0)
        return found, answer.get("ChildShards", [])

    def _iterator(self) -> str:
        members: dict[str, Any] = {"ShardId": shard_id(self.index), **self._by}
        start = self._start
        if self._last is not None:
            members.update(ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=str(self._last))
        elif start.number is not None:
            created_s, counter, arrival_s, index = start.number
            exact = number(created_s, index, counter, arrival_s * 1000)
            members.update(ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=str(exact))
        elif start.epoch_ms is not None:
            members.update(ShardIteratorType="AT_TIMESTAMP", Timestamp=start.epoch_ms / 1000)
        else:
            members.update(ShardIteratorType="LATEST" if start.word == "latest" else "TRIM_HORIZON")
        token: str = self._remote.call("get_shard_iterator", **members)["ShardIterator"]
        return token


def _parents(shard: dict[str, Any]) -> set[int]:
    names = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
    return {shard_index(name) for name in names if name is not None}
