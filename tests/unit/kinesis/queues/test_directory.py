"""Queues as resources: made, described, listed, changed and deleted; what is refused; what a kill leaves behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from kflow.aws.calls import Place
from kflow.broker.attributes import Consumer
from kflow.broker.streammap import StreamMode
from kflow.errors import (
    ExpiredNextToken,
    InvalidArgument,
    LimitExceeded,
    ResourceInUse,
    ResourceNotFound,
    StorageError,
    ValidationFailed,
)
from tests.queueing import HOME, FakeCall, World, given
from tests.storing import FaultyFiles

DEFAULTS = {
    "VisibilityTimeoutSeconds": 30,
    "DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 6},
}


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path / "data")
    yield made
    made.stop()


def described(world: World, queue: str):
    return world.call("describe_queue", QueueARN=queue)["QueueDescription"]


def files(world: World) -> list[str]:
    folder = Path(world.host.folder.path) / "kinesis-queues"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_a_new_queue_is_creating_and_then_active(world: World) -> None:
    configuration = [{"StreamARN": world.stream_arn}]
    output = world.call("create_queue", QueueName="jobs", StreamConfigurationList=configuration)
    queue = output["QueueDescription"]["QueueARN"]
    description = {
        "QueueName": "jobs",
        "QueueARN": queue,
        "QueueStatus": "CREATING",
        "QueueCreationTimestamp": 1_700_000_000_000,
        "StreamConfigurationList": [
            {"StreamARN": world.stream_arn, "StartingPosition": {"Type": "LATEST"}},
        ],
        "QueueAttributes": DEFAULTS,
    }
    assert output == {"QueueDescription": description}
    assert queue.startswith("arn:aws:kinesis:us-east-1:123456789012:queue/")
    assert "jobs" not in queue
    with pytest.raises(ResourceNotFound, match="is not ACTIVE, instead in state CREATING"):
        world.receive(queue)
    world.host.advance(499)
    assert described(world, queue) == description
    world.host.advance(1)
    description["QueueStatus"] = "ACTIVE"
    position = {"Type": "LATEST", "Timestamp": 1_700_000_000_000}
    description["StreamConfigurationList"] = [{"StreamARN": world.stream_arn, "StartingPosition": position}]
    assert described(world, queue) == description


def test_the_position_that_was_asked_for_is_echoed_and_then_said_as_it_is(world: World) -> None:
    asked = {"Type": "AT_TIMESTAMP", "Timestamp": 5000}
    configuration = [{"StreamARN": world.stream_arn, "StartingPosition": asked}]
    output = world.call("create_queue", QueueName="jobs", StreamConfigurationList=configuration)["QueueDescription"]
    assert output["StreamConfigurationList"] == configuration
    world.host.advance(500)
    (found,) = described(world, output["QueueARN"])["StreamConfigurationList"]
    assert found["StartingPosition"] == {
        "Type": "AT_TIMESTAMP",
        "Timestamp": 1_700_000_000_000,
    }  # the stream's creation
    horizon = world.create("other", position="TRIM_HORIZON")
    (found,) = described(world, horizon)["StreamConfigurationList"]
    assert found["StartingPosition"] == {"Type": "TRIM_HORIZON", "Timestamp": 1_700_000_000_000}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"DeadLetterConfiguration": {"TargetType": "BUILT_IN"}}, "needs a MaxReceiveCount"),
        ({"DeadLetterConfiguration": {"TargetType": "NONE", "MaxReceiveCount": 3}}, "takes no MaxReceiveCount"),
    ],
)
def test_attributes_that_do_not_fit_together_are_refused(world: World, attributes, text: str) -> None:
    with pytest.raises(ValidationFailed, match=text):
        world.create(attributes=attributes)
    queue = world.create()
    with pytest.raises(ValidationFailed, match=text):
        world.call("update_queue", QueueARN=queue, QueueAttributes=attributes)
    assert described(world, queue)["QueueAttributes"] == DEFAULTS


@pytest.mark.parametrize(
    ("position", "error", "text"),
    [
        ({"Type": "AT_TIMESTAMP"}, ValidationFailed, "needs a Timestamp"),
        ({"Type": "LATEST", "Timestamp": 5}, ValidationFailed, "takes no Timestamp"),
        ({"Type": "TRIM_HORIZON", "Timestamp": 5}, ValidationFailed, "takes no Timestamp"),
        (
            {"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_000_001},
            InvalidArgument,
            "timestampInMillis: 1700000000001, currentTimestampInMillis: 1700000000000",
        ),
    ],
)
def test_positions_that_make_no_sense_are_refused(world: World, position, error, text: str) -> None:
    with pytest.raises(error, match=text):
        world.create(position=position)


def test_a_queue_has_exactly_one_stream(world: World) -> None:
    one = {"StreamARN": world.stream_arn}
    for configurations in ([], [one, one]):
        with pytest.raises(ValidationFailed, match="exactly one entry"):
            world.call("create_queue", QueueName="jobs", StreamConfigurationList=configurations)


def test_only_on_demand_streams_have_queues(world: World) -> None:
    world.registry.learn(msgspec.structs.replace(world.store.stream, mode=StreamMode.PROVISIONED))
    with pytest.raises(ValidationFailed, match="Stream orders under account 123456789012 is in Provisioned mode"):
        world.create()


def test_the_stream_must_be_there_and_belong_to_the_caller(world: World) -> None:
    missing = [{"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/nope"}]
    with pytest.raises(ResourceNotFound, match="Stream nope under account 123456789012 not found"):
        world.call("create_queue", QueueName="jobs", StreamConfigurationList=missing)
    configuration = [{"StreamARN": world.stream_arn}]
    place = Place("000000000000", "us-east-1")
    call = world.begin("create_queue", place=place, QueueName="jobs", StreamConfigurationList=configuration)
    assert isinstance(call.error, InvalidArgument)


def test_a_stream_that_is_being_made_or_deleted_gets_no_queue(world: World) -> None:
    stream = world.registry.by_id(world.store.stream.id)
    world.registry.change(stream, lambda failure: None, active_ms=1_700_000_000_500)
    with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state CREATING"):
        world.create()
    world.host.advance(500)
    world.create()


def test_a_name_is_taken_until_its_queue_is_gone(world: World) -> None:
    queue = world.create()
    with pytest.raises(ResourceInUse, match="Queue jobs under account 123456789012 already exists"):
        world.create()
    world.call("delete_queue", QueueARN=queue)
    with pytest.raises(ResourceInUse, match="already exists"):
        world.create()
    world.host.advance(500)
    assert world.create() != queue


def test_two_calls_for_one_name_make_one_queue(world: World) -> None:
    configuration = [{"StreamARN": world.stream_arn}]
    first = world.begin("create_queue", QueueName="jobs", StreamConfigurationList=configuration)
    second = world.begin("create_queue", QueueName="jobs", StreamConfigurationList=configuration)
    assert isinstance(second.error, ResourceInUse)
    assert world.call("list_queues") is not None
    assert first.output["QueueDescription"]["QueueStatus"] == "CREATING"


def test_five_queues_at_a_time_are_made_or_deleted(world: World) -> None:
    configuration = [{"StreamARN": world.stream_arn}]
    for number in range(5):
        world.call("create_queue", QueueName=f"q{number}", StreamConfigurationList=configuration)
    with pytest.raises(LimitExceeded, match="CREATING or DELETING for the account 123456789012"):
        world.create("q5")
    world.host.advance(500)
    world.create("q5")


def test_queues_and_consumers_of_a_stream_are_twenty_at_most(world: World) -> None:
    stream = world.registry.by_id(world.store.stream.id)
    consumers = tuple(Consumer(name=f"c{number}", created_s=1) for number in range(18))
    world.registry.change(stream, lambda failure: None, consumers=consumers)
    world.create("first")
    world.create("second")
    with pytest.raises(LimitExceeded, match="has 20 registered consumers and queues"):
        world.create("third")
    assert world.registry.queues_on(stream.id) == 2


def test_queues_are_listed_by_name_in_pages(world: World) -> None:
    arns = {name: world.create(name) for name in ("b", "a", "c")}
    world.store.clock.advance(10)
    first = world.call("list_queues", MaxResults=2)
    assert first["QueueSummaries"][0] == {
        "QueueName": "a",
        "QueueARN": arns["a"],
        "QueueStatus": "ACTIVE",
        "QueueCreationTimestamp": 1_700_000_000_500,
        "Streams": [{"StreamARN": world.stream_arn, "StreamCreationTimestamp": 1_700_000_000_000}],
    }
    assert [each["QueueName"] for each in first["QueueSummaries"]] == ["a", "b"]
    second = world.call("list_queues", NextToken=first["NextToken"])
    assert [each["QueueName"] for each in second["QueueSummaries"]] == ["c"]
    assert "NextToken" not in second
    other = world.begin("list_queues", place=Place("000000000000", "us-east-1"))
    assert other.output == {"QueueSummaries": []}


def test_a_page_has_a_hundred_queues_at_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kflow.services.kinesis.queues.PAGE", 2)
    for name in "abc":
        world.create(name)
    page = world.call("list_queues", MaxResults=10_000)
    assert (len(page["QueueSummaries"]), "NextToken" in page) == (2, True)


def test_queues_are_listed_by_stream(world: World) -> None:
    world.create("a")
    world.create("b")
    mine = {"StreamARN": world.stream_arn}
    other = {"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/other"}

    def names(*filters, **more):
        output = world.call("list_queues", StreamFilter=list(filters), **more)
        return [each["QueueName"] for each in output["QueueSummaries"]]

    assert names(mine) == names(other, mine) == ["a", "b"]
    assert names(other) == []
    assert names({**mine, "StreamCreationTimestamp": 1_700_000_000_000}) == ["a", "b"]
    assert names({**mine, "StreamCreationTimestamp": 1_600_000_000_000}) == []
    token = world.call("list_queues", StreamFilter=[mine], MaxResults=1)["NextToken"]
    assert names(mine, NextToken=token) == ["b"]
    assert [each["QueueName"] for each in world.call("list_queues", NextToken=token)["QueueSummaries"]] == ["b"]
    with pytest.raises(InvalidArgument, match="NextToken and StreamFilter disagree"):
        names(other, NextToken=token)


def test_a_token_lives_five_minutes(world: World) -> None:
    world.create("a")
    world.create("b")
    token = world.call("list_queues", MaxResults=1)["NextToken"]
    world.store.clock.advance(300_000)
    world.call("list_queues", NextToken=token)
    world.store.clock.advance(1)
    with pytest.raises(ExpiredNextToken):
        world.call("list_queues", NextToken=token)
    with pytest.raises(InvalidArgument):
        world.call("list_queues", NextToken="made up")


def test_an_update_is_shown_at_once_and_passes_through_updating(world: World) -> None:
    queue = world.create()
    attributes = {"VisibilityTimeoutSeconds": 60}
    output = world.call("update_queue", QueueARN=queue, QueueAttributes=attributes)["QueueDescription"]
    assert output["QueueStatus"] == "UPDATING"
    assert output["QueueAttributes"] == {**DEFAULTS, "VisibilityTimeoutSeconds": 60}
    assert world.receive(queue) == []
    with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state UPDATING"):
        world.call("update_queue", QueueARN=queue, QueueAttributes=attributes)
    world.host.advance(500)
    assert described(world, queue)["QueueStatus"] == "ACTIVE"
    letters = {"DeadLetterConfiguration": {"TargetType": "NONE"}}
    world.call("update_queue", QueueARN=queue, QueueAttributes=letters)
    assert described(world, queue)["QueueAttributes"] == {**letters, "VisibilityTimeoutSeconds": 60}


def test_a_deleted_queue_is_deleting_and_then_gone_with_its_files(world: World) -> None:
    queue = world.create()
    world.put(b"one")
    (record,) = world.receive(queue)
    assert world.call("delete_queue", QueueARN=queue) is None
    assert described(world, queue)["QueueStatus"] == "DELETING"
    assert world.call("delete_queue", QueueARN=queue) is None
    for operation in ("receive_queue_records", "receive_dead_letter_queue_records"):
        assert isinstance(world.begin(operation, QueueARN=queue).error, ResourceNotFound)
    with pytest.raises(ResourceNotFound, match="DELETING"):
        world.acknowledge(queue, record)
    assert world.registry.queues_on(world.store.stream.id) == 1
    world.host.advance(500)
    with pytest.raises(ResourceNotFound, match=f"Queue {queue} under account 123456789012 not found"):
        described(world, queue)
    assert files(world) == []
    assert world.registry.queues_on(world.store.stream.id) == 0


@pytest.mark.parametrize("arn", ["arn:aws:kinesis:us-east-1:123456789012:queue/nope", "arn:aws:kinesis:::queue/x"])
def test_a_queue_that_does_not_exist_is_not_found(world: World, arn: str) -> None:
    for operation in ("describe_queue", "delete_queue", "update_queue", "receive_queue_records"):
        assert isinstance(world.begin(operation, QueueARN=arn).error, ResourceNotFound)


def test_an_arn_of_another_account_is_not_found(world: World) -> None:
    queue = world.create()
    with pytest.raises(ResourceNotFound):
        described(world, queue.replace("123456789012", "000000000000"))


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    letters = {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}
    queue = world.create(attributes={"DeadLetterConfiguration": letters}, Tags={"team": "blue"})
    world.put(b"acked", b"flying", b"dead", b"new")
    acked, flying = world.receive(queue, limit=2)
    world.acknowledge(queue, acked)
    world.receive(queue, limit=1, VisibilityTimeoutSeconds=0)
    before = described(world, queue)
    world.stop()
    world.start()
    assert described(world, queue) == before
    assert world.service.queues.find(queue).facts.tags == {"team": "blue"}
    assert [each["Data"] for each in world.receive(queue)] == [b"new"]
    assert [each["Data"] for each in world.receive(queue, dead=True)] == [b"dead"]
    assert world.acknowledge(queue, flying) == [None]
    world.stop()


def test_a_start_finishes_what_a_kill_interrupted(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    queue = world.create("going")
    world.call("delete_queue", QueueARN=queue)
    configuration = [{"StreamARN": world.stream_arn}]
    made = world.call("create_queue", QueueName="coming", StreamConfigurationList=configuration)["QueueDescription"]
    folder = Path(world.host.folder.path) / "kinesis-queues"
    ours = made["QueueARN"].rpartition("/")[2]
    leftovers = ["ab" * 16 + ".db", "ab" * 16 + ".db-wal", f"{ours}.json.1-0.tmp"]
    for name in (*leftovers, "README"):
        (folder / name).write_bytes(b"of a queue that was never made, or of a write")
    world.start()
    assert not any((folder / name).exists() for name in leftovers)
    (folder / "README").unlink()  # what is not ours stays
    assert described(world, queue)["QueueStatus"] == "DELETING"
    assert described(world, made["QueueARN"])["QueueStatus"] == "CREATING"
    world.host.advance(500)
    assert described(world, made["QueueARN"])["QueueStatus"] == "ACTIVE"
    assert [each["QueueName"] for each in world.call("list_queues")["QueueSummaries"]] == ["coming"]
    assert len({name.partition(".")[0] for name in files(world)}) == 1
    world.stop()


def test_a_damaged_file_is_read_from_its_twin(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    queue = world.create()
    world.stop()
    folder = Path(world.host.folder.path) / "kinesis-queues"
    (path,) = folder.glob("*.json")
    path.write_bytes(b"?")
    world.start()
    assert described(world, queue)["QueueName"] == "jobs"
    world.stop()
    path.unlink()
    world.start()
    assert described(world, queue)["QueueName"] == "jobs"
    world.stop()


def test_a_queue_whose_files_are_both_damaged_is_said_and_kept_for_people(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.create()
    world.stop()
    folder = Path(world.host.folder.path) / "kinesis-queues"
    (path,) = folder.glob("*.json")
    for each in (path, path.with_name(path.name + ".twin")):
        each.write_bytes(b'{"crc":"00000000","a":1}\n')
    before = files(world)
    world.start()
    ((level, text),) = world.host.notices
    assert level == "error"
    assert "its file and its twin are damaged" in text
    assert files(world) == before
    assert world.call("list_queues") == {"QueueSummaries": []}


def test_a_queue_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    broken = FaultyFiles()
    world = World(tmp_path / "data", files=broken)
    broken.errors, broken.only = {"replace": errno.EIO}, ".json"
    with pytest.raises(StorageError):
        world.create()
    assert files(world) == []
    assert world.call("list_queues") == {"QueueSummaries": []}
    broken.errors = {}
    queue = world.create()
    broken.errors = {"replace": errno.EIO}
    with pytest.raises(StorageError):
        world.call("update_queue", QueueARN=queue, QueueAttributes={"VisibilityTimeoutSeconds": 1})
    with pytest.raises(StorageError):
        world.call("delete_queue", QueueARN=queue)
    assert described(world, queue)["QueueStatus"] == "ACTIVE"
    assert described(world, queue)["QueueAttributes"] == DEFAULTS
    broken.errors = {}
    world.put(b"one")
    assert len(world.receive(queue)) == 1
    world.stop()


def test_a_queue_goes_with_a_stream_that_is_deleted_by_the_command_line(world: World) -> None:
    queue = world.create()
    call = world.begin("receive_queue_records", QueueARN=queue)
    world.host.run()
    world.registry.forget(world.store.stream.id)
    world.host.run()
    assert isinstance(call.error, ResourceNotFound)
    assert files(world) == []
    ((level, text),) = world.host.notices
    assert (level, text) == ("warning", "queue jobs goes with its stream orders, which was deleted")


def test_all_queues_are_cleared_at_once(world: World) -> None:
    for name in "abc":
        world.receive(world.create(name))
    done: list[bool] = []
    world.service.queues.clear(lambda: done.append(True))
    world.host.run()
    world.service.queues.clear(lambda: done.append(True))
    assert (done, files(world)) == ([True, True], [])
    assert world.call("list_queues") == {"QueueSummaries": []}


def test_what_is_cleared_while_it_is_being_made_goes_once_it_is(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    making = world.begin("create_queue", QueueName="jobs", StreamConfigurationList=[{"StreamARN": world.stream_arn}])
    cleared: list[str] = []
    world.service.queues.clear(lambda: cleared.append("one"))
    world.service.queues.clear(lambda: cleared.append("two"))
    assert cleared == []
    world.host.run()
    assert making.error is None
    assert sorted(cleared) == ["one", "two"]
    assert files(world) == []
    assert world.call("list_queues") == {"QueueSummaries": []}
    world.start()
    assert world.call("list_queues") == {"QueueSummaries": []}


def test_what_was_under_way_when_the_clock_was_set_back_ends(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    queue = world.call("create_queue", QueueName="jobs", StreamConfigurationList=[{"StreamARN": world.stream_arn}])
    queue = queue["QueueDescription"]["QueueARN"]
    world.store.clock.epoch_ms -= 3_600_000
    assert described(world, queue)["QueueStatus"] == "ACTIVE"
    world.store.clock.epoch_ms += 3_600_000
    world.host.advance(500)
    world.call("delete_queue", QueueARN=queue)
    world.store.clock.epoch_ms -= 3_600_000
    world.start()
    assert described(world, queue)["QueueStatus"] == "DELETING"
    world.host.advance(500)
    assert files(world) == []


def test_a_queue_whose_files_go_just_now_is_gone_for_everybody(world: World) -> None:
    queue = world.create()
    world.call("delete_queue", QueueARN=queue)
    submitted = world.host.submitted
    world.host._timers[-1][2].call()  # its time has come, and no thread has done anything yet
    assert world.host.submitted > submitted
    with pytest.raises(ResourceNotFound):
        described(world, queue)
    assert world.registry.queues_on(world.store.stream.id) == 0
    assert world.service.list_queues(FakeCall(), given({})) == {"QueueSummaries": []}
    again = world.create()
    assert again != queue
    assert described(world, again)["QueueStatus"] == "ACTIVE"
    assert [each for each in files(world) if queue.rpartition("/")[2] in each] == []


def test_tags_are_fifty_at_most(world: World) -> None:
    with pytest.raises(InvalidArgument, match="more than 50 tags"):
        world.create(Tags={f"key{number}": "" for number in range(51)})
    assert HOME.account == "123456789012"


def test_a_queue_can_be_active_at_once(world: World) -> None:
    world.host.transition_s = 0
    configuration = [{"StreamARN": world.stream_arn}]
    output = world.call("create_queue", QueueName="jobs", StreamConfigurationList=configuration)["QueueDescription"]
    assert output["QueueStatus"] == "CREATING"  # as AWS answers
    assert described(world, output["QueueARN"])["QueueStatus"] == "ACTIVE"
    deleting = world.begin("delete_queue", QueueARN=output["QueueARN"])
    world.host.advance(0)
    assert not deleting.is_waiting
    assert files(world) == []
