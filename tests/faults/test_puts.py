"""Puts of calls on the node's loop: slow and failing disks, syncs, shards that change, queues that are full.

The loop runs in the test's own thread, a round at a time; only the appender's and the commits' own threads run beside.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker import handshake
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.errors import NotDurable, ProvisionedThroughputExceeded, StaleMap, StorageError
from kflow.kinesis.host import PutResult, Stored
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.intake.puts import QUEUE_BYTES, Puts
from kflow.runtime.loop import Loop
from tests.deadline import eventually
from tests.storing import FaultyFiles, everything, read_all

MIB = 1 << 20


class StuckFiles(FaultyFiles):
    """Writes to one shard, or all syncs, do not return before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = ""
        self.syncs_stick = False
        self.gate = threading.Event()

    def fdatasync(self, fd: int) -> None:
        if self.syncs_stick:
            assert self.gate.wait(30)
        super().fdatasync(fd)

    def pwritev(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        if self.stuck and self.stuck in os.readlink(f"/proc/self/fd/{fd}"):
            assert self.gate.wait(30)
        return super().pwritev(fd, buffers, offset)


class Desk:
    """A log with what appends to it."""

    def __init__(self, path: Path, *, shards: int = 1, fsync: str = "none") -> None:
        self.files = StuckFiles()
        self.folder = DataFolder.open(path, create=True, fsync=fsync, files=self.files)
        self.log = Log(self.folder)
        self.stream = self.log.create_stream("orders", shards)
        self.loop = Loop()
        self.appended: list[tuple[int, int]] = []
        self.ingest = Ingest(
            self.log,
            loop=self.loop,
            on_append=self.on_append,
            on_control=lambda connection, request, asked: None,
            hello=handshake.own_hello(self.folder.id),
        )
        self.puts = Puts(self.ingest)
        self.encoder = Encoder(self.stream)

    def on_append(self, stream: StreamMap, shard: int, tail: int, counter: int) -> None:
        self.appended.append((shard, counter))

    def put(self, *datas: bytes, shard: int = 0) -> list[PutResult] | list[list[PutResult]]:
        """Put records to a shard: the results; or a list that will have them."""
        told: list[list[PutResult]] = []
        size = (1 << 128) // len(self.stream.shards)
        parts = self.encoder.encode_many(["k"] * len(datas), datas, [shard * size] * len(datas))
        results = self.puts.put(self.stream, parts, told.append)
        return told if results is None else results

    def settled(self, *datas: bytes, shard: int = 0) -> list[PutResult]:
        """Put records to a shard and wait, for the machine may be so busy that appends look slow."""
        results: Any = self.put(*datas, shard=shard)
        if not results:
            self.wait(lambda: results, "the append")
            (results,) = results
        return list(results)

    def wait(self, is_so: Callable[[], Any], what: str) -> None:
        def look() -> Any:
            for _ in range(100):
                self.loop.round(0.001)
                if found := is_so():
                    return found
            return None

        eventually(look, what=what)

    def close(self) -> None:
        self.files.gate.set()
        self.ingest.close()
        self.log.close()
        self.loop.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "data", shards=2)
    yield made
    made.close()


def test_a_small_put_is_answered_at_once_and_those_who_wait_are_told_before(desk):
    (result,) = desk.put(b"1")
    assert isinstance(result, Stored)
    assert result.first_counter == 1
    assert desk.appended == [(0, 2)]
    assert desk.settled(b"2", b"3")[0].first_counter == 2
    assert desk.appended == [(0, 2), (0, 4)]


def test_a_large_put_is_answered_later(desk):
    told = desk.put(b"x" * 100_000)
    assert told == []
    desk.wait(lambda: told, "the append")
    assert told[0][0].first_counter == 1
    assert desk.appended == [(0, 2)]


def test_a_slow_shard_costs_nobody_else_anything_and_keeps_its_order(desk):
    desk.settled(b"first", shard=0)
    desk.settled(b"first", shard=1)
    desk.files.stuck = "/0/"
    waiting = [desk.put(b"x" * 70_000), desk.put(b"second"), desk.put(b"third")]
    assert waiting == [[], [], []]
    assert isinstance(desk.settled(b"other", shard=1)[0], Stored)
    desk.files.gate.set()
    desk.wait(lambda: all(waiting), "the appends")
    assert [told[0][0].first_counter for told in waiting] == [2, 3, 4]
    desk.wait(lambda: desk.puts._queued == {}, "the queue to be empty")
    assert desk.ingest.backlog.bytes == 0


