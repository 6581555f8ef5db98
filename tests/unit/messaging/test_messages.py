"""A message: what it must be, and what subscribers are sent."""

from __future__ import annotations

from typing import Any

import pytest

from kflow.messaging import attributes as rules
from kflow.messaging import functions
from kflow.messaging.errors import SnsError
from kflow.messaging.messages import Attribute, Message
from kflow.messaging.topics import Subscription, Topic

ARN = "arn:aws:sns:us-east-1:123456789012:t"
TOPIC = Topic(arn=ARN)
QUEUE = Subscription(arn=f"{ARN}:1", topic=ARN, owner="123456789012", endpoint="arn:aws:sqs:us-east-1:123456789012:q")


def test_the_envelope_is_laid_out_as_aws_lays_it_out() -> None:
    message = Message(TOPIC, text="a\nb", subject="S", attributes={"k": Attribute("String", "v")})
    message.id = "id"
    assert message.delivered(QUEUE, TOPIC, 1_764_000_000_007, "http://here")["MessageBody"] == (
        "{\n"
        '  "Type" : "Notification",\n'
        '  "MessageId" : "id",\n'
        '  "TopicArn" : "arn:aws:sns:us-east-1:123456789012:t",\n'
        '  "Subject" : "S",\n'
        '  "Message" : "a\\nb",\n'
        '  "Timestamp" : "2025-11-24T16:00:00.007Z",\n'
        '  "SignatureVersion" : "1",\n'
        '  "Signature" : "bm90IHNpZ25lZA==",\n'
        '  "SigningCertURL" : "http://here/SimpleNotificationService.pem",\n'
        '  "UnsubscribeURL" : "http://here/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-east-1:123456789012:t:1",\n'
        '  "MessageAttributes" : {\n'
        '    "k" : {"Type":"String","Value":"v"}\n'
        "  }\n"
        "}"
    )


def test_a_fifo_queue_is_sent_what_tells_duplicates_and_a_standard_queue_is_not() -> None:
    topic = Topic(arn=f"{ARN}.fifo", attributes={"ContentBasedDeduplication": "true"})
    message = Message(topic, text="abc", group="g")
    fifo = Subscription(arn="s", topic=topic.arn, owner="", endpoint=f"{QUEUE.endpoint}.fifo")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    sent = message.delivered(fifo, topic, 0, "")
    assert (sent["MessageGroupId"], sent["MessageDeduplicationId"]) == ("g", digest)
    sent = message.delivered(QUEUE, topic, 0, "")
    assert (sent["MessageGroupId"], "MessageDeduplicationId" in sent) == ("g", False)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"subject": " x"}, "Invalid parameter: Subject"),
        ({"subject": "x" * 101}, "Invalid parameter: Subject"),
        ({"structure": "xml"}, "Invalid parameter: MessageStructure"),
        ({"structure": "json"}, "Invalid parameter: Message Structure - JSON message body failed to parse"),
        ({"duplicate": "d"}, "not valid for this topic type"),
        ({"group": "a b"}, "Invalid parameter: MessageGroupId"),
        ({"attributes": {"a": Attribute("", "x")}}, "non-empty message attribute type"),
        ({"attributes": {"a": Attribute("String", "")}}, "non-empty message attribute value"),
        ({"attributes": {"a": Attribute("Colour", "x")}}, "invalid message attribute type"),
        ({"attributes": {"a": Attribute("Number", "x")}}, "Could not cast"),
        ({"attributes": {"a": Attribute("Binary", "x")}}, "must use field 'BinaryValue'"),
        ({"attributes": {"a": Attribute("String.Array", "[[]]")}}, "must be a JSON array"),
        ({"attributes": {"AWS.a": Attribute("String", "x")}}, "attribute name 'AWS.a' is invalid"),
        ({"attributes": {"a": Attribute("String", "x" * 262_144)}}, "Message too long"),
    ],
)
def test_a_message_that_is_none_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(SnsError, match=text):
        Message(TOPIC, text="text", **given)


@pytest.mark.parametrize("given", [{"group": None, "duplicate": "d"}, {"group": "g", "duplicate": None}])
def test_a_fifo_topic_wants_a_group_and_what_tells_duplicates(given: dict[str, Any]) -> None:
    with pytest.raises(SnsError, match=r"required for FIFO topics|provided explicitly"):
        Message(Topic(arn=f"{ARN}.fifo"), text="x", **given)


def test_a_function_is_invoked_with_the_documented_event() -> None:
    attributes = {"k": Attribute("String", "v"), "b": Attribute("Binary", b"\0\1")}
    message = Message(TOPIC, text="a\nb", attributes=attributes)
    message.id = "id"
    function = "arn:aws:lambda:us-east-1:123456789012:function:f"
    subscription = Subscription(arn=f"{ARN}:2", topic=ARN, owner="123456789012", endpoint=function)
    sent = functions.invocation(message, subscription, TOPIC, 1_764_000_000_007, "http://here")

    assert sent["InvocationType"] == "Event"
    assert sent["Payload"].decode() == (
        '{"Records":[{"EventSource":"aws:sns","EventVersion":"1.0","EventSubscriptionArn":'
        '"arn:aws:sns:us-east-1:123456789012:t:2","Sns":{"Type":"Notification","MessageId":"id","TopicArn":'
        '"arn:aws:sns:us-east-1:123456789012:t","Subject":null,"Message":"a\\nb","Timestamp":"2025-11-24T16:00:00.007Z",'
        '"SignatureVersion":"1","Signature":"bm90IHNpZ25lZA==","SigningCertUrl":'
        '"http://here/SimpleNotificationService.pem","UnsubscribeUrl":'
        '"http://here/?Action=Unsubscribe&SubscriptionArn=arn:aws:sns:us-east-1:123456789012:t:2","MessageAttributes":'
        '{"k":{"Type":"String","Value":"v"},"b":{"Type":"Binary","Value":"AAE="}}}}]}'
    )


def test_each_protocol_is_told_its_own_text() -> None:
    message = Message(TOPIC, text='{"default": "d", "lambda": "l", "email": "e"}', structure="json")
    assert (message.entry("sqs"), message.entry("lambda"), message.body) == ("d", "l", "d")
    message = Message(TOPIC, text='{"default": "d", "sqs": "q"}', structure="json")
    assert (message.entry("sqs"), message.entry("lambda")) == ("q", "d")
    with pytest.raises(SnsError, match="the entry for lambda is no text"):
        Message(TOPIC, text='{"default": "d", "lambda": 1}', structure="json")


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"RawMessageDelivery": "true"}, "Delivery protocol .lambda. does not support raw message delivery."),
        ({"RawMessageDelivery": "false"}, ""),
    ],
)
def test_functions_are_told_in_envelopes_only(attributes: dict[str, str], text: str) -> None:
    function = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
    assert rules.check_endpoint(TOPIC, "lambda", function) == function
    if text:
        with pytest.raises(SnsError, match=text):
            rules.check_subscription(attributes, function)
    else:
        rules.check_subscription(attributes, function)
    with pytest.raises(SnsError, match="FIFO topics deliver to queues only"):
        rules.check_endpoint(Topic(arn=f"{ARN}.fifo"), "lambda", function)
