"""`kill -9` of whatever is there, again and again, while events, records and messages come.

Nothing that was acknowledged is lost, each key and each group stays in order, and nothing is left behind. Run before a
release: `pytest --full`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.lambdaing import ROLE, zipped
from tests.served import ACCOUNT, Served, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")

SECONDS = 20
NODE_S = 5
"""The node itself is killed about this often."""
NOTE = """\
import base64, json, os
FD = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(kind, number, key=""):
    os.write(FD, json.dumps([kind, number, key]).encode() + b"\\n")
"""
HOSTED = """\
def handler(event, context):
    for record in event.get("Records", ()):
        if "kinesis" in record:
            note("hosted", int(base64.b64decode(record["kinesis"]["data"])), record["kinesis"]["partitionKey"])
        else:
            group = record["attributes"].get("MessageGroupId", "")
            note(record["eventSourceARN"].rpartition(":")[2], int(record["body"]), group)
    if "number" in event:
        note("event", event["number"])
"""
DECORATED = """\
import kflow
@kflow.on_stream("orders", batch_size=10)
def decorated(event, context):
    for record in event["Records"]:
        note("decorated", int(base64.b64decode(record["kinesis"]["data"])), record["kinesis"]["partitionKey"])
"""
QUEUES = ("jobs", "jobs.fifo")


class Sender:
    """Sends numbers of one kind until it is told to stop, and remembers which were taken."""

    def __init__(self, endpoint: Served, kind: str, over: threading.Event) -> None:
        self.taken: list[int] = []
        self._endpoint, self._kind, self._over = endpoint, kind, over
        self._clients: dict[tuple[str, str], Any] = {}
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _client(self, service: str) -> Any:
        key = (self._endpoint.url, service)
        if key not in self._clients:
            self._clients[key] = self._endpoint.client(service=service)
        return self._clients[key]

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.01):
            number += 1
            try:
                self._send(number)
            except (BotoCoreError, ClientError):
                continue  # nobody said that it was taken
            self.taken.append(number)

    def _send(self, number: int) -> None:
        text = str(number)
        if self._kind == "event":
            payload = json.dumps({"number": number})
            self._client("lambda").invoke(FunctionName="hosted", InvocationType="Event", Payload=payload)
        elif self._kind == "record":
            self._client("kinesis").put_record(StreamName="orders", Data=text.encode(), PartitionKey=str(number % 3))
        else:
            url = f"{self._endpoint.url}/{ACCOUNT}/{self._kind}"
            group = {"MessageGroupId": str(number % 3), "MessageDeduplicationId": text} if "." in self._kind else {}
            self._client("sqs").send_message(QueueUrl=url, MessageBody=text, **group)


@pytest.fixture
def endpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    if not request.config.getoption("--full"):
        pytest.skip("takes a minute: pytest --full")
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(NOTE + textwrap.dedent(DECORATED))
    seen = str(tmp_path / "seen")
    options = {"KFLOW_RETRY_BACKOFF_SCALE": "0.01", "KFLOW_MAX_WORKERS": "4", "SEEN": seen}
    with served(tmp_path, command="run", **options) as made:
        functions = made.client(service="lambda")
        functions.create_function(
            FunctionName="hosted",
            Runtime=f"python3.{sys.version_info.minor}",
            Role=ROLE,
            Handler="app.handler",
            Timeout=3,
            Code={"ZipFile": zipped({"app.py": NOTE + HOSTED})},
            Environment={"Variables": {"SEEN": seen}},
        )
        stream = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
        functions.create_event_source_mapping(
            FunctionName="hosted", EventSourceArn=stream, StartingPosition="TRIM_HORIZON"
        )
        for name in QUEUES:
            attributes = {"VisibilityTimeout": "4", **({"FifoQueue": "true"} if "." in name else {})}
            made.client(service="sqs").create_queue(QueueName=name, Attributes=attributes)
            functions.create_event_source_mapping(
                FunctionName="hosted", EventSourceArn=f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
            )
        yield made


def family(pid: int) -> list[int]:
    """All processes that it started, and theirs."""
    found = [pid]
    for each in found:
        try:
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:
            continue
    return found[1:]


def hunt(endpoint: Served, draw: random.Random) -> None:
    """Kill until the time is over."""
    end, node = time.monotonic() + SECONDS, time.monotonic() + NODE_S
    nobody = threading.Event()
    while time.monotonic() < end:
        nobody.wait(draw.random() * 0.6)
        there = family(endpoint.process.pid)
        if time.monotonic() > node:
            known = [each for each in map(identify, there) if each is not None]
            endpoint.kill()
            eventually(
                lambda known=known: all(identify(each.pid) != each for each in known),
                what="its processes to end",
            )
            endpoint.start()
            node = time.monotonic() + NODE_S
        elif there:
            try:
                os.kill(draw.choice(there), signal.SIGKILL)
            except ProcessLookupError:
                continue


def seen(endpoint: Served) -> dict[str, dict[str, list[int]]]:
    """Numbers by kind and key, each where it came first."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for kind, number, key in map(json.loads, (endpoint.folder / "seen").read_text().splitlines()):
        if number not in found[kind][key]:
            found[kind][key].append(number)
    return found


def test_nothing_that_was_acknowledged_is_lost_and_no_order_broken(endpoint: Served) -> None:
    over = threading.Event()
    senders = {kind: Sender(endpoint, kind, over) for kind in ("event", "record", *QUEUES)}
    try:
        hunt(endpoint, random.Random(0))
    finally:
        over.set()
        for sender in senders.values():
            sender.thread.join(120)
    assert all(len(sender.taken) > 20 for sender in senders.values())

    def missing() -> dict[str, set[int]]:
        there = {kind: {n for numbers in keys.values() for n in numbers} for kind, keys in seen(endpoint).items()}
        sources = {"decorated": "record", "hosted": "record", "event": "event", **{name: name for name in QUEUES}}
        wanted = {kind: set(senders[source].taken) - there.get(kind, set()) for kind, source in sources.items()}
        return {kind: numbers for kind, numbers in wanted.items() if numbers}

    eventually(lambda: not missing(), seconds=120, what="all that was acknowledged to have run")
    ordered = seen(endpoint)
    for kind in ("decorated", "hosted", "jobs.fifo"):
        for numbers in ordered[kind].values():
            assert numbers == sorted(numbers), kind

    there = [each for each in map(identify, family(endpoint.process.pid)) if each is not None]
    endpoint.stop()
    eventually(lambda: all(identify(each.pid) != each for each in there), what="all processes to end")
    assert [*(endpoint.data_dir / "run").glob("worker-*")] == []
