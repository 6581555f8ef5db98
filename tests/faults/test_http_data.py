"""Records over HTTP under attack: kills and resharding under load, many shards with few descriptors, lazy readers."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from tests import served as serving
from tests.deadline import eventually
from tests.served import Served, served

WRITERS = 3
KEYS = 4
MORE = 300
"""Records that each writer has acknowledged before the next kill, at least."""


class Gone(Exception):
    """The server was killed."""


class Caller:
    """One connection."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        assert at.hostname is not None
        self._connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)

    def ask(self, operation: str, **members: Any) -> dict[str, Any]:
        headers = {"X-Amz-Target": f"Kinesis_20131202.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        try:
            self._connection.request("POST", "/", json.dumps(members), headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Gone from error
        assert response.status == 200, body
        found: dict[str, Any] = json.loads(body) if body else {}
        return found

    def send(self, operation: str, **members: Any) -> None:
        """Ask, and read no answer."""
        headers = {"X-Amz-Target": f"Kinesis_20131202.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        self._connection.request("POST", "/", json.dumps(members), headers)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer(threading.Thread):
    """Puts numbered records of a few keys, one call after the other, until the server is gone."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name)
        self.caller = Caller(url)
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.wrong: list[Any] = []
        self.start()

    def run(self) -> None:
        numbers = itertools.count()
        dice = random.Random(self.name)
        try:
            while not self.wrong:
                count = dice.choice([1, 1, 20, 100])
                texts = [f"{self.name}-{dice.randrange(KEYS)} {next(numbers)}" for _ in range(count)]
                records = [
                    {"PartitionKey": text.split()[0], "Data": base64.b64encode(text.encode()).decode()}
                    for text in texts
                ]
                if count == 1:
                    placed = [self.caller.ask("PutRecord", StreamName="orders", **records[0])]
                else:
                    placed = self.caller.ask("PutRecords", StreamName="orders", Records=records)["Records"]
                for text, place in zip(texts, placed, strict=True):
                    if "ErrorCode" in place:
                        self.wrong.append(place)
                    else:
                        self.acknowledged[place["ShardId"], int(place["SequenceNumber"])] = text
        except Gone:
            return
        except AssertionError as error:
            self.wrong.append(error)


class Resharder(threading.Thread):
    """Splits and merges until the server is gone."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.caller = Caller(url)
        self.done = 0
        self.wrong: list[Any] = []
        self.start()

    def run(self) -> None:
        dice = random.Random(1)
        try:
            while True:
                shards = self.caller.ask("ListShards", StreamName="orders", ShardFilter={"Type": "AT_LATEST"})["Shards"]
                shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
                if len(shards) < 4:
                    first = dice.choice(shards)
                    lower, upper = (int(first["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
                    middle = str((lower + upper) // 2)
                    self.caller.ask(
                        "SplitShard", StreamName="orders", ShardToSplit=first["ShardId"], NewStartingHashKey=middle
                    )
                else:
                    at = dice.randrange(len(shards) - 1)
                    pair = (shards[at]["ShardId"], shards[at + 1]["ShardId"])
                    self.caller.ask(
                        "MergeShards", StreamName="orders", ShardToMerge=pair[0], AdjacentShardToMerge=pair[1]
                    )
                self.done += 1
        except Gone:
            return
        except AssertionError as error:
            self.wrong.append(error)


def everything(caller: Caller) -> dict[tuple[str, int], str]:
    """All records, in the order in which a consumer meets them: parents before children."""
    found: dict[tuple[str, int], str] = {}
    for shard in caller.ask("ListShards", StreamName="orders")["Shards"]:
        token = caller.ask(
            "GetShardIterator", StreamName="orders", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while token is not None:
            page = caller.ask("GetRecords", ShardIterator=token)
            for record in page["Records"]:
                found[shard["ShardId"], int(record["SequenceNumber"])] = base64.b64decode(record["Data"]).decode()
            if not page["Records"] and not page["MillisBehindLatest"]:
                break
            token = page.get("NextShardIterator")
    return found


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def test_splits_merges_and_kills_under_load_lose_nothing_and_keep_the_order_of_each_key(endpoint: Served) -> None:
    with Caller(endpoint.url) as caller:
        caller.ask("CreateStream", StreamName="orders", ShardCount=2)
    acknowledged: dict[tuple[str, int], str] = {}
    for life in range(2):
        writers = [Writer(endpoint.url, f"w{life}{number}") for number in range(WRITERS)]
        resharder = Resharder(endpoint.url)
        try:
            eventually(
                lambda writers=writers, resharder=resharder: (
                    not resharder.is_alive()
                    or (resharder.done >= 4 and all(len(each.acknowledged) >= MORE or each.wrong for each in writers))
                ),
                seconds=60,
                what="writers and splits to be under way",
            )
        finally:
            endpoint.kill()
            for thread in (*writers, resharder):
                thread.join(60)
        assert [each.wrong for each in (*writers, resharder)] == [[]] * (WRITERS + 1)
        for writer in writers:
            acknowledged |= writer.acknowledged

        endpoint.start()
        with Caller(endpoint.url) as caller:
            found = everything(caller)

        assert {key: found.get(key) for key in acknowledged} == acknowledged
        numbers: dict[str, list[int]] = defaultdict(list)
        for text in found.values():
            name, number = text.split()
            numbers[name].append(int(number))
        assert {name: sorted(set(each)) for name, each in numbers.items()} == numbers


def test_a_thousand_shards_are_served_with_a_thousand_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["bash", "-c", 'ulimit -n 1024; exec "$0" "$@"', *serving.KFLOW]
    monkeypatch.setattr(serving, "KFLOW", few)
    with served(tmp_path) as endpoint, Caller(endpoint.url) as caller:
        caller.ask("CreateStream", StreamName="orders", ShardCount=1000)
        width = (1 << 128) // 1000
        for _ in range(2):
            for first in (0, 500):
                records = [
                    {"PartitionKey": "k", "ExplicitHashKey": str(width * shard + 9), "Data": "eA=="}
                    for shard in range(first, first + 500)
                ]
                answer = caller.ask("PutRecords", StreamName="orders", Records=records)
                assert answer["FailedRecordCount"] == 0
        assert len(everything(caller)) == 2000
        assert endpoint.notices() == []


def test_answers_that_nobody_reads_are_put_together_a_few_at_a_time(endpoint: Served) -> None:
    caller = Caller(endpoint.url)
    caller.ask("CreateStream", StreamName="orders", ShardCount=1)
    data = base64.b64encode(b"x" * 1_000_000).decode()
    caller.ask("PutRecords", StreamName="orders", Records=[{"PartitionKey": "k", "Data": data}] * 9)
    token = caller.ask("GetShardIterator", StreamName="orders", ShardId="0", ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    lazy = [Caller(endpoint.url) for _ in range(40)]
    for each in lazy:
        each.send("GetRecords", ShardIterator=token)
    assert len(caller.ask("GetRecords", ShardIterator=token)["Records"]) == 9  # it came last, so they have theirs
    peak = next(
        int(line.split()[1]) // 1024
        for line in Path(f"/proc/{endpoint.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    for each in (caller, *lazy):
        each.close()
    assert peak < 560, "MiB; 256 of them for answers that are complete. All 40 at a time took 690."
