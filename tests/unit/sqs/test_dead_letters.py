"""Messages that were received too often, and their way back."""

from __future__ import annotations

import pytest

from kflow.sqs import errors
from tests.sqsing import BEGIN_MS


def attributes(message):
    return message["Attributes"]


def test_a_message_goes_to_the_other_queue_when_it_would_be_received_once_too_often(world):
    url, dead = world.pair(VisibilityTimeout="1", suffix="")
    sent = world.send(url, "bad", MessageAttributes={"k": {"DataType": "String", "StringValue": "v"}})
    assert world.bodies(url) == ["bad"]
    world.host.advance(1000)
    assert world.bodies(dead) == []  # not by time
    world.send(url, "good")
    assert world.bodies(url) == ["good"]
    (letter,) = world.receive(dead, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert letter["MessageId"] == sent["MessageId"]
    assert letter["MessageAttributes"] == {"k": {"DataType": "String", "StringValue": "v"}}
    assert attributes(letter)["ApproximateReceiveCount"] == "2"
    assert attributes(letter)["SentTimestamp"] == str(BEGIN_MS)
    assert attributes(letter)["DeadLetterQueueSourceArn"] == world.arn(url)
    world.host.advance(1000)
    world.delete(dead, letter)
    assert world.counts(dead) == (0, 0, 0)


def test_a_receive_is_answered_when_the_letter_is_there(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.send(url, "bad")
    world.receive(url)
    assert world.call("ReceiveMessage", QueueUrl=url) == {}
    assert world.counts(url) == (0, 0, 0)
    assert world.counts(dead) == (1, 0, 0)


def test_a_group_goes_on_behind_a_dead_letter(world):
    url, dead = world.pair(suffix=".fifo", VisibilityTimeout="1")
    for body in ("a1", "a2", "a3"):
        world.send(url, body, "a")
    assert world.bodies(url, 1) == ["a1"]
    world.host.advance(1000)
    assert world.bodies(url, 1) == ["a2"]
    (letter,) = world.receive(dead, AttributeNames=["All"])
    assert (letter["Body"], attributes(letter)["MessageGroupId"]) == ("a1", "a")


def test_duplicates_in_the_dead_letter_queue_swallow_no_letter(world):
    url, dead = world.pair(suffix=".fifo", VisibilityTimeout="0")
    world.send(dead, "same", "a", MessageDeduplicationId="d")
    world.send(url, "bad", "a", MessageDeduplicationId="d")
    world.receive(url)
    world.receive(url)
    assert world.bodies(dead) == ["same", "bad"]


def test_a_standard_letter_keeps_its_age(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.call("SetQueueAttributes", QueueUrl=dead, Attributes={"MessageRetentionPeriod": "60"})
    world.send(url, "bad")
    world.host.advance(59_000)
    world.receive(url)
    world.receive(url)
    assert world.counts(dead) == (1, 0, 0)
    world.host.advance(1001)
    assert world.counts(dead) == (0, 0, 0)


def test_without_the_other_queue_a_message_stays(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.call("DeleteQueue", QueueUrl=dead)
    world.send(url, "bad")
    for _ in range(3):
        assert world.bodies(url) == ["bad"]


def test_what_was_on_its_way_at_a_kill_is_there_once(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.send(url, "bad")
    world.receive(url)
    begun = world.begin("ReceiveMessage", QueueUrl=url)
    work, then = world.host.errands.popleft()  # set aside in the first queue
    then(work())
    work, _ = world.host.errands.popleft()  # accepted in the second
    work()
    assert begun.is_waiting
    close(world)
    world.start()
    assert world.counts(url) == (1, 0, 0)
    assert world.bodies(url) == []
    assert world.counts(url) == (0, 0, 0)
    assert world.counts(dead) == (1, 0, 0)


def close(world):
    """As a kill: files are closed, and nothing else happens."""
    for queue in world.service.directory.everywhere():
        if queue.desk._turns is not None:
            queue.desk._turns.close()


def test_a_long_poll_passes_over_dead_letters_and_waits_on(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.send(url, "bad")
    world.receive(url)
    begun = world.begin("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=10)
    world.host.run()
    assert begun.is_waiting
    assert world.counts(dead) == (1, 0, 0)
    world.send(url, "good")
    assert begun.bodies == ["good"]


def test_sources_are_listed(world):
    url, dead = world.pair()
    assert world.call("ListDeadLetterSourceQueues", QueueUrl=dead) == {"queueUrls": [url]}
    assert world.call("ListDeadLetterSourceQueues", QueueUrl=url) == {"queueUrls": []}


# ---------------------------------------------------------------------- back again


def bury(world, url, *bodies, group=None):
    for body in bodies:
        world.send(url, body, group)
    world.receive(url, VisibilityTimeout=0)
    world.receive(url, VisibilityTimeout=0)


def start(world, dead, **parameters):
    return world.call("StartMessageMoveTask", SourceArn=world.arn(dead), **parameters)["TaskHandle"]


def task(world, dead):
    (found,) = world.call("ListMessageMoveTasks", SourceArn=world.arn(dead))["Results"]
    return found


def test_a_move_task_brings_letters_back_to_their_queues(world):
    url, dead = world.pair()
    bury(world, url, "a", "b")
    assert world.counts(dead) == (2, 0, 0)
    start(world, dead)
    world.host.advance(0)
    assert task(world, dead) == {
        "Status": "COMPLETED",
        "SourceArn": world.arn(dead),
        "ApproximateNumberOfMessagesMoved": 2,
        "ApproximateNumberOfMessagesToMove": 2,
        "StartedTimestamp": BEGIN_MS,
    }
    messages = world.receive(url, AttributeNames=["All"])
    assert sorted(each["Body"] for each in messages) == ["a", "b"]
    assert {attributes(each)["ApproximateReceiveCount"] for each in messages} == {"1"}
    assert all("DeadLetterQueueSourceArn" not in attributes(each) for each in messages)


def test_a_move_task_has_a_target_and_a_rate_and_can_be_cancelled(world):
    url, dead = world.pair()
    other = world.create("other")
    bury(world, url, *"abcd")
    handle = start(world, dead, DestinationArn=world.arn(other), MaxNumberOfMessagesPerSecond=1)
    with pytest.raises(errors.InvalidParameterValue, match="There is already a task running"):
        start(world, dead)
    world.host.advance(0)
    assert world.counts(other) == (1, 0, 0)
    world.host.advance(1000)
    assert world.counts(other) == (2, 0, 0)
    found = task(world, dead)
    assert (found["Status"], found["TaskHandle"]) == ("RUNNING", handle)
    assert (found["DestinationArn"], found["MaxNumberOfMessagesPerSecond"]) == (world.arn(other), 1)
    assert world.call("CancelMessageMoveTask", TaskHandle=handle) == {"ApproximateNumberOfMessagesMoved": 2}
    world.host.advance(5000)
    assert world.counts(other) == (2, 0, 0)
    assert world.counts(dead) == (2, 0, 0)
    assert task(world, dead)["Status"] == "CANCELLED"
    with pytest.raises(errors.InvalidParameterValue):
        world.call("CancelMessageMoveTask", TaskHandle=handle)


def test_a_move_task_goes_on_after_a_restart(world):
    url, dead = world.pair()
    bury(world, url, *"abc")
    start(world, dead, MaxNumberOfMessagesPerSecond=1)
    world.host.advance(0)
    world.restart()
    world.counts(url)
    world.host.advance(10_000)
    assert task(world, dead)["Status"] == "COMPLETED"
    assert world.counts(url) == (3, 0, 0)


def test_a_message_that_came_from_nowhere_fails_the_task(world):
    _, dead = world.pair()
    world.send(dead, "direct")
    start(world, dead)
    world.host.advance(0)
    found = task(world, dead)
    assert (found["Status"], found["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert world.bodies(dead) == ["direct"]


def test_groups_keep_their_order_on_the_way_back(world):
    url, dead = world.pair(suffix=".fifo")
    for body in ("a1", "b1", "a2", "b2"):
        world.send(url, body, body[0])
    world.receive(url, VisibilityTimeout=0)
    world.receive(url, VisibilityTimeout=0)
    assert world.counts(dead) == (4, 0, 0)
    start(world, dead)
    world.host.advance(0)
    bodies = world.bodies(url)
    assert [each for each in bodies if each[0] == "a"] == ["a1", "a2"]
    assert [each for each in bodies if each[0] == "b"] == ["b1", "b2"]


def test_what_move_tasks_refuse(world):
    url, dead = world.pair()
    with pytest.raises(errors.InvalidParameterValue) as caught:
        start(world, url)
    assert str(caught.value) == "Source queue must be configured as a Dead Letter Queue."
    missing = "arn:aws:sqs:us-east-1:123456789012:nix"
    with pytest.raises(errors.ResourceNotFound) as found:
        start(world, dead, DestinationArn=missing)
    assert str(found.value) == "The resource that you specified for the DestinationArn parameter doesn't exist."
    with pytest.raises(errors.ResourceNotFound):
        world.call("ListMessageMoveTasks", SourceArn=missing)
    with pytest.raises(errors.InvalidParameterValue):
        world.call("CancelMessageMoveTask", TaskHandle="garbage")
