"""Failure documents reach their destinations, at least once, and nothing waits for those that do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.aws.calls import Context, Place
from kflow.broker.folder import DataFolder
from kflow.broker.objects import Objects
from kflow.broker.parked import Origin, ParkedBatch, ParkedStore
from kflow.clock import ManualClock
from kflow.errors import AwsError, KflowError, StorageError
from kflow.messaging.errors import NotFound
from kflow.runtime.mappings.destinations import TRIES, Destinations
from kflow.sqs.errors import QueueDoesNotExist
from tests.looping import SteppedLoop
from tests.parking import parked

HOME = Place("123456789012", "us-east-1")
DEAD = "arn:aws:sqs:eu-west-1:210987654321:dead"


def batch(counter: int, destination: str) -> ParkedBatch:
    origin = Origin(
        function_arn="arn:aws:lambda:us-east-1:123456789012:function:bill",
        stream_arn="arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        mapping="8b1a9953-0000-5000-8000-000000000000",
        destination=destination,
    )
    return parked(counter, origin=origin)


class World(SteppedLoop):
    """A node with services that a test may break.

    Attributes:
        queues: what was sent, by (account, region, name); only these exist.
        topics: likewise, by ARN.
        refusals: what the next sends are answered with; None: they pass.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(ManualClock())
        self.folder = DataFolder.open(path, create=True, fsync="none")
        self.parked = ParkedStore(path, self.folder.files, "none")
        self.queues: dict[tuple[str, str, str], list[Any]] = {}
        self.topics: dict[str, list[Any]] = {}
        self.refusals: list[KflowError | None] = []
        self.held: list[Callable[[], object]] | None = None
        self.notices: list[tuple[str, str]] = []
        self.made = self.node()

    def node(self) -> Destinations:
        return Destinations(self, self.parked, self._invoke, HOME)

    def notice(self, level: str, text: str) -> None:
        self.notices.append((level, text))

    def park(self, *destinations: str) -> None:
        for destination in destinations:
            self.made.tell(self.parked.park(batch(1 + self.parked.count(), destination)))

    def _invoke(
        self,
        context: Context,
        service: str,
        operation: str,
        parameters: Mapping[str, Any],
        done: Callable[[Any], object],
    ) -> None:
        if self.held is None:
            done(self._answer(context.place, f"{service}.{operation}", parameters))
        else:
            self.held.append(lambda: done(self._answer(context.place, f"{service}.{operation}", parameters)))

    def _answer(self, place: Place, call: str, given: Mapping[str, Any]) -> dict[str, Any] | KflowError:
        if call in {"sqs.SendMessage", "sns.Publish"} and self.refusals and (refusal := self.refusals.pop(0)):
            return refusal
        if call == "sqs.CreateQueue":
            self.queues[(*place, given["QueueName"])] = []
        elif call == "sns.CreateTopic":
            self.topics[f"arn:aws:sns:{place.region}:{place.account}:{given['Name']}"] = []
        elif call == "sqs.GetQueueUrl":
            return {} if (*place, given["QueueName"]) in self.queues else QueueDoesNotExist()
        elif call == "sns.GetTopicAttributes":
            return {} if given["TopicArn"] in self.topics else NotFound("Topic does not exist")
        elif call == "sqs.SendMessage":
            _, account, name = given["QueueUrl"].split("/")
            queue = self.queues.get((account, place.region, name))
            if queue is None:
                return QueueDoesNotExist()
            queue.append(json.loads(given["MessageBody"]))
        else:
            assert call == "sns.Publish"
            topic = self.topics.get(given["TopicArn"])
            if topic is None:
                return NotFound("Topic does not exist")
            topic.append(json.loads(given["Message"]))
        return {}


class Unavailable(AwsError):
    code = "ServiceUnavailable"
    http_status = 503


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def numbers(documents: list[Any]) -> list[str]:
    return [each["KinesisBatchInfo"]["startSequenceNumber"] for each in documents]


def test_logical_destinations_are_made_at_the_start_and_said(world: World) -> None:
    world.made.start({"sqs:dead": ["bill", "audit"], "sns:alerts": ["bill"], "s3:graves": ["bill"]})
    world.run()
    assert world.queues == {("123456789012", "us-east-1", "dead"): []}
    assert world.topics == {"arn:aws:sns:us-east-1:123456789012:alerts": []}
    assert Objects.of(world.folder).has_bucket("graves")
    assert world.notices == [
        ("info", "made the queue dead: on_failure of audit, bill"),
        ("info", "made the topic alerts: on_failure of bill"),
        ("info", "made the bucket graves: on_failure of bill"),
    ]
    world.notices.clear()
    world.node().start({"sqs:dead": ["bill"], "sns:alerts": ["bill"], "s3:graves": ["bill"]})
    world.run()
    assert world.notices == []


