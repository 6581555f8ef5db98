"""FIFO queues: order in groups, groups in turn, and duplicates."""

from __future__ import annotations

import pytest

from kflow.sqs import errors, limits


@pytest.fixture
def url(world):
    return world.create("jobs.fifo", VisibilityTimeout="30")


def test_a_receive_takes_one_group_as_far_as_it_goes_then_the_next(world, url):
    for body, group in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b"), ("a3", "a")):
        world.send(url, body, group)
    assert world.bodies(url, 4) == ["a1", "a2", "a3", "b1"]


def test_a_group_in_flight_is_locked_and_others_go_on(world, url):
    world.send(url, "a1", "a")
    assert world.bodies(url, 1) == ["a1"]
    world.send(url, "a2", "a")
    world.send(url, "b1", "b")
    assert world.bodies(url) == ["b1"]
    assert world.bodies(url) == []


def test_deleting_all_in_flight_frees_the_group_and_deleting_some_does_not(world, url):
    for body in ("a1", "a2", "a3"):
        world.send(url, body, "a")
    first, second = world.receive(url, 2)
    world.delete(url, first)
    assert world.bodies(url) == []
    world.delete(url, second)
    assert world.bodies(url) == ["a3"]


def test_a_group_whose_time_is_over_begins_at_its_oldest_message(world, url):
    for body in ("a1", "a2", "a3"):
        world.send(url, body, "a")
    first, _ = world.receive(url, 2)
    world.delete(url, first)
    world.host.advance(30_000)
    assert world.bodies(url) == ["a2", "a3"]


@pytest.mark.parametrize(("extended", "receivable"), [(0, []), (1, ["m0"]), (2, ["m0", "m1"])])
def test_what_is_behind_an_extended_message_stays_hidden(world, url, extended, receivable):
    for number in range(3):
        world.send(url, f"m{number}", "a")
    messages = world.receive(url, 3)
    world.hide(url, messages[extended], 100)
    world.host.advance(30_000)
    assert world.bodies(url) == receivable


def test_visibility_zero_on_the_first_of_two_frees_it_alone(world, url):
    for body in ("a1", "a2"):
        world.send(url, body, "a")
    first, _ = world.receive(url, 2)
    world.hide(url, first, 0)
    assert world.bodies(url) == ["a1"]


def test_a_receive_with_timeout_zero_locks_nothing(world, url):
    for body in ("a1", "a2"):
        world.send(url, body, "a")
    assert world.bodies(url, 1, VisibilityTimeout=0) == ["a1"]
    assert world.bodies(url, 10) == ["a1", "a2"]


def test_groups_take_turns(world, url):
    for number in range(2):
        for group in "abc":
            world.send(url, f"{group}{number}", group)
    order = []
    for _ in range(6):
        (message,) = world.receive(url, 1)
        order.append(message["Body"])
        world.delete(url, message)
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_an_expired_handle_does_not_delete(world, url):
    world.send(url, "a1", "a")
    (message,) = world.receive(url)
    world.hide(url, message, 60)
    world.host.advance(30_000)
    (before, handle) = (message, message["ReceiptHandle"])
    world.host.advance(30_000)
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.delete(url, before)
    reason = "Reason: The receipt handle has expired."
    assert str(caught.value) == f"Value {handle} for parameter ReceiptHandle is invalid. {reason}"
    with pytest.raises(errors.InvalidParameterValue, match="Message does not exist or is not available"):
        world.hide(url, before, 1)
    (message,) = world.receive(url)
    world.delete(url, message)
    world.delete(url, message)


def test_an_extended_handle_deletes(world, url):
    world.send(url, "a1", "a")
    (message,) = world.receive(url)
    world.hide(url, message, 60)
    world.host.advance(59_000)
    world.delete(url, message)
    assert world.counts(url) == (0, 0, 0)


def test_a_duplicate_within_five_minutes_is_told_what_the_first_was_told(world, url):
    first = world.send(url, "one", "a", MessageDeduplicationId="d")
    assert first["SequenceNumber"] == "18000000000000000001"
    (message,) = world.receive(url)
    world.delete(url, message)
    again = world.send(url, "two", "b", MessageDeduplicationId="d")
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert world.bodies(url) == []
    world.host.advance(limits.DEDUPLICATION_MS)
    later = world.send(url, "two", "a", MessageDeduplicationId="d")
    assert int(later["SequenceNumber"]) > int(first["SequenceNumber"])
    assert world.bodies(url) == ["two"]


