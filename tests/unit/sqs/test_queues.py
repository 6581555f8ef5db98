"""Queues: their names, attributes, tags and permissions, and what is left of them."""

from __future__ import annotations

import json
import os

import pytest

from kflow.aws.calls import Place
from kflow.sqs import errors
from tests.sqsing import BEGIN_MS

ALL = {
    "VisibilityTimeout": "30",
    "MessageRetentionPeriod": "345600",
    "DelaySeconds": "0",
    "ReceiveMessageWaitTimeSeconds": "0",
    "MaximumMessageSize": "1048576",
    "SqsManagedSseEnabled": "true",
    "QueueArn": "arn:aws:sqs:us-east-1:123456789012:jobs",
    "CreatedTimestamp": str(BEGIN_MS // 1000),
    "LastModifiedTimestamp": str(BEGIN_MS // 1000),
    "ApproximateNumberOfMessages": "0",
    "ApproximateNumberOfMessagesNotVisible": "0",
    "ApproximateNumberOfMessagesDelayed": "0",
}
URL = "http://localhost:4566/123456789012/jobs"
ARN = "arn:aws:sqs:us-east-1:123456789012"


def shown(world, url, *names):
    return world.call("GetQueueAttributes", QueueUrl=url, AttributeNames=list(names)).get("Attributes")


def change(world, url, **attributes):
    world.call("SetQueueAttributes", QueueUrl=url, Attributes=attributes)


def test_a_new_queue_has_the_defaults(world):
    url = world.create()
    assert shown(world, url, "All") == ALL
    assert world.call("GetQueueAttributes", QueueUrl=url) == {}
    assert shown(world, url, "DelaySeconds", "QueueArn") == {"DelaySeconds": "0", "QueueArn": f"{ARN}:jobs"}
    fifo = shown(world, world.create("jobs.fifo"), "All")
    assert fifo == {
        **ALL,
        "QueueArn": f"{ARN}:jobs.fifo",
        "FifoQueue": "true",
        "ContentBasedDeduplication": "false",
        "DeduplicationScope": "queue",
        "FifoThroughputLimit": "perQueue",
    }


def test_attributes_are_set_and_kept(world):
    url = world.create()
    world.host.advance(5000)
    change(world, url, VisibilityTimeout="7", Policy='{"Version":"2012-10-17"}', KmsMasterKeyId="alias/k")
    world.restart()
    found = shown(world, url, "All")
    assert found == {
        **ALL,
        "VisibilityTimeout": "7",
        "Policy": '{"Version":"2012-10-17"}',
        "KmsMasterKeyId": "alias/k",
        "SqsManagedSseEnabled": "false",
        "LastModifiedTimestamp": str(BEGIN_MS // 1000 + 5),
    }
    change(world, url, Policy="", KmsMasterKeyId="")
    assert set(shown(world, url, "All")) == set(ALL)
    assert shown(world, url, "SqsManagedSseEnabled") == {"SqsManagedSseEnabled": "false"}


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"Foobar": "1"}, errors.InvalidAttributeName, "Unknown Attribute Foobar."),
        ({"QueueArn": "1"}, errors.InvalidAttributeName, "Unknown Attribute QueueArn."),
        ({"FifoQueue": "false"}, errors.InvalidAttributeName, "Unknown Attribute FifoQueue."),
        ({"ContentBasedDeduplication": "true"}, errors.InvalidAttributeName,
         "Unknown Attribute ContentBasedDeduplication."),
        ({"FifoQueue": "true"}, errors.InvalidAttributeValue,
         "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."),
        ({"DeduplicationScope": "queue"}, errors.InvalidAttributeName,
         "You can specify the DeduplicationScope only when FifoQueue is set to true."),
        ({"FifoThroughputLimit": "perQueue"}, errors.InvalidAttributeName,
         "You can specify the FifoThroughputLimit only when FifoQueue is set to true."),
        ({"KmsMasterKeyId": "k", "SqsManagedSseEnabled": "true"}, errors.InvalidAttributeName,
         ("You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or "
          "SQS SSE.")),
        *(({name: value}, errors.InvalidAttributeValue, f"Invalid value for the parameter {name}.") for name, value in (
            ("VisibilityTimeout", "43201"), ("VisibilityTimeout", "-1"), ("VisibilityTimeout", ""),
            ("VisibilityTimeout", "x"), ("MessageRetentionPeriod", "59"), ("MessageRetentionPeriod", "1209601"),
            ("DelaySeconds", "901"), ("ReceiveMessageWaitTimeSeconds", "21"), ("MaximumMessageSize", "1023"),
            ("MaximumMessageSize", "1048577"), ("SqsManagedSseEnabled", "maybe"), ("Policy", "no JSON"),
            ("KmsDataKeyReusePeriodSeconds", "59"))),
    ],
)  # fmt: skip
def test_what_cannot_be_set(world, given, kind, text):
    url = world.create()
    with pytest.raises(kind) as caught:
        change(world, url, **given)
    assert str(caught.value) == text
    assert shown(world, url, "All") == ALL


