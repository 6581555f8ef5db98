"""Mappings that change while records flow: switched, limited, formed anew, resharded, killed; nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import textwrap
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.deadline import eventually
from tests.served import Served, served

HANDLERS = """\
    import base64, json, os
    from pathlib import Path
    import kflow

    FD = os.open(Path(__file__).parents[1] / "seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(name, event):
        for record in event["Records"]:
            key, number = base64.b64decode(record["kinesis"]["data"]).decode().split()
            os.write(FD, json.dumps([os.getpid(), name, key, int(number)]).encode() + b"\\n")

    @kflow.on_stream("orders", batch_size=20)
    def own(event, context):
        note("own", event)

    @kflow.on_stream("returns")
    def mapped(event, context):
        note("mapped", event)
"""
STREAM = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
CHANGES = 9
AFTER = 10
"""Records that are acknowledged before the next change."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(textwrap.dedent(HANDLERS))
    with served(tmp_path, command="run", KFLOW_RETRY_BACKOFF_SCALE="0.01", KFLOW_MAX_WORKERS="3") as endpoint:
        yield endpoint


class Writer(threading.Thread):
    """Puts numbered records of a few keys, one after the other, over kills."""

    def __init__(self, place: Served) -> None:
        super().__init__()
        self.place = place
        self.next: defaultdict[str, int] = defaultdict(int)
        self.is_over = threading.Event()
        self.start()

    def run(self) -> None:
        dice = random.Random(1)
        while not self.is_over.is_set():
            client = self.place.client()
            with contextlib.suppress(BotoCoreError, ClientError):  # killed: the number is put again
                while not self.is_over.is_set():
                    key = f"k{dice.randrange(6)}"
                    client.put_record(StreamName="orders", PartitionKey=key, Data=f"{key} {self.next[key]}")
                    self.next[key] += 1

    @property
    def acknowledged(self) -> int:
        return sum(self.next.copy().values())


def seen(place: Served) -> list[list[Any]]:
    file = place.folder / "seen"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def change(place: Served, dice: random.Random, kind: str, uuids: dict[str, str]) -> None:
    functions, name = place.client(service="lambda"), dice.choice(["own", "mapped"])
    if kind == "switch":
        functions.update_event_source_mapping(UUID=uuids[name], Enabled=False)
        functions.update_event_source_mapping(UUID=uuids[name], Enabled=True)
    elif kind == "form":
        functions.update_event_source_mapping(
            UUID=uuids["mapped"], BatchSize=dice.choice([5, 50]), ParallelizationFactor=dice.choice([1, 3])
        )
    elif kind == "limit":
        functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=dice.choice([0, 1, 2]))
    elif kind == "reshard":
        kinesis = place.client()
        count = kinesis.describe_stream_summary(StreamName="orders")["StreamDescriptionSummary"]["OpenShardCount"]
        wanted = 2 if count > 2 else 4
        kinesis.update_shard_count(StreamName="orders", TargetShardCount=wanted, ScalingType="UNIFORM_SCALING")
    elif kind == "worker":
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            for each in seen(place)[-1:]:
                os.kill(each[0], signal.SIGKILL)
    else:
        place.kill()
        place.start()


def test_mappings_change_while_records_flow_and_nothing_is_lost_and_the_order_is_kept(place: Served) -> None:
    functions = place.client(service="lambda")
    uuids = {
        "own": functions.list_event_source_mappings(FunctionName="own")["EventSourceMappings"][0]["UUID"],
        "mapped": functions.create_event_source_mapping(
            FunctionName="mapped", EventSourceArn=STREAM, StartingPosition="TRIM_HORIZON"
        )["UUID"],
    }
    writer = Writer(place)
    dice = random.Random(7)
    kinds = ["switch", "form", "limit", "reshard", "worker", "switch", "limit", "kill"]
    try:
        for number in range(CHANGES):
            goal = writer.acknowledged + AFTER
            eventually(lambda goal=goal: writer.acknowledged >= goal, seconds=60, what="records to be put")
            with contextlib.suppress(ClientError):  # it is being changed already
                change(place, dice, kinds[number % len(kinds)], uuids)
    finally:
        writer.is_over.set()
        writer.join(60)
    functions = place.client(service="lambda")
    for name, uuid in uuids.items():
        functions.delete_function_concurrency(FunctionName=name)
        eventually(lambda uuid=uuid: is_on(functions, uuid), seconds=60, what="the mapping to be enabled")

    wanted = {(name, key, number) for name in uuids for key, count in writer.next.items() for number in range(count)}
    eventually(lambda: wanted <= {tuple(each[1:]) for each in seen(place)}, seconds=60, what="all to be seen")
    tops: defaultdict[tuple[str, str], int] = defaultdict(lambda: -1)
    for _, name, key, number in seen(place):
        assert number <= tops[name, key] + 1, f"{number} of {key} came to {name} before {tops[name, key] + 1}"
        tops[name, key] = max(tops[name, key], number)


def is_on(functions: Any, uuid: str) -> bool:
    """Whether a mapping is enabled; it is where it is not."""
    state: str = functions.get_event_source_mapping(UUID=uuid)["State"]
    if state == "Disabled":
        functions.update_event_source_mapping(UUID=uuid, Enabled=True)
    return state == "Enabled"
