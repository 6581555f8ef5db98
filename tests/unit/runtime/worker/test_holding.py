"""What a worker does with a grant, with engines that follow a script and a node at the other end of a socket pair."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kflow.clock import ManualClock
from kflow.declarations import Handler, HandlerForm, MappingOptions, StreamTrigger
from kflow.interfaces import BatchOutcome, BatchResult
from kflow.lambda_.eventcounts import Counted
from kflow.lambda_.grants import Step, StepKind
from kflow.records import Position
from kflow.runtime.messages import Alive, Channel, Grant, LaneGrant, Retire, Returned
from kflow.runtime.worker.holding import Holding, refused
from kflow.runtime.worker.inbox import Inbox

DONE = BatchOutcome(
    function="bill", stream="orders", shard_id="shardId-000000000000", records=1, succeeded=1, result=BatchResult.OK
)


def step(
    kind: StepKind, reason: str = "", due_ms: int | None = None, *, done: bool = False, at: int = 70, **more: Any
) -> Step:
    return Step(kind, due_ms, reason, Position(at, 0), 90, 0, (DONE,) if done else (), **more)


AGAIN = step(StepKind.AGAIN, done=True)
IDLE = step(StepKind.IDLE)


class Engine:
    """Says what its script says; a batch is at hand as long as the script goes on with a step that is done."""

    def __init__(self, name: str, said: list[str], script: list[Step]) -> None:
        self._name = name
        self._said = said
        self._script = script
        self.last_error = None
        self.polled = [(3, 1)]
        self.on_step: Any = None

    def resume(self, grant: Any) -> None:
        self.grant = grant

    def look(self, now: Any) -> Step | None:
        return None if self._script[0].outcomes else self._script.pop(0)

    def take_polled(self) -> tuple[int, int]:
        return self.polled.pop() if self.polled else (0, 0)

    def step(self, now: Any) -> Step:
        said = self._script.pop(0)
        if said.outcomes:
            self._said.append(self._name)
        if self.on_step is not None:
            self.on_step()
        return said


class Environment:
    """Notes whose lease an invocation would belong to."""

    broken = False

    def __init__(self) -> None:
        self.entered: list[int] = []

    def enter_lease(self, lease: int, generation: int) -> None:
        self.entered.append(lease)


class Live:
    """Counts what is told, and when it is flushed."""

    def __init__(self) -> None:
        self.told = 0
        self.counted: list[Counted] = []

    def tell(self, outcome: BatchOutcome, now_ms: int) -> None:
        self.told += 1

    def count(self, counted: Counted) -> None:
        self.counted.append(counted)

    def flush(self) -> None: ...

    def take_dropped(self) -> int:
        return 0


def handler(*, counts: bool) -> Handler:
    options = MappingOptions(filters=('{"data":["a"]}',))
    trigger = StreamTrigger(stream="orders", options=options, uuid="u", counts=counts)
    return Handler(
        name="bill", file="", line=0, root="", module="", qualname="", form=HandlerForm.EVENT, triggers=(trigger,)
    )


class World:
    """A worker with a grant, and the node's end of its channel."""

    def __init__(self) -> None:
        left, right = socket.socketpair()
        self.node = Channel(left, "from_worker")
        self.channel = Channel(right, "to_worker")
        self.inbox = Inbox(self.channel)
        self.clock = ManualClock()
        self.environment = Environment()
        self.live = Live()
        self.said: list[str] = []

    def engines(self, *scripts: list[Step]) -> list[Engine]:
        return [Engine("abc"[number], self.said, script) for number, script in enumerate(scripts)]

    def hold(self, engines: list[Engine], *, spare: int = 0, counts: bool = False) -> Holding:
        lanes = tuple(LaneGrant(number + 1, 5, 0, lane=number) for number in range(len(engines)))
        return Holding(
            SimpleNamespace(epoch=1, previous_epoch_clean=True, handler=handler(counts=counts)),  # type: ignore[arg-type]  # all it looks at
            Grant(0, 0, lanes, spare),
            engines,  # type: ignore[arg-type]
            environment=self.environment,  # type: ignore[arg-type]
            channel=self.channel,
            inbox=self.inbox,
            live=self.live,  # type: ignore[arg-type]
            clock=self.clock,
        )

    def returned(self) -> list[tuple[int, str]]:
        return [(m.lease, m.reason) for m in self.node.receive(wait=False) if isinstance(m, Returned)]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.node.close()
    made.channel.close()


def test_one_lane_is_run_until_it_has_nothing_more(world: World) -> None:
    holding = world.hold(world.engines([AGAIN, AGAIN, IDLE]))

    holding.run()

    (message,) = world.node.receive(wait=False)
    assert (message.reason, message.read_offset, message.settled_offset) == ("idle", 90, 70)
    assert message.settled
    assert world.live.told == 2
    assert not holding.holds


def test_where_a_mapping_asks_for_it_its_events_are_counted_until_it_is_returned(world: World) -> None:
    world.hold(world.engines([AGAIN, AGAIN, IDLE]), counts=True).run()

    assert world.live.counted == [
        Counted(
            "bill",
            "u",
            {
                "PolledEventCount": 3,
                "FilteredOutEventCount": 1,
                "InvokedEventCount": 2,
                "FailedInvokeEventCount": 0,
            },
        )
    ]
    assert world.live.told == 2


