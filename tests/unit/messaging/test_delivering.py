"""What is acknowledged is kept by every queue that can have it; what fails is tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kflow.errors import InternalError, KflowError, StorageError, Throttling
from kflow.interfaces import Cancellable
from kflow.messaging.delivering import Delivering, Reply
from kflow.messaging.errors import NotFound
from kflow.messaging.messages import Message
from kflow.messaging.topics import Subscription, Topic

ARN = "arn:aws:sns:us-east-1:123456789012:t"
QUEUES = "arn:aws:sqs:us-east-1:123456789012:"


class _Timer:
    def cancel(self) -> None:
        """It is never cancelled."""


class Desk:
    """A node, and queues that answer as they are told."""

    def __init__(self, **answers: list[KflowError | None]) -> None:
        self.answers = answers
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.notices: list[str] = []
        self.sent: list[str] = []
        self.told: list[KflowError | None] = []
        self.delivering = Delivering(self, self.send)

    def now_ms(self) -> int:
        return 1_764_000_000_000

    def call_later(self, seconds: float, call: Callable[[], object]) -> Cancellable:
        self.timers.append((seconds, call))
        return _Timer()

    def notice(self, level: str, text: str) -> None:
        self.notices.append(f"{level}: {text}")

    def send(self, queue: str, parameters: Mapping[str, Any], reply: Reply) -> None:
        del parameters
        name = queue.rpartition(":")[2].removesuffix(".fifo")
        self.sent.append(name)
        answer = self.answers[name].pop(0)
        reply({} if answer is None else answer)

    def publish(self, *, suffix: str = "", redrive: str = "") -> None:
        topic = Topic(arn=ARN + suffix, attributes={"ContentBasedDeduplication": "true"})
        attributes = {"RedrivePolicy": f'{{"deadLetterTargetArn": "{QUEUES}{redrive}"}}'} if redrive else {}
        for name in self.answers:
            if name != redrive:
                made = Subscription(
                    arn=name, topic=topic.arn, owner="", endpoint=QUEUES + name + suffix, attributes=attributes
                )
                topic.subscriptions[name] = made
        self.delivering.publish(topic, Message(topic, text="x", group="g"), "http://h", self.told.append)


def test_nobody_subscribed_is_no_failure() -> None:
    desk = Desk()
    desk.publish()
    assert desk.told == [None]


def test_what_fails_is_tried_again_and_acknowledged_once() -> None:
    desk = Desk(one=[None], two=[StorageError("full"), Throttling("wait"), None])
    desk.publish()
    assert desk.told == []
    pauses = []
    while desk.timers:
        seconds, call = desk.timers.pop()
        pauses.append(seconds)
        call()
    assert pauses == [0.05, 0.1]
    assert desk.sent == ["one", "two", "two", "two"]
    assert desk.told == [None]


def test_what_fails_three_times_is_told_to_the_publisher() -> None:
    desk = Desk(one=[InternalError("broken")] * 3)
    desk.publish()
    while desk.timers:
        desk.timers.pop()[1]()
    (failure,) = desk.told
    assert "publish it again: broken" in str(failure)


def test_of_a_fifo_topic_nothing_is_tried_again() -> None:
    desk = Desk(one=[InternalError("broken")])
    desk.publish(suffix=".fifo")
    assert desk.timers == []
    assert len(desk.told) == 1


def test_what_a_queue_refuses_goes_to_its_dead_letter_queue_and_else_nowhere() -> None:
    desk = Desk(one=[NotFound("gone")], dead=[None])
    desk.publish(redrive="dead")
    assert (desk.sent, desk.told, desk.notices) == (["one", "dead"], [None], [])
    desk = Desk(one=[NotFound("gone")] * 2)
    desk.publish()
    desk.publish()
    assert desk.told == [None, None]
    assert desk.notices == [f"warning: messages of {ARN} do not come to {QUEUES}one, which is subscribed: gone"]


def test_a_dead_letter_queue_that_refuses_too_is_the_end() -> None:
    desk = Desk(one=[NotFound("gone")], dead=[NotFound("gone")])
    desk.publish(redrive="dead")
    assert (desk.sent, desk.told) == (["one", "dead"], [None])


def test_a_topic_that_is_loaded_is_as_it_was_kept() -> None:
    from kflow.messaging.topics import Topics

    topics = Topics()
    topic = topics.create("us-east-1", "123456789012", "t", {"DisplayName": "T"}, {"a": "b"})
    made = topics.subscribe(topic, "123456789012", f"{QUEUES}q", {"RawMessageDelivery": "true"})
    again = Topics()
    again.load(topics.encode())
    assert again.find(topic.arn) == topic
    assert again.subscription(made.arn) is again.find(topic.arn).subscriptions[made.arn]
    assert again.unsubscribe(made.arn)
    assert not again.unsubscribe(made.arn)
    assert again.find(topic.arn).deleted == 1


def test_what_a_function_refuses_goes_to_the_dead_letter_queue_as_the_event() -> None:
    sent: list[tuple[str, Mapping[str, Any]]] = []
    desk = Desk()
    function = "arn:aws:lambda:us-east-1:123456789012:function:f"

    def send(endpoint: str, parameters: Mapping[str, Any], reply: Reply) -> None:
        sent.append((endpoint, parameters))
        reply(NotFound("gone") if endpoint == function else {})

    topic = Topic(arn=ARN)
    redrive = {"RedrivePolicy": f'{{"deadLetterTargetArn": "{QUEUES}dead"}}'}
    topic.subscriptions["f"] = Subscription(arn="f", topic=ARN, owner="", endpoint=function, attributes=redrive)
    Delivering(desk, send).publish(topic, Message(topic, text="x"), "http://h", desk.told.append)

    assert [endpoint for endpoint, _ in sent] == [function, f"{QUEUES}dead"]
    assert sent[0][1]["InvocationType"] == "Event"
    assert sent[1][1] == {"MessageBody": sent[0][1]["Payload"].decode()}
    assert desk.told == [None]