def test_in_the_scope_of_groups_the_same_id_is_another_message(world):
    url = world.create("fast.fifo", DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId")
    for group in "aab":
        world.send(url, group, group, MessageDeduplicationId="d")
    assert sorted(world.bodies(url)) == ["a", "b"]


def test_content_tells_duplicates_and_an_id_that_is_given_wins(world):
    url = world.create("content.fifo", ContentBasedDeduplication="true")
    world.call("SendMessage", QueueUrl=url, MessageBody="x", MessageGroupId="a")
    world.call("SendMessage", QueueUrl=url, MessageBody="x", MessageGroupId="a")
    world.send(url, "x", "a", MessageDeduplicationId="other")
    first, second = world.receive(url, AttributeNames=["All"])
    assert first["Attributes"]["MessageDeduplicationId"] == (
        "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    )
    assert second["Attributes"]["MessageDeduplicationId"] == "other"
    assert first["Attributes"]["MessageGroupId"] == "a"
    assert len(first["Attributes"]["SequenceNumber"]) == 20


def test_a_purge_forgets_duplicates(world, url):
    world.send(url, "one", "a", MessageDeduplicationId="d")
    world.call("PurgeQueue", QueueUrl=url)
    world.send(url, "two", "a", MessageDeduplicationId="d")
    assert world.bodies(url) == ["two"]


def test_duplicates_are_known_after_a_restart(world, url):
    first = world.send(url, "one", "a", MessageDeduplicationId="d")
    world.restart()
    assert world.send(url, "one", "a", MessageDeduplicationId="d")["MessageId"] == first["MessageId"]
    assert world.bodies(url) == ["one"]


@pytest.mark.parametrize(
    ("parameters", "kind", "text"),
    [
        ({"MessageDeduplicationId": "d"}, errors.MissingParameter,
         "The request must contain the parameter MessageGroupId."),
        ({"MessageGroupId": "a"}, errors.InvalidParameterValue,
         ("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
         "explicitly")),
        ({"MessageGroupId": "a b", "MessageDeduplicationId": "d"}, errors.InvalidParameterValue,
         ("Value a b for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric "
         "and punctuation characters. 1 to 128 in length.")),
        ({"MessageGroupId": "a", "MessageDeduplicationId": ""}, errors.InvalidParameterValue,
         ("Value  for parameter MessageDeduplicationId is invalid. Reason: MessageDeduplicationId can only include "
         "alphanumeric and punctuation characters. 1 to 128 in length.")),
        ({"MessageGroupId": "a", "MessageDeduplicationId": "d", "DelaySeconds": 2}, errors.InvalidParameterValue,
         ("Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for "
         "this queue type.")),
    ],
)  # fmt: skip
def test_what_a_fifo_queue_refuses(world, url, parameters, kind, text):
    with pytest.raises(kind) as caught:
        world.call("SendMessage", QueueUrl=url, MessageBody="x", **parameters)
    assert str(caught.value) == text


def test_a_delay_of_zero_is_the_queues_delay(world):
    url = world.create("slow.fifo", DelaySeconds="3")
    world.send(url, "x", "a", DelaySeconds=0)
    assert world.bodies(url) == []
    world.host.advance(3000)
    assert world.bodies(url) == ["x"]


def test_a_batch_without_a_group_fails_as_a_whole(world, url):
    entries = [
        {"Id": "1", "MessageBody": "x", "MessageGroupId": "a", "MessageDeduplicationId": "1"},
        {"Id": "2", "MessageBody": "y", "MessageDeduplicationId": "2"},
    ]
    with pytest.raises(errors.InvalidParameterValue) as caught:
        world.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert str(caught.value) == "The request must contain the parameter MessageGroupId."
    entries[1] = {"Id": "2", "MessageBody": "y", "MessageGroupId": "a"}
    with pytest.raises(errors.InvalidParameterValue, match="ContentBasedDeduplication enabled"):
        world.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert world.bodies(url) == []


def test_a_receive_that_is_repeated_gives_the_same_messages(world, url):
    for body in ("a1", "a2"):
        world.send(url, body, "a")
    first = world.receive(url, 2, ReceiveRequestAttemptId="try")
    world.host.advance(20_000)
    assert world.receive(url, 2, ReceiveRequestAttemptId="try") == first
    world.host.advance(20_000)  # the repetition began their time anew
    assert world.bodies(url) == []
    world.delete(url, first[0])
    assert world.receive(url, 2, ReceiveRequestAttemptId="try") == []


def test_a_full_fifo_queue_gives_nothing(world, url, monkeypatch):
    monkeypatch.setattr(limits, "IN_FLIGHT", 2)
    for group in "abcd":
        world.send(url, group, group)
    assert len(world.receive(url)) == 2
    assert world.receive(url) == []


def test_a_group_whose_oldest_message_expires_goes_on(world):
    url = world.create("short.fifo", MessageRetentionPeriod="60")
    world.send(url, "old", "a")
    world.receive(url, VisibilityTimeout=1000)
    world.host.advance(50_000)
    world.send(url, "new", "a")
    assert world.bodies(url) == []
    world.host.advance(10_001)
    assert world.bodies(url) == ["new"]
