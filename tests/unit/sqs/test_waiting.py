"""Receives that wait: woken by what may bring a message, and by nothing else."""

from __future__ import annotations

import pytest

from kflow import desk
from kflow.desk import IDLE_S
from kflow.errors import StorageError
from kflow.sqs import errors
from kflow.sqs.asking import Count, Receive, Return, Take
from tests.sqsing import BEGIN_MS, HOME


def wait(world, url, seconds=20, **parameters):
    begun = world.begin("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=seconds, **parameters)
    world.host.run()
    return begun


def test_a_send_wakes_it_in_the_same_turn(world):
    url = world.create()
    begun = wait(world, url)
    assert begun.is_waiting
    submitted = world.host.submitted
    world.send(url, "x")
    assert begun.bodies == ["x"]
    assert world.host.submitted == submitted + 1


def test_it_comes_back_with_one_message_though_it_asked_for_ten(world):
    url = world.create()
    world.send(url, "x")
    assert wait(world, url, MaxNumberOfMessages=10).bodies == ["x"]


def test_its_time_over_it_gets_nothing(world):
    url = world.create(ReceiveMessageWaitTimeSeconds="3")
    begun = world.begin("ReceiveMessage", QueueUrl=url)
    world.host.advance(2_999)
    assert begun.is_waiting
    world.host.advance(1)
    assert begun.output == {}


def test_a_call_may_say_that_it_does_not_wait(world):
    url = world.create(ReceiveMessageWaitTimeSeconds="3")
    assert world.call("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=0) == {}


def test_nothing_happens_while_it_waits(world):
    url = world.create()
    begun = wait(world, url)
    submitted = world.host.submitted
    world.host.advance(19_999)
    assert (begun.is_waiting, world.host.submitted) == (True, submitted)


def test_delays_timeouts_and_changes_of_visibility_wake_it(world):
    url = world.create(VisibilityTimeout="5")
    world.send(url, "x", DelaySeconds=2)
    begun = wait(world, url)
    world.host.advance(2_001)
    assert begun.bodies == ["x"]
    begun = wait(world, url)
    world.host.advance(4_990)
    assert begun.is_waiting
    world.host.advance(20)
    assert begun.bodies == ["x"]
    message = begun.output["Messages"][0]
    begun = wait(world, url)
    world.hide(url, message, 0)
    assert begun.bodies == ["x"]


def test_a_timeout_that_is_shortened_wakes_it_earlier(world):
    url = world.create(VisibilityTimeout="100")
    world.send(url, "x")
    (message,) = world.receive(url)
    begun = wait(world, url)
    world.hide(url, message, 3)
    world.host.advance(3_001)
    assert begun.bodies == ["x"]


def test_who_waits_again_and_again_leaves_no_timers_behind(world):
    url = world.create(VisibilityTimeout="43200")
    for number in range(5):
        begun = wait(world, url)
        world.send(url, str(number))
        assert begun.bodies == [str(number)]
    begun = wait(world, url)
    world.host.advance(20_000)
    assert begun.bodies == []
    assert world.host.due == 2  # when the first that is hidden becomes visible, and when the file is closed


def test_a_group_that_is_freed_wakes_it(world):
    url = world.create("jobs.fifo")
    world.send(url, "a1", "a")
    world.send(url, "a2", "a")
    (message,) = world.receive(url, 1)
    begun = wait(world, url)
    assert begun.is_waiting
    world.delete(url, message)
    assert begun.bodies == ["a2"]


def test_the_time_of_a_group_in_flight_wakes_it(world):
    url = world.create("jobs.fifo", VisibilityTimeout="5")
    world.send(url, "a1", "a")
    world.send(url, "a2", "a")
    world.receive(url, 1)
    begun = wait(world, url, MaxNumberOfMessages=10)
    world.host.advance(5_001)
    assert begun.bodies == ["a1", "a2"]


def test_who_came_first_is_served_first(world):
    url = world.create()
    first, second = wait(world, url), wait(world, url)
    world.send(url, "x")
    assert first.bodies == ["x"]
    assert second.is_waiting
    world.send(url, "y")
    assert second.bodies == ["y"]


def test_a_thousand_waiters_are_served_by_a_thousand_messages(world):
    url = world.create()
    waiting = [wait(world, url) for _ in range(300)]
    for number in range(30):
        entries = [{"Id": str(each), "MessageBody": f"{number}.{each}"} for each in range(10)]
        world.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert len({begun.bodies[0] for begun in waiting}) == 300


def test_more_waiters_than_are_looked_at_in_a_turn_are_served_by_messages_that_become_visible_at_once(world):
    url = world.create()
    for number in range(10):
        entries = [{"Id": str(each), "MessageBody": f"{number}.{each}", "DelaySeconds": 5} for each in range(10)]
        world.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    waiting = [wait(world, url) for _ in range(100)]
    world.host.advance(5_001)
    assert len({begun.bodies[0] for begun in waiting}) == 100


def test_who_is_told_and_asks_again_takes_no_news_from_those_who_wait_on(world):
    url = world.create()
    desk = world.service.directory.everywhere()[0].desk
    world.send(url, "x")
    told = []

    def again(reply):
        told.append(len(reply.messages))
        desk.ask(Receive(1), lambda reply: told.append(len(reply.messages)))

    desk.ask(Receive(1), again)
    begun = world.begin("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20)
    work, then = world.host.errands.popleft()
    result = work()
    world.host.run()
    desk.changed()
    then(result)
    world.host.run()
    assert told == [1, 0]
    assert begun.is_waiting
    world.send(url, "y")
    assert begun.bodies == ["y"]


def test_one_who_hangs_up_takes_nothing(world):
    url = world.create()
    gone, there = wait(world, url), wait(world, url)
    gone.hang_up()
    world.send(url, "x")
    assert there.bodies == ["x"]


def test_one_who_hangs_up_while_served_gives_it_back(world):
    url = world.create()
    gone = world.begin("ReceiveMessage", QueueUrl=url)
    begun = world.begin("SendMessage", QueueUrl=url, MessageBody="x")
    gone.hang_up()
    world.host.run()
    assert begun.output
    gone = world.begin("ReceiveMessage", QueueUrl=url)
    work, then = world.host.errands.popleft()
    result = work()
    gone.hang_up()
    then(result)
    (message,) = world.receive(url, AttributeNames=["ApproximateReceiveCount"])
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}


def test_a_queue_that_is_deleted_sends_them_home(world):
    url = world.create()
    begun = wait(world, url)
    world.call("DeleteQueue", QueueUrl=url)
    with pytest.raises(errors.QueueDoesNotExist):
        _ = begun.output


def test_a_stop_answers_them_with_nothing_and_refuses_who_comes_late(world):
    url = world.create()
    begun = wait(world, url)
    world.stop()
    assert begun.output == {}
    with pytest.raises(StorageError, match="kflow stops"):
        world.call("ReceiveMessage", QueueUrl=url)


def test_an_idle_queue_closes_its_file_and_opens_it_again(world):
    url = world.create()
    world.send(url, "x")
    (queue,) = world.service.directory.everywhere()
    assert queue.desk.is_open
    world.host.advance(int(IDLE_S * 2000) + 1)
    assert not queue.desk.is_open
    assert world.host.timers == 0
    assert world.bodies(url) == ["x"]


def test_of_many_queues_only_some_are_open(world):
    urls = [world.create(f"q{number}") for number in range(70)]
    assert sum(queue.desk.is_open for queue in world.service.directory.everywhere()) <= 65
    for url in urls:
        world.send(url, url)
    assert [world.bodies(url) for url in urls] == [[url] for url in urls]


def test_who_waits_keeps_no_file_open_and_is_woken_all_the_same(world):
    url = world.create(VisibilityTimeout="43200")
    world.send(url, "x", DelaySeconds=300)
    asked = []
    queue = world.service.directory.everywhere()[0]
    queue.desk.ask(Receive(10), asked.append, wait_s=1000)
    world.host.run()
    world.host.advance(2 * int(IDLE_S * 1000) + 1)
    assert (queue.desk.is_open, asked) == (False, [])
    world.host.advance(300_000 - 2 * int(IDLE_S * 1000))
    assert [each.message.body for each in asked[0].messages] == ["x"]
    queue.desk.ask(Receive(10), asked.append, wait_s=1000)
    world.host.advance(2 * int(IDLE_S * 1000) + 1)
    assert not queue.desk.is_open
    world.send(url, "y")
    assert [each.message.body for each in asked[1].messages] == ["y"]


def test_of_many_queues_that_are_waited_at_few_are_open(world):
    for number in range(70):
        world.create(f"q{number}")
    told = []
    for queue in world.service.directory.everywhere():
        queue.desk.ask(Receive(10), told.append, wait_s=1000)
    world.host.run()
    assert sum(queue.desk.is_open for queue in world.service.directory.everywhere()) <= 65


def test_files_stay_open_while_something_is_set_aside(world):
    url = world.create()
    world.send(url, "x")
    queue = world.service.directory.everywhere()[0]
    told = []
    queue.desk.ask(Take(10), told.append)
    world.host.advance(3 * int(IDLE_S * 1000))
    assert queue.desk.is_open
    queue.desk.ask(Return([each.state.number for each in told[0].aside]), told.append)
    world.host.advance(3 * int(IDLE_S * 1000))
    assert not queue.desk.is_open
    assert world.bodies(url) == ["x"]


@pytest.mark.parametrize(("name", "group", "at_once"), [("jobs", None, 3), ("jobs.fifo", "g", 0)])
def test_short_turns_of_standard_queues_wait_for_no_thread(world, name, group, at_once):
    url = world.create(name)
    world.send(url, "opens the file, and looks what expires", group)
    before = world.host.done_at_once
    world.send(url, "x", group)
    world.delete(url, world.receive(url, 1)[0])
    assert world.host.done_at_once == before + at_once


def test_long_messages_and_a_slow_disk_are_left_to_threads(world, monkeypatch):
    url = world.create()
    world.send(url, "x")
    before = world.host.done_at_once
    world.send(url, "x" * 20_000)
    world.receive(url)
    assert world.host.done_at_once == before
    world.send(url, "x")
    assert world.host.done_at_once == before + 1
    seconds = iter([0.0, 0.006, 1.0, 1.006, 2.0, 2.001, 3.0, 3.001])
    monkeypatch.setattr(desk, "perf_counter", lambda: next(seconds))
    world.send(url, "is slow")
    world.send(url, "by a thread, and slow again")
    world.send(url, "by a thread, and quick")
    assert world.host.done_at_once == before + 2
    world.send(url, "x")
    assert world.host.done_at_once == before + 3


@pytest.mark.parametrize(("asked", "is_quick"), [(2, True), (3, False)])
def test_so_many_messages_are_a_short_turn(world, asked, is_quick):
    url = world.create()
    world.send(url, "x")
    desk = world.service.directory.everywhere()[0].desk
    desk.ask(Count(), lambda _: None)  # by a thread
    before = world.host.done_at_once
    for _ in range(asked):
        desk.ask(Receive(10), lambda _: None)
    world.host.run()
    assert world.host.done_at_once == before + is_quick


def test_many_dead_letters_are_left_to_threads_and_who_does_not_wait_has_what_is_behind_them(world):
    url, dead = world.pair(VisibilityTimeout="0")
    for number in range(4):
        entries = [{"Id": str(each), "MessageBody": f"{number}.{each}"} for each in range(10)]
        world.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    for _ in range(4):
        world.receive(url)
        world.host.advance(1)
    asked = world.host.done_at_once
    told = []
    world.service.directory.find(HOME, "jobs").desk.ask(Receive(10), told.append)
    assert world.host.done_at_once == asked + 1
    (turn,) = world.host.errands
    assert len(turn[0]().replies[0].aside) == 10
    world.host.run()
    assert [each.messages for each in told] == [[]]
    assert world.counts(dead)[0] == 40


def test_dead_letters_that_cannot_be_moved_are_tried_again_in_a_second(world, monkeypatch):
    url, _ = world.pair(VisibilityTimeout="0")
    world.send(url, "x")
    world.receive(url)
    tried = []

    def refuse(ask, told):
        tried.append(world.host.now_ms() - BEGIN_MS)
        told(StorageError("no space left"))

    monkeypatch.setattr(world.service.directory.find(HOME, "dead").desk, "ask", refuse)
    waiting = [wait(world, url) for _ in range(2)]
    assert tried == [0, 0]
    assert world.receive(url) == []
    world.host.advance(999)
    assert tried == [0, 0, 0]
    world.host.advance(2001)
    assert len(tried) < 20
    monkeypatch.undo()
    world.host.advance(1001)
    assert world.bodies(world.create("dead")) == ["x"]
    assert [begun.is_waiting for begun in waiting] == [True, True]
    world.send(url, "y")
    assert waiting[0].bodies == ["y"]


def test_a_queue_with_dead_letters_to_move_is_left_to_threads(world):
    url, dead = world.pair(VisibilityTimeout="0")
    world.send(url, "x")
    world.receive(url)
    before = world.host.done_at_once
    assert world.receive(url) == []
    assert world.host.done_at_once == before + 1  # it met a dead letter: there may be a thousand
    world.send(url, "y")
    assert world.bodies(dead) == ["x"]
    assert world.bodies(url) == ["y"]
    before = world.host.done_at_once
    world.send(url, "z")
    assert world.host.done_at_once == before + 1


def test_who_is_served_in_a_short_turn_is_answered_though_the_queue_is_deleted_meanwhile(world):
    url = world.create()
    world.send(url, "opens the file")
    before = world.host.done_at_once
    begun = world.begin("SendMessage", QueueUrl=url, MessageBody="x")
    gone = world.begin("DeleteQueue", QueueUrl=url)
    assert world.host.done_at_once == before + 1
    world.host.run()
    assert begun.output["MessageId"]
    assert gone.output == {}
    assert list((world.path / "queues").iterdir()) == []
