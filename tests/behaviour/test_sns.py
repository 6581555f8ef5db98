"""Amazon SNS on the endpoint, by boto3: what is published comes to the queues that are subscribed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.deadline import eventually
from tests.served import Served, served

ACCOUNT = "123456789012"
_names = (f"name-{number}" for number in range(1_000_000))


class Desk:
    """Clients of both services, and queues that are subscribed."""

    def __init__(self, endpoint: Served) -> None:
        self.endpoint = endpoint
        self.sns = endpoint.client(service="sns")
        self.sqs = endpoint.client(service="sqs")

    def topic(self, name: str = "", **attributes: str) -> str:
        return str(self.sns.create_topic(Name=name or next(_names), Attributes=attributes)["TopicArn"])

    def queue(self, *, fifo: bool = False) -> tuple[str, str]:
        name = next(_names) + (".fifo" if fifo else "")
        url = self.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})["QueueUrl"]
        return str(url), f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"

    def subscribed(self, topic: str, *, fifo: bool = False, **attributes: str) -> str:
        url, arn = self.queue(fifo=fifo)
        self.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
        return url

    def taken(self, url: str) -> list[dict[str, Any]]:
        """All that a queue holds; what was acknowledged to the publisher is there already."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            if not answer.get("Messages"):
                return found
            for each in answer["Messages"]:
                found.append(each)
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])

    def texts(self, url: str) -> list[str]:
        return [json.loads(each["Body"])["Message"] for each in self.taken(url)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with served(tmp_path_factory.mktemp("sns"), "--allow-reset") as place:
        yield Desk(place)


def refusal(call: Any, **parameters: Any) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response
    return error["Error"]["Code"], error["Error"]["Message"], error["ResponseMetadata"]["HTTPStatusCode"]


# ---------------------------------------------------------------------- publishing


def test_a_message_comes_to_each_queue_in_the_envelope_of_sns(desk: Desk) -> None:
    topic = desk.topic()
    first, second = desk.subscribed(topic), desk.subscribed(topic)
    attributes = {
        "colour": {"DataType": "String", "StringValue": "blue"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    }
    told = desk.sns.publish(TopicArn=topic, Message='say "hé"', Subject="Hello", MessageAttributes=attributes)
    (message,) = desk.taken(first)
    body = json.loads(message["Body"])
    subscription = desk.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"][0]["SubscriptionArn"]
    assert list(body) == [
        "Type",
        "MessageId",
        "TopicArn",
        "Subject",
        "Message",
        "Timestamp",
        "SignatureVersion",
        "Signature",
        "SigningCertURL",
        "UnsubscribeURL",
        "MessageAttributes",
    ]
    assert body["Type"] == "Notification"
    assert body["MessageId"] == told["MessageId"]
    assert body["TopicArn"] == topic
    assert body["Subject"] == "Hello"
    assert body["Message"] == 'say "hé"'
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["Timestamp"])
    assert body["UnsubscribeURL"] == f"{desk.endpoint.url}/?Action=Unsubscribe&SubscriptionArn={subscription}"
    assert body["MessageAttributes"] == {
        "colour": {"Type": "String", "Value": "blue"},
        "bytes": {"Type": "Binary", "Value": "AAE="},
    }
    assert message["Body"].startswith('{\n  "Type" : "Notification",\n  "MessageId" : "')
    assert "MessageAttributes" not in message
    assert desk.texts(second) == ['say "hé"']


def test_a_raw_message_comes_as_it_is_with_its_attributes(desk: Desk) -> None:
    topic = desk.topic()
    url = desk.subscribed(topic, RawMessageDelivery="true")
    attributes = {
        "colour": {"DataType": "String", "StringValue": "blue"},
        "size": {"DataType": "Number", "StringValue": "12.5"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    }
    desk.sns.publish(TopicArn=topic, Message="plain", MessageAttributes=attributes)
    (message,) = desk.taken(url)
    assert message["Body"] == "plain"
    assert message["MessageAttributes"] == attributes


def test_a_message_may_differ_by_protocol(desk: Desk) -> None:
    topic = desk.topic()
    url = desk.subscribed(topic)
    desk.sns.publish(TopicArn=topic, Message='{"default": "all", "sqs": "queues"}', MessageStructure="json")
    desk.sns.publish(TopicArn=topic, Message='{"default": "all", "email": "x"}', MessageStructure="json")
    assert sorted(desk.texts(url)) == ["all", "queues"]
    found = refusal(desk.sns.publish, TopicArn=topic, Message='{"sqs": "x"}', MessageStructure="json")
    assert found == (
        "InvalidParameter",
        "Invalid parameter: Message Structure - No default entry in JSON message body",
        400,
    )


def test_of_a_batch_what_is_wrong_with_one_fails_that_one(desk: Desk) -> None:
    topic = desk.topic()
    url = desk.subscribed(topic)
    rows = [{"Id": "a", "Message": "one"}, {"Id": "b", "Message": ""}, {"Id": "c", "Message": "three"}]
    answer = desk.sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=rows)
    assert [each["Id"] for each in answer["Successful"]] == ["a", "c"]
    assert answer["Failed"] == [
        {"Id": "b", "Code": "InvalidParameter", "Message": "Invalid parameter: Empty message", "SenderFault": True}
    ]
    assert sorted(desk.texts(url)) == ["one", "three"]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "EmptyBatchRequest"),
        ([{"Id": f"{number}", "Message": "x"} for number in range(11)], "TooManyEntriesInBatchRequest"),
        ([{"Id": "a", "Message": "x"}, {"Id": "a", "Message": "y"}], "BatchEntryIdsNotDistinct"),
        ([{"Id": "a b", "Message": "x"}], "InvalidBatchEntryId"),
        ([{"Id": f"{number}", "Message": "x" * 131_073} for number in range(2)], "BatchRequestTooLong"),
    ],
)
def test_a_batch_that_is_none_is_refused(desk: Desk, rows: list[dict[str, str]], code: str) -> None:
    found = refusal(desk.sns.publish_batch, TopicArn=desk.topic(), PublishBatchRequestEntries=rows)
    assert (found[0], found[2]) == (code, 400)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"Message": ""}, "Invalid parameter: Empty message"),
        ({"Message": "x" * 262_145}, "Invalid parameter: Message too long"),
        ({"Message": "x", "Subject": "a\nb"}, "Invalid parameter: Subject"),
        ({"Message": "x", "MessageDeduplicationId": "1"}, "MessageDeduplicationId"),
        ({"Message": "x", "TopicArn": "nothing"}, "TopicArn Reason: An ARN must have at least 6 elements, not 1"),
        ({"Message": "x", "TopicArn": f"arn:aws:sns:eu-west-1:{ACCOUNT}:a"}, "Invalid parameter: TopicArn"),
    ],
)
def test_a_message_that_is_none_is_refused(desk: Desk, parameters: dict[str, str], text: str) -> None:
    code, message, status = refusal(desk.sns.publish, **{"TopicArn": desk.topic(), **parameters})
    assert (code, status) == ("InvalidParameter", 400)
    assert text in message


