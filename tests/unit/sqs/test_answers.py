"""Single facts of the page on SQS that no other test shows."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from kflow.sqs import errors, limits


def test_a_send_tells_the_digests_of_both_kinds_of_attributes(world):
    sent = world.send(
        world.create(),
        "x",
        MessageAttributes={"MyAttribute": {"DataType": "String", "StringValue": "foobar"}},
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}},
    )
    assert sent["MD5OfMessageAttributes"] == "adb59cd4678ea5a855436b949cd07ab6"
    parts = [struct.pack(">I", len(each)) + each for each in (b"AWSTraceHeader", b"String")]
    whole = b"".join(parts) + b"\x01" + struct.pack(">I", 6) + b"Root=1"
    assert sent["MD5OfMessageSystemAttributes"] == hashlib.md5(whole, usedforsecurity=False).hexdigest()


def test_shorter_than_the_most_means_as_long_as_it_too(world):
    url = world.create(MaximumMessageSize="1024")
    assert "Failed" not in world.call(
        "SendMessageBatch", QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "x" * 1024}]
    )


def test_the_sum_of_a_batch_is_limited_whatever_the_queue_takes(world):
    url = world.create(MaximumMessageSize="1024")
    entries = [{"Id": str(number), "MessageBody": "x" * 1_000} for number in range(10)]
    assert len(world.call("SendMessageBatch", QueueUrl=url, Entries=entries)["Successful"]) == 10


def test_a_batch_of_which_nothing_succeeded_says_so(world):
    output = world.call("SendMessageBatch", QueueUrl=world.create(), Entries=[{"Id": "a", "MessageBody": "\x00"}])
    assert output["Successful"] == []
    assert [each["Id"] for each in output["Failed"]] == ["a"]


def test_a_list_without_a_length_is_as_long_as_a_page_and_has_no_token(world, monkeypatch):
    monkeypatch.setattr(limits, "PAGE", 2)
    urls = [world.create(name) for name in "abc"]
    assert world.call("ListQueues") == {"QueueUrls": urls[:2]}
    assert "NextToken" in world.call("ListQueues", MaxResults=2)


def test_an_attribute_that_is_asked_for_and_unknown_is_refused(world):
    url = world.create()
    with pytest.raises(errors.InvalidAttributeName) as caught:
        world.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["Foobar"])
    assert str(caught.value) == "Unknown Attribute Foobar."


def test_tags_do_not_tell_queues_apart(world):
    url = world.call("CreateQueue", QueueName="jobs", tags={"a": "1"})["QueueUrl"]
    assert world.call("CreateQueue", QueueName="jobs", tags={"b": "2"}) == {"QueueUrl": url}
    assert world.call("ListQueueTags", QueueUrl=url) == {"Tags": {"a": "1"}}


def test_a_changed_visibility_is_that_of_one_delivery(world):
    url = world.create(VisibilityTimeout="5")
    world.send(url, "x")
    (message,) = world.receive(url)
    handle = message["ReceiptHandle"]
    world.call("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=100)
    world.host.advance(99_999)
    assert world.bodies(url) == []
    world.host.advance(1)
    assert world.bodies(url) == ["x"]
    world.host.advance(5_000)
    assert world.bodies(url) == ["x"]


def test_a_group_in_a_standard_queue_orders_and_blocks_nothing(world):
    url = world.create()
    for body in ("one", "two"):
        world.call("SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId="tenant")
    assert [*world.bodies(url, 1), *world.bodies(url, 1)] == ["one", "two"]


def test_a_fifo_letter_begins_its_age_anew(world):
    url, dead = world.pair(suffix=".fifo", VisibilityTimeout="0")
    world.call("SetQueueAttributes", QueueUrl=dead, Attributes={"MessageRetentionPeriod": "60"})
    world.send(url, "bad", "a")
    world.host.advance(59_000)
    world.receive(url)
    world.receive(url)
    assert world.counts(dead) == (1, 0, 0)
    world.host.advance(59_000)
    assert world.counts(dead) == (1, 0, 0)
    world.host.advance(1_001)
    assert world.counts(dead) == (0, 0, 0)


def test_a_letter_keeps_its_trace(world):
    url, dead = world.pair(VisibilityTimeout="0")
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    world.send(url, "bad", MessageSystemAttributes=trace)
    world.receive(url)
    world.receive(url)
    (letter,) = world.receive(dead, AttributeNames=["AWSTraceHeader"])
    assert letter["Attributes"] == {"AWSTraceHeader": "Root=1"}


def test_a_queue_whose_redrive_policy_is_none_is_not_made(world):
    text = json.dumps({"deadLetterTargetArn": "arn:nix", "maxReceiveCount": 1})
    with pytest.raises(errors.InvalidParameterValue, match="Invalid value for deadLetterTargetArn"):
        world.create(RedrivePolicy=text)
    assert world.call("ListQueues") == {}


@pytest.mark.parametrize(
    ("error", "name", "query", "status"),
    [
        (errors.QueueDoesNotExist, "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", 400),
        (errors.QueueNameExists, "QueueNameExists", "QueueAlreadyExists", 400),
        (errors.PurgeQueueInProgress, "PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", 403),
        (errors.TooManyEntriesInBatchRequest, "TooManyEntriesInBatchRequest",
         "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", 400),
        (errors.BatchRequestTooLong, "BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", 400),
        (errors.InvalidBatchEntryId, "InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", 400),
        (errors.ReceiptHandleIsInvalid, "ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 400),
        (errors.InvalidAttributeName, "InvalidAttributeName", "InvalidAttributeName", 400),
        (errors.InvalidAttributeValue, "InvalidAttributeValue", "InvalidAttributeValue", 400),
        (errors.ResourceNotFound, "ResourceNotFoundException", "ResourceNotFoundException", 404),
        (errors.InvalidParameterValue, "InvalidParameterValueException", "InvalidParameterValue", 400),
        (errors.MissingParameter, "MissingRequiredParameterException", "MissingParameter", 400),
    ],
)  # fmt: skip
def test_errors_have_the_names_and_statuses_of_aws(error, name, query, status):
    assert (error.code, error.query_code, error.http_status) == (name, query, status)


@pytest.mark.parametrize(
    ("error", "name", "query", "status"),
    [
        (errors.EmptyBatchRequest, "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", 400),
        (errors.BatchEntryIdsNotDistinct, "BatchEntryIdsNotDistinct",
         "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", 400),
        (errors.UnsupportedOperation, "UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", 400),
        (errors.InvalidMessageContents, "InvalidMessageContents", "InvalidMessageContents", 400),
        (errors.OverLimit, "OverLimit", "OverLimit", 403),
    ],
)  # fmt: skip
def test_errors_that_nobody_has_seen_are_named_alike(error, name, query, status):
    assert (error.code, error.query_code, error.http_status) == (name, query, status)