def test_a_destination_that_an_arn_names_is_never_made(world: World) -> None:
    world.made.start({DEAD: ["bill"], "arn:aws:s3:::graves": ["bill"]})
    world.run()
    assert world.queues == {}
    assert not Objects.of(world.folder).has_bucket("graves")
    assert world.notices == [
        ("warning", f"on_failure of bill: there is no queue dead ({DEAD}): failure documents for it are kept"),
        (
            "warning",
            "on_failure of bill: there is no bucket graves (arn:aws:s3:::graves): failure documents for it are kept",
        ),
    ]


def test_what_is_told_is_sent_once(world: World) -> None:
    world.made.start({"sqs:dead": ["bill"], "sns:alerts": ["bill"]})
    world.run()
    world.park("sqs:dead", "sns:alerts")
    world.run()
    (queue,) = world.queues.values()
    (topic,) = world.topics.values()
    assert (numbers(queue), numbers(topic)) == (["50"], ["51"])
    assert list(queue[0]) == ["requestContext", "responseContext", "version", "timestamp", "KinesisBatchInfo"]
    assert world.parked.unsent() == []
    world.made.look()
    world.run()
    assert len(queue) == 1


def test_an_object_has_the_document_and_the_event(world: World) -> None:
    world.made.start({"s3:graves": ["bill"]})
    world.run()
    world.park("s3:graves")
    world.run()
    objects = Objects.of(world.folder)
    (key,) = objects.list("graves").keys
    assert key.startswith("aws/lambda/8b1a9953-0000-5000-8000-000000000000/shardId-000000000000/2023/11/14/2023-11-14T")
    content = json.loads(objects.get("graves", key)[1])
    assert list(content)[-1] == "payload"
    assert json.loads(content["payload"])["Records"][0]["kinesis"]["data"] == "eA=="
    assert world.parked.unsent() == []


def test_what_a_dead_node_left_unsent_is_sent_by_the_next_one(world: World) -> None:
    world.queues["210987654321", "eu-west-1", "dead"] = queue = []
    for counter in (1, 2, 3):
        world.parked.park(batch(counter, DEAD))
    world.node().start({})
    world.run()
    assert numbers(queue) == ["50", "51", "52"]
    assert world.parked.unsent() == []


def test_an_object_that_is_sent_twice_is_one(world: World) -> None:
    world.made.start({"s3:graves": ["bill"]})
    world.run()
    world.park("s3:graves")
    while world.parked.unsent() and not Objects.of(world.folder).list("graves").keys:
        world.step()
    assert world.parked.unsent() == [1]
    world.errands.clear()  # the node dies before it has noted that
    world.node().start({})
    world.run()
    assert world.parked.unsent() == []
    assert len(Objects.of(world.folder).list("graves").keys) == 1


def test_a_send_that_fails_is_tried_again_after_pauses(world: World) -> None:
    world.made.start({"sqs:dead": ["bill"]})
    world.run()
    world.refusals = [Unavailable("later"), Unavailable("later")]
    world.park("sqs:dead", "sqs:dead")
    world.run()
    (queue,) = world.queues.values()
    assert numbers(queue) == []
    world.advance(999)
    assert numbers(queue) == []
    world.advance(1)
    world.run()
    assert numbers(queue) == ["50", "51"]
    assert [level for level, _ in world.notices] == ["info"]


def test_what_cannot_be_sent_stays_parked_and_is_said(world: World) -> None:
    world.park(DEAD)
    world.advance(100_000)
    world.run()
    assert world.parked.unsent() == [1]
    assert world.parked.show(1).trouble == "QueueDoesNotExist: The specified queue does not exist"
    assert world.notices == [
        (
            "error",
            (
                f"the failure document of parked #1 of bill could not be sent to {DEAD}: QueueDoesNotExist: The "
                "specified queue does not exist; it stays parked, as others that follow, and is sent at the next start"
            ),
        )
    ]
    world.made.look()
    world.advance(100_000)
    assert len(world.notices) == 1