def test_what_cannot_be_delivered_goes_to_the_dead_letter_queue_of_the_subscription(desk: Desk) -> None:
    topic = desk.topic()
    dead_url, dead = desk.queue()
    url = desk.subscribed(topic, RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))
    other = desk.subscribed(topic)
    desk.sqs.delete_queue(QueueUrl=url)
    desk.sqs.delete_queue(QueueUrl=other)
    alive = desk.subscribed(topic)
    desk.sns.publish(TopicArn=topic, Message="kept")
    assert desk.texts(dead_url) == ["kept"]
    assert desk.texts(alive) == ["kept"]
    eventually(lambda: [text for text in desk.endpoint.notices() if f"messages of {topic}" in text], what="the notice")


def test_a_fifo_topic_keeps_the_order_of_a_group_and_drops_what_comes_twice(desk: Desk) -> None:
    topic = desk.topic(f"{next(_names)}.fifo", FifoTopic="true", ContentBasedDeduplication="true")
    url, plain = desk.subscribed(topic, fifo=True), desk.subscribed(topic, RawMessageDelivery="true")
    numbers = [
        desk.sns.publish(TopicArn=topic, Message=f"{number}", MessageGroupId="g")["SequenceNumber"]
        for number in (1, 2, 2, 3)
    ]
    assert numbers == sorted(numbers)
    assert {len(each) for each in numbers} == {20}
    messages = desk.taken(url)
    bodies = [json.loads(each["Body"]) for each in messages]
    assert [each["Message"] for each in bodies] == ["1", "2", "3"]
    assert list(bodies[0]) == [
        "Type",
        "MessageId",
        "SequenceNumber",
        "TopicArn",
        "Message",
        "Timestamp",
        "UnsubscribeURL",
    ]
    assert messages[0]["Attributes"]["MessageGroupId"] == "g"
    assert {each["Body"] for each in desk.taken(plain)} == {"1", "2", "3"}
    found = refusal(desk.sns.publish, TopicArn=topic, Message="x")
    assert found[1] == "Invalid parameter: The MessageGroupId parameter is required for FIFO topics"


