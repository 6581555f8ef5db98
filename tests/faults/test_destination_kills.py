"""Processes are killed while failure documents are on their way: each document arrives all the same, at least once."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.parked import ParkedStore
from tests.project import Project, project

RECORDS = 60
KILLS = 3


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, transition_ms=0)


def given_up(shop: Project) -> list[str]:
    """Sequence numbers of what is parked."""
    folder = DataFolder.open(shop.data_dir)
    entries = ParkedStore(folder.path, folder.files, folder.fsync).list()
    return [str(record.sequence_number) for entry in entries for record in entry.records]


def is_running(shop: Project) -> bool:
    code = shop.processes[-1].poll()
    assert code is None, f"the runtime ended with {code}"
    return True


def unsent(shop: Project) -> int:
    folder = DataFolder.open(shop.data_dir)
    return len(ParkedStore(folder.path, folder.files, folder.fsync).unsent())


def received(shop: Project) -> Counter[str]:
    """How often each document came, by sequence number."""
    sqs = shop.client("sqs")
    url = sqs.get_queue_url(QueueName="dead")["QueueUrl"]
    found: Counter[str] = Counter()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        found.update(json.loads(each["Body"])["KinesisBatchInfo"]["startSequenceNumber"] for each in messages)
    return found


def prepare(shop: Project, code: str) -> None:
    shop.handler(code)
    shop.run("streams", "create", "orders")
    (shop.folder / "numbers.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(RECORDS)))
    shop.run("put", "orders", "--file", "numbers.jsonl", "--key", "k")


def test_kill_9_of_the_node_loses_no_document(shop: Project) -> None:
    prepare(
        shop,
        """
        from kflow import on_stream
        @on_stream("orders", batch_size=1, maximum_retry_attempts=0, on_failure="sqs:dead")
        def to_queue(event, context): raise ValueError
        @on_stream("orders", batch_size=1, maximum_retry_attempts=0, on_failure="s3:graves")
        def to_bucket(event, context): raise ValueError
        """,
    )
    for kill in range(1, KILLS + 1):
        process = shop.start()
        enough = 2 * RECORDS * kill // (KILLS + 1)
        shop.wait_for(lambda enough=enough: is_running(shop) and len(given_up(shop)) >= enough, "some to be parked")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
    shop.start()
    shop.wait_for(lambda: is_running(shop) and len(given_up(shop)) == 2 * RECORDS and not unsent(shop), "all")

    wanted = set(given_up(shop))
    assert len(wanted) == RECORDS
    assert set(received(shop)) == wanted
    objects = [json.loads(path.read_text()) for path in (shop.data_dir / "s3" / "graves" / "aws").rglob("*T*")]
    assert sorted(each["KinesisBatchInfo"]["startSequenceNumber"] for each in objects) == sorted(wanted)


def test_kill_9_of_workers_loses_no_document(shop: Project) -> None:
    prepare(
        shop,
        f"""
        import os, signal
        from kflow import on_stream
        @on_stream("orders", batch_size=1, maximum_retry_attempts=0, on_failure="sqs:dead")
        def bill(event, context):
            note(what="begun")
            if len(open({str(shop.seen_file)!r}).readlines()) % 20 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError
        """,
    )
    shop.start()
    shop.wait_for(lambda: is_running(shop) and len(given_up(shop)) == RECORDS and not unsent(shop), "all to be sent")
    assert set(received(shop)) == set(given_up(shop))
