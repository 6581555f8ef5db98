"""Batches, message attributes, and what is refused of a message."""

from __future__ import annotations

import pytest

from kflow.sqs import digests, errors
from kflow.sqs.digests import Value


def batch(world, url, *entries):
    return world.call("SendMessageBatch", QueueUrl=url, Entries=list(entries))


def entry(name, body="x", **more):
    return {"Id": name, "MessageBody": body, **more}


def test_digests_of_attributes_are_those_of_aws():
    assert digests.of_attributes({"MyAttribute": Value("String", "foobar")}) == "adb59cd4678ea5a855436b949cd07ab6"
    both = {"k": Value("String", "v"), "b": Value("Binary", b"\x00\x01")}
    assert digests.of_attributes(both) == "eb275886858fc7bc63216742c9bebbb1"


def test_the_digest_is_of_the_attributes_that_are_shown(world):
    url = world.create()
    attributes = {
        "MyAttribute": {"DataType": "String", "StringValue": "foobar"},
        "foo.a": {"DataType": "Number.int", "StringValue": "1"},
        "bin": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    }
    world.send(url, "x", MessageAttributes=attributes)

    def shown(*names):
        (message,) = world.receive(url, VisibilityTimeout=0, MessageAttributeNames=list(names))
        return message.get("MessageAttributes"), message.get("MD5OfMessageAttributes")

    assert shown("MyAttribute") == (
        {"MyAttribute": attributes["MyAttribute"]},
        "adb59cd4678ea5a855436b949cd07ab6",
    )
    assert shown("foo.*")[0] == {"foo.a": attributes["foo.a"]}
    assert shown("All")[0] == shown(".*")[0] == attributes
    assert shown("nix") == shown() == (None, None)


def test_a_batch_says_of_each_what_became_of_it(world):
    url = world.create(MaximumMessageSize="1024")
    output = batch(world, url, entry("a", "1"), entry("b", "x" * 1025), entry("c", "\x00"), entry("d", "2"))
    assert [each["Id"] for each in output["Successful"]] == ["a", "d"]
    assert [(each["Id"], each["SenderFault"], each["Code"]) for each in output["Failed"]] == [
        ("b", True, "InvalidParameterValue"),
        ("c", True, "InvalidMessageContents"),
    ]
    assert output["Failed"][0]["Message"] == (
        "One or more parameters cannot be validated. Reason: Message must be shorter than 1024 bytes."
    )
    assert world.bodies(url) == ["1", "2"]
    assert set(batch(world, url, entry("a"))) == {"Successful"}


@pytest.mark.parametrize(
    ("entries", "kind", "text"),
    [
        ([], errors.EmptyBatchRequest, "There should be at least one SendMessageBatchRequestEntry in the request."),
        ([entry(str(number)) for number in range(20)], errors.TooManyEntriesInBatchRequest,
         "Maximum number of entries per request are 10. You have sent 20."),
        ([entry("a b")], errors.InvalidBatchEntryId,
         ("A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 "
         "letters long.")),
        ([entry("")], errors.InvalidBatchEntryId, None),
        ([entry("x" * 81)], errors.InvalidBatchEntryId, None),
        ([entry("a"), entry("a")], errors.BatchEntryIdsNotDistinct, "Id a repeated."),
        ([entry("a", "x" * 524_288), entry("b", "x" * 524_289)], errors.BatchRequestTooLong,
         "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes."),
    ],
)  # fmt: skip
def test_a_batch_that_is_refused(world, entries, kind, text):
    url = world.create()
    with pytest.raises(kind) as caught:
        batch(world, url, *entries)
    if text is not None:
        assert str(caught.value) == text
    assert world.bodies(url) == []


def test_deletes_and_changes_of_visibility_come_in_batches(world):
    url = world.create()
    for body in "abc":
        world.send(url, body)
    handles = [each["ReceiptHandle"] for each in world.receive(url)]
    entries = [{"Id": str(i), "ReceiptHandle": handle} for i, handle in enumerate([*handles[:2], "garbage"])]
    output = world.call("DeleteMessageBatch", QueueUrl=url, Entries=entries)
    assert output["Successful"] == [{"Id": "0"}, {"Id": "1"}]
    assert [(each["Id"], each["Code"]) for each in output["Failed"]] == [("2", "ReceiptHandleIsInvalid")]
    entries = [
        {"Id": "gone", "ReceiptHandle": handles[0], "VisibilityTimeout": 0},
        {"Id": "there", "ReceiptHandle": handles[2], "VisibilityTimeout": 0},
        {"Id": "wrong", "ReceiptHandle": handles[2], "VisibilityTimeout": 43_201},
    ]
    output = world.call("ChangeMessageVisibilityBatch", QueueUrl=url, Entries=entries)
    assert output["Successful"] == [{"Id": "there"}]
    assert [each["Code"] for each in output["Failed"]] == ["InvalidParameterValue"] * 2
    assert world.bodies(url) == ["c"]


def test_the_longest_message_passes_and_one_byte_more_does_not(world):
    url = world.create()
    attributes = {"ab": {"DataType": "String", "StringValue": "é"}}
    world.send(url, "x" * (1_048_576 - 2 - 6 - 2), MessageAttributes=attributes)
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.send(url, "x" * (1_048_576 - 2 - 6 - 2 + 1), MessageAttributes=attributes)
    text = "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
    assert str(caught.value) == text
    assert len(world.bodies(url)) == 1


