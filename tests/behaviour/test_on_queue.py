"""`@on_queue`: messages that boto3 sends reach handlers, and what they do with them decides what becomes of those."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, project
from tests.sqsing import BEGIN_MS, World

APP = """
import msgspec
from kflow import Message, Messages, on_queue

@on_queue("events")
def events(event, context):
    note(form="event", event=event, arn=context.invoked_function_arn, id=context.aws_request_id)

class Job(msgspec.Struct):
    id: int
    ok: bool = True

@on_queue("jobs")
def jobs(job: Message[Job]):
    note(form="message", id=job.value.id, count=job.receive_count)
    if not job.value.ok and job.receive_count == 1:
        raise ValueError("no")

@on_queue("turns.fifo")
def turns(message: Message):
    note(form="fifo", body=message.body, group=message.group)
    if message.body == "a2" and message.receive_count == 1:
        raise ValueError("no")

@on_queue("piles", batch_size=25, maximum_batching_window_in_seconds=1, report_batch_item_failures=True)
def piles(batch: Messages[int]):
    note(form="batch", values=[each.value for each in batch])

@on_queue("fails")
def fails(event, context):
    note(form="fails", bodies=[each["body"] for each in event["Records"]])
    raise ValueError("no")

@on_queue("picked", filters=[{"body": {"kind": ["good"]}}])
async def picked(message: Message):
    note(form="picked", body=message.body)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    for made in project(tmp_path_factory.mktemp("queues")):
        made.handler(APP)
        made.start("--json")
        yield made


@pytest.fixture(scope="module")
def sqs(place: Project) -> Iterator[Any]:
    made = place.client("sqs")
    yield made
    made.close()


def lines(place: Project) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.output().splitlines() if line.startswith("{")]


def ready(place: Project) -> dict[str, Any]:
    return [line for line in lines(place) if line["event"] == "ready"][-1]


def url(sqs: Any, name: str) -> str:
    return str(sqs.get_queue_url(QueueName=name)["QueueUrl"])


def counts(sqs: Any, name: str) -> tuple[int, int]:
    found = sqs.get_queue_attributes(QueueUrl=url(sqs, name), AttributeNames=["All"])["Attributes"]
    head = "ApproximateNumberOfMessages"
    return int(found[head]), int(found[f"{head}NotVisible"])


def test_queues_that_are_not_there_are_made_and_said_so(place, sqs):
    told = {(each["name"], each["stream"], each["source"], each["created"]) for each in ready(place)["handlers"]}
    assert ("jobs", "jobs", "queue", True) in told
    assert ("turns", "turns.fifo", "queue", True) in told


