"""`kill -9` of the endpoint under load: what it acknowledged is there when it is started again, where it said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.deadline import eventually
from tests.served import Served, served

WRITERS = 4
LIVES = 3
ACKNOWLEDGED = 100
"""Records a writer and a life, at least."""


class Writer:
    """Puts numbered records until its server is gone; remembers what was acknowledged, and where.

    Attributes:
        placed: payload by (shard id, sequence number).
        refused: what failed although the server was there.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self.placed: dict[tuple[str, str], bytes] = {}
        self.refused: list[str] = []
        self.thread = threading.Thread(target=self._run, name=name)
        self.thread.start()

    def _run(self) -> None:
        number = 0
        try:
            while True:
                if number % 3:
                    datas = [b"%s %d.%d" % (self._name.encode(), number, part) for part in range(20)]
                    records = [{"Data": data, "PartitionKey": data.decode()} for data in datas]
                    answer = self._client.put_records(StreamName="orders", Records=records)["Records"]
                else:
                    datas = [b"%s %d" % (self._name.encode(), number)]
                    answer = [self._client.put_record(StreamName="orders", Data=datas[0], PartitionKey="one")]
                for data, result in zip(datas, answer, strict=True):
                    if "SequenceNumber" in result:
                        self.placed[result["ShardId"], result["SequenceNumber"]] = data
                    else:
                        self.refused.append(result["ErrorMessage"])
                number += 1
        except ClientError as error:
            self.refused.append(str(error))
        except BotoCoreError:
            return  # the server is gone


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


def everything(client: Any) -> dict[tuple[str, str], bytes]:
    """All records of the stream, by shard and number."""
    found: dict[tuple[str, str], bytes] = {}
    for shard in client.list_shards(StreamName="orders")["Shards"]:
        token = client.get_shard_iterator(
            StreamName="orders", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            page = client.get_records(ShardIterator=token)
            for record in page["Records"]:
                key = (shard["ShardId"], record["SequenceNumber"])
                assert key not in found
                found[key] = record["Data"]
            if not page["Records"] and not page["MillisBehindLatest"]:
                break
            token = page["NextShardIterator"]
    return found


def test_what_was_acknowledged_survives_kill_9_under_load(endpoint: Served) -> None:
    client = endpoint.client()
    client.create_stream(StreamName="orders", ShardCount=2)
    eventually(lambda: client.list_streams()["StreamNames"] == ["orders"], what="the stream")
    acknowledged: dict[tuple[str, str], bytes] = {}
    for life in range(LIVES):
        writers = [Writer(endpoint.client(), f"writer-{life}-{number}") for number in range(WRITERS)]
        try:
            eventually(
                lambda writers=writers: all(
                    len(writer.placed) >= ACKNOWLEDGED or not writer.thread.is_alive() for writer in writers
                ),
                seconds=60,
                what="the writers to be under way",
            )
        finally:
            endpoint.kill()
        for writer in writers:
            writer.thread.join(60)
            assert writer.refused == []
            assert len(writer.placed) >= ACKNOWLEDGED
            acknowledged |= writer.placed

        endpoint.start()
        found = everything(endpoint.client())

        assert {key: found.get(key) for key in acknowledged} == acknowledged