# ---------------------------------------------------------------------- filters


def test_a_filter_policy_on_attributes_lets_pass_what_it_names(desk: Desk) -> None:
    topic = desk.topic()
    policy = {"kind": ["order", {"prefix": "re"}], "price": [{"numeric": [">=", 100]}]}
    url = desk.subscribed(topic, FilterPolicy=json.dumps(policy))

    def publish(text: str, kind: str, price: str) -> None:
        attributes = {
            "kind": {"DataType": "String.Array", "StringValue": json.dumps([kind, "other"])},
            "price": {"DataType": "Number", "StringValue": price},
        }
        desk.sns.publish(TopicArn=topic, Message=text, MessageAttributes=attributes)

    publish("yes", "order", "100")
    publish("cheap", "order", "99.9")
    publish("also", "return", "1e3")
    publish("no", "gift", "500")
    desk.sns.publish(TopicArn=topic, Message="nothing")
    assert sorted(desk.texts(url)) == ["also", "yes"]


def test_a_filter_policy_on_the_body_may_be_nested_and_may_be_changed(desk: Desk) -> None:
    topic = desk.topic()
    url = desk.subscribed(
        topic, FilterPolicy='{"order": {"state": [{"anything-but": ["new"]}]}}', FilterPolicyScope="MessageBody"
    )
    desk.sns.publish(TopicArn=topic, Message='{"order": {"state": "new"}}')
    desk.sns.publish(TopicArn=topic, Message='{"order": {"state": "paid"}}')
    desk.sns.publish(TopicArn=topic, Message="no JSON")
    assert desk.texts(url) == ['{"order": {"state": "paid"}}']
    (arn,) = [each["SubscriptionArn"] for each in desk.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]]
    change = desk.sns.set_subscription_attributes
    change(SubscriptionArn=arn, AttributeName="FilterPolicy", AttributeValue="{}")
    desk.sns.publish(TopicArn=topic, Message="no JSON")
    assert desk.texts(url) == ["no JSON"]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"FilterPolicy": "{"}, "Invalid parameter: FilterPolicy: failed to parse JSON"),
        ({"FilterPolicy": '{"a": "b"}'}, "Invalid parameter: FilterPolicy: a: must be an object or an array"),
        ({"FilterPolicy": '{"a": {"b": ["c"]}}'}, "does not support nested filter policy"),
        ({"FilterPolicy": '{"a": [{"near": 1}]}'}, "unrecognized match type near"),
        ({"FilterPolicy": json.dumps({f"k{number}": ["v"] for number in range(6)})}, "more than 5 keys"),
        ({"FilterPolicy": json.dumps({"a": list("x" * 151)})}, "too complex"),
        ({"FilterPolicyScope": "Body"}, "FilterPolicyScope: Invalid value [Body]"),
        ({"RawMessageDelivery": "yes"}, "RawMessageDelivery: Invalid value [yes]. Must be true or false."),
        ({"RedrivePolicy": '{"deadLetterTargetArn": "x"}'}, "deadLetterTargetArn is an invalid arn"),
        ({"DeliveryPolicy": "{}"}, "kflow has no attribute DeliveryPolicy"),
    ],
)
def test_an_attribute_that_a_subscription_cannot_have_is_refused(
    desk: Desk, attributes: dict[str, str], text: str
) -> None:
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:any"
    topic = desk.topic()
    code, message, status = refusal(
        desk.sns.subscribe, TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes
    )
    assert (code, status) == ("InvalidParameter", 400)
    assert text in message
    assert desk.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []


# ---------------------------------------------------------------------- topics and subscriptions