def test_high_throughput_takes_the_scope_of_groups(world):
    url = world.create("jobs.fifo")
    with pytest.raises(errors.InvalidAttributeValue, match="value for DeduplicationScope is messageGroup"):
        change(world, url, FifoThroughputLimit="perMessageGroupId")
    change(world, url, FifoThroughputLimit="perMessageGroupId", DeduplicationScope="messageGroup")
    with pytest.raises(errors.InvalidAttributeValue):
        change(world, url, FifoThroughputLimit="nix")
    with pytest.raises(errors.InvalidAttributeValue):
        change(world, url, FifoQueue="false")
    change(world, url, FifoQueue="true", ContentBasedDeduplication="true")
    assert shown(world, url, "ContentBasedDeduplication") == {"ContentBasedDeduplication": "true"}


def policy(**members):
    return json.dumps({"deadLetterTargetArn": f"{ARN}:dead", "maxReceiveCount": 3, **members})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nix", "Redrive policy is not a valid JSON map."),
        (policy(maxReceiveCount=None), "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
        (policy(deadLetterTargetArn=""), "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."),
        (policy(maxReceiveCount=""), "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
        (policy(maxReceiveCount=[]),
         "Invalid value for maxReceiveCount: [], valid values are from 1 to 1000 both inclusive."),
        (policy(maxReceiveCount=0),
         "Invalid value for maxReceiveCount: 0, valid values are from 1 to 1000 both inclusive."),
        (policy(deadLetterTargetArn=[1]), "Invalid value for deadLetterTargetArn."),
        (policy(maxReceiveCount=True),
         "Invalid value for maxReceiveCount: True, valid values are from 1 to 1000 both inclusive."),
        (policy(maxReceiveCount="x"),
         "Invalid value for maxReceiveCount: x, valid values are from 1 to 1000 both inclusive."),
        (policy(maxReceiveCount=1001),
         "Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive."),
        (policy(deadLetterTargetArn="arn:nix"), "Invalid value for deadLetterTargetArn."),
        (policy(deadLetterTargetArn=f"{ARN}:nix"), "Dead letter target does not exist."),
        (policy(deadLetterTargetArn=f"{ARN}:jobs"), "The dead-letter queue must be another queue than the source."),
        (policy(deadLetterTargetArn=f"{ARN}:dead.fifo"),
         "Dead-letter queue must be same type of queue as the source."),
        (policy(deadLetterTargetArn="arn:aws:sqs:eu-west-1:123456789012:dead"),
         "Dead-letter target owner should be same as the source."),
    ],
)  # fmt: skip
def test_a_redrive_policy_that_is_none(world, text, reason):
    world.create("dead")
    world.create("dead.fifo")
    with pytest.raises(errors.InvalidParameterValue) as caught:
        change(world, world.create(), RedrivePolicy=text)
    assert str(caught.value) == f"Value {text} for parameter RedrivePolicy is invalid. Reason: {reason}"


def test_a_redrive_policy_comes_back_as_it_was_given_and_goes(world):
    world.create("dead")
    given = policy(maxReceiveCount="2")
    url = world.create(RedrivePolicy=given)
    assert shown(world, url, "RedrivePolicy") == {"RedrivePolicy": given}
    assert world.create(RedrivePolicy=policy(maxReceiveCount=2)) == url
    change(world, url, RedrivePolicy="")
    assert shown(world, url, "RedrivePolicy") is None


