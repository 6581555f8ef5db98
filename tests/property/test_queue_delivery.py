"""A queue against a model of at-least-once delivery: who may be received, how often, what each handle still does."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.queueing import World

GONE, INVALID = "ResourceNotFoundException", "InvalidArgumentException"
DAY_MS = 86_400_000


@dataclass
class Tracked:
    """What the model knows of a record.

    Attributes:
        arrival_ms: when it was put.
        receives: how often it was received; None before the first time.
        visible_ms: from when on it may be received.
        is_dead: whether it is a dead letter.
        handle: of its last delivery; empty where none is valid.
        is_gone: whether it was acknowledged.
    """

    arrival_ms: int
    receives: int | None = None
    visible_ms: int = 0
    is_dead: bool = False
    handle: str = ""
    is_gone: bool = False


class QueueDelivery(RuleBasedStateMachine):
    """Puts, receives, settles, waits, reshards and restarts in any order."""

    @initialize(max_receives=st.sampled_from([None, 1, 2, 3]), shards=st.integers(1, 3))
    def begin(self, max_receives: int | None, shards: int) -> None:
        self.path = tempfile.mkdtemp(prefix="kflow-queue-")
        self.world = World(Path(self.path) / "data", shards=shards)
        letters = (
            {"TargetType": "BUILT_IN", "MaxReceiveCount": max_receives} if max_receives else {"TargetType": "NONE"}
        )
        self.max_receives = max_receives
        self.queue = self.world.create(attributes={"VisibilityTimeoutSeconds": 10, "DeadLetterConfiguration": letters})
        self.records: dict[bytes, Tracked] = {}
        self.handles: list[tuple[bytes, str, bool]] = []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.stop()
            shutil.rmtree(self.path)

    @property
    def now_ms(self) -> int:
        return self.world.store.clock.epoch_ms

    def settle_time(self) -> None:
        for each in self.records.values():
            if self.now_ms - each.arrival_ms > DAY_MS:
                each.is_gone = True
            elif self.max_receives and (each.receives or 0) >= self.max_receives and each.visible_ms <= self.now_ms:
                each.is_dead = True

    @rule(count=st.integers(1, 12), key=st.sampled_from("abcdef"))
    def put(self, count: int, key: str) -> None:
        datas = [b"%d" % (len(self.records) + number) for number in range(count)]
        self.world.put(*datas, key=key)
        for each in datas:
            self.records[each] = Tracked(self.now_ms)

    @rule(limit=st.integers(1, 10), dead=st.booleans(), visibility_s=st.sampled_from([None, None, 0, 3, 60]))
    def receive(self, limit: int, dead: bool, visibility_s: int | None) -> None:
        self.settle_time()
        able = {
            data
            for data, each in self.records.items()
            if not each.is_gone and each.is_dead is dead and each.visible_ms <= self.now_ms
        }
        received = self.world.receive(self.queue, limit=limit, dead=dead, VisibilityTimeoutSeconds=visibility_s)
        assert len(received) == min(limit, len(able))
        assert len({each["Data"] for each in received}) == len(received)
        for record in received:
            data = record["Data"]
            assert data in able
            known = self.records[data]
            known.receives = (known.receives or 0) + 1
            assert record["ReceiveCount"] == known.receives
            assert record["ApproximateArrivalTimestamp"] == known.arrival_ms
            known.visible_ms = self.now_ms + 1000 * (10 if visibility_s is None else visibility_s)
            known.handle = record["ReceiptHandle"]
            self.handles.append((data, known.handle, dead))

    def expected(self, data: bytes, handle: str, given_dead: bool, dead: bool) -> str | None:
        if given_dead is not dead:
            return INVALID
        known = self.records[data]
        return None if not known.is_gone and known.is_dead is dead and known.handle == handle else GONE

    @precondition(lambda self: self.handles)
    @rule(choice=st.data(), dead=st.booleans())
    def acknowledge(self, choice, dead: bool) -> None:
        self.settle_time()
        data, handle, given_dead = choice.draw(st.sampled_from(self.handles))
        operation = "acknowledge_dead_letter_queue_records" if dead else "acknowledge_queue_records"
        expected = self.expected(data, handle, given_dead, dead)
        assert self.world.settle(operation, self.queue, handle) == [expected]
        if expected is None:
            self.records[data].is_gone = True

    @precondition(lambda self: self.handles)
    @rule(choice=st.data(), dead=st.booleans(), seconds=st.sampled_from([0, 5, 43_200]))
    def hide(self, choice, dead: bool, seconds: int) -> None:
        self.settle_time()
        data, handle, given_dead = choice.draw(st.sampled_from(self.handles))
        name = "update_dead_letter_queue_records_visibility" if dead else "update_queue_records_visibility"
        expected = self.expected(data, handle, given_dead, dead)
        assert self.world.settle(name, self.queue, handle, VisibilityTimeoutSeconds=seconds) == [expected]
        if expected is None:
            self.records[data].visible_ms = self.now_ms + 1000 * seconds

    @precondition(lambda self: self.handles)
    @rule(choice=st.data())
    def restore(self, choice) -> None:
        self.settle_time()
        data, handle, given_dead = choice.draw(st.sampled_from(self.handles))
        expected = self.expected(data, handle, given_dead, dead=True)
        assert self.world.settle("restore_dead_letter_queue_records", self.queue, handle) == [expected]
        if expected is None:
            known = self.records[data]
            known.is_dead, known.receives, known.visible_ms, known.handle = False, 0, self.now_ms, ""

    @rule(milliseconds=st.sampled_from([1, 999, 3000, 10_000, 60_000, 7_200_000, DAY_MS // 2]))
    def wait(self, milliseconds: int) -> None:
        self.world.host.advance(milliseconds)

    @rule()
    def restart(self) -> None:
        self.world.stop()
        self.world.start()

    @precondition(lambda self: len(self.world.store.stream.shards) < 7)
    @rule(choice=st.data())
    def split(self, choice) -> None:
        shards = [each.index for each in self.world.store.stream.open_shards]
        self.world.split(choice.draw(st.sampled_from(shards)))

    @invariant()
    def keeps_a_row_for_what_is_received_and_not_settled(self) -> None:
        if not hasattr(self, "world"):
            return
        self.settle_time()
        self.world.acknowledge(self.queue, {"ReceiptHandle": "none"})  # a turn, so that what has expired is gone
        (queue,) = self.world.service.queues.of(self.world.registry.home)
        rows = sum(each.receives is not None and not each.is_gone for each in self.records.values())
        assert queue.desk._turns._ledger.count == rows


TestQueueDelivery = QueueDelivery.TestCase
TestQueueDelivery.settings = settings(max_examples=60, stateful_step_count=40)
