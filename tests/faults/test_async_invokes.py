"""`kill -9` of a node with asynchronous invocations: what was acknowledged is run, and told, by the next one."""

from __future__ import annotations

import json
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import eventually
from tests.served import Served, served

HANDLERS = """\
    import json, os, time
    from pathlib import Path
    import kflow

    HERE = Path(__file__).parents[1]
    FD = os.open(HERE / "seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @kflow.on_stream("orders", timeout=60)
    def work(event, context):
        os.write(FD, json.dumps({"id": context.aws_request_id, "number": event["number"]}).encode() + b"\\n")
        while event.get("waits") and not (HERE / "gate").exists():
            time.sleep(0.005)
        if event.get("fail"):
            raise ValueError("no")
        return event["number"]
"""
ACCOUNT = "123456789012"

FUNCTION = "work"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "app.py").write_text(textwrap.dedent(HANDLERS))
    with served(tmp_path, command="run", KFLOW_RETRY_BACKOFF_SCALE="0.001", KFLOW_MAX_WORKERS="2") as endpoint:
        yield endpoint


def seen(place: Served) -> list[tuple[int, str]]:
    """Numbers and request ids of all attempts."""
    file = place.folder / "seen"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(note["number"], note["id"]) for note in map(json.loads, lines)]


def send(place: Served, **event: Any) -> str:
    """Send one by the old form, which is a plain request; returns its id."""
    request = urllib.request.Request(
        f"{place.url}/2014-11-13/functions/{FUNCTION}/invoke-async", data=json.dumps(event).encode(), method="POST"
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        assert answer.status == 202
        return str(answer.headers["x-amzn-RequestId"])


def test_events_that_were_acknowledged_are_run_by_the_next_node_with_their_request_ids(place: Served) -> None:
    ids = {number: send(place, number=number, waits=True) for number in range(20)}
    eventually(lambda: seen(place), what="the first to run")
    place.kill()
    ran = len(seen(place))
    assert ran <= 2

    place.start()
    eventually(lambda: len(seen(place)) > ran, seconds=60, what="the next node to go on")
    place.kill()
    (place.folder / "gate").touch()
    place.start()
    eventually(lambda: {number for number, _ in seen(place)} == set(ids), seconds=60, what="all of them to have run")

    assert all(ids[number] == identity for number, identity in seen(place))


def test_retries_and_what_is_to_be_told_go_on_with_the_next_node(place: Served) -> None:
    queues = place.client(service="sqs")
    url = queues.create_queue(QueueName="told")["QueueUrl"]
    place.client(service="lambda").put_function_event_invoke_config(
        FunctionName="work",
        DestinationConfig={"OnFailure": {"Destination": f"arn:aws:sqs:us-east-1:{ACCOUNT}:told"}},
    )
    ids = {number: send(place, number=number, fail=True, waits=True) for number in range(3)}
    eventually(lambda: seen(place), what="the first to run")
    (place.folder / "gate").touch()
    eventually(lambda: len(seen(place)) >= 4, seconds=60, what="a retry")
    place.kill()
    place.start()

    told: dict[str, Any] = {}
    queues = place.client(service="sqs")

    def all_told() -> bool:
        url_now = url.replace(url.split("/")[2], place.url.removeprefix("http://"))
        found = queues.receive_message(QueueUrl=url_now, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in found.get("Messages", []):
            document = json.loads(message["Body"])
            told[document["requestContext"]["requestId"]] = document
        return set(told) == set(ids.values())

    eventually(all_told, seconds=60, what="all documents")
    for document in told.values():
        assert document["requestContext"]["condition"] == "RetriesExhausted"
        assert document["requestContext"]["approximateInvokeCount"] == 3
    for number, identity in ids.items():
        attempts = [each for each in seen(place) if each == (number, identity)]
        assert 3 <= len(attempts) <= 4  # one more where the kill came between an attempt and its record


def test_a_node_that_is_stopped_ends_what_runs_and_leaves_the_rest_to_the_next(place: Served) -> None:
    for number in range(6):
        send(place, number=number, waits=True)
    eventually(lambda: len(seen(place)) == 2, seconds=60, what="two to run")
    (place.folder / "gate").touch()
    assert place.stop() in {0, 130}
    assert [each.name for each in (place.data_dir / "lambda").iterdir() if each.name.startswith("events")] == [
        "events.db"
    ]
    place.start()
    eventually(lambda: {number for number, _ in seen(place)} == set(range(6)), seconds=60, what="all to have run")

    numbers = [number for number, _ in seen(place)]
    assert sorted(numbers) == sorted(set(numbers))
