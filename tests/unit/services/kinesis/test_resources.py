"""Tags, policies, encryption and monitoring through the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.controlling import ARN, Desk

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
WHERE = "stream orders under account 123456789012"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.stream(Tags={"b": "2"})
    return made


def tags(desk: Desk, **more: Any) -> dict[str, str]:
    answer = desk.call("ListTagsForStream", StreamName="orders", **more)
    return {each["Key"]: each["Value"] for each in answer["Tags"]}


def summary(desk: Desk) -> dict[str, Any]:
    return dict(desk.call("DescribeStreamSummary", StreamName="orders")["StreamDescriptionSummary"])


# ---------------------------------------------------------------------- tags


def test_tags_are_added_replaced_removed_and_listed_by_key(desk: Desk) -> None:
    assert not desk.call("AddTagsToStream", StreamName="orders", Tags={"c": "3", "a": "", "b": "two"})
    assert list(tags(desk).items()) == [("a", ""), ("b", "two"), ("c", "3")]
    page = desk.call("ListTagsForStream", StreamName="orders", Limit=1, ExclusiveStartTagKey="a")
    assert page == {"Tags": [{"Key": "b", "Value": "two"}], "HasMoreTags": True}
    assert desk.call("ListTagsForStream", StreamName="orders", ExclusiveStartTagKey="c") == {
        "Tags": [],
        "HasMoreTags": False,
    }
    assert not desk.call("RemoveTagsFromStream", StreamARN=ARN, TagKeys=["b", "unknown"])
    desk.restart()
    assert tags(desk) == {"a": "", "c": "3"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"a!": "b"},
            (
                "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, "
                "_ . / = + - % @."
            ),
        ),
        (
            {"a": "50%"},
            (
                f"Failed to add tags to {WHERE} because some tags contained illegal characters. The allowed characters "
                "are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
            ),
        ),
        ({"AWS:x": "y"}, "Tag keys that begin with aws: are reserved: AWS:x"),
        (
            {str(number): "" for number in range(50)},
            (f"Failed to add tags to {WHERE} because a given stream cannot have more than 50 tags associated with it."),
        ),
    ],
)
def test_tags_are_refused_in_the_words_of_aws(desk: Desk, given: dict[str, str], text: str) -> None:
    assert desk.refusal("AddTagsToStream", StreamName="orders", Tags=given) == ("InvalidArgumentException", text)
    assert tags(desk) == {"b": "2"}


def test_fifty_tags_of_any_script_are_fine(desk: Desk) -> None:
    desk.call("AddTagsToStream", StreamName="orders", Tags={f"größe {number} 長さ": "_.:/=+-@" for number in range(49)})
    assert len(tags(desk)) == 50


def test_a_stream_that_is_being_made_shows_its_tags_and_keeps_them(desk: Desk) -> None:
    desk.call("CreateStream", StreamName="new", ShardCount=1, Tags={"a": "b"})
    assert desk.call("ListTagsForStream", StreamName="new")["Tags"] == [{"Key": "a", "Value": "b"}]
    assert desk.refusal("AddTagsToStream", StreamName="new", Tags={"a": "c"}) == (
        "ResourceInUseException",
        "Stream new under account 123456789012 not ACTIVE, instead in state CREATING",
    )


def test_tags_change_while_shards_do(desk: Desk) -> None:
    desk.call("SplitShard", StreamName="orders", ShardToSplit="0", NewStartingHashKey="5")
    desk.call("AddTagsToStream", StreamName="orders", Tags={"a": "1"})
    assert desk.status() == "UPDATING"
    desk.settle()
    assert (tags(desk), summary(desk)["OpenShardCount"]) == ({"a": "1", "b": "2"}, 2)


def test_changes_that_come_together_are_all_kept(desk: Desk) -> None:
    answers = [desk.begin("AddTagsToStream", StreamName="orders", Tags={str(number): "x"}) for number in range(20)]
    assert answers == [[]] * 20
    desk.host.work()
    assert answers == [[{}]] * 20
    desk.restart()
    assert len(tags(desk)) == 21


def test_a_consumer_and_a_stream_have_tags_and_a_policy_by_their_arn(desk: Desk) -> None:
    consumer = desk.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")["Consumer"]["ConsumerARN"]
    for arn, before in ((ARN, [{"Key": "b", "Value": "2"}]), (consumer, [])):
        assert desk.call("ListTagsForResource", ResourceARN=arn)["Tags"] == before
        assert not desk.call("TagResource", ResourceARN=arn, Tags={"a": "1"})
        assert not desk.call("UntagResource", ResourceARN=arn, TagKeys=["b"])
        assert desk.call("GetResourcePolicy", ResourceARN=arn) == {"Policy": "{}"}
        assert not desk.call("PutResourcePolicy", ResourceARN=arn, Policy='{"Version": "2012-10-17"}')
    desk.restart()
    for arn in (ARN, consumer):
        assert desk.call("ListTagsForResource", ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
        assert desk.call("GetResourcePolicy", ResourceARN=arn) == {"Policy": '{"Version": "2012-10-17"}'}
        assert not desk.call("DeleteResourcePolicy", ResourceARN=arn)
        assert desk.refusal("DeleteResourcePolicy", ResourceARN=arn) == (
            "ResourceNotFoundException",
            f"No resource policy found for {arn}, account 123456789012.",
        )


def test_a_queue_has_tags_and_a_policy_by_its_arn(desk: Desk) -> None:
    stream = desk.stream("jobs", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    made = desk.call("CreateQueue", QueueName="work", StreamConfigurationList=[{"StreamARN": stream.arn}])
    arn = made["QueueDescription"]["QueueARN"]
    desk.settle()
    desk.call("TagResource", ResourceARN=arn, Tags={"a": "1"})
    assert desk.call("ListTagsForResource", ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    desk.call("PutResourcePolicy", ResourceARN=arn, Policy="{}")
    assert desk.call("GetResourcePolicy", ResourceARN=arn) == {"Policy": "{}"}


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        (ARN.replace("orders", "nothing"), "ResourceNotFoundException"),
        (f"{ARN}/consumer/fast:1", "ResourceNotFoundException"),
        ("arn:aws:kinesis:us-east-1:123456789012:queue/none", "ResourceNotFoundException"),
        ("arn:aws:kinesis:us-east-1:123456789012:channel/none", "ResourceNotFoundException"),
        (f"{ARN}/shard/0", "InvalidArgumentException"),
    ],
)
def test_what_an_arn_does_not_name_has_no_tags(desk: Desk, arn: str, code: str) -> None:
    assert desk.refusal("ListTagsForResource", ResourceARN=arn)[0] == code


@pytest.mark.parametrize("policy", ["", "[]", "{", "[" * 100_000, '"' + "x" * 20_480 + '"'])
def test_a_policy_that_is_no_object_is_refused(desk: Desk, policy: str) -> None:
    assert desk.refusal("PutResourcePolicy", ResourceARN=ARN, Policy=policy)[0] == "InvalidArgumentException"


# ---------------------------------------------------------------------- encryption


@pytest.mark.parametrize(
    "key",
    [
        "alias/aws/kinesis",
        KEY,
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:123456789012:alias/mine",
        "mrk-1234abcd12ab34cd56ef1234567890ab",
    ],
)
def test_encryption_is_shown_with_its_key_as_it_was_given(desk: Desk, key: str) -> None:
    assert "KeyId" not in summary(desk)
    assert not desk.call("StartStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=key)
    assert desk.status() == "UPDATING"
    desk.settle()
    desk.restart()
    found = summary(desk)
    assert (found["EncryptionType"], found["KeyId"]) == ("KMS", key)
    assert desk.registry.find(desk.place, "orders").is_encrypted
    assert not desk.call("StopStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=key)
    found = summary(desk)
    assert (found["EncryptionType"], "KeyId" in found) == ("NONE", False)


def test_encryption_is_refused_without_a_key_that_could_be_one(desk: Desk) -> None:
    def start(kind: str, key: str) -> tuple[str, str]:
        return desk.refusal("StartStreamEncryption", StreamName="orders", EncryptionType=kind, KeyId=key)

    assert start("NONE", KEY) == (
        "InvalidArgumentException",
        "EncryptionType NONE is not supported: the only encryption is KMS.",
    )
    assert start("KMS", "secret") == (
        "InvalidArgumentException",
        ("KeyId secret is none: give the id or the ARN of a key, an alias as alias/NAME, or the ARN of an alias."),
    )


def test_encryption_stops_with_the_key_in_use_only(desk: Desk) -> None:
    desk.call("StopStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=KEY)  # it is off already
    assert desk.status() == "ACTIVE"
    desk.call("StartStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId=KEY)
    desk.settle()
    assert desk.refusal("StopStreamEncryption", StreamName="orders", EncryptionType="KMS", KeyId="alias/x") == (
        "InvalidArgumentException",
        f"Stream orders under account 123456789012 is encrypted with key {KEY}, not alias/x.",
    )


def test_encryption_changes_twenty_five_times_a_day(tmp_path: Path) -> None:
    desk = Desk(tmp_path, transition_ms=0)
    desk.stream()
    start = {"StreamName": "orders", "EncryptionType": "KMS", "KeyId": KEY}
    for _ in range(25):
        desk.call("StartStreamEncryption", **start)
    assert desk.refusal("StartStreamEncryption", **start) == (
        "LimitExceededException",
        "Stream orders under account 123456789012 can change its encryption 25 times in 24 hours.",
    )


# ---------------------------------------------------------------------- monitoring


def test_monitoring_answers_what_was_and_what_will_be(desk: Desk) -> None:
    def change(operation: str, *names: str) -> tuple[list[str], list[str]]:
        answer = desk.call(operation, StreamName="orders", ShardLevelMetrics=list(names))
        assert (answer["StreamName"], answer["StreamARN"]) == ("orders", ARN)
        assert desk.status() == "UPDATING"
        desk.settle()
        return answer["CurrentShardLevelMetrics"], answer["DesiredShardLevelMetrics"]

    every = [
        "IncomingBytes",
        "IncomingRecords",
        "OutgoingBytes",
        "OutgoingRecords",
        "WriteProvisionedThroughputExceeded",
        "ReadProvisionedThroughputExceeded",
        "IteratorAgeMilliseconds",
    ]
    two = ["IncomingBytes", "OutgoingBytes"]
    assert change("EnableEnhancedMonitoring", "OutgoingBytes", "IncomingBytes") == ([], two)
    assert change("EnableEnhancedMonitoring", "ALL") == (two, every)
    assert change("DisableEnhancedMonitoring", "IncomingBytes") == (every, every[1:])
    assert summary(desk)["EnhancedMonitoring"] == [{"ShardLevelMetrics": every[1:]}]
    assert change("DisableEnhancedMonitoring", "ALL") == (every[1:], [])