def test_a_redrive_allow_policy_is_kept_to(world):
    dead = world.create("dead")
    url, other = world.create(), world.create("other")
    for wrong in ("nix", '{"redrivePermission":[]}', '{"redrivePermission":"x"}', '{"redrivePermission":"byQueue"}',
                  '{"redrivePermission":"denyAll","sourceQueueArns":[]}',
                  '{"redrivePermission":"byQueue","sourceQueueArns":["x"]}'):  # fmt: skip
        with pytest.raises(errors.InvalidParameterValue, match="for parameter RedriveAllowPolicy is invalid"):
            change(world, dead, RedriveAllowPolicy=wrong)
    allow = json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [f"{ARN}:jobs"]})
    change(world, dead, RedriveAllowPolicy=allow)
    change(world, url, RedrivePolicy=policy())
    with pytest.raises(errors.InvalidParameterValue, match="RedriveAllowPolicy does not let this queue use it"):
        change(world, other, RedrivePolicy=policy())
    change(world, dead, RedriveAllowPolicy="")
    change(world, other, RedrivePolicy=policy())


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["", "a b", "x" * 81, "jobs.fifo", "ü", "../x", "a/b"])
def test_what_is_no_name(world, name):
    with pytest.raises(errors.SqsError) as caught:
        world.call("CreateQueue", QueueName=name)
    assert caught.value.query_code == ("InvalidParameterValue" if name else "MissingParameter")


@pytest.mark.parametrize("name", ["jobs", ".fifo", "x" * 76 + ".fifo", "a b.fifo"])
def test_what_is_no_name_of_a_fifo_queue(world, name):
    with pytest.raises(errors.InvalidParameterValue, match=r"must end with \.fifo suffix"):
        world.call("CreateQueue", QueueName=name, Attributes={"FifoQueue": "true"})


def test_making_a_queue_twice_is_making_it_once(world):
    url = world.create(DelaySeconds="3", VisibilityTimeout="5")
    assert world.create() == url
    assert world.create(DelaySeconds="03") == url
    with pytest.raises(errors.QueueNameExists) as caught:
        world.create(DelaySeconds="4")
    assert str(caught.value) == (
        "A queue already exists with the same name and a different value for attribute DelaySeconds"
    )
    with pytest.raises(errors.InvalidAttributeName):
        world.create(Foobar="1")
    first = world.begin("CreateQueue", QueueName="other")
    second = world.begin("CreateQueue", QueueName="other")
    world.host.run()
    assert first.output == second.output


def test_names_that_differ_in_case_are_two_queues_in_two_files(world):
    first, second = world.create("jobs"), world.create("Jobs")
    world.send(first, "x")
    assert world.bodies(second) == []
    world.restart()
    assert world.bodies(first) == ["x"]
    found = sorted(name for name in os.listdir(world.path / "queues") if name.endswith(".db"))
    assert found == ["Jobs~2.db", "jobs.db"]


def test_a_queue_is_found_by_whatever_url_ends_in_it(world):
    url = world.create()
    world.send(url, "x")
    for each in ("https://sqs.us-east-1.amazonaws.com/123456789012/jobs", "jobs", "/123456789012/jobs", url):
        assert world.bodies(each, VisibilityTimeout=0) == ["x"]
    for each in ("http://localhost/123456789012/nix", "http://localhost/999999999999/jobs", "nix", "http://[", "/"):
        with pytest.raises(errors.QueueDoesNotExist) as caught:
            world.receive(each)
        assert str(caught.value) == "The specified queue does not exist."
        assert caught.value.query_code == "AWS.SimpleQueueService.NonExistentQueue"


def test_the_url_of_a_queue_is_told_also_of_another_account(world):
    url = world.create()
    other = world.create(place=Place("999999999999", "us-east-1"))
    assert world.call("GetQueueUrl", QueueName="jobs") == {"QueueUrl": url}
    owned = world.call("GetQueueUrl", QueueName="jobs", QueueOwnerAWSAccountId="999999999999")
    assert owned == {"QueueUrl": other}
    with pytest.raises(errors.QueueDoesNotExist):
        world.call("GetQueueUrl", QueueName="nix")