def test_a_queue_that_is_full_refuses_and_takes_records_again_when_it_is_not(desk):
    desk.files.stuck = "/0/"
    piece = b"x" * (MIB - 1000)
    waiting = [desk.put(piece) for _ in range(QUEUE_BYTES // MIB)]
    refused = desk.put(piece)
    assert isinstance(refused[0], ProvisionedThroughputExceeded)
    assert isinstance(desk.settled(b"other", shard=1)[0], Stored)
    desk.files.gate.set()
    desk.wait(lambda: all(waiting), "the appends")
    after = desk.put(piece)
    desk.wait(lambda: after, "the append")
    assert isinstance(after[0][0], Stored)


def test_a_shards_queue_takes_one_call_however_large(desk):
    told = desk.put(*[b"x" * (MIB - 1000)] * 9)
    desk.wait(lambda: told, "the appends")
    assert [type(result) for result in told[0]] == [Stored] * 9


def test_what_stands_behind_a_part_that_failed_is_not_tried(desk):
    desk.settled(b"first")
    desk.files.errors["pwritev"] = errno.EIO
    told = desk.put(*[b"x" * (MIB - 1000)] * 3)
    desk.wait(lambda: told, "the failures")
    assert [isinstance(result, StorageError) for result in told[0]] == [True] * 3
    assert "not tried" in str(told[0][2])
    assert desk.files.calls["pwritev"] == 1
    desk.files.errors.clear()
    assert isinstance(desk.settled(b"next")[0], Stored)
    assert everything(ShardReader(desk.folder, desk.stream, 0)) == [b"first", b"next"]


def test_a_call_of_many_parts_is_put_in_rounds_and_those_behind_it_wait(tmp_path):
    desk = Desk(tmp_path / "data", shards=300)
    try:
        size = (1 << 128) // 300
        first: list[Any] = []
        parts = desk.encoder.encode_many(["k"] * 300, [b"1"] * 300, [size * shard for shard in range(300)])
        assert desk.puts.put(desk.stream, parts, first.append) is None
        second = desk.put(b"2", shard=299)
        assert second == []
        desk.wait(lambda: first and second, "both")
        assert [result.first_counter for result in first[0]] == [1] * 300
        assert second[0][0].first_counter == 2
        assert read_all(desk.folder, desk.stream)[-2:] == [("k", b"1"), ("k", b"2")]
    finally:
        desk.close()


def test_a_map_that_is_not_the_newest_is_stale(desk):
    desk.ingest.learn(msgspec.structs.replace(desk.stream, generation=2))
    assert [type(result) for result in desk.put(b"1")] == [StaleMap]
    desk.ingest.retire(desk.stream.id, lambda: None)
    assert [type(result) for result in desk.put(b"1")] == [StaleMap]
    assert desk.appended == []


@pytest.mark.parametrize("closed", [True, False])
def test_what_comes_while_a_shard_is_held_is_routed_anew_or_appended(desk, closed):
    desk.ingest.appender.hold(desk.stream, [0], lambda: None)
    told = desk.put(b"1")
    assert told == []
    desk.ingest.appender.release(desk.stream, [0], closed=closed)
    desk.wait(lambda: told, "the answer")
    assert [type(result) for result in told[0]] == [StaleMap if closed else Stored]


def test_with_always_an_answer_waits_for_the_sync(tmp_path):
    desk = Desk(tmp_path / "data", fsync="always")
    try:
        desk.files.syncs_stick = True
        waiting = [desk.put(b"1"), desk.put(b"2")]
        for _ in range(20):
            desk.loop.round(0.001)
        assert (waiting, desk.appended) == ([[], []], [])
        desk.files.gate.set()
        desk.wait(lambda: all(waiting), "the syncs")
        assert [told[0][0].first_counter for told in waiting] == [1, 2]
        assert desk.appended[-1] == (0, 3)
    finally:
        desk.close()


def test_with_always_a_sync_that_fails_is_said(tmp_path):
    desk = Desk(tmp_path / "data", fsync="always")
    try:
        desk.files.errors["fdatasync"] = errno.EIO
        told = desk.put(b"1")
        desk.wait(lambda: told, "the failure")
        assert isinstance(told[0][0], NotDurable)
    finally:
        desk.close()


def test_what_a_slice_of_a_call_left_for_the_next_is_stale_where_the_shards_have_changed_between(desk, monkeypatch):
    monkeypatch.setattr("kflow.runtime.intake.puts.SLICE_S", 0.0)  # a part a slice
    keys = [f"key {number}" for number in range(20)]
    parts = desk.encoder.encode_many(keys, [b"x"] * len(keys))
    assert len(parts) == 2
    told: list[list[PutResult]] = []
    assert desk.puts.put(desk.stream, parts, told.append) is None

    desk.ingest.learn(msgspec.structs.replace(desk.stream, generation=desk.stream.generation + 1))

    desk.wait(lambda: told, "the rest of the call")
    first, second = told[0]
    assert isinstance(first, Stored)
    assert isinstance(second, StaleMap)
    assert [shard for shard, _ in desk.appended] == [parts[0].shard]
