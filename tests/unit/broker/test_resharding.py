"""Resharding as file work: what is there after each step, and after a death or a loss of power at any moment of it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from kflow.broker import resharding
from kflow.broker.ctl import ARRIVAL, BOOT, CLOSED, POISONED, Ctl
from kflow.broker.encode import Encoder
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.resharding import Phase, Plan, Reshard, carry_out
from kflow.broker.sequence import CLOSING_COUNTER, parse
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.clock import ManualClock
from kflow.errors import ResourceNotFound, StaleMap, StorageError
from kflow.testing.memory import MemoryFiles
from tests.storing import FaultyFiles, Store, read_all

CALLS = (
    *("open", "close", "pread", "pwrite", "pwritev", "fstat", "stat", "lstat", "statvfs", "ftruncate", "rename"),
    *("replace", "link", "unlink", "mkdir", "rmdir", "listdir", "flock", "fsync", "fdatasync", "map_page"),
)
KINDS = ("split", "merge", "scale")


class Dead(BaseException):
    """The process is dead: nothing of it runs any more, no handler and no `finally` that touches a file."""


class Dying(MemoryFiles):
    """File calls of a process that dies before one of them.

    Attributes:
        left: how many calls it still makes.
    """

    __slots__ = ("left",)

    def __init__(self, disk: Any = None) -> None:
        super().__init__(disk)
        self.left = 1 << 60

    def bury(self) -> None:
        """Take its descriptors away; what finalizers of its objects still call finds none."""
        self.left = 1 << 60
        self.kill()


def _dying(name: str) -> Any:
    whole = getattr(MemoryFiles, name)

    def call(self: Dying, *arguments: Any) -> Any:
        if self.left <= 0:
            raise Dead
        self.left -= 1
        return whole(self, *arguments)

    return call


for _name in CALLS:
    setattr(Dying, _name, _dying(_name))


def plan_of(kind: str, stream: StreamMap) -> Plan:
    if kind == "split":
        return resharding.split(stream, 1, None, account="1", region="r")
    if kind == "merge":
        return resharding.merge(stream, 1, 2, account="1")
    return resharding.scale(stream, 4, account="1", region="r")


def opened(files: Files, clock: ManualClock) -> tuple[Log, StreamMap]:
    """A new node's view of the folder, after all that its start recovers."""
    folder = DataFolder.open("/data", files=files)
    log = Log(folder, clock=clock)
    log.recover_all()
    return log, folder.map("orders")


def fill(log: Log, stream: StreamMap, begin: int, count: int = 30) -> dict[str, list[bytes]]:
    """Append records of some keys; per key what was acknowledged, in order."""
    keys = [f"key-{number % 11}" for number in range(count)]
    datas = [b"%d" % number for number in range(begin, begin + count)]
    log.append(stream, Encoder(stream).encode_many(keys, datas))
    told: dict[str, list[bytes]] = {}
    for key, data in zip(keys, datas, strict=True):
        told.setdefault(key, []).append(data)
    return told


