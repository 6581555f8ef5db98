"""Long polls: who finds nothing waits without costing anything, and is answered when something is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kflow.desk import IDLE_S
from kflow.errors import KflowError, ResourceNotFound, StorageError
from tests.queueing import FakeCall, World


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path / "data")
    yield made
    made.stop()


def poll(world: World, queue: str, *, dead: bool = False, **members) -> FakeCall:
    operation = "receive_dead_letter_queue_records" if dead else "receive_queue_records"
    call = world.begin(operation, QueueARN=queue, **members)
    world.host.run()
    return call


def datas(call: FakeCall) -> list[bytes]:
    return [each["Data"] for each in call.output["QueueRecords"]]


def test_a_poll_waits_nine_seconds_and_is_answered_with_nothing(world: World) -> None:
    queue = world.create()
    call = poll(world, queue)
    world.host.advance(8999)
    assert call.is_waiting
    world.host.advance(1)
    assert call.output == {"QueueRecords": []}


def test_a_poll_waits_as_long_as_it_says(world: World) -> None:
    queue = world.create()
    call = poll(world, queue, WaitTimeSeconds=20)
    world.host.advance(19_999)
    assert call.is_waiting
    world.host.advance(1)
    assert call.output == {"QueueRecords": []}


def test_a_poll_is_answered_as_soon_as_a_record_is_put(world: World) -> None:
    queue = world.create()
    call = poll(world, queue)
    world.put(b"one")
    world.host.run()
    assert datas(call) == [b"one"]


def test_nothing_is_done_while_somebody_waits_and_nothing_happens(world: World) -> None:
    queue = world.create()
    poll(world, queue, WaitTimeSeconds=20)
    before = world.host.submitted
    world.host.advance(19_000)
    assert world.host.submitted == before


def test_appends_cost_nothing_while_nobody_waits(world: World) -> None:
    queue = world.create()
    world.receive(queue)
    before = world.host.submitted
    world.put(b"one")
    world.host.advance(1000)
    assert world.host.submitted == before


def test_a_poll_is_answered_when_a_record_becomes_visible_again(world: World) -> None:
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 5})
    world.put(b"one")
    world.receive(queue)
    call = poll(world, queue)
    world.host.advance(4999)
    assert call.is_waiting
    world.host.advance(2)
    assert datas(call) == [b"one"]


def test_a_poll_is_answered_when_somebody_gives_a_record_up(world: World) -> None:
    queue = world.create()
    world.put(b"one")
    (one,) = world.receive(queue)
    call = poll(world, queue)
    hide = "update_queue_records_visibility"
    assert world.settle(hide, queue, one["ReceiptHandle"], VisibilityTimeoutSeconds=2) == [None]
    assert call.is_waiting
    world.host.advance(1500)
    assert call.is_waiting
    assert world.settle(hide, queue, one["ReceiptHandle"], VisibilityTimeoutSeconds=0) == [None]
    assert datas(call) == [b"one"]


def test_a_poll_for_dead_letters_is_answered_when_a_record_dies(world: World) -> None:
    letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 3, "DeadLetterConfiguration": letters})
    world.put(b"poison")
    world.receive(queue)
    letter, record = poll(world, queue, dead=True), poll(world, queue)
    world.host.advance(3001)
    assert datas(letter) == [b"poison"]
    assert record.is_waiting
    restored = letter.output["QueueRecords"][0]["ReceiptHandle"]
    assert world.settle("restore_dead_letter_queue_records", queue, restored) == [None]
    assert datas(record) == [b"poison"]


def test_a_poll_is_answered_from_a_shard_that_was_made_meanwhile(world: World) -> None:
    queue = world.create()
    call = poll(world, queue)
    world.split(0)
    world.host.run()
    assert call.is_waiting
    assert {watch.key[1] for watch in world.host.watches} == {1, 2}
    world.put(b"one")
    world.host.run()
    assert datas(call) == [b"one"]


def test_who_waits_longest_is_served_first(world: World) -> None:
    queue = world.create()
    calls = [poll(world, queue, Limit=1) for _ in range(3)]
    world.put(b"one", b"two")
    world.host.run()
    assert [datas(call) for call in calls[:2]] == [[b"one"], [b"two"]]
    assert calls[2].is_waiting


def test_what_a_client_that_hung_up_would_have_received_is_given_back(world: World) -> None:
    queue = world.create()
    world.put(b"one")
    gone = world.begin("receive_queue_records", QueueARN=queue)
    gone.hang_up()
    world.host.run()
    assert gone.is_waiting
    (record,) = world.receive(queue)
    assert (record["Data"], record["ReceiveCount"]) == (b"one", 1)


def test_a_client_that_hangs_up_while_it_waits_takes_nothing(world: World) -> None:
    queue = world.create()
    gone = poll(world, queue)
    gone.hang_up()
    world.put(b"one")
    world.host.run()
    assert gone.is_waiting
    assert [each["ReceiveCount"] for each in world.receive(queue)] == [1]


def test_a_record_that_is_put_while_a_turn_is_taken_is_not_missed(world: World) -> None:
    queue = world.create()
    call = world.begin("receive_queue_records", QueueARN=queue)
    ((work, then),) = world.host.errands
    world.host.errands.clear()
    found = work()
    world.put(b"one")
    then(found)
    assert call.is_waiting
    world.host.run()
    assert datas(call) == [b"one"]


def test_calls_that_come_together_share_a_turn(world: World) -> None:
    queue = world.create()
    world.put(*(b"%d" % number for number in range(8)))
    first = world.begin("receive_queue_records", QueueARN=queue, Limit=1)
    calls = [world.begin("receive_queue_records", QueueARN=queue, Limit=1) for _ in range(7)]
    before = world.host.submitted
    world.host.run()
    assert world.host.submitted == before + 1
    assert sorted(datas(first) + [each for call in calls for each in datas(call)]) == [b"%d" % n for n in range(8)]


def test_deleting_a_queue_ends_the_waiting(world: World) -> None:
    queue = world.create()
    call = poll(world, queue)
    world.call("delete_queue", QueueARN=queue)
    assert isinstance(call.error, ResourceNotFound)
    assert world.host.watches == []


def test_a_queue_that_nobody_asks_closes_its_files_and_opens_them_again(world: World) -> None:
    queue = world.create()
    world.put(b"one", b"two")
    world.receive(queue, limit=1)
    (desk,) = [each.desk for each in world.service.queues.of(world.registry.home)]
    world.host.advance(int(IDLE_S * 1000) - 1)
    assert desk._turns is not None
    world.host.advance(int(IDLE_S * 1000) + 1)
    assert (desk._turns, world.host.watches, world.host.timers) == (None, [], 0)
    assert sorted(each["Data"] for each in world.receive(queue)) == [b"one", b"two"]


def test_a_queue_that_is_used_stays_open(world: World) -> None:
    queue = world.create()
    world.receive(queue)
    (desk,) = [each.desk for each in world.service.queues.of(world.registry.home)]
    turns = desk._turns
    for _ in range(5):
        world.host.advance(int(IDLE_S * 900))
        world.receive(queue)
    assert desk._turns is turns


def test_a_ledger_that_cannot_be_written_refuses_and_nothing_has_happened(world: World) -> None:
    queue = world.create()
    world.put(b"one")
    world.receive(queue, VisibilityTimeoutSeconds=0)
    (desk,) = [each.desk for each in world.service.queues.of(world.registry.home)]
    sql = desk._turns._ledger._sql
    sql.execute("PRAGMA query_only = ON").fetchall()
    world.put(b"two")
    with pytest.raises(StorageError, match="cannot write the ledger"):
        world.receive(queue)
    sql.execute("PRAGMA query_only = OFF").fetchall()
    records = world.receive(queue)
    assert [(each["Data"], each["ReceiveCount"]) for each in records] == [(b"one", 2), (b"two", 1)]


def test_a_lost_ledger_is_said_and_not_made_up(world: World) -> None:
    queue = world.create()
    (folder,) = [each for each in Path(world.host.folder.path).iterdir() if each.name == "kinesis-queues"]
    for each in folder.glob("*.db*"):
        each.unlink()
    with pytest.raises(StorageError, match="cannot open the ledger"):
        world.receive(queue)


def test_a_stream_that_is_gone_is_said(world: World) -> None:
    queue = world.create()
    (found,) = world.service.queues.of(world.registry.home)
    world.registry._by_id.clear()
    with pytest.raises(KflowError, match="Delete the queue"):
        world.receive(queue)
    assert found.stream_arn.endswith(":stream/orders")