def test_queues_are_listed_page_by_page(world):
    assert world.call("ListQueues") == {}
    urls = [world.create(name) for name in ("b", "a2", "a1", "a3")]
    urls.sort()
    assert world.call("ListQueues") == {"QueueUrls": urls}
    assert world.call("ListQueues", QueueNamePrefix="a") == {"QueueUrls": urls[:3]}
    assert world.call("ListQueues", QueueNamePrefix="nix") == {}
    page = world.call("ListQueues", QueueNamePrefix="a", MaxResults=2)
    assert page["QueueUrls"] == urls[:2]
    rest = world.call("ListQueues", QueueNamePrefix="a", MaxResults=2, NextToken=page["NextToken"])
    assert rest == {"QueueUrls": urls[2:3]}
    for wrong in ({"MaxResults": 0}, {"MaxResults": 1001}, {"NextToken": "%", "MaxResults": 1}, {"NextToken": "YQ=="}):
        with pytest.raises(errors.InvalidParameterValue):
            world.call("ListQueues", **wrong)


# ---------------------------------------------------------------------- deleting


def test_a_create_that_meets_a_delete_is_answered_as_it_was_there(world):
    first = world.begin("CreateQueue", QueueName="jobs")
    second = world.begin("CreateQueue", QueueName="jobs")
    gone = world.begin("DeleteQueue", QueueUrl=URL)
    world.host.run()
    assert (first.output, second.output, gone.output) == ({"QueueUrl": URL}, {"QueueUrl": URL}, {})
    assert world.call("ListQueues") == {}
    assert world.create("jobs") == URL
    assert world.bodies(URL) == []


def test_a_deleted_queue_is_gone_and_its_name_is_free(world):
    url = world.create()
    world.send(url, "old")
    first = world.begin("DeleteQueue", QueueUrl=url)
    assert world.begin("ListQueues").output == {}
    second = world.begin("CreateQueue", QueueName="jobs")
    world.host.run()
    assert first.output == {}
    assert second.output == {"QueueUrl": url}
    assert world.bodies(url) == []
    world.call("DeleteQueue", QueueUrl=url)
    assert os.listdir(world.path / "queues") == []
    with pytest.raises(errors.QueueDoesNotExist):
        world.call("DeleteQueue", QueueUrl=url)


def test_of_two_files_of_one_name_the_newer_stands(world):
    url = world.create()
    world.send(url, "old")
    world.host.advance(1000)
    world.begin("DeleteQueue", QueueUrl=url)
    begun = world.begin("CreateQueue", QueueName="jobs")
    for work, then in list(world.host.errands):  # closed, and made; then a kill
        then(work())
    assert begun.output == {"QueueUrl": url}
    for queue in world.service.directory.everywhere():
        queue.desk._turns.close()
    world.start()
    assert world.bodies(url) == []
    assert len(os.listdir(world.path / "queues")) == 1 + sum(
        name.endswith("-wal") for name in os.listdir(world.path / "queues")
    )


def test_a_file_that_was_never_a_queue_goes_and_one_that_cannot_be_read_is_said(world):
    url = world.create()
    world.stop()
    folder = world.path / "queues"
    (folder / "half.db").touch()
    (folder / "bad.db").write_bytes(b"no database, but long enough to be looked at as if it were one" * 20)
    world.start()
    assert world.call("ListQueues") == {"QueueUrls": [url]}
    assert not (folder / "half.db").exists()
    assert (folder / "bad.db").exists()
    ((level, text),) = world.host.notices
    assert level == "error"
    assert "bad.db" in text
    fresh = world.create("bad")
    world.send(fresh, "x")
    assert world.bodies(fresh) == ["x"]


