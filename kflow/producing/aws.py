"""Putting to AWS, or to an endpoint that speaks Kinesis, through boto3."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from kflow.arn import stream_name
from kflow.errors import KflowError, StorageError
from kflow.producing.frames import Failure
from kflow.producing.pipeline import Entries
from kflow.producing.sdk import Unanswered, error_of, make_client, translated
from kflow.producing.targets import Target
from kflow.records import Placed

ENTRIES = 500
"""Source: documented: PutRecords, at most 500 records a call."""
CALL_BYTES = 5 << 20
"""chosen: AWS takes 10 MiB a call since October 2025; emulators often still 5."""
PATIENCE_S = 10.0
_PAUSE_S = (0.1, 2.0)
_RETRIED = frozenset({"ProvisionedThroughputExceededException", "InternalFailure"})
"""Source: documented: PutRecords, the only codes of single records."""


class Shards(NamedTuple):
    """The open shards of a stream, in the order of their hash keys.

    Attributes:
        ids: shard ids.
        starts: first hash keys.
        ends: last hash keys.
    """

    ids: Sequence[str]
    starts: Sequence[int]
    ends: Sequence[int]

    def range_of(self, shard_id: str) -> range | None:
        """The hash keys of a shard; None where it is not open."""
        if shard_id not in self.ids:
            return None
        place = self.ids.index(shard_id)
        return range(self.starts[place], self.ends[place] + 1)


class RemoteStream:
    """One stream behind an SDK client. Any thread may use it, one call at a time keeps the order.

    Attributes:
        name: as it was given, a name or an ARN.
    """

    def __init__(self, name: str, sdk: Any) -> None:
        self.name = name
        self._client = sdk
        self._by = {"StreamARN": name} if name.startswith("arn:") else {"StreamName": stream_name(name)}

    def put_one(self, data: bytes, key: str, hash_key: int | None) -> Placed:
        """Put one record.

        Raises:
            AwsError: as AWS names it.
            StorageError: the endpoint cannot be reached, or did not answer: then it may be stored.
        """
        return self._put_record(_entry(data, key, hash_key), None)

    def put_all(self, entries: Entries, *, ordered: bool) -> tuple[list[Placed | None], dict[int, Failure]]:
        """Put the records of one call; only those that failed are tried again.

        Args:
            entries: the records.
            ordered: keep the order of each key's records: one call a record, each naming the one before it, for AWS
                promises no order within PutRecords.

        Returns:
            Where each record is, and why some have no place, by index. The SDK's own retries are at-least-once.
        """
        total = len(entries.keys)
        placed: list[Placed | None] = [None] * total
        failures: dict[int, Failure] = {}
        hash_keys = entries.hash_keys or [None] * total
        records = [_entry(*fields) for fields in zip(entries.datas, entries.keys, hash_keys, strict=True)]
        if ordered:
            self._put_in_order(records, placed, failures)
        else:
            for begin, end in _calls(entries):
                self._put_records(records, range(begin, end), placed, failures)
        return placed, failures

    def shards(self) -> Shards:
        """The shards that are open now.

        Raises:
            AwsError: as AWS names it.
            StorageError: the endpoint cannot be reached.
        """
        rows: list[tuple[int, int, str]] = []
        asked = self._by
        while True:
            answer = translated(self._client.list_shards, **asked)
            for shard in answer["Shards"]:
                if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                    bounds = shard["HashKeyRange"]
                    rows.append((int(bounds["StartingHashKey"]), int(bounds["EndingHashKey"]), shard["ShardId"]))
            if not answer.get("NextToken"):
                break
            asked = {"NextToken": answer["NextToken"]}
        rows.sort()
        return Shards([row[2] for row in rows], [row[0] for row in rows], [row[1] for row in rows])

    def _put_in_order(
        self, records: list[dict[str, Any]], placed: list[Placed | None], failures: dict[int, Failure]
    ) -> None:
        last: dict[str, int] = {}
        for index, record in enumerate(records):
            key = record["PartitionKey"]
            try:
                place = placed[index] = self._put_record(record, last.get(key))
            except KflowError as error:
                failures[index] = _failure(error)
                rest: KflowError = StorageError("not tried, for a record before it failed")
                failures.update(dict.fromkeys(range(index + 1, len(records)), Failure("refused", rest)))
                return
            last[key] = place.sequence_number

    def _put_record(self, record: dict[str, Any], after: int | None) -> Placed:
        more = {} if after is None else {"SequenceNumberForOrdering": str(after)}
        answer = translated(self._client.put_record, **self._by, **record, **more)
        return Placed(answer["ShardId"], int(answer["SequenceNumber"]))

    def _put_records(
        self,
        records: list[dict[str, Any]],
        indexes: Sequence[int],
        placed: list[Placed | None],
        failures: dict[int, Failure],
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        pause, longest = _PAUSE_S
        while indexes:
            try:
                answer = translated(self._client.put_records, **self._by, Records=[records[index] for index in indexes])
            except KflowError as error:
                failures.update(dict.fromkeys(indexes, _failure(error)))
                return
            again: list[int] = []
            for index, result in zip(indexes, answer["Records"], strict=True):
                code = result.get("ErrorCode")
                if not code:
                    placed[index] = Placed(result["ShardId"], int(result["SequenceNumber"]))
                elif code in _RETRIED and time.monotonic() < deadline:
                    again.append(index)
                else:
                    failures[index] = Failure("refused", error_of(code, result.get("ErrorMessage", "")))
            indexes = again
            if again:
                time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads retries, keeps no secret
                pause = min(2 * pause, longest)


_clients: dict[tuple[str, str], Any] = {}
_clients_lock = threading.Lock()


def client(target: Target) -> Any:
    """The SDK's Kinesis client of a target; one a process, for making one costs tens of milliseconds.

    Raises:
        UsageError: boto3 is not installed.
    """
    key = (target.kind, target.where)
    with _clients_lock:
        found = _clients.get(key)
        if found is None:
            found = _clients[key] = _new_client(target)
    return found


def _new_client(target: Target) -> Any:
    why = f"puts go to {target.where or 'AWS'} ({target.why})"
    if target.kind == "endpoint":
        return make_client("kinesis", endpoint_url=target.where, why=why)
    return make_client("kinesis", region=target.where or None, why=why)


def _entry(data: bytes, key: str, hash_key: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"Data": data, "PartitionKey": key}
    if hash_key is not None:
        entry["ExplicitHashKey"] = str(hash_key)
    return entry


def _calls(entries: Entries) -> list[tuple[int, int]]:
    """Where to cut the records into calls that AWS takes."""
    cuts: list[tuple[int, int]] = []
    begin = size = 0
    for index, (key, data) in enumerate(zip(entries.keys, entries.datas, strict=True)):
        more = len(data) + 4 * len(key)
        if index > begin and (index - begin == ENTRIES or size + more > CALL_BYTES):
            cuts.append((begin, index))
            begin, size = index, 0
        size += more
    cuts.append((begin, len(entries.keys)))
    return cuts


def _failure(error: KflowError) -> Failure:
    return Failure("unknown" if isinstance(error, Unanswered) else "refused", error)


def _after_fork_in_child() -> None:
    global _clients, _clients_lock  # their connections are the parent's, and the lock may be held
    _clients, _clients_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