def joined(*parts: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    whole: dict[str, list[bytes]] = {}
    for part in parts:
        for key, datas in part.items():
            whole.setdefault(key, []).extend(datas)
    return whole


def stored(log: Log, stream: StreamMap) -> dict[str, list[bytes]]:
    """Per key what all shards hold, parents before children."""
    found: dict[str, list[bytes]] = {}
    for key, data in read_all(log.folder, stream):
        found.setdefault(key, []).append(data)
    return found


def folders(log: Log, stream: StreamMap) -> list[str]:
    names = log.folder.files.listdir(log.folder.stream_dir(stream))
    return sorted(name for name in names if name.isdigit() or name.endswith(".tmp"))


def made(fsync: str, files: Dying | None = None) -> tuple[Dying, ManualClock, Log, StreamMap]:
    files = files or Dying()
    clock = ManualClock()
    folder = DataFolder.open("/data", create=True, fsync=fsync, files=files)
    log = Log(folder, clock=clock)
    return files, clock, log, log.create_stream("orders", 3)


def rebooted(image: MemoryFiles) -> MemoryFiles:
    """The image as the next start of the machine finds it: no control page is of this boot."""
    streams = "/data/streams"
    for stream in (name for name in image.listdir(streams) if not name.startswith(".")):
        for shard in (name for name in image.listdir(f"{streams}/{stream}") if name.isdigit()):
            for name in image.listdir(f"{streams}/{stream}/{shard}"):
                if name == "ctl" and image.stat(path := f"{streams}/{stream}/{shard}/ctl").st_size == 4096:
                    fd = image.open(path, os.O_RDWR)
                    image.map_page(fd, 4096, True).cast("Q")[BOOT] = 1
                    image.close(fd)
    return image


def words(log: Log, stream: StreamMap, shard: int) -> memoryview:
    return Ctl.open(os.fspath(log.folder.shard_dir(stream, shard)), log.folder.files, write=True).words


# ---------------------------------------------------------------------- what it does


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_a_key_stand_in_the_parent_and_then_in_the_child(kind: str) -> None:
    _, clock, log, stream = made("interval")
    before = fill(log, stream, 0)
    new = carry_out(log, plan_of(kind, stream), clock=clock)
    after = fill(log, new, 100)

    assert stored(log, new) == joined(before, after)
    assert folders(log, new) == sorted(str(shard.index) for shard in new.shards)


def test_the_parents_take_nothing_more_and_the_next_number_is_a_childs() -> None:
    _, clock, log, stream = made("none")
    fill(log, stream, 0)
    last = words(log, stream, 1)[ARRIVAL]
    new = carry_out(log, plan_of("split", stream), clock=clock)

    with pytest.raises(StorageError, match="closed"):
        fill(log, stream, 50)
    ends = parse(new.shards[1].closed or 0)
    assert (ends.counter, ends.shard_index, ends.arrival_s) == (CLOSING_COUNTER, 1, clock.epoch_ms // 1000)
    assert [shard.created_s for shard in new.shards[3:]] == [clock.epoch_ms // 1000 + 1] * 2
    assert [words(log, new, child)[ARRIVAL] for child in (3, 4)] == [last, last]
    assert ShardReader(log.folder, new, 1).closed


def test_arrivals_in_a_child_never_go_back_behind_its_parents_even_where_the_clock_does() -> None:
    _, clock, log, stream = made("none")
    clock.advance(50_000)
    fill(log, stream, 0)
    last = max(words(log, stream, shard)[ARRIVAL] for shard in (1, 2))
    clock.epoch_ms -= 40_000
    new = carry_out(log, plan_of("merge", stream), clock=clock)
    fill(log, new, 100)

    assert words(log, new, 3)[ARRIVAL] == last
    assert parse(new.shards[1].closed or 0).arrival_s == last // 1000
    assert new.shards[3].created_s > last // 1000


def test_shards_between_two_rounds_of_a_scaling_are_closed_and_empty() -> None:
    _, clock, log, _ = made("none")
    stream = log.create_stream("four", 4)
    new = carry_out(log, resharding.scale(stream, 3, account="1", region="r"), clock=clock)

    for shard in new.shards[4:8]:
        reader = ShardReader(log.folder, new, shard.index)
        assert not shard.is_open
        assert reader.closed
        assert reader.tail == 0
    for shard in new.shards[8:]:
        assert not ShardReader(log.folder, new, shard.index).closed


def test_creation_seconds_are_never_used_twice_in_a_folder() -> None:
    _, _, log, stream = made("none")
    used = {stream.created_s}
    for _ in range(5):  # within one second of the clock
        new = carry_out(log, resharding.scale(stream, len(stream.open_shards) + 1, account="1", region="r"))
        seconds = {shard.created_s for shard in new.shards[len(stream.shards) :]}
        assert not seconds & used
        used |= seconds
        stream = new
    assert log.create_stream("other", 1).created_s not in used


def test_a_close_in_a_later_second_than_planned_takes_later_creation_seconds() -> None:
    _, clock, log, stream = made("none")
    reshard = Reshard(log, plan_of("split", stream), clock=clock)
    reshard.prepare()
    clock.advance(5_000)
    new = reshard.seal()
    assert [shard.created_s for shard in new.shards[3:]] == [clock.epoch_ms // 1000 + 1] * 2


def test_a_plan_for_an_older_map_is_not_carried_out() -> None:
    _, clock, log, stream = made("none")
    plan = plan_of("split", stream)
    carry_out(log, plan_of("merge", stream), clock=clock)
    with pytest.raises(StaleMap):
        carry_out(log, plan, clock=clock)
    assert folders(log, stream) == ["0", "1", "2", "3"]


def test_a_plan_for_a_deleted_stream_is_not_carried_out() -> None:
    _, clock, log, stream = made("none")
    reshard = Reshard(log, plan_of("split", stream), clock=clock)
    reshard.prepare()
    log.delete_stream("orders")
    with pytest.raises(ResourceNotFound):
        reshard.seal()
    reshard.abandon()
    assert reshard.phase is Phase.ABANDONED


def test_step_goes_through_the_phases_to_the_end() -> None:
    _, clock, log, stream = made("none")
    reshard = Reshard(log, plan_of("split", stream), clock=clock)
    seen = [reshard.phase]
    while reshard.step():
        seen.append(reshard.phase)
    assert [*seen, reshard.phase] == [Phase.NEW, Phase.PREPARED, Phase.PUBLISHED, Phase.DONE]
    assert reshard.step() is False


def test_who_appends_without_a_node_sees_the_new_map(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with writing(store.folder) as log:
        new = carry_out(log, resharding.split(store.stream, 0, None, account="1", region="r"))
    with writing(store.folder) as log:
        with pytest.raises(StaleMap):
            log.append(store.stream, store.encoder.encode_many(["k"], [b"old"]))
        encoder = Encoder(new)
        log.append(new, encoder.encode_many(["k"], [b"new"]))
    assert read_all(store.folder, new) == [("k", b"new")]


# ---------------------------------------------------------------------- what fails


@pytest.mark.parametrize(("call", "only"), [("replace", "map.json"), ("replace", "ctl"), ("fsync", "")])
def test_what_cannot_be_written_did_not_happen(tmp_path: Path, call: str, only: str) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    store.put(b"one")
    plan = resharding.split(store.stream, 0, None, account="1", region="r")
    files.errors, files.only = {call: 28}, only
    with pytest.raises(StorageError, match=r"change the shards of stream orders|map\.json"):
        carry_out(store.log, plan, clock=store.clock)
    files.errors = {}

    assert store.folder.map("orders") == store.stream
    assert folders(store.log, store.stream) == ["0"]
    store.put(b"two")
    new = carry_out(store.log, plan, clock=store.clock)
    assert read_all(store.folder, new) == [("k", b"one"), ("k", b"two")]


def test_a_parent_that_cannot_be_made_durable_stays_open_and_poisoned(tmp_path: Path) -> None:
    files = FaultyFiles()
    store = Store(tmp_path, files=files, fsync="interval")
    store.put(b"one")
    files.errors = {"fdatasync": 5}
    with pytest.raises(StorageError):
        carry_out(store.log, resharding.split(store.stream, 0, None, account="1", region="r"), clock=store.clock)
    assert words(store.log, store.stream, 0)[POISONED]
    assert folders(store.log, store.stream) == ["0"]
    files.errors = {}
    with pytest.raises(StorageError):  # for what is lost must not be behind a child
        carry_out(store.log, resharding.split(store.stream, 0, None, account="1", region="r"), clock=store.clock)
    assert store.folder.map("orders") == store.stream


def test_an_error_after_the_map_was_replaced_comes_too_late(tmp_path: Path) -> None:
    """Others may have read the new map by then: it stands."""
    store = Store(tmp_path, files=(files := FaultyFiles()), fsync="interval")
    reshard = Reshard(store.log, resharding.split(store.stream, 0, None, account="1", region="r"), clock=store.clock)
    reshard.prepare()
    replace = files.replace

    def replaced(source: str, target: str) -> None:
        replace(source, target)
        if target.endswith("map.json"):
            files.errors = {"fsync": 5}

    files.replace = replaced  # type: ignore[method-assign]  # a fake file system
    new = reshard.seal()
    files.errors = {}
    assert store.folder.map("orders") == new
    reshard.finish()


# ---------------------------------------------------------------------- deaths


def check(log: Log, stream: StreamMap, clock: ManualClock, before: dict[str, list[bytes]]) -> int:
    """It happened or it did not, nothing is half done, and the stream goes on. Returns the generation."""
    assert stream.generation in (1, 2)
    assert folders(log, stream) == sorted(str(shard.index) for shard in stream.shards)
    for shard in stream.shards:
        assert bool(words(log, stream, shard.index)[CLOSED]) is not shard.is_open
    assert stored(log, stream) == before
    more = fill(log, stream, 1000)
    plan = resharding.scale(stream, len(stream.open_shards) * 2, account="1", region="r")
    new = carry_out(log, plan, clock=clock)
    rest = fill(log, new, 2000)
    assert stored(log, new) == joined(before, more, rest)
    assert len({(shard.index, shard.created_s) for shard in new.shards}) == len(new.shards)
    return stream.generation


@pytest.mark.parametrize("fsync", ["none", "interval"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_between_any_two_file_calls_leaves_the_old_shards_or_the_new_ones(kind: str, fsync: str) -> None:
    seen: list[int] = []
    deaths = 0
    while True:
        files, clock, log, stream = made(fsync)
        before = fill(log, stream, 0)
        files.left = deaths
        try:
            carry_out(log, plan_of(kind, stream), clock=clock)
        except Dead:
            files.bury()
        else:
            files.bury()
            break
        clock.advance(10)
        seen.append(check(*opened(files.process(), clock), clock, before))
        deaths += 1
    assert deaths > 40
    assert seen == sorted(seen)  # old until the map is replaced, new from then on
    assert set(seen) == {1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_loss_of_power_at_any_moment_no_acknowledged_record_is_missing(kind: str) -> None:
    chance = random.Random(kind)
    deaths, seen = 0, set()
    while True:
        files, clock, log, stream = made("interval")
        before = fill(log, stream, 0)
        log.sync()
        files.left = deaths
        try:
            carry_out(log, plan_of(kind, stream), clock=clock)
        except Dead:
            files.bury()
        else:
            files.bury()
            break
        clock.advance(10)
        for image in (files.crash_image(chance), files.crash_image(chance, survives=0.0)):
            later = ManualClock(clock.epoch_ms)
            seen.add(check(*opened(rebooted(image), later), later, before))
        deaths += 1
    assert seen == {1, 2}


def test_after_a_loss_of_power_no_record_of_a_child_outlives_one_of_its_parent() -> None:
    """Parents are durable before the map is published, so what is missing is missing at the end of each key."""
    chance = random.Random(1)
    for _ in range(40):
        files, clock, log, stream = made("interval")
        before = fill(log, stream, 0)
        new = carry_out(log, plan_of("scale", stream), clock=clock)
        after = fill(log, new, 100)
        files.kill()
        recovered, found = opened(rebooted(files.crash_image(chance)), ManualClock(clock.epoch_ms))
        whole = joined(before, after)
        for key, datas in stored(recovered, found).items():
            assert datas == whole[key][: len(datas)]
            assert datas[: len(before.get(key, []))] == before.get(key, [])


def test_after_a_loss_of_power_a_childs_arrivals_do_not_go_back_behind_its_parents() -> None:
    files, clock, log, stream = made("interval")
    clock.advance(30_000)
    fill(log, stream, 0)
    last = max(words(log, stream, shard)[ARRIVAL] for shard in range(3))
    carry_out(log, plan_of("scale", stream), clock=clock)
    files.kill()
    earlier = ManualClock(clock.epoch_ms - 20_000)
    recovered, found = opened(rebooted(files.crash_image(random.Random(2), survives=0.0)), earlier)
    fill(recovered, found, 100)
    for shard in found.open_shards:
        reader = ShardReader(recovered.folder, found, shard.index)
        for block in reader.read(0):
            assert block.arrival_ms >= last


def test_what_is_published_has_happened_though_its_parents_cannot_be_closed_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "data", shards=3)

    def failing(_: Reshard) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(Reshard, "_close_parents", failing)
    new = carry_out(store.log, plan_of("split", store.stream), clock=store.clock)
    assert new.generation == store.folder.current(store.stream).generation == store.stream.generation + 1
    assert "parents not closed yet error=the disk is gone" in caplog.text