def test_a_queue_that_is_in_another_place_is_said_once(world):
    world.create(place=Place("123456789012", "eu-west-1"))
    for _ in range(2):
        with pytest.raises(errors.QueueDoesNotExist):
            world.call("GetQueueUrl", QueueName="jobs")
    ((level, text),) = world.host.notices
    assert level == "warning"
    assert text == (
        "queue jobs was asked for in us-east-1 of account 123456789012, and is in eu-west-1 of account 123456789012: "
        "the client's region or access key decides where it looks"
    )


def test_all_queues_can_be_cleared(world):
    world.create()
    world.create(place=Place("999999999999", "eu-west-1"))
    (world.path / "queues" / "bad.db").write_bytes(b"nix" * 1000)
    world.restart()
    done = []
    world.service.clear(lambda: done.append(True))
    world.host.run()
    assert done
    assert world.call("ListQueues") == {}
    found = [name for _, _, names in os.walk(world.path / "queues") for name in names]
    assert found == []


def test_a_queue_that_cannot_be_made_is_none(world):
    world.create()
    (world.path / "queues" / "other.db").mkdir()
    begun = world.begin("CreateQueue", QueueName="other")
    world.host.run()
    assert "cannot make the queue's file" in str(begun.results[0])
    assert len(world.call("ListQueues")["QueueUrls"]) == 1


# ---------------------------------------------------------------------- tags, permissions


def test_tags_are_kept(world):
    url = world.call("CreateQueue", QueueName="jobs", tags={"a": "1", "b": "2"})["QueueUrl"]
    world.call("TagQueue", QueueUrl=url, Tags={"b": "3", "c": ""})
    world.call("UntagQueue", QueueUrl=url, TagKeys=["a", "nix"])
    world.restart()
    assert world.call("ListQueueTags", QueueUrl=url) == {"Tags": {"b": "3", "c": ""}}
    world.call("UntagQueue", QueueUrl=url, TagKeys=["b", "c"])
    assert world.call("ListQueueTags", QueueUrl=url) == {}
    for wrong in ({"": "x"}, {"aws:x": "y"}, {"x" * 129: "y"}, {"x": "y" * 257}, {str(i): "x" for i in range(51)}):
        with pytest.raises(errors.InvalidParameterValue):
            world.call("TagQueue", QueueUrl=url, Tags=wrong)


def test_permissions_are_statements_of_the_policy(world):
    url = world.create()
    given = {"QueueUrl": url, "AWSAccountIds": ["111122223333"], "Actions": ["SendMessage"]}
    world.call("AddPermission", Label="one", **given)
    world.call("AddPermission", Label="two", **{**given, "Actions": ["SendMessage", "ReceiveMessage"]})
    found = json.loads(shown(world, url, "Policy")["Policy"])
    assert found["Statement"][0] == {
        "Sid": "one",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
        "Action": "SQS:SendMessage",
        "Resource": f"{ARN}:jobs",
    }
    assert found["Statement"][1]["Action"] == ["SQS:SendMessage", "SQS:ReceiveMessage"]
    with pytest.raises(errors.InvalidParameterValue, match="for parameter Label is invalid"):
        world.call("AddPermission", Label="one", **given)
    with pytest.raises(errors.InvalidParameterValue):
        world.call("AddPermission", Label="three", **{**given, "Actions": ["DeleteQueue"]})
    for label in ("one", "two"):
        world.call("RemovePermission", QueueUrl=url, Label=label)
    assert shown(world, url, "Policy") is None
    with pytest.raises(errors.InvalidParameterValue, match="can't find label"):
        world.call("RemovePermission", QueueUrl=url, Label="one")


def test_a_policy_of_any_form_takes_permissions(world):
    url = world.create(Policy='{"Statement":"x"}')
    world.call("AddPermission", QueueUrl=url, Label="l", AWSAccountIds=["111122223333"], Actions=["SendMessage"])
    (statement,) = json.loads(shown(world, url, "Policy")["Policy"])["Statement"]
    assert statement["Sid"] == "l"


def test_nothing_is_read_before_somebody_asks(world):
    world.create()
    world.restart()
    assert world.host.submitted == 0
    first = world.begin("ListQueues")
    second = world.begin("ListQueues")
    assert (first.is_waiting, second.is_waiting) == (True, True)
    world.host.run()
    assert first.output == second.output != {}
    assert world.host.submitted == 1