def test_what_was_left_alone_is_sent_once_its_destination_is_reached(world: World) -> None:
    world.park(DEAD)
    world.advance(100_000)
    world.run()
    world.park(DEAD)
    world.run()
    assert len(world.notices) == 1, "people are told once of a destination"
    world.queues["210987654321", "eu-west-1", "dead"] = queue = []
    world.park(DEAD)
    world.run()
    assert numbers(queue) == ["52", "50", "51"]
    assert world.parked.unsent() == []


def test_a_logical_destination_that_was_deleted_is_made_again(world: World) -> None:
    world.park("sqs:dead")
    world.run()
    assert numbers(world.queues["123456789012", "us-east-1", "dead"]) == ["50"]
    assert world.notices == [("info", "made the queue dead: on_failure of bill")]


def test_one_that_cannot_be_sent_keeps_no_other_back(world: World) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.park(DEAD, DEAD, DEAD, DEAD, DEAD, DEAD, "sqs:dead")
    world.run()
    assert numbers(queue) == ["56"]


def test_few_are_under_way_at_once(world: World) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.held = []
    world.park(*["sqs:dead"] * 10)
    world.run()
    assert len(world.held) == 4
    while world.held:
        world.held.pop(0)()
        world.run()
    assert len(queue) == 10


def test_what_was_dropped_meanwhile_is_not_sent(world: World) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.park("sqs:dead", "sqs:dead")
    world.parked.drop(1)
    world.run()
    assert numbers(queue) == ["51"]
    assert world.notices == []


def test_a_damaged_entry_is_said_and_hurts_no_other(world: World, tmp_path: Path) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.park("sqs:dead", "sqs:dead")
    (first, *_) = sorted((tmp_path / "parked" / "bill").iterdir())
    first.write_bytes(b"rubbish")
    world.advance(100_000)
    world.run()
    assert numbers(queue) == ["51"]
    assert [level for level, _ in world.notices] == ["error"]
    assert "the failure document of parked #1 is not sent: " in world.notices[0][1]


def test_what_is_parked_anew_while_it_is_sent_is_sent_again(world: World) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.held = []
    world.park("sqs:dead")
    world.run()
    again = msgspec.structs.replace(batch(1, "sqs:dead"), parked_ms=1_700_000_009_000)
    world.made.tell(world.parked.park(again))
    while world.held:
        world.held.pop(0)()
        world.run()
    assert [each["timestamp"] for each in queue] == ["2023-11-14T22:13:21.000Z", "2023-11-14T22:13:29.000Z"]
    assert world.parked.unsent() == []


def test_the_end_waits_for_what_is_under_way_and_no_retry(world: World) -> None:
    world.queues["123456789012", "us-east-1", "dead"] = queue = []
    world.park(DEAD)
    world.run()
    world.park("sqs:dead")
    ended: list[str] = []
    world.made.stop(lambda: ended.append("end"))
    assert ended == []
    world.run()
    assert (numbers(queue), ended) == (["51"], ["end"])
    assert world.parked.unsent() == [1]


def test_the_end_waits_no_longer_than_its_grace(world: World) -> None:
    world.held = []
    world.park("sqs:dead")
    world.run()
    ended: list[str] = []
    world.made.stop(lambda: ended.append("end"))
    world.advance(4_999)
    assert ended == []
    world.advance(1)
    assert ended == ["end"]


def test_the_end_of_one_that_does_nothing_is_at_once(world: World) -> None:
    ended: list[str] = []
    world.made.stop(lambda: ended.append("end"))
    assert ended == ["end"]


def test_a_folder_that_cannot_be_read_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[int]:
        raise StorageError("cannot read")

    monkeypatch.setattr(world.parked, "unsent", fails)
    world.made.start({})
    world.run()
    assert world.notices == [("error", "failure documents may wait for the next start: cannot read")]


def test_so_many_tries_are_made(world: World) -> None:
    world.made.start({"sqs:dead": ["bill"]})
    world.run()
    world.refusals = [Unavailable("later")] * 100
    world.park("sqs:dead")
    world.advance(100_000)
    assert len(world.refusals) == 100 - TRIES


def test_what_was_sent_and_what_cannot_be_is_counted_for_the_mapping(world: World) -> None:
    counted: list[tuple[int, str]] = []
    world.made.counted = lambda entry, name: counted.append((len(entry.records), name))
    world.queues["210987654321", "eu-west-1", "dead"] = []
    world.park(DEAD)
    world.run()
    assert counted == [(1, "OnFailureDestinationDeliveredEventCount")]
    counted.clear()
    world.refusals[:] = [Unavailable("no")] * TRIES
    world.park(DEAD)
    world.advance(100_000)
    assert counted == [(1, "DroppedEventCount")]
