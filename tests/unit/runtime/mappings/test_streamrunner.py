"""Mappings of streams on a node: its parts are real, no process is started, threads are stepped by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kflow.aws.calls import Place
from kflow.broker.checkpoints import Slot, SlotFile, slots_path
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.resharding import Reshard, split
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock
from kflow.declarations import (
    Handler,
    HandlerForm,
    MappingOptions,
    Package,
    StartingPosition,
    StreamTrigger,
    sourceless,
)
from kflow.errors import KflowError
from kflow.lambda_.control import mappingfacts
from kflow.lambda_.control.mappingfacts import Mapping, Switch
from kflow.lambda_.destinations import declared_mapping
from kflow.records import BEGIN_COUNTER, Position
from kflow.runtime import messages, starting
from kflow.runtime.consumers.resuming import Resumed
from kflow.runtime.loop import Loop
from kflow.runtime.mappings.streamrunner import StreamRunner
from kflow.runtime.messages import Grant, Retire, Returned
from kflow.runtime.node.node import Node
from kflow.runtime.plan.functions import FunctionPlan
from kflow.runtime.plan.leases import LeaseState
from kflow.settings import load
from tests.looping import SteppedLoop
from tests.nodes import Heard, node_of
from tests.storing import held

HOME = Place("123456789012", "us-east-1")
SOURCE = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
CONSUMER = f"{SOURCE}/consumer/fan:1700000000"


class Workers:
    """Starts nothing, and notes what it is asked for."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close
        self.handles: dict[int, Any] = {}
        self.slow_inits: set[str] = set()
        self.sent: list[tuple[int, Any]] = []

    def start_worker(self, spec: messages.WorkerSpec, now: float) -> None:
        self.handles[spec.worker] = SimpleNamespace(id=spec.worker, function=spec.handler.name, spec=spec)

    def stop_worker(self, handle: Any, now: float) -> None:
        self.sent.append((handle.id, "stop"))

    def send(self, handle: Any, message: Any) -> None:
        self.sent.append((handle.id, message))

    def next_deadline(self) -> float | None:
        return None