def test_a_message_reaches_an_event_handler_as_aws_has_it_and_is_deleted(place, sqs):
    sent = sqs.send_message(
        QueueUrl=url(sqs, "events"),
        MessageBody="hello",
        MessageAttributes={"Title": {"DataType": "String", "StringValue": "x"}},
    )
    (seen,) = place.wait_for(lambda: place.seen(form="event"))
    (record,) = seen["event"]["Records"]
    assert seen["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:events"
    assert uuid.UUID(seen["id"]).version == 4
    attributes = record.pop("attributes")
    assert list(attributes) == [
        "ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"
    ]  # fmt: skip
    assert attributes["ApproximateReceiveCount"] == "1"
    assert record.pop("receiptHandle")
    assert record == {
        "messageId": sent["MessageId"],
        "body": "hello",
        "messageAttributes": {
            "Title": {"stringValue": "x", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
        },
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:events",
        "awsRegion": "us-east-1",
    }
    place.wait_for(lambda: counts(sqs, "events") == (0, 0))


def test_one_failed_message_of_a_batch_comes_again_and_the_others_do_not(place, sqs):
    sqs.send_message(QueueUrl=url(sqs, "jobs"), MessageBody='{"id": 0}')  # the worker's start is not what is timed
    place.wait_for(lambda: place.seen(form="message") and counts(sqs, "jobs") == (0, 0))
    sqs.set_queue_attributes(QueueUrl=url(sqs, "jobs"), Attributes={"VisibilityTimeout": "2"})
    bodies = [json.dumps({"id": number, "ok": number != 2}) for number in range(1, 5)]
    entries = [{"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies)]
    sqs.send_message_batch(QueueUrl=url(sqs, "jobs"), Entries=entries)
    place.wait_for(lambda: place.seen(form="message", id=2, count=2))
    place.wait_for(lambda: counts(sqs, "jobs") == (0, 0))
    assert sorted(each["id"] for each in place.seen(form="message")) == [0, 1, 2, 2, 3, 4]


def test_a_fifo_group_stops_at_its_first_failure_and_other_groups_go_on(place, sqs):
    queue = url(sqs, "turns.fifo")
    sqs.send_message(QueueUrl=queue, MessageBody="c", MessageGroupId="c", MessageDeduplicationId="c")
    place.wait_for(lambda: place.seen(form="fifo") and counts(sqs, "turns.fifo") == (0, 0))
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "2"})
    entries = [
        {"Id": body, "MessageBody": body, "MessageGroupId": body[0], "MessageDeduplicationId": body}
        for body in ("a1", "b1", "a2", "a3", "b2", "a4")
    ]
    sqs.send_message_batch(QueueUrl=url(sqs, "turns.fifo"), Entries=entries)
    place.wait_for(lambda: place.seen(form="fifo", body="a4"))
    seen = [each["body"] for each in place.seen(form="fifo")]
    assert [body for body in seen if body[0] == "a"] == ["a1", "a2", "a2", "a3", "a4"]
    assert [body for body in seen if body[0] == "b"] == ["b1", "b2"]
    place.wait_for(lambda: counts(sqs, "turns.fifo") == (0, 0))


def test_a_window_gathers_a_batch_out_of_several_receives(place, sqs):
    for begin in range(0, 40, 10):
        entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(begin, begin + 10)]
        sqs.send_message_batch(QueueUrl=url(sqs, "piles"), Entries=entries)
    place.wait_for(lambda: sum(len(each["values"]) for each in place.seen(form="batch")) == 40)
    assert max(len(each["values"]) for each in place.seen(form="batch")) == 25
    assert sorted(value for each in place.seen(form="batch") for value in each["values"]) == list(range(40))


def test_a_message_that_fails_again_and_again_becomes_a_dead_letter(place, sqs):
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": 2}
    attributes = {"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "1"}
    sqs.set_queue_attributes(QueueUrl=url(sqs, "fails"), Attributes=attributes)
    sqs.send_message(QueueUrl=url(sqs, "fails"), MessageBody="bad")
    (message,) = sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=20)["Messages"]
    assert message["Body"] == "bad"
    assert [each["bodies"] for each in place.seen(form="fails")] == [["bad"], ["bad"]]
    outcome = next(each for each in lines(place) if each["event"] == "outcome" and each["function"] == "fails")
    assert (outcome["stream"], outcome["result"], outcome["error"]["type"]) == ("fails", "failed", "ValueError")
    assert (outcome["attempt"], outcome["attempts_allowed"], outcome["sample"]) == (1, 2, "bad")


def test_what_the_filters_leave_out_is_deleted(place, sqs):
    for body in ('{"kind": "bad"}', "text", '{"kind": "good"}'):
        sqs.send_message(QueueUrl=url(sqs, "picked"), MessageBody=body)
    place.wait_for(lambda: place.seen(form="picked") and counts(sqs, "picked") == (0, 0))
    assert [each["body"] for each in place.seen(form="picked")] == ['{"kind": "good"}']


# ---------------------------------------------------------------------- with a runtime of its own


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, transition_ms=0)


def send(shop: Project, name: str, *bodies: str, **attributes: str) -> None:
    """While no runtime is there."""
    world = World(shop.data_dir)
    world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
    made = world.create(name, **attributes)
    for body in bodies:
        world.send(made, body)
    world.stop()


def left(shop: Project, name: str) -> int:
    """Messages of a queue, while no runtime is there."""
    world = World(shop.data_dir)
    world.host.clock.advance(int(time.time() * 1000) - BEGIN_MS)
    found = world.counts(world.call("GetQueueUrl", QueueName=name)["QueueUrl"])
    world.stop()
    return sum(found)


def test_a_drain_ends_when_the_queues_are_empty(shop):
    shop.handler(
        """
        from kflow import Message, on_queue
        @on_queue("jobs", batch_size=20, maximum_batching_window_in_seconds=300)
        def work(message: Message):
            note(body=message.body)
        """
    )
    send(shop, "jobs", *map(str, range(30)))
    done = shop.run("run", "--drain", "--timeout", "50")
    assert sorted(int(each["body"]) for each in shop.seen()) == list(range(30))
    assert "work  functions/app.py:5  <- jobs (queue)  batch 20, window 300 s, reports item failures" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["work", "30", "0", "0", "0"]