def test_a_topic_that_is_made_again_is_the_same_unless_it_is_another(desk: Desk) -> None:
    name = next(_names)
    create = desk.sns.create_topic
    arn = create(Name=name, Attributes={"DisplayName": "One"}, Tags=[{"Key": "a", "Value": "1"}])["TopicArn"]
    assert arn == f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}"
    assert create(Name=name)["TopicArn"] == arn
    found = refusal(create, Name=name, Attributes={"DisplayName": "Two"})
    assert found[:2] == (
        "InvalidParameter",
        "Invalid parameter: Attributes Reason: Topic already exists with different attributes",
    )
    found = refusal(create, Name=name, Tags=[{"Key": "a", "Value": "2"}])
    assert found[1] == "Invalid parameter: Tags Reason: Topic already exists with different tags"


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("", {}), ("a b", {}), ("a" * 257, {}), ("a.fifo", {}), ("a", {"FifoTopic": "true"}), ("a", {"Colour": "blue"})],
)
def test_a_topic_that_cannot_be_is_refused(desk: Desk, name: str, attributes: dict[str, str]) -> None:
    found = refusal(desk.sns.create_topic, Name=name, Attributes=attributes)
    assert (found[0], found[2]) == ("InvalidParameter", 400)


def test_topics_have_attributes_and_tags(desk: Desk) -> None:
    sns, topic = desk.sns, desk.topic()
    desk.subscribed(topic)
    sns.set_topic_attributes(TopicArn=topic, AttributeName="DisplayName", AttributeValue="Orders")
    shown = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    assert (shown["DisplayName"], shown["Owner"], shown["SubscriptionsConfirmed"]) == ("Orders", ACCOUNT, "1")
    sns.tag_resource(ResourceArn=topic, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    sns.untag_resource(ResourceArn=topic, TagKeys=["a", "none"])
    assert sns.list_tags_for_resource(ResourceArn=topic)["Tags"] == [{"Key": "b", "Value": "2"}]
    many = [{"Key": f"{number}", "Value": ""} for number in range(50)]
    assert refusal(sns.tag_resource, ResourceArn=topic, Tags=many)[0] == "TagLimitExceeded"
    gone = f"{topic}-none"
    assert refusal(sns.tag_resource, ResourceArn=gone, Tags=[])[:2] == ("ResourceNotFound", "Resource does not exist")


def test_a_deleted_topic_is_gone_with_its_subscriptions(desk: Desk) -> None:
    topic = desk.topic()
    desk.subscribed(topic)
    (arn,) = [each["SubscriptionArn"] for each in desk.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]]
    desk.sns.delete_topic(TopicArn=topic)
    desk.sns.delete_topic(TopicArn=topic)
    assert refusal(desk.sns.publish, TopicArn=topic, Message="x") == ("NotFound", "Topic does not exist", 404)
    found = refusal(desk.sns.get_subscription_attributes, SubscriptionArn=arn)
    assert found == ("NotFound", "Subscription does not exist", 404)


def test_lists_come_in_pages_and_hold_what_is_of_the_caller(desk: Desk) -> None:
    sns = desk.endpoint.client(service="sns", access_key="777788889999")
    arns = {sns.create_topic(Name=f"t{number}")["TopicArn"] for number in range(101)}
    first = sns.list_topics()
    assert len(first["Topics"]) == 100
    second = sns.list_topics(NextToken=first["NextToken"])
    assert "NextToken" not in second
    assert {each["TopicArn"] for each in first["Topics"] + second["Topics"]} == arns
    queue = "arn:aws:sqs:us-east-1:777788889999:q"
    sns.subscribe(TopicArn=min(arns), Protocol="sqs", Endpoint=queue)
    assert [each["Endpoint"] for each in sns.list_subscriptions()["Subscriptions"]] == [queue]


def test_a_subscription_is_made_once_and_ends(desk: Desk) -> None:
    topic, (url, queue) = desk.topic(), desk.queue()
    subscribe = desk.sns.subscribe
    arn = subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)["SubscriptionArn"]
    assert subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)["SubscriptionArn"] == arn
    raw = {"RawMessageDelivery": "true"}
    found = refusal(subscribe, TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=raw)
    assert found[1] == "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"
    shown = desk.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    assert (shown["Endpoint"], shown["PendingConfirmation"], shown["RawMessageDelivery"]) == (queue, "false", "false")
    assert refusal(desk.sns.confirm_subscription, TopicArn=topic, Token="x")[1] == "Invalid parameter: Token"
    desk.sns.publish(TopicArn=topic, Message="before")
    (message,) = desk.taken(url)
    link = json.loads(message["Body"])["UnsubscribeURL"]
    assert desk.endpoint.get(link.removeprefix(desk.endpoint.url))[0] == 200
    desk.sns.unsubscribe(SubscriptionArn=arn)
    desk.sns.publish(TopicArn=topic, Message="after")
    assert desk.taken(url) == []