class World:
    """A folder with streams, a node, and what runs mappings in this run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.folder = DataFolder.open(path, create=True, region=HOME.region, account=HOME.account, fsync="none")
        self.writer = held(self.folder.writer_lock())
        self.log = Log(self.folder)
        self.loop = Loop()
        self.threads = SteppedLoop(self.clock)
        self.nodes: list[Node] = []
        self.consumers = {CONSUMER}
        self.told: list[KflowError | None] = []

    # what a runner asks of the node's services

    def submit(self, work: Any, then: Any) -> None:
        self.threads.submit(work, then)

    def now_ms(self) -> int:
        return self.clock.epoch_ms

    def notice(self, level: str, text: str) -> None:
        self.heard.notice(level, text)

    def stream_by_id(self, stream_id: int) -> StreamMap | None:
        return next((each for each in self.folder.live_maps() if each.id == stream_id), None)

    def has(self, place: Place, name: str) -> bool:
        return place == HOME and any(each.name == name for each in self.folder.live_maps())

    def find(self, place: Place, name: str) -> Any:
        return SimpleNamespace(map=self.folder.map(name))

    def by_consumer_arn(self, text: str, now_ms: int) -> None:
        if text not in self.consumers:
            raise KflowError("no such consumer")

    # what a test does

    def start(self, *handlers: Handler, functions: tuple[str, ...] = ("f",)) -> None:
        """A node over the folder, with decorated handlers, and functions that the API made."""
        folder = self.folder
        self.heard = Heard()
        self.node = node_of(self.log, self.loop, self.heard)
        self.nodes.append(self.node)
        self.workers = Workers(self.node.supervisor.close)
        parts: Any = (self.node, "supervisor"), (self.node.reads, "_supervisor"), (self.node._dispatcher, "_supervisor")
        for part, name in parts:
            setattr(part, name, self.workers)
        started = starting.set_up(self.log, handlers, load(folder.path, environ={}), time.monotonic())
        for plan in started.functions.values():
            self.node.publish(plan)
        self.node.reads.add(started.leases, started.ends, started.closed)
        self.resumed: Resumed = started.resumed
        anything: Any = self
        self.runner = StreamRunner(self.node, anything, anything, HOME, started.resumed)
        for name in functions:
            self.publish(name)
        self.node.dispatch()

    def publish(self, name: str) -> None:
        """As the API does."""
        before = self.node.functions.get(name)
        package = Package(function=name, version="$LATEST", runtime="python3.12", entry="app.handler", code="/nowhere")
        triggers = () if before is None else before.handler.triggers
        self.node.publish(
            FunctionPlan(
                handler=sourceless(name, package, triggers=triggers),
                maps=() if before is None else before.maps,
                timeout_s=3,
                memory_mb=128,
                environment={},
                sources={} if before is None else before.sources,
            )
        )

    def put(self, *datas: bytes, stream: str = "orders") -> None:
        """Into its first shard, and the node learns of it."""
        found = self.folder.map(stream)
        encoder = Encoder(found)
        parts = encoder.encode_many(["k"] * len(datas), list(datas))
        self.log.append(found, parts)
        for part in parts:
            shard = self.log.shard(found, part.shard)
            self.node.on_append(found, part.shard, shard.readable_end, shard.readable_counter)

    def reshard(self, stream: str = "orders") -> StreamMap:
        """Split its only open shard."""
        before = self.folder.map(stream)
        (shard,) = before.open_shards
        plan = split(before, shard.index, None, account=self.folder.account, region=self.folder.region)
        change = Reshard(self.log, plan)
        change.prepare()
        new = change.seal()
        self.node.reads.map_changed(before, new)
        change.finish()
        return new

    def do(self, call: Any, *arguments: Any) -> KflowError | None:
        """Something that is told of; all threads run."""
        told: list[KflowError | None] = []
        call(*arguments, told.append)
        self.threads.run()
        (result,) = told
        return result

    def grants(self) -> list[tuple[int, int, int]]:
        """Worker, trigger and shard of each grant."""
        return [(worker, each.trigger, each.shard) for worker, each in self.workers.sent if isinstance(each, Grant)]

    def give_back(self, worker: int, *, reason: str = "idle", last: str = "", read: int = 0) -> None:
        """A worker returns the first lease that it holds, whether the node knows it still or not."""
        grant = next(
            each for number, each in reversed(self.workers.sent) if number == worker and isinstance(each, Grant)
        )
        lane = grant.lanes[0]
        due_ms = 0 if reason == "retired" else None
        message = Returned(lane.lease, lane.generation, reason, due_ms, read, last=last)
        self.node.returned(self.workers.handles[worker], message, time.monotonic())
        self.node.heard(time.monotonic())

    def slot(self, function: str = "f", stream: str = "orders", shard: int = 0) -> Slot:
        slots = SlotFile.open(self.folder.path, function, self.folder.map(stream).id, files=self.folder.files)
        try:
            return slots.load(shard)
        finally:
            slots.close()

    def settle(self, counter: int, *, function: str = "f", **changes: Any) -> None:
        """As a worker does: the checkpoint is at a counter, in the middle of nowhere."""
        slots = SlotFile.open(self.folder.path, function, self.folder.map("orders").id, files=self.folder.files)
        slot = slots.load(0)
        slots.store(
            0,
            0,
            msgspec.structs.replace(slot, checkpoint=Position(10, counter), checkpoint_counter=counter, **changes),
        )
        slots.close()

    def has_slots(self, function: str = "f", stream: str = "orders") -> bool:
        return os.path.exists(slots_path(self.folder.path, function, self.folder.map(stream).id))

    def states(self, function: str = "f") -> list[LeaseState]:
        return [lease.state for lease in self.node.table.leases.values() if lease.function == function]

    def close(self) -> None:
        for node in self.nodes:
            node.feed.start()
            node.close()
        self.log.close()
        self.writer.release()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.log.create_stream("orders", 1)
    made.start()
    yield made
    made.close()


def mapping(function: str = "f", *, source: str = SOURCE, enabled: bool = True, **options: Any) -> Mapping:
    return Mapping(
        uuid=f"uuid-{function}",
        account=HOME.account,
        region=HOME.region,
        function=function,
        source=source,
        options=MappingOptions(**options),
        enabled=enabled,
    )


def handler(*, enabled: bool = True) -> Handler:
    trigger = StreamTrigger(stream="orders", options=MappingOptions(), enabled=enabled, file="app.py", line=3)
    return Handler(
        name="bill",
        file="app.py",
        line=4,
        root=".",
        module="app",
        qualname="bill",
        form=HandlerForm.EVENT,
        triggers=(trigger,),
    )


# ---------------------------------------------------------------- they come


def test_latest_is_the_tip_when_the_mapping_is_made(world: World) -> None:
    world.put(b"1", b"2")
    assert world.do(world.runner.create, mapping(starting_position=StartingPosition.LATEST)) is None
    assert world.slot().checkpoint_counter == BEGIN_COUNTER + 2
    assert world.grants() == []

    world.put(b"3")

    assert world.grants() == [(1, 0, 0)]
    assert world.workers.handles[1].spec.handler.triggers[0].uuid == "uuid-f"


def test_what_is_left_of_an_earlier_mapping_means_nothing(world: World) -> None:
    world.put(b"1", b"2")
    world.do(world.runner.create, mapping())
    world.settle(BEGIN_COUNTER + 2)
    del world.runner
    world.start()

    world.do(world.runner.create, mapping())

    assert world.slot().checkpoint_counter == BEGIN_COUNTER


def test_environments_of_a_function_learn_when_it_reads_something_more(world: World) -> None:
    world.log.create_stream("others", 1)
    world.do(world.runner.create, mapping())
    world.put(b"1")
    other = msgspec.structs.replace(mapping(source=SOURCE.replace("orders", "others")), uuid="uuid-2")

    world.do(world.runner.create, other)

    worker, learnt = world.workers.sent[-1]
    assert (worker, learnt.index, learnt.trigger.uuid) == (1, 1, "uuid-2")
    spec = learnt.added_to(world.workers.handles[1].spec)
    assert (len(spec.handler.triggers), len(spec.maps), spec.sources) == (2, 2, ("", ""))
    world.give_back(1, reason="idle", read=10_000)
    world.put(b"1", stream="others")
    assert world.grants()[-1] == (1, 1, 0)


def test_a_stream_that_is_resharded_while_its_position_is_made_is_read_in_all_its_shards(world: World) -> None:
    told: list[object] = []
    world.runner.create(mapping(), told.append)
    world.threads.step()  # what was left of others is forgotten
    work, then = world.threads.errands.popleft()
    result = work()
    world.reshard()
    then(result)
    world.threads.run()

    assert told == [None]
    assert [lease.shard for lease in world.node.table.leases.values()] == [0, 1, 2]
    assert world.states()[1:] == [LeaseState.NEWS, LeaseState.NEWS]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (SOURCE + "2", f"Stream not found: {SOURCE}2"),
        (
            SOURCE.replace("us-east-1", "eu-west-1"),
            "Stream not found: arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        ),
        (CONSUMER + "1", f"Stream consumer not found: {CONSUMER}1"),
    ],
)
def test_a_source_that_is_not_there_is_refused(world: World, source: str, text: str) -> None:
    assert str(world.runner.check(mapping(source=source))) == text
    assert world.runner.check(mapping(source=CONSUMER)) is None


def test_events_name_the_consumer_that_the_stream_is_read_as(world: World) -> None:
    world.do(world.runner.create, mapping(source=CONSUMER))
    world.put(b"1")
    assert world.workers.handles[1].spec.sources == (CONSUMER,)


# ---------------------------------------------------------------- they pause, and go on


def test_a_pause_is_over_when_the_running_attempt_is(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.put(b"1")
    told: list[object] = []

    world.runner.change(mapping(), mapping(enabled=False), told.append)
    world.threads.run()

    assert (told, world.workers.sent[-1]) == ([], (1, Retire(1, 1)))
    world.give_back(1, reason="retired")
    assert told == [None]
    assert world.states() == []
    world.put(b"2")
    assert len(world.grants()) == 1


def test_a_pause_is_over_when_the_worker_is_gone(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.put(b"1")
    told: list[object] = []
    world.runner.change(mapping(), mapping(enabled=False), told.append)
    handle = world.workers.handles.pop(1)

    world.node.ended([handle], None, time.monotonic(), died=True)

    assert told == [None]


def test_it_goes_on_after_the_last_settled_record(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.put(b"1", b"2", b"3")
    told: list[object] = []
    world.runner.change(mapping(), mapping(enabled=False), told.append)
    world.settle(BEGIN_COUNTER + 2)
    world.give_back(1, reason="retired")

    world.do(world.runner.change, mapping(enabled=False), mapping())

    assert world.slot().checkpoint_counter == BEGIN_COUNTER + 2
    assert world.states() == [LeaseState.GRANTED]


def test_shards_that_came_during_a_pause_are_read_from_their_beginning_after_their_parent(world: World) -> None:
    world.do(world.runner.create, mapping(starting_position=StartingPosition.LATEST))
    world.do(world.runner.change, mapping(), mapping(enabled=False))
    world.put(b"1")
    world.reshard()
    world.put(b"2")
    assert world.states() == []

    world.do(world.runner.change, mapping(enabled=False), mapping())

    assert world.states() == [LeaseState.GRANTED, LeaseState.PARENTS, LeaseState.PARENTS]
    assert world.slot(shard=1).checkpoint_counter == BEGIN_COUNTER


def test_other_options_mean_other_lanes(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.put(b"1", b"2")
    told: list[object] = []
    world.runner.change(mapping(), mapping(parallelization_factor=2, batch_size=5), told.append)
    world.settle(BEGIN_COUNTER + 1)
    world.give_back(1, reason="retired")
    world.threads.run()

    assert told == [None]
    assert [lease.lane for lease in world.node.table.leases.values()] == [0, 1]
    (learnt,) = [each for _, each in world.workers.sent if isinstance(each, messages.Trigger)]
    assert (learnt.index, learnt.trigger.options.batch_size) == (0, 5)
    assert world.slot().checkpoint_counter == BEGIN_COUNTER + 1


def test_an_update_that_changes_nothing_that_runs_disturbs_nobody(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.put(b"1")
    before = len(world.workers.sent)

    world.do(world.runner.change, mapping(), msgspec.structs.replace(mapping(), tags={"a": "b"}))

    assert len(world.workers.sent) == before


def test_whether_events_are_counted_may_be_changed(world: World) -> None:
    world.start()
    world.do(world.runner.create, mapping())
    assert not world.runner.counts(mapping().uuid)
    counting = msgspec.structs.replace(mapping(), metrics=("EventCount",))

    world.do(world.runner.change, mapping(), counting)

    assert world.node.functions["f"].handler.triggers[0].counts
    assert world.runner.counts(mapping().uuid)
    assert not world.runner.counts("another")


def test_another_function_goes_on_where_the_first_one_stood(world: World) -> None:
    world.publish("g")
    world.do(world.runner.create, mapping())
    world.put(b"1", b"2")
    moved = msgspec.structs.replace(mapping("g"), uuid="uuid-f", moved_from="f")
    told: list[object] = []
    world.runner.change(mapping(), moved, told.append)
    world.settle(BEGIN_COUNTER + 1)
    world.give_back(1, reason="retired")
    world.threads.run()

    assert told == [None]
    assert (world.has_slots("f"), world.slot("g").checkpoint_counter) == (False, BEGIN_COUNTER + 1)
    assert world.states("g") == [LeaseState.GRANTED]
    assert world.workers.handles[2].function == "g"


# ---------------------------------------------------------------- they go


def test_one_that_goes_leaves_no_position_and_its_place_to_the_next(world: World) -> None:
    world.log.create_stream("others", 1)
    world.do(world.runner.create, mapping())
    world.do(world.runner.remove, mapping())

    assert not world.has_slots()
    other = msgspec.structs.replace(mapping(source=SOURCE.replace("orders", "others")), uuid="uuid-2")
    world.do(world.runner.create, other)
    (trigger,) = world.node.functions["f"].handler.triggers
    assert trigger.stream == SOURCE.replace("orders", "others")


def test_a_function_that_is_gone_is_waited_for(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.node.withdraw("f")
    world.put(b"1")

    assert world.grants() == []
    assert not world.node.knows("f")
    assert world.states() == [LeaseState.READY]
    world.publish("f")
    assert world.grants() == [(1, 0, 0)]


def test_records_are_given_up_by_their_age_while_the_function_is_gone(world: World) -> None:
    world.do(world.runner.create, mapping(maximum_record_age_in_seconds=60))
    world.node.withdraw("f")
    world.put(b"1")

    ((worker, grant),) = [each for each in world.workers.sent if isinstance(each[1], Grant)]
    assert grant.throttled
    assert world.workers.handles[worker].spec.handler.package is None


def test_of_a_function_that_is_gone_nothing_is_left_when_its_last_mapping_goes(world: World) -> None:
    world.do(world.runner.create, mapping())
    world.node.withdraw("f")

    world.do(world.runner.remove, mapping())

    assert "f" not in world.node.functions


def test_a_stream_that_is_made_anew_is_read_from_its_beginning(world: World) -> None:
    world.do(world.runner.create, mapping(starting_position=StartingPosition.LATEST))
    old = world.folder.map("orders")
    world.node.reads.stream_gone(old)
    world.log.delete_stream("orders")
    assert world.states() == []

    new = world.log.create_stream("orders", 1)
    assert world.node.reads.stream_born(new) == ["f"]


def test_what_became_of_the_last_batch_is_known_while_it_runs_and_from_its_position_later(world: World) -> None:
    def last() -> list[str]:
        found: list[Any] = []
        world.runner.results([mapping()], found.append)
        world.threads.run()
        (results,) = found
        assert isinstance(results, list)
        return results

    world.do(world.runner.create, mapping())
    assert last() == [""]
    world.put(b"1")
    world.settle(BEGIN_COUNTER + 1, succeeded=1)
    assert last() == ["ok"]
    world.give_back(1, last="failed", read=10_000)
    assert last() == ["failed"]
    world.start()
    assert world.grants() == []


# ---------------------------------------------------------------- the next node


def test_mappings_go_on_with_the_next_node_where_they_stood(world: World) -> None:
    world.do(world.runner.create, mapping())
    mappingfacts.store(world.folder, mapping())
    world.put(b"1", b"2")
    world.settle(BEGIN_COUNTER + 1)

    world.start(functions=())
    assert world.states() == [LeaseState.READY]
    assert world.grants() == []
    world.publish("f")
    assert world.grants() == [(1, 0, 0)]
    assert world.slot().checkpoint_counter == BEGIN_COUNTER + 1


def test_one_that_was_paused_stays_so_and_one_that_was_going_is_gone(world: World) -> None:
    world.do(world.runner.create, mapping("f"))
    world.do(world.runner.create, mapping("g"))
    mappingfacts.store(world.folder, mapping("f", enabled=False))
    mappingfacts.store(world.folder, msgspec.structs.replace(mapping("g"), is_deleting=True))

    world.start(functions=("f", "g"))

    assert (world.states("f"), world.states("g")) == ([], [])
    assert (world.has_slots("f"), world.has_slots("g")) == (True, False)
    assert [each.function for each in mappingfacts.load_all(world.folder)[0]] == ["f"]
    world.do(world.runner.change, mapping(enabled=False), mapping())
    assert world.states("f") == [LeaseState.NEWS]


def test_a_move_that_was_cut_off_is_finished(world: World) -> None:
    world.do(world.runner.create, mapping("f"))
    world.put(b"1", b"2")
    world.settle(BEGIN_COUNTER + 1)
    mappingfacts.store(world.folder, msgspec.structs.replace(mapping("g"), moved_from="f"))

    world.start(functions=("f", "g"))

    assert (world.has_slots("f"), world.slot("g").checkpoint_counter) == (False, BEGIN_COUNTER + 1)


def test_one_whose_stream_is_not_there_waits_for_it_and_harms_no_other(world: World) -> None:
    mappingfacts.store(world.folder, mapping("g", source=SOURCE.replace("orders", "later")))
    (world.path / "lambda" / "mappings" / "broken.json").write_text("{}")
    world.start(handler(), functions=("g",))

    assert world.states("bill") == [LeaseState.NEWS]
    assert world.states("g") == []
    (trouble,) = world.resumed.troubles
    assert trouble.startswith("an event source mapping is not served: ")
    made = world.log.create_stream("later", 1)
    world.runner.stream_born(made)
    world.threads.run()
    assert world.states("g") == [LeaseState.NEWS]


# ---------------------------------------------------------------- decorated handlers


def switch(world: World, *, enabled: bool) -> None:
    told: list[object] = []
    world.runner.switch("bill", 0, enabled=enabled, told=told.append)
    world.threads.run()
    assert told == [None]


def test_a_decorators_trigger_can_be_switched_off_and_on(world: World) -> None:
    world.start(handler(), functions=())
    (found,) = world.runner.declared()
    assert (found.function, found.source, found.enabled, found.trigger.enabled) == ("bill", SOURCE, True, True)

    switch(world, enabled=False)
    assert world.states("bill") == []
    assert not world.runner.declared()[0].trigger.enabled
    world.put(b"1")
    switch(world, enabled=True)
    assert world.states("bill") == [LeaseState.GRANTED]


def test_one_that_its_decorator_has_off_can_be_switched_on(world: World) -> None:
    world.start(handler(enabled=False), functions=())
    world.put(b"1")
    switch(world, enabled=True)
    assert world.states("bill") == [LeaseState.GRANTED]
    assert world.slot("bill").checkpoint_counter == BEGIN_COUNTER


def test_the_next_node_has_it_as_it_was_switched(world: World) -> None:
    uuid = declared_mapping(HOME.account, HOME.region, "bill", "orders")
    text = mappingfacts.switches_text({uuid: Switch(enabled=False, declared=True)})
    from kflow.broker import checked

    world.folder.files.make_folder(world.path / "lambda")
    checked.write_twice(
        str(world.path / mappingfacts.SWITCHES), checked.seal(text) + b"\n", world.folder.files, sync=False
    )

    world.start(handler(), functions=())
    assert world.states("bill") == []
    assert world.runner.declared()[0].enabled
    world.start(handler(enabled=False), functions=())
    assert world.states("bill") == []


def test_an_api_mapping_of_a_decorated_handler_stands_beside_its_own(world: World) -> None:
    world.log.create_stream("others", 1)
    world.start(handler(), functions=())
    world.do(world.runner.create, mapping("bill", source=SOURCE.replace("orders", "others")))

    world.put(b"1", stream="others")

    assert world.grants() == [(1, 1, 0)]
    assert [each.index for each in world.runner.declared()] == [0]