def test_a_drain_that_does_not_finish_names_the_queue(shop):
    shop.handler(
        """
        from kflow import on_queue
        @on_queue("jobs")
        def work(event, context):
            raise ValueError("no")
        """
    )
    send(shop, "jobs", "bad")
    done = shop.run("run", "--drain", "--timeout", "2", check=1)
    assert "not drained in time, still blocked: work jobs" in done.stdout + done.stderr


def test_what_runs_when_the_runtime_stops_is_done_and_does_not_come_again(shop):
    shop.handler(
        """
        import time
        from kflow import on_queue
        @on_queue("jobs", batch_size=1)
        def work(event, context):
            note(begun=event["Records"][0]["body"])
            time.sleep(0.5)
            note(done=event["Records"][0]["body"])
        """
    )
    send(shop, "jobs", *map(str, range(20)))
    process = shop.start()
    shop.wait_for(shop.seen)
    assert shop.stop(process) == 130
    done = [each["done"] for each in shop.seen() if "done" in each]
    assert sorted(done) == sorted(each["begun"] for each in shop.seen() if "begun" in each)
    assert left(shop, "jobs") == 20 - len(done)


def test_a_mapping_that_the_api_made_polls_until_it_is_deleted(shop):
    shop.handler(
        """
        from kflow import on_queue
        @on_queue("jobs")
        def work(event, context):
            note(bodies=[each["body"] for each in event["Records"]], arn=event["Records"][0]["eventSourceARN"])
        """
    )
    shop.start("--json")
    sqs, functions = shop.client("sqs"), shop.client("lambda")
    made = sqs.create_queue(QueueName="others")["QueueUrl"]
    arn = "arn:aws:sqs:us-east-1:123456789012:others"
    mapping = functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="work", BatchSize=5)
    assert (mapping["State"], mapping["StateTransitionReason"]) == ("Creating", "USER_INITIATED")
    sqs.send_message(QueueUrl=made, MessageBody="a")
    shop.wait_for(lambda: shop.seen(bodies=["a"], arn=arn))
    shop.wait_for(lambda: functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Enabled")
    functions.delete_event_source_mapping(UUID=mapping["UUID"])
    shop.wait_for(lambda: not functions.list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"])
    sqs.send_message(QueueUrl=made, MessageBody="b")
    assert sqs.receive_message(QueueUrl=made, WaitTimeSeconds=20)["Messages"][0]["Body"] == "b"
    assert not shop.seen(bodies=["b"])


def test_a_decorators_mapping_is_shown_and_switched_by_the_api_and_stays_so(shop):
    shop.handler(
        """
        from kflow import on_queue
        @on_queue("jobs", batch_size=7)
        def work(event, context):
            note(bodies=[each["body"] for each in event["Records"]])
        """
    )
    process = shop.start("--json")
    functions = shop.client("lambda")
    (mapping,) = functions.list_event_source_mappings(FunctionName="work")["EventSourceMappings"]
    assert (mapping["State"], mapping["BatchSize"]) == ("Enabled", 7)
    assert mapping["EventSourceArn"] == "arn:aws:sqs:us-east-1:123456789012:jobs"
    assert "StartingPosition" not in mapping
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    shop.wait_for(lambda: functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Disabled")
    sqs = shop.client("sqs")
    sqs.send_message(QueueUrl=url(sqs, "jobs"), MessageBody="a")
    shop.stop(process)
    shop.start("--json")
    functions, sqs = shop.client("lambda"), shop.client("sqs")
    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Disabled"
    assert counts(sqs, "jobs") == (1, 0)
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    shop.wait_for(lambda: shop.seen(bodies=["a"]))
    with pytest.raises(functions.exceptions.InvalidParameterValueException, match="declared at"):
        functions.update_event_source_mapping(UUID=mapping["UUID"], BatchSize=5)


def test_a_reset_empties_the_queue_of_a_handler_and_it_is_polled_on(shop):
    shop.handler(
        """
        from kflow import on_queue
        @on_queue("jobs", enabled=True)
        def work(event, context):
            note(bodies=[each["body"] for each in event["Records"]])
            if event["Records"][0]["body"] == "old":
                raise ValueError
        """
    )
    shop.start("--json", "--allow-reset")
    sqs = shop.client("sqs")
    sqs.send_message(QueueUrl=url(sqs, "jobs"), MessageBody="old")
    shop.wait_for(lambda: shop.seen(bodies=["old"]))
    request = urllib.request.Request(f"{shop.url}/_kflow/reset", method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
    assert counts(sqs, "jobs") == (0, 0)
    sqs.send_message(QueueUrl=url(sqs, "jobs"), MessageBody="new")
    shop.wait_for(lambda: shop.seen(bodies=["new"]))
