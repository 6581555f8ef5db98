"""`kill -9` under load of SQS: no acknowledged send is lost, no acknowledged delete is undone, no order is broken."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.deadline import eventually
from tests.served import Served, served

LIVES = 3
A_LIFE = 150


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as made:
        yield made


class Sender:
    """Sends batches until its server is gone.

    Attributes:
        sent: bodies whose send was answered.
        unsure: bodies whose send was not.
    """

    def __init__(self, client: Any, queue: str, numbers: Iterator[int], group: str) -> None:
        self.sent: list[str] = []
        self.unsure: list[str] = []
        self._client, self._queue, self._numbers, self._group = client, queue, numbers, group
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                bodies = [f"{self._group}:{next(self._numbers):06}" for _ in range(10)]
                self.unsure = bodies
                more = {"MessageGroupId": self._group} if self._queue.endswith(".fifo") else {}
                entries = [{"Id": str(i), "MessageBody": body, **more} for i, body in enumerate(bodies)]
                answer = self._client.send_message_batch(QueueUrl=self._queue, Entries=entries)
                assert len(answer["Successful"]) == 10
                self.sent += bodies
                self.unsure = []
        except (BotoCoreError, ClientError):
            return


class Consumer:
    """Receives and deletes until its server is gone, or nothing is left.

    Attributes:
        deleted: bodies whose delete was answered.
        unsure: bodies whose delete was not.
        seen: all bodies, as they came.
    """

    def __init__(self, client: Any, queue: str, *, until_empty: bool = False) -> None:
        self.deleted: set[str] = set()
        self.unsure: set[str] = set()
        self.seen: list[str] = []
        self._client, self._queue, self._until_empty = client, queue, until_empty
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                found = self._client.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=2)
                messages = found.get("Messages", [])
                if not messages and self._until_empty:
                    return
                bodies = [each["Body"] for each in messages]
                self.seen += bodies
                self.unsure = set(bodies)
                entries = [{"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]} for i, each in enumerate(messages)]
                if entries:
                    answer = self._client.delete_message_batch(QueueUrl=self._queue, Entries=entries)
                    assert len(answer["Successful"]) == len(entries), answer
                self.unsure = set()
                self.deleted |= set(bodies)
        except (BotoCoreError, ClientError):
            return


@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_kill_9_loses_no_send_and_undoes_no_delete(endpoint: Served, kind: str) -> None:
    is_fifo = kind == "fifo"
    attributes = {"VisibilityTimeout": "2"}
    if is_fifo:
        attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    client = endpoint.client(service="sqs")
    made = client.create_queue(QueueName="jobs.fifo" if is_fifo else "jobs", Attributes=attributes)["QueueUrl"]
    client.close()
    queue = urlsplit(made).path  # the port is another one in each life

    numbers = itertools.count()
    sent: set[str] = set()
    maybe_sent: set[str] = set()
    deleted: set[str] = set()
    maybe_deleted: set[str] = set()
    for _ in range(LIVES):
        clients = [endpoint.client(service="sqs") for _ in range(4)]
        senders = [Sender(each, queue, numbers, f"g{i}") for i, each in enumerate(clients[:2])]
        consumers = [Consumer(each, queue) for each in clients[2:]]
        eventually(
            lambda all_=consumers: sum(len(each.deleted) for each in all_) >= A_LIFE,
            seconds=60,
            what="enough to be deleted",
        )
        endpoint.kill()
        for each in (*senders, *consumers):
            each.thread.join(60)
            assert not each.thread.is_alive()
        for sender in senders:
            sent |= set(sender.sent)
            maybe_sent |= set(sender.unsure)
        for consumer in consumers:
            again = set(consumer.seen) & deleted
            assert again == set(), "what was deleted in an earlier life came again"
            deleted |= consumer.deleted
            maybe_deleted |= consumer.unsure
        for each in clients:
            each.close()
        endpoint.start()

    client = endpoint.client(service="sqs")
    # What was in flight at the last kill is visible again after two seconds; a long poll waits for it.
    last = Consumer(client, queue, until_empty=True)
    last.thread.join(120)
    assert not last.thread.is_alive()
    eventually(lambda: left_in(client, queue) == 0, seconds=30, what="the queue to be empty")
    client.close()
    assert set(last.seen) & deleted == set()
    everything = deleted | set(last.seen)
    assert sent - everything - maybe_deleted == set(), "an acknowledged send was lost"
    assert everything - sent - maybe_sent == set(), "a message came from nowhere"
    if is_fifo:
        for group in ("g0", "g1"):
            order = [body for body in last.seen if body.startswith(group)]
            assert order == sorted(order)
            assert len(order) == len(set(order))


def left_in(client: Any, queue: str) -> int:
    found = client.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    head = "ApproximateNumberOfMessages"
    return int(found[head]) + int(found[f"{head}NotVisible"])


def test_kill_9_leaves_a_queue_made_or_not_made_and_deleted_or_not(endpoint: Served) -> None:
    """Makes and deletes queues until the kill: the answered ones are there, the answered deletes are not."""
    made: set[str] = set()
    gone: set[str] = set()
    unsure: set[str] = set()
    for life in range(LIVES):
        client = endpoint.client(service="sqs")
        done = threading.Event()

        def run(client: Any = client, life: int = life, done: threading.Event = done) -> None:
            for number in itertools.count():
                name = f"q{life}-{number}"
                unsure.add(name)
                try:
                    url = client.create_queue(QueueName=name)["QueueUrl"]
                    made.add(name)
                    if number % 2:
                        client.delete_queue(QueueUrl=url)
                        gone.add(name)
                except (BotoCoreError, ClientError):
                    return
                if not number % 2 or name in gone:
                    unsure.discard(name)
                if number == 30:
                    done.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert done.wait(60)
        endpoint.kill()
        thread.join(60)
        assert not thread.is_alive()
        client.close()
        endpoint.start()
        client = endpoint.client(service="sqs")
        there = {url.rpartition("/")[2] for url in client.list_queues().get("QueueUrls", [])}
        client.close()
        assert (made - gone - unsure) <= there
        assert gone & there == set()
        assert there <= made | unsure