@pytest.mark.parametrize(
    ("protocol", "endpoint", "text"),
    [
        ("https", "https://example.com", "kflow delivers to sqs and lambda only, and not to https"),
        ("lambda", f"arn:aws:sqs:us-east-1:{ACCOUNT}:a", "Invalid parameter: Lambda endpoint ARN"),
        ("pigeon", "x", "Amazon SNS does not support this protocol string: pigeon"),
        ("sqs", "x", "Invalid parameter: SQS endpoint ARN"),
        ("sqs", f"arn:aws:sqs:us-east-1:{ACCOUNT}:a.fifo", "can not be subscribed to standard SNS topics"),
    ],
)
def test_what_cannot_be_subscribed_is_refused(desk: Desk, protocol: str, endpoint: str, text: str) -> None:
    found = refusal(desk.sns.subscribe, TopicArn=desk.topic(), Protocol=protocol, Endpoint=endpoint)
    assert (found[0], found[2]) == ("InvalidParameter", 400)
    assert text in found[1]


# ---------------------------------------------------------------------- the node


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with served(tmp_path) as place:
        desk = Desk(place)
        topic = desk.topic("kept")
        url = desk.subscribed(topic, FilterPolicy='{"kind": ["a"]}')
        for number in range(20):
            attributes = {"kind": {"DataType": "String", "StringValue": "ab"[number % 2]}}
            desk.sns.publish(TopicArn=topic, Message=f"{number}", MessageAttributes=attributes)
        place.kill()
        place.start()
        desk = Desk(place)
        attributes = {"kind": {"DataType": "String", "StringValue": "a"}}
        desk.sns.publish(TopicArn=topic, Message="after", MessageAttributes=attributes)
        name = url.rpartition("/")[2]
        texts = desk.texts(f"{place.url}/{ACCOUNT}/{name}")
        assert sorted(texts) == sorted([*(f"{number}" for number in range(0, 20, 2)), "after"])


def test_a_kill_while_messages_are_published_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    with served(tmp_path) as place:
        desk = Desk(place)
        topic = desk.topic("kept")
        names = [desk.subscribed(topic, RawMessageDelivery="true").rpartition("/")[2] for _ in range(2)]
        acknowledged: list[str] = []

        def publish(first: int) -> None:
            client = place.client(service="sns")
            for number in range(first, first + 100_000):
                try:
                    client.publish(TopicArn=topic, Message=f"{number}")
                except (BotoCoreError, ClientError):
                    return
                acknowledged.append(f"{number}")

        threads = [threading.Thread(target=publish, args=(first,)) for first in (0, 1_000_000)]
        for each in threads:
            each.start()
        eventually(lambda: len(acknowledged) > 100, what="messages")
        place.kill()
        for each in threads:
            each.join(60)
        place.start()
        desk = Desk(place)
        for name in names:
            found = {each["Body"] for each in desk.taken(f"{place.url}/{ACCOUNT}/{name}")}
            assert not set(acknowledged) - found


def test_topics_that_are_damaged_are_not_served_and_not_written_over_until_a_reset(tmp_path: Path) -> None:
    with served(tmp_path, "--allow-reset") as place:
        Desk(place).topic("lost")
        place.kill()
        for name in ("topics.json", "topics.json.twin"):
            (place.data_dir / name).write_bytes(b"garbage")
        place.start()
        sns = place.client(service="sns")
        assert refusal(sns.create_topic, Name="new")[2] == 500
        assert (place.data_dir / "topics.json").read_bytes() == b"garbage"
        eventually(lambda: any("no topic is served" in text for text in place.notices()), what="people to be told")
        assert place.get("/_kflow/reset", method="POST")[0] == 200
        assert sns.list_topics()["Topics"] == []


def test_faults_and_a_reset_know_of_sns(tmp_path: Path) -> None:
    faults = ["sns.ListTopics: Throttling", "sqs.SendMessage: InternalFailure"]
    (tmp_path / "kflow.toml").write_text(f"faults = {json.dumps(faults)}\n")
    with served(tmp_path, "--allow-reset") as place:
        desk = Desk(place)
        topic = desk.topic()
        desk.subscribed(topic)
        assert refusal(desk.sns.list_topics)[0] == "ThrottlingException"
        found = refusal(desk.sns.publish, TopicArn=topic, Message="x")
        assert (found[0], found[2]) == ("InternalError", 500)
        assert place.get("/_kflow/reset", method="POST")[0] == 200
        assert refusal(desk.sns.get_topic_attributes, TopicArn=topic)[0] == "NotFound"
        assert json.loads(place.get("/_kflow/health")[1])["services"]["sns"] == "running"