def test_counts_are_told_each_second_while_a_lane_is_held(world: World) -> None:
    engines = world.engines([AGAIN, AGAIN, IDLE])
    engines[0].on_step = lambda: world.clock.advance(600)

    world.hold(engines, counts=True).run()

    assert [each.counts["InvokedEventCount"] for each in world.live.counted] == [2]


def test_lanes_with_nothing_are_returned_before_the_first_batch_runs(world: World) -> None:
    engines = world.engines([IDLE], [AGAIN, IDLE], [step(StepKind.WAIT, "backoff", 4000)])
    seen: list[tuple[int, str]] = []
    engines[1].on_step = lambda: seen.extend(world.returned())

    world.hold(engines).run()

    assert seen == [(1, "idle"), (3, "backoff")]
    assert world.returned() == [(2, "idle")]


def test_lanes_are_run_in_turn_one_batch_each(world: World) -> None:
    world.hold(world.engines([AGAIN, AGAIN, IDLE], [AGAIN, AGAIN, IDLE], [AGAIN, IDLE])).run()

    assert world.said == ["a", "b", "c", "a", "b"]
    assert sorted(world.returned()) == [(1, "idle"), (2, "idle"), (3, "idle")]
    assert world.environment.entered[:3] == [1, 2, 3]


def test_the_lane_that_is_furthest_behind_runs_next(world: World) -> None:
    far, near = step(StepKind.AGAIN, done=True, at=80), step(StepKind.AGAIN, done=True, at=20)
    world.hold(world.engines([far, AGAIN, IDLE], [near, near, far, IDLE])).run()

    assert world.said == ["a", "b", "b", "b", "a"]


def test_as_many_lanes_as_there_are_places_for_are_left_to_others_but_never_the_last(world: World) -> None:
    world.hold(world.engines([AGAIN, IDLE], [AGAIN], [AGAIN]), spare=7).run()

    assert world.said == ["a"]
    assert world.returned() == [(3, "lane"), (2, "lane"), (1, "idle")]


def test_a_lane_that_is_wanted_back_is_returned_before_its_next_batch(world: World) -> None:
    engines = world.engines([AGAIN, AGAIN, IDLE], [AGAIN, AGAIN, IDLE])

    def ask() -> None:
        world.node.post(Retire(2, 5))
        world.clock.advance(10)

    engines[0].on_step = ask

    world.hold(engines).run()

    assert world.said == ["a", "a"]
    assert world.returned() == [(2, "unread"), (1, "idle")]


def test_a_retired_lane_is_returned_at_the_end_of_its_attempt(world: World) -> None:
    engines = world.engines([AGAIN, AGAIN])

    def ask() -> None:
        world.node.post(Retire(1, 5))
        world.clock.advance(10)

    engines[0].on_step = ask
    holding = world.hold(engines)

    holding.run()

    assert world.returned() == [(1, "retired")]
    assert holding.holds


def test_a_request_for_another_generation_is_void(world: World) -> None:
    engines = world.engines([AGAIN, IDLE])
    engines[0].on_step = lambda: world.node.post(Retire(1, 4))

    world.hold(engines).run()

    assert world.returned() == [(1, "idle")]


def test_an_outcome_that_cannot_be_written_is_held_and_the_node_is_told(world: World) -> None:
    held = step(StepKind.HOLD, "storage", 1, detail="no space left")

    world.hold(world.engines([held, AGAIN, IDLE])).run()

    first, second = world.node.receive(wait=False)
    assert first == Alive(5, "no space left", 1)
    assert second.reason == "idle"
    assert second.settled


def test_damage_is_returned_with_its_place_and_comes_again_later(world: World) -> None:
    world.hold(world.engines([step(StepKind.WAIT, "damage", 1000, damaged_at=4096, detail="bad block")])).run()

    (message,) = world.node.receive(wait=False)
    assert (message.reason, message.damaged_at, message.due_ms) == ("damage", 4096, 1000)


def test_all_lanes_of_a_broken_environment_are_returned(world: World) -> None:
    engines = world.engines([AGAIN, AGAIN], [AGAIN, AGAIN])

    def die() -> None:
        world.environment.broken = True

    engines[0].on_step = die

    world.hold(engines).run()

    messages = world.node.receive(wait=False)
    assert sorted((m.lease, m.broken) for m in messages) == [(1, True), (2, True)]
    assert world.said == ["a"]


def test_a_worker_says_that_it_lives_between_batches_that_take_long_to_settle(world: World) -> None:
    engines = world.engines([AGAIN, AGAIN, IDLE])
    engines[0].on_step = lambda: world.clock.advance(2_500)

    world.hold(engines).run()

    assert [type(message) for message in world.node.receive(wait=False)] == [Alive, Alive, Returned]


def test_all_lanes_of_a_shard_that_cannot_be_opened_come_again_later() -> None:
    grant = Grant(0, 3, (LaneGrant(1, 5, 0), LaneGrant(2, 6, 0, lane=1)))

    returns = refused(grant, "no descriptor is left")

    assert [(m.lease, m.generation, m.reason, m.detail) for m in returns] == [
        (1, 5, "storage", "no descriptor is left"),
        (2, 6, "storage", "no descriptor is left"),
    ]
    assert all(m.due_ms for m in returns)
