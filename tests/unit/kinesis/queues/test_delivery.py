"""What a queue delivers, to whom, and when: the engine over a real log and ledger, on a clock that is moved by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from kflow import limits
from kflow.broker.block import HEADER_BYTES
from kflow.broker.segment import SEGMENT_HEADER_BYTES
from kflow.errors import StorageError, Throttling
from kflow.kinesis.queues import receipts
from tests.damaging import flip
from tests.queueing import World

GONE = "ResourceNotFoundException"
INVALID = "InvalidArgumentException"


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path / "data")
    yield made
    made.stop()


def datas(records) -> list[bytes]:
    return [each["Data"] for each in records]


def test_a_record_is_delivered_with_all_that_the_model_says(world: World) -> None:
    queue = world.create()
    world.host.advance(7)
    world.put(b"one", key="é")
    world.host.advance(20)
    (record,) = world.receive(queue)
    handle, record_id = record.pop("ReceiptHandle"), record.pop("RecordId")
    assert record == {
        "PartitionKey": "é",
        "Data": b"one",
        "ApproximateArrivalTimestamp": 1_700_000_000_507,
        "FirstReceiveTimestamp": 1_700_000_000_527,
        "ReceiveCount": 1,
    }
    assert len(handle) <= 1024
    assert record_id == f"{world.store.stream.id:016x}000000000000000000000001"


def test_a_received_record_is_hidden_until_its_timeout_is_over(world: World) -> None:
    queue = world.create()
    world.put(b"one")
    (first,) = world.receive(queue)
    assert world.receive(queue) == []
    world.host.advance(29_999)
    assert world.receive(queue) == []
    world.host.advance(1)
    (second,) = world.receive(queue)
    assert (second["ReceiveCount"], second["RecordId"]) == (2, first["RecordId"])
    assert second["FirstReceiveTimestamp"] == first["FirstReceiveTimestamp"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]


def test_an_acknowledged_record_never_comes_again(world: World) -> None:
    queue = world.create()
    world.put(b"one", b"two")
    one = world.receive(queue)[0]
    assert world.acknowledge(queue, one) == [None]
    world.host.advance(30_000)
    (again,) = world.receive(queue)
    assert again["Data"] == b"two"
    assert world.acknowledge(queue, one, again) == [GONE, None]
    world.host.advance(3_600_000)
    assert world.receive(queue) == []


def test_an_acknowledgement_counts_after_the_timeout_until_somebody_else_has_the_record(world: World) -> None:
    queue = world.create()
    world.put(b"one", b"two")
    one, two = world.receive(queue)
    world.host.advance(30_000)
    assert world.acknowledge(queue, one) == [None]
    (again,) = world.receive(queue)
    assert world.acknowledge(queue, two) == [GONE]
    assert world.acknowledge(queue, again) == [None]


def test_a_call_may_ask_for_another_timeout(world: World) -> None:
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 5})
    world.put(b"one", b"two")
    assert datas(world.receive(queue, limit=1)) == [b"one"]
    assert datas(world.receive(queue, limit=1, VisibilityTimeoutSeconds=60)) == [b"two"]
    world.host.advance(5000)
    assert datas(world.receive(queue)) == [b"one"]
    world.host.advance(55_000)
    assert datas(world.receive(queue)) == [b"one", b"two"]


def test_a_timeout_of_nothing_leaves_the_record_visible(world: World) -> None:
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 0})
    world.put(b"one")
    assert [world.receive(queue)[0]["ReceiveCount"] for _ in range(3)] == [1, 2, 3]


def test_visibility_is_prolonged_and_ended(world: World) -> None:
    queue = world.create()
    world.put(b"one", b"two")
    one, two = world.receive(queue)
    hide = "update_queue_records_visibility"
    assert world.settle(hide, queue, one["ReceiptHandle"], VisibilityTimeoutSeconds=120) == [None]
    assert world.settle(hide, queue, two["ReceiptHandle"], VisibilityTimeoutSeconds=0) == [None]
    (again,) = world.receive(queue)
    assert (again["Data"], again["ReceiveCount"]) == (b"two", 2)
    assert world.settle(hide, queue, two["ReceiptHandle"], VisibilityTimeoutSeconds=0) == [GONE]
    world.host.advance(119_999)
    assert datas(world.receive(queue)) == [b"two"]
    world.host.advance(1)
    assert datas(world.receive(queue)) == [b"one"]


def test_after_enough_receives_a_record_is_a_dead_letter(world: World) -> None:
    letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}
    queue = world.create(attributes={"DeadLetterConfiguration": letters})
    world.put(b"poison")
    for _ in range(2):
        (record,) = world.receive(queue)
        assert world.receive(queue, dead=True) == []
        world.host.advance(30_000)
    assert world.receive(queue) == []
    assert world.acknowledge(queue, record) == [GONE]
    (letter,) = world.receive(queue, dead=True)
    assert (letter["Data"], letter["ReceiveCount"], letter["RecordId"]) == (b"poison", 3, record["RecordId"])
    assert world.receive(queue, dead=True) == []


def test_the_last_receive_may_still_be_acknowledged(world: World) -> None:
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"one")
    (record,) = world.receive(queue)
    world.host.advance(29_999)
    assert world.acknowledge(queue, record) == [None]
    world.host.advance(1)
    assert world.receive(queue, dead=True) == []


def dead_letter(world: World):
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"poison")
    (record,) = world.receive(queue)
    world.host.advance(30_000)
    (letter,) = world.receive(queue, dead=True)
    return queue, record, letter


def test_a_dead_letter_is_acknowledged(world: World) -> None:
    queue, _, letter = dead_letter(world)
    assert world.settle("acknowledge_dead_letter_queue_records", queue, letter["ReceiptHandle"]) == [None]
    world.host.advance(60_000)
    assert world.receive(queue, dead=True) == world.receive(queue) == []


def test_a_dead_letter_is_hidden_and_shown(world: World) -> None:
    queue, _, letter = dead_letter(world)
    hide = "update_dead_letter_queue_records_visibility"
    assert world.settle(hide, queue, letter["ReceiptHandle"], VisibilityTimeoutSeconds=0) == [None]
    (again,) = world.receive(queue, dead=True)
    assert world.settle(hide, queue, again["ReceiptHandle"], VisibilityTimeoutSeconds=100) == [None]
    world.host.advance(99_999)
    assert world.receive(queue, dead=True) == []
    world.host.advance(1)
    assert datas(world.receive(queue, dead=True)) == [b"poison"]


def test_a_restored_dead_letter_begins_anew(world: World) -> None:
    queue, _, letter = dead_letter(world)
    restore = "restore_dead_letter_queue_records"
    assert world.settle(restore, queue, letter["ReceiptHandle"]) == [None]
    assert world.receive(queue, dead=True) == []
    (record,) = world.receive(queue)
    assert (record["ReceiveCount"], record["RecordId"]) == (1, letter["RecordId"])
    assert world.settle(restore, queue, letter["ReceiptHandle"]) == [GONE]
    world.host.advance(30_000)
    assert datas(world.receive(queue, dead=True)) == [b"poison"]


def test_handles_are_good_for_their_own_operations_alone(world: World) -> None:
    queue, record, letter = dead_letter(world)
    assert world.acknowledge(queue, letter) == [INVALID]
    for operation in ("acknowledge_dead_letter_queue_records", "restore_dead_letter_queue_records"):
        assert world.settle(operation, queue, record["ReceiptHandle"]) == [INVALID]
    world.put(b"fine")
    (fine,) = world.receive(queue)
    other = world.create("other")
    wrong = ["", "x", fine["ReceiptHandle"][:-4], fine["ReceiptHandle"] + "AAAA", "A" * 1024]
    assert world.settle("acknowledge_queue_records", other, fine["ReceiptHandle"], *wrong) == [INVALID] * 6


def test_without_dead_letters_a_record_comes_for_ever(world: World) -> None:
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 0, "DeadLetterConfiguration": {"TargetType": "NONE"}})
    world.put(b"poison")
    assert [world.receive(queue)[0]["ReceiveCount"] for _ in range(1200)][-1] == 1200
    assert world.receive(queue, dead=True) == []


def test_new_rules_hold_when_the_update_is_complete(world: World) -> None:
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"one", b"two", b"three", b"four")
    assert datas(world.receive(queue, limit=1)) == [b"one"]
    world.host.advance(30_000)  # one is a dead letter by the old rule, though nobody has looked
    rules = {"VisibilityTimeoutSeconds": 7, "DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}}
    world.call("update_queue", QueueARN=queue, QueueAttributes=rules)
    assert datas(world.receive(queue, limit=1)) == [b"two"]  # with the old timeout
    world.host.advance(500)
    assert datas(world.receive(queue, limit=1)) == [b"three"]
    world.host.advance(7000)
    assert datas(world.receive(queue)) == [b"three", b"four"]
    assert datas(world.receive(queue, dead=True)) == [b"one"]
    world.host.advance(22_500)
    assert datas(world.receive(queue)) == [b"four", b"two"]  # received once, which is not enough any more


def test_a_lower_limit_buries_who_was_received_often_enough(world: World) -> None:
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 0})
    world.put(b"one")
    world.receive(queue)
    world.receive(queue)
    rules = {"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}}
    world.call("update_queue", QueueARN=queue, QueueAttributes=rules)
    world.host.advance(500)
    assert world.receive(queue) == []
    assert datas(world.receive(queue, dead=True)) == [b"one"]


def test_records_vanish_at_the_end_of_retention_in_every_state(world: World) -> None:
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"dead", b"flying", b"new")
    world.receive(queue, limit=1)
    world.host.advance(30_000)
    world.host.advance(23 * 3_600_000)
    (flying,) = world.receive(queue, limit=1, VisibilityTimeoutSeconds=43_200)
    world.host.advance(3_600_000 - 30_000)
    (letter,) = world.receive(queue, dead=True)
    world.put(b"young")
    world.host.advance(1)
    assert datas(world.receive(queue)) == [b"young"]
    world.host.advance(30_000)
    assert datas(world.receive(queue, dead=True)) == [b"young"]
    assert world.acknowledge(queue, flying) == [GONE]
    assert world.settle("restore_dead_letter_queue_records", queue, letter["ReceiptHandle"]) == [GONE]


def test_a_shorter_retention_counts_at_once(tmp_path: Path) -> None:
    world = World(tmp_path / "data", retention_hours=48)
    queue = world.create(position="TRIM_HORIZON")
    world.put(b"old")
    world.host.advance(25 * 3_600_000)
    world.put(b"new")
    world.store.stream = msgspec.structs.replace(world.store.stream, retention_hours=24)
    world.registry.learn(world.store.stream)
    assert datas(world.receive(queue)) == [b"new"]
    world.stop()


def test_latest_begins_with_what_is_put_after_the_creation(world: World) -> None:
    world.put(b"before")
    queue = world.create()
    world.put(b"after")
    assert datas(world.receive(queue)) == [b"after"]


def test_trim_horizon_begins_with_the_oldest_record(world: World) -> None:
    world.put(b"before")
    queue = world.create(position="TRIM_HORIZON")
    world.put(b"after")
    assert datas(world.receive(queue)) == [b"before", b"after"]


def test_at_timestamp_begins_with_what_arrived_then_or_later(world: World) -> None:
    world.put(b"1")
    world.host.advance(1000)
    world.put(b"2")
    world.put(b"3")
    queue = world.create(position={"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_001_000})
    assert datas(world.receive(queue)) == [b"2", b"3"]


def test_two_queues_on_a_stream_do_not_know_each_other(world: World) -> None:
    first, second = world.create("first"), world.create("second")
    world.put(b"one")
    (here,), (there,) = world.receive(first), world.receive(second)
    assert here["RecordId"] == there["RecordId"]
    assert world.acknowledge(first, there) == [INVALID]
    assert world.acknowledge(first, here) == [None]
    world.host.advance(30_000)
    assert world.receive(first) == []
    assert datas(world.receive(second)) == [b"one"]


def test_no_answer_has_more_than_was_asked_for_nor_more_than_ten(world: World) -> None:
    queue = world.create()
    world.put(*(b"%d" % number for number in range(25)))
    assert datas(world.receive(queue, limit=3)) == [b"0", b"1", b"2"]
    assert len(world.receive(queue)) == 10
    assert len(world.receive(queue)) == 10
    assert len(world.receive(queue)) == 2


def test_an_answer_stays_below_ten_mebibytes_but_for_one_record(tmp_path: Path) -> None:
    world = World(tmp_path / "data", shards=4)
    queue = world.create(position="TRIM_HORIZON")
    for key in "abcdef":
        world.put(*(bytes(1_000_000),) * 4, key=key)
    sizes = []
    while records := world.receive(queue):
        sizes.append(len(records))
    assert sum(sizes) == 24
    assert max(sizes) == 10
    world.host.advance(30_000)
    again = 0
    while records := world.receive(queue):
        again += len(records)
        assert len(records) <= 10
    assert again == 24
    world.stop()


def test_records_that_come_again_and_new_ones_share_the_places(world: World) -> None:
    rules = {"VisibilityTimeoutSeconds": 0, "DeadLetterConfiguration": {"TargetType": "NONE"}}
    queue = world.create(attributes=rules)
    world.put(*(b"poison",) * 10)
    world.receive(queue)
    world.put(*(b"new",) * 10)
    assert datas(world.receive(queue)) == [b"poison"] * 5 + [b"new"] * 5
    world.put(b"newest")
    one_by_one = [datas(world.receive(queue, limit=1))[0] for _ in range(12)]
    assert b"newest" in one_by_one
    assert b"poison" in one_by_one


def test_all_shards_are_served_in_turn(tmp_path: Path) -> None:
    world = World(tmp_path / "data", shards=4)
    queue = world.create()
    for key in "abcdefghijkl":
        world.put(*(key.encode(),) * 10, key=key)
    got = set()
    for _ in range(4):
        got |= {each["RecordId"][16:24] for each in world.receive(queue)}
    assert got == {"00000000", "00000001", "00000002", "00000003"}
    world.stop()


def test_resharding_is_followed(world: World) -> None:
    queue = world.create()
    world.put(b"parent")
    world.split(0)
    for key in "abcdef":
        world.put(key.encode(), key=key)
    got = datas(world.receive(queue))
    assert sorted(got) == [b"a", b"b", b"c", b"d", b"e", b"f", b"parent"]
    assert world.receive(queue) == []
    (desk,) = [each.desk for each in world.service.queues.of(world.registry.home)]
    assert desk._turns._drained == {0}  # nobody looks at the parent any more


def test_no_more_than_so_many_records_are_in_flight(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUE_IN_FLIGHT", 12)
    queue = world.create()
    world.put(*(b"%d" % number for number in range(20)))
    first = world.receive(queue)
    assert len(world.receive(queue)) == 2
    with pytest.raises(Throttling, match="12 records of the queue are in flight"):
        world.receive(queue)
    world.acknowledge(queue, *first[:3])
    assert datas(world.receive(queue)) == [b"12", b"13", b"14"]
    world.host.advance(30_000)
    assert len(world.receive(queue)) == 10


def test_a_receipt_handle_says_what_it_was_given_to_the_same_folder_alone(world: World) -> None:
    from kflow.kinesis.queues.asking import Delivery
    from kflow.kinesis.seals import Seal

    delivery = Delivery(7, 1 << 40, (1 << 63) - 1, dead=True)
    queue_id = "ab" * 16
    text = receipts.handle(Seal(b"here"), queue_id, delivery)
    assert receipts.delivery_of(Seal(b"here"), queue_id, text) == delivery
    assert receipts.delivery_of(Seal(b"here"), "cd" * 16, text) is None
    assert receipts.delivery_of(Seal(b"there"), queue_id, text) is None


def test_a_last_receive_without_a_timeout_makes_a_dead_letter_at_once(world: World) -> None:
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"poison")
    assert datas(world.receive(queue, VisibilityTimeoutSeconds=0)) == [b"poison"]
    assert world.receive(queue) == []
    assert datas(world.receive(queue, dead=True)) == [b"poison"]


def test_a_clock_that_goes_back_buries_all_the_same(world: World) -> None:
    queue = world.create(attributes={"DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}})
    world.put(b"poison")
    world.receive(queue, VisibilityTimeoutSeconds=3600)
    world.store.clock.epoch_ms += 1_800_000
    assert world.receive(queue) == []
    world.store.clock.epoch_ms -= 1_800_000
    world.put(b"other")
    world.receive(queue, VisibilityTimeoutSeconds=0)
    assert datas(world.receive(queue, dead=True)) == [b"other"]


def opened(world: World):
    (desk,) = [each.desk for each in world.service.queues.of(world.registry.home)]
    return desk._turns


def test_a_turn_that_cannot_be_kept_delivers_the_same_records_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = world.create()
    world.receive(queue)
    world.put(b"one", b"two")

    def full(rows) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(opened(world)._ledger, "add", full)
        with pytest.raises(StorageError, match="disk full"):
            world.receive(queue)
    assert [(each["Data"], each["ReceiveCount"]) for each in world.receive(queue)] == [(b"one", 1), (b"two", 1)]


def test_a_row_whose_record_is_not_in_the_log_any_more_goes(world: World) -> None:
    queue = world.create()
    world.put(b"one", b"two")
    world.receive(queue, VisibilityTimeoutSeconds=0)
    ledger = opened(world)._ledger
    with ledger.turn():
        row = ledger.find(0, 2)
        ledger.drop(row)
        ledger.add([row._replace(counter=9)])
    assert datas(world.receive(queue)) == [b"one"]
    assert ledger.find(0, 9) is None


def test_damage_stops_neither_other_shards_nor_what_lies_behind_it(tmp_path: Path) -> None:
    world = World(tmp_path / "data", shards=2)
    queue = world.create()
    by_shard = {world.store.encoder.shard_of(key): key for key in "abcdef"}
    world.put(b"lost", key=by_shard[0])
    world.put(b"behind", key=by_shard[0])
    world.put(b"elsewhere", key=by_shard[1])
    (name,) = world.store.segments()
    flip(world.store.shard_path / name, SEGMENT_HEADER_BYTES + HEADER_BYTES + 8)
    assert sorted(datas(world.receive(queue))) == [b"behind", b"elsewhere"]
    world.stop()


def test_a_shard_that_cannot_be_read_refuses_only_when_nothing_else_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.split(0)
    queue = world.create(attributes={"VisibilityTimeoutSeconds": 0})
    world.receive(queue)
    view = opened(world)._view
    fresh = view.fresh

    def broken(stream, shard, *arguments, **options):
        if shard == 1:
            raise StorageError("cannot read shard 1")
        return fresh(stream, shard, *arguments, **options)

    monkeypatch.setattr(view, "fresh", broken)
    with pytest.raises(StorageError, match="cannot read shard 1"):
        world.receive(queue)
    by_shard = {world.store.encoder.shard_of(key): key for key in "abcdef"}
    world.put(b"two", key=by_shard[2])
    assert datas(world.receive(queue)) == [b"two"]
    (said,) = caplog.messages
    assert said == "queue passes over what it cannot read stream=orders error=cannot read shard 1"

    def gone(stream, rows):
        raise StorageError("cannot read it again")

    monkeypatch.setattr(view, "again", gone)
    world.put(b"three", key=by_shard[2])
    assert datas(world.receive(queue)) == [b"three"]
    with pytest.raises(StorageError, match="cannot read it again"):
        world.receive(queue)
    monkeypatch.undo()
    monkeypatch.setattr(view, "fresh", broken)
    assert datas(world.receive(queue)) == [b"two", b"three"]
