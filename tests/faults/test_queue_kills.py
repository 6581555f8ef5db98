"""`kill -9` under load of queues: no record is lost, and what was acknowledged never comes again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.deadline import eventually
from tests.served import Served, served

CONSUMERS = 3
LIVES = 3
RECORDS = 900
ACKNOWLEDGED_A_LIFE = 120


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


class Consumer:
    """Receives and acknowledges until its server is gone.

    Attributes:
        acknowledged: payloads whose acknowledgement was answered.
        again: payloads that came although they had been acknowledged before this life.
        unsure: payloads whose acknowledgement was sent and not answered.
        refused: what failed although the server was there.
    """

    def __init__(self, client: Any, queue: str, settled: frozenset[bytes]) -> None:
        self._client = client
        self._queue = queue
        self._settled = settled
        self.acknowledged: set[bytes] = set()
        self.again: set[bytes] = set()
        self.unsure: set[bytes] = set()
        self.refused: list[str] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                records = self._client.receive_queue_records(QueueARN=self._queue, WaitTimeSeconds=1)["QueueRecords"]
                if not records:
                    return
                datas = {each["Data"] for each in records}
                self.again |= datas & self._settled
                self.unsure = datas
                entries = [{"ReceiptHandle": each["ReceiptHandle"]} for each in records]
                failed = self._client.acknowledge_queue_records(QueueARN=self._queue, Entries=entries)["Failed"]
                self.unsure = set()
                self.acknowledged |= datas
                self.refused += [str(each) for each in failed]
        except ClientError as error:
            self.refused.append(str(error))
        except BotoCoreError:
            return  # the server is gone


def created(kinesis: Any) -> str:
    kinesis.create_stream(StreamName="orders", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    summary = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    queue = kinesis.create_queue(
        QueueName="jobs",
        StreamConfigurationList=[{"StreamARN": summary["StreamARN"]}],
        QueueAttributes={"VisibilityTimeoutSeconds": 3, "DeadLetterConfiguration": {"TargetType": "NONE"}},
    )["QueueDescription"]["QueueARN"]
    return str(queue)


def test_kill_9_loses_no_record_and_no_acknowledgement(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis)
    datas = [b"%d" % number for number in range(RECORDS)]
    for start in range(0, RECORDS, 300):
        records = [{"Data": data, "PartitionKey": data.decode()} for data in datas[start : start + 300]]
        assert kinesis.put_records(StreamName="orders", Records=records)["FailedRecordCount"] == 0

    settled: frozenset[bytes] = frozenset()
    unsure: set[bytes] = set()
    for _ in range(LIVES):
        consumers = [Consumer(endpoint.client(), queue, settled) for _ in range(CONSUMERS)]

        def is_enough(consumers: list[Consumer] = consumers) -> bool:
            is_over = not any(each.thread.is_alive() for each in consumers)  # nothing was left for them
            return is_over or sum(len(each.acknowledged) for each in consumers) >= ACKNOWLEDGED_A_LIFE

        eventually(is_enough, seconds=60, what="records to be acknowledged")
        endpoint.kill()
        for each in consumers:
            each.thread.join(60)
            assert (each.refused, each.again) == ([], set())
            settled |= each.acknowledged
            unsure |= each.unsure
        endpoint.start()

    kinesis = endpoint.client()
    found: set[bytes] = set()
    while found | settled | unsure < set(datas) or len(found | settled) < RECORDS - len(unsure - settled):
        records = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
        assert records, f"{RECORDS - len(found | settled)} records are lost"
        found |= {each["Data"] for each in records}
        entries = [{"ReceiptHandle": each["ReceiptHandle"]} for each in records]
        assert kinesis.acknowledge_queue_records(QueueARN=queue, Entries=entries)["Failed"] == []
    assert found & settled == set()
    assert found | settled | unsure == set(datas)


def test_a_deletion_that_kill_9_interrupted_is_finished_by_the_next_start(endpoint: Served) -> None:
    kinesis = endpoint.client()
    queue = created(kinesis)
    endpoint.kill()
    endpoint._environment["KFLOW_TRANSITION_MS"] = "2000"
    endpoint.start()

    kinesis = endpoint.client()
    kinesis.delete_queue(QueueARN=queue)
    endpoint.kill()
    endpoint.start()

    kinesis = endpoint.client()
    eventually(lambda: kinesis.list_queues()["QueueSummaries"] == [], what="the queue to be gone")
    folder = endpoint.data_dir / "kinesis-queues"
    eventually(lambda: not list(folder.iterdir()), what="its files to be gone")


def test_creations_and_deletions_under_kill_9_leave_whole_queues(endpoint: Served) -> None:
    kinesis = endpoint.client()
    created(kinesis)
    summary = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]
    known: set[str] = {"jobs"}

    for life in range(LIVES):
        client = endpoint.client()
        made: list[str] = []
        begun: list[str] = []

        def make(client: Any = client, made: list[str] = made, begun: list[str] = begun, life: int = life) -> None:
            number = 0
            try:
                while True:
                    begun.append(f"q{life}-{number}")
                    configuration = [{"StreamARN": summary["StreamARN"]}]
                    answer = client.create_queue(QueueName=begun[-1], StreamConfigurationList=configuration)
                    made.append(begun[-1])
                    if number % 4:
                        client.delete_queue(QueueARN=answer["QueueDescription"]["QueueARN"])
                        made.pop()
                    number += 1
            except (BotoCoreError, ClientError):
                return  # the server is gone, or it has its twenty queues

        maker = threading.Thread(target=make)
        maker.start()
        eventually(lambda: len(begun) > 8, seconds=60, what="queues to be made")  # noqa: B023  # called here
        endpoint.kill()
        maker.join(60)
        endpoint.start()

        client = endpoint.client()
        eventually(
            lambda: all(each["QueueStatus"] == "ACTIVE" for each in client.list_queues()["QueueSummaries"]),  # noqa: B023
            what="all queues to be whole or gone",
        )
        summaries = {each["QueueName"]: each["QueueARN"] for each in client.list_queues()["QueueSummaries"]}
        last = {begun[-1]}  # it was being made or deleted: nobody knows
        known = (known | set(made)) - last
        assert known <= summaries.keys() <= known | last
        known = set(summaries)
        for arn in summaries.values():
            assert client.receive_queue_records(QueueARN=arn, WaitTimeSeconds=1)["QueueRecords"] == []
        names = {path.name.partition(".")[0] for path in (endpoint.data_dir / "kinesis-queues").iterdir()}
        assert names == {arn.rpartition("/")[2] for arn in summaries.values()}