def text_attribute(kind="String", **value):
    return {"MessageAttributes": {"a": {"DataType": kind, **(value or {"StringValue": "x"})}}}


@pytest.mark.parametrize(
    ("parameters", "kind", "text"),
    [
        ({"MessageBody": ""}, errors.MissingParameter, "The request must contain the parameter MessageBody."),
        ({"MessageBody": None}, errors.MissingParameter, "The request must contain the parameter MessageBody."),
        ({"MessageBody": "a\ufffe"}, errors.InvalidMessageContents, None),
        ({"DelaySeconds": 901}, errors.InvalidParameterValue,
         "Value 901 for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."),
        ({"MessageGroupId": ""}, errors.InvalidParameterValue,
         ("Value  for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric and "
         "punctuation characters. 1 to 128 in length.")),
        ({"MessageDeduplicationId": "d"}, errors.InvalidParameterValue,
         ("Value d for parameter MessageDeduplicationId is invalid. Reason: The request include parameter that is not "
         "valid for this queue type.")),
        (text_attribute(StringValue=""), errors.InvalidParameterValue,
         "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
        (text_attribute("Binary", BinaryValue=b""), errors.InvalidParameterValue,
         "Message (user) attribute 'a' must contain a non-empty value of type 'Binary'."),
        (text_attribute("Float"), errors.InvalidParameterValue,
         ("The message attribute 'a' has an invalid message attribute type, the set of supported type prefixes is "
         "Binary, Number, and String.")),
        (text_attribute(""), errors.InvalidParameterValue,
         "The message attribute 'a' must contain non-empty message attribute type."),
        (text_attribute("Number"), errors.InvalidParameterValue,
         "Can't cast the value of message (user) attribute 'a' to a number."),
        (text_attribute("Binary"), errors.InvalidParameterValue,
         "The message attribute 'a' with type 'Binary' must use field 'BinaryValue'."),
        (text_attribute(StringValue="\x01"), errors.InvalidParameterValue, None),
        (text_attribute(StringListValues=["x"]), errors.UnsupportedOperation,
         "Message attribute list values in SendMessage operation are not supported."),
        (text_attribute(StringValue="x", BinaryValue=b"x"), errors.InvalidParameterValue, None),
        ({"MessageAttributes": {f"a{i}": {"DataType": "String", "StringValue": "x"} for i in range(11)}},
         errors.InvalidParameterValue, "Number of message attributes [11] exceeds the allowed maximum [10]."),
        ({"MessageSystemAttributes": {"Other": {"DataType": "String", "StringValue": "x"}}},
         errors.InvalidParameterValue, None),
        ({"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "Binary", "BinaryValue": b"x"}}},
         errors.InvalidParameterValue, None),
        *(({"MessageAttributes": {name: {"DataType": "String", "StringValue": "x"}}}, errors.InvalidParameterValue,
           None) for name in ("", "x" * 257, "AWS.x", "amazon.x", ".x", "x.", "x..y", "x y")),
    ],
)  # fmt: skip
def test_what_a_send_refuses(world, parameters, kind, text):
    url = world.create()
    parameters = {name: value for name, value in {"MessageBody": "x", **parameters}.items() if value is not None}
    with pytest.raises(kind) as caught:
        world.call("SendMessage", QueueUrl=url, **parameters)
    if text is not None:
        assert str(caught.value) == text
    assert world.bodies(url) == []


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"MaxNumberOfMessages": 11},
         "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided."),
        ({"MaxNumberOfMessages": 0},
         "Value 0 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided."),
        ({"WaitTimeSeconds": 21},
         "Value 21 for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."),
        ({"VisibilityTimeout": 43_201},
         "Value 43201 for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200, if provided."),
    ],
)  # fmt: skip
def test_what_a_receive_refuses(world, parameters, text):
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.call("ReceiveMessage", QueueUrl=world.create(), **parameters)
    assert str(caught.value) == text


def test_a_receive_knows_its_attributes(world):
    with pytest.raises(errors.InvalidAttributeName, match=r"Unknown Attribute Nix\."):
        world.call("ReceiveMessage", QueueUrl=world.create(), MessageSystemAttributeNames=["Nix"])


@pytest.mark.parametrize(
    ("operation", "parameter"),
    [
        ("SendMessage", "QueueUrl"),
        ("DeleteMessage", "QueueUrl"),
        ("CreateQueue", "QueueName"),
        ("GetQueueUrl", "QueueName"),
        ("StartMessageMoveTask", "SourceArn"),
        ("CancelMessageMoveTask", "TaskHandle"),
    ],
)
def test_what_must_be_given_is_named(world, operation, parameter):
    with pytest.raises(errors.MissingParameter) as caught:
        world.call(operation)
    assert str(caught.value) == f"The request must contain the parameter {parameter}."


@pytest.mark.parametrize(
    ("operation", "parameter"),
    [
        ("DeleteMessage", "ReceiptHandle"),
        ("ChangeMessageVisibility", "VisibilityTimeout"),
        ("SetQueueAttributes", "Attributes"),
        ("TagQueue", "Tags"),
        ("UntagQueue", "TagKeys"),
        ("AddPermission", "Label"),
        ("RemovePermission", "Label"),
    ],
)
def test_what_must_be_given_beside_a_queue_is_named(world, operation, parameter):
    with pytest.raises(errors.MissingParameter) as caught:
        world.call(operation, QueueUrl=world.create())
    assert str(caught.value) == f"The request must contain the parameter {parameter}."
