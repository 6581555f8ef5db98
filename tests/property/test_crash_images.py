"""The log under loss of power: any subset of what was not synced may be gone, again and again.

A machine lives on a disk in memory. It appends, rolls, syncs, fails to write, fails to sync, is killed; then it loses
its power, and another one begins with what may be left. Whatever happened: nothing that was acknowledged as durable is
missing, no offset and no counter is ever issued twice, and all readers agree.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kflow import limits
from kflow.broker import ctl, damage, streammap, streams
from kflow.broker import segment as segments
from kflow.broker.checkpoints import Slot, SlotFile
from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.clock import ManualClock
from kflow.errors import NotDurable, StorageError
from kflow.records import Position
from kflow.testing.disk import Disk
from kflow.testing.memory import MemoryFiles

PATH = "/data"
FUNCTION = "consumer"
Found = tuple[int, bytes]


class FailingDisk(MemoryFiles):
    """A process whose writes may be short, and whose syncs may fail, once each.

    A sync that fails loses what it was to write, as the kernel does: another one would find nothing to do.
    """

    __slots__ = ("fail_sync", "short")

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(disk)
        self.short: int | None = None
        self.fail_sync = False

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        content = b"".join(buffers)
        if self.short is not None:
            length, self.short = self.short, None
            if not length:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if length >= len(content):  # all of it was written, and nobody knows
                super().pwritev(fd, (content,), offset)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            content = content[:length]
        return super().pwritev(fd, (content,), offset)

    def fdatasync(self, fd: int) -> None:
        if self.fail_sync:
            self.fail_sync = False
            self._opened[fd].inode.pending.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(fd)


class Machine(RuleBasedStateMachine):
    """One shard and one consumer, over many lives of a machine."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(limits, "SEGMENT_BYTES", 3000)
        self.patch.setattr("kflow.broker.shard.INDEX_BYTES", 500)
        self.patch.setattr(streams, "write_catalogue", lambda folder: None)  # SQLite goes around the disk in memory
        self.clock = ManualClock()
        self.files = FailingDisk()
        self.serial = 0
        self.boots = 1
        self.issued: dict[int, bytes] = {}  # by counter, whatever became of it
        self.durable: dict[int, bytes] = {}
        self.unsynced: dict[int, bytes] = {}
        self.refused: dict[int, bytes] = {}
        self.reached = (0, 0)  # no offset and no counter below these may be issued any more
        self.positions: list[tuple[Position, int]] = [(Position(0, 0), 0)]  # where readers stood, and the next counter

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(fsync=st.sampled_from(["interval", "always", "always"]))
    def begin(self, fsync: str) -> None:
        self.fsync = fsync
        self._boot()
        folder = DataFolder.open(PATH, create=True, fsync=fsync, files=self.files)
        self._open(folder)
        self.stream = self.log.create_stream("orders", 1)
        self.encoder = Encoder(self.stream)
        with self._slots(create=True) as slots:
            slots.load(0)

    # ---------------------------------------------------------------- what may happen

    @rule(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=6), embeds=st.booleans())
    def append(self, sizes: list[int], embeds: bool) -> None:
        """Append; perhaps an image of the shard's own blocks, as somebody who stores a log in a log would."""
        datas = []
        for size in sizes:
            self.serial += 1
            datas.append(b"%08d" % self.serial + (self._stored_bytes()[:size] if embeds else bytes(size)))
        (part,) = self.encoder.encode_many(["k"] * len(datas), datas)
        shard = self.log.shard(self.stream, 0)
        try:
            counter, _ = shard.append(part.body, part.count, part.crc)
        except StorageError:
            return
        begin = shard.tail - len(part.body) - 64
        assert begin >= self.reached[0], "an offset was issued twice"
        assert counter >= self.reached[1], "a counter was issued twice"
        self.reached = (shard.tail, counter + len(datas))
        records = {counter + index: data for index, data in enumerate(datas)}
        self.issued |= records
        self.unsynced |= records

    @rule(size=st.integers(0, 900), length=st.one_of(st.integers(0, 300), st.just(2000)))
    def a_write_fails(self, size: int, length: int) -> None:
        """Nothing of it may ever be read, unless the power fails before anything else is tried."""
        self.files.short = length
        self.serial += 1
        data = b"%08d refused" % self.serial + bytes(size)
        (part,) = self.encoder.encode_many(["k"], [data])
        shard = self.log.shard(self.stream, 0)
        try:
            counter, _ = shard.append(part.body, part.count, part.crc)
        except StorageError:
            self.refused[shard.next_counter] = data
        else:
            raise AssertionError(f"{counter} was not stored")
        self.files.short = None

    @rule()
    def sync(self) -> None:
        shard = self.log.shard(self.stream, 0)
        try:
            shard.make_durable()
        except StorageError:
            return
        assert (shard.readable_end, shard.readable_counter) == (shard.tail, shard.next_counter)
        self.durable |= self.unsynced
        self.unsynced.clear()

    @rule()
    def a_sync_fails(self) -> None:
        shard = self.log.shard(self.stream, 0)
        if shard.is_unsynced:
            self.files.fail_sync = True
            with pytest.raises(StorageError):
                shard.make_durable()
            assert not shard.is_unsynced
            with pytest.raises(StorageError, match="a sync of its files failed"):
                shard.make_durable()
        self.files.fail_sync = False

    @rule()
    def the_process_is_killed(self) -> None:
        self._succeed(self.files.process())
        self.files.kill()
        self._open(DataFolder.open(PATH, files=self.files))
        self.log.recover_all(threads=1)

    @rule()
    def the_shard_is_opened_anew(self) -> None:
        self.log.close()
        self._open(self.log.folder)

    @rule()
    def the_consumer_reads_on(self) -> None:
        """Its checkpoint may reach the disk before the records that it has read."""
        shard = self.log.shard(self.stream, 0)
        tail, counter = Position(shard.readable_end, 0), shard.readable_counter
        assert ShardReader(self.log.folder, self.stream, 0).tail == shard.readable_end
        self.positions.append((tail, counter))
        with self._slots() as slots:
            slots.store(0, 0, Slot(checkpoint=tail, checkpoint_counter=counter))

    @rule(milliseconds=st.integers(1, 3 * 3_600_000))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)

    @rule(seed=st.integers(0, 1 << 32), survives=st.sampled_from([None, None, None, 0, 1]))
    def the_power_fails(self, seed: int, survives: float | None) -> None:
        self._succeed(self.files.crash_image(Random(seed), survives=survives))
        self._boot()
        self._open(DataFolder.open(PATH, files=self.files))
        self.log.recover_all(threads=1)
        self.unsynced.clear()
        for counter, data in self._read():
            if self.refused.get(counter) == data:
                self.issued.setdefault(counter, data)
            self.durable.setdefault(counter, data)  # it was found on the disk
        self.refused.clear()

    @precondition(lambda self: self.boots > 1)
    @rule(seed=st.integers(0, 1 << 32), calls=st.integers(1, 60))
    def the_power_fails_and_again_in_mid_recovery(self, seed: int, calls: int) -> None:
        random = Random(seed)
        files = self.files.crash_image(random)
        self._boot()

        class Interrupted(Exception):
            pass

        class Dying(FailingDisk):
            __slots__ = ("left",)

            def _count(self) -> None:
                self.left -= 1
                if self.left < 0:
                    raise Interrupted

            def pwrite(self, fd: int, content: bytes, offset: int) -> int:
                self._count()
                return super().pwrite(fd, content, offset)

            def ftruncate(self, fd: int, length: int) -> None:
                self._count()
                super().ftruncate(fd, length)

            def fsync(self, fd: int) -> None:
                self._count()
                super().fsync(fd)

            def rename(self, source: str, target: str) -> None:
                self._count()
                super().rename(source, target)

            replace = rename

        dying = Dying(files.disk)
        dying.left = calls
        with contextlib.suppress(Interrupted):
            Log(DataFolder.open(PATH, files=dying), clock=self.clock).recover_all(threads=1)
        self._succeed(FailingDisk(files.disk))
        self.the_power_fails(seed, random.choice((None, 0, 1)))

    @precondition(lambda self: self.fsync == "always")
    @rule()
    def what_can_be_read_with_always_survives_the_worst(self) -> None:
        found = self._read()
        boots = self.boots
        self.boots = 1 << 40
        image = self.files.crash_image(Random(0), survives=0)
        folder = DataFolder.open(PATH, files=image)
        Log(folder, clock=self.clock).recover_all(threads=1)
        assert read(ShardReader(folder, self.stream, 0))[: len(found)] == found
        self.boots = boots

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def what_was_durable_is_there_and_nothing_that_was_never_stored(self) -> None:
        if not hasattr(self, "stream"):
            return
        found = self._read()
        counters = [counter for counter, _ in found]
        assert counters == sorted(set(counters))
        assert {counter: data for counter, data in found if counter in self.durable} == self.durable
        for counter, data in found:
            assert self.issued[counter] == data

    @invariant()
    def wherever_a_reader_stood_it_goes_on_with_what_is_left(self) -> None:
        if not hasattr(self, "stream"):
            return
        found = self._read()
        for position, counter in self.positions:
            assert self._read(position.offset) == [entry for entry in found if entry[0] >= counter]

    @invariant()
    def what_counters_leave_out_is_known(self) -> None:
        """`issued` may miss records that no page and no file has ever told of, and never makes some up."""
        if not hasattr(self, "stream"):
            return
        reader = ShardReader(self.log.folder, self.stream, 0)
        for first, stop in itertools.pairwise(sorted(counter for _, counter in self.positions)):
            told = reader.issued(first, stop)
            assert sum(first <= counter < stop for counter in self.durable) <= told <= stop - first
            assert told < 1 << 30

    # ---------------------------------------------------------------- helpers

    def _boot(self) -> None:
        self.boots += 1
        self.patch.setattr("kflow.broker.ctl.boot_id", lambda: self.boots)

    def _succeed(self, files: MemoryFiles) -> None:
        """Another machine, or process, on this disk; what its predecessor has mapped it never sees again."""
        self.log.close()
        if files.disk is not self.files.disk:
            self.files.kill()
        self.files = files if isinstance(files, FailingDisk) else FailingDisk(files.disk)

    def _open(self, folder: DataFolder) -> None:
        self.log = Log(folder, clock=self.clock)

    def _slots(self, *, create: bool = False) -> _Slots:
        return _Slots(self.files, self.stream.id, create=create)

    def _read(self, offset: int = 0) -> list[Found]:
        return read(ShardReader(self.log.folder, self.stream, 0), offset)

    def _stored_bytes(self) -> bytes:
        path = f"{self.log.folder.shard_dir(self.stream, 0)}"
        names = sorted(name for name in self.files.listdir(path) if name.endswith(".seg"))
        return self.files.read_bytes(f"{path}/{names[-1]}")[64:] if names else b""


def read(reader: ShardReader, offset: int = 0) -> list[Found]:
    """Counter and payload of every record from an offset on."""
    found: list[Found] = []
    while blocks := reader.read(offset, 2000):
        for block in blocks:
            if block.count:
                found += enumerate(block.columns()[0], block.first_counter)
        offset = blocks[-1].end
    return found


class _Slots:
    """The consumer's slots, opened for a moment."""

    def __init__(self, files: MemoryFiles, stream_id: int, *, create: bool) -> None:
        wanted = [0] if create else []
        self._slots = SlotFile.open(PATH, FUNCTION, stream_id, files=files, create_for=wanted, sync=True)

    def __enter__(self) -> SlotFile:
        return self._slots

    def __exit__(self, *failure: object) -> None:
        self._slots.close()


TestCrashImages = Machine.TestCase
TestCrashImages.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def machine(monkeypatch: pytest.MonkeyPatch, fsync: str) -> tuple[FailingDisk, Log, Encoder]:
    """A machine with one shard."""
    monkeypatch.setattr(streams, "write_catalogue", lambda folder: None)
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 1000)
    files = FailingDisk()
    log = Log(DataFolder.open(PATH, create=True, fsync=fsync, files=files), clock=ManualClock())
    return files, log, Encoder(log.create_stream("orders", 1))


def append(log: Log, encoder: Encoder, *datas: bytes) -> int:
    """Append one block; its first counter."""
    ((counter, _),) = log.append(encoder.map, encoder.encode_many(["k"] * len(datas), datas))
    return counter


def after(monkeypatch: pytest.MonkeyPatch, image: MemoryFiles, encoder: Encoder) -> tuple[Log, list[Found]]:
    """The next life of a machine, and what it finds."""
    monkeypatch.setattr("kflow.broker.ctl.boot_id", lambda: id(image))
    folder = DataFolder.open(PATH, files=image)
    log = Log(folder, clock=ManualClock())
    log.recover_all(threads=1)
    return log, read(ShardReader(folder, encoder.map, 0))


def test_what_was_synced_over_several_segments_survives_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    files, log, encoder = machine(monkeypatch, "always")
    for number in range(9):
        append(log, encoder, bytes([number]) * 400)
        if number % 4 == 3:
            log.sync()
    log.sync()
    assert len(segments.bases(str(log.folder.shard_dir(encoder.map, 0)), files)) > 3
    _, found = after(monkeypatch, files.crash_image(Random(0), survives=0), encoder)
    assert found == [(number + 1, bytes([number]) * 400) for number in range(9)]


@pytest.mark.parametrize("fills", [0, 2])
def test_a_refused_block_never_comes_back_where_another_one_was_stored(
    monkeypatch: pytest.MonkeyPatch, fills: int
) -> None:
    """All of it had been written before the write failed; and its place was issued again."""
    files, log, encoder = machine(monkeypatch, "interval")
    stored = [(append(log, encoder, bytes([number]) * 400), bytes([number]) * 400) for number in range(fills)]
    log.sync()
    files.short = 2000
    with pytest.raises(StorageError):
        append(log, encoder, b"refused" + bytes(500))
    stored.append((append(log, encoder, b"stored"), b"stored"))
    stored.append((append(log, encoder, b"another"), b"another"))
    for seed in range(60):
        _, found = after(monkeypatch, files.crash_image(Random(seed)), encoder)
        assert set(found) <= set(stored)


def test_blocks_of_an_earlier_life_of_a_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may show in a new file what lay in its place before: blocks of this shard, at these very offsets."""
    files, log, encoder = machine(monkeypatch, "interval")
    append(log, encoder, b"one")
    append(log, encoder, b"two")
    log.sync()
    path = segments.segment_path(str(log.folder.shard_dir(encoder.map, 0)), 0)
    stale = files.read_bytes(path)
    log.delete_stream("orders")
    files.mkdir(os.path.dirname(os.path.dirname(path)))
    files.mkdir(os.path.dirname(path))
    stream = encoder.map
    ctl.Ctl.create(os.path.dirname(path), files, stream_id=stream.id, shard=0)
    streammap.store(f"{os.path.dirname(os.path.dirname(path))}/map.json", stream, files, sync=True)
    log = Log(DataFolder.open(PATH, files=files), clock=ManualClock())
    append(log, encoder, b"ONE")
    fd = files.open(path, os.O_RDWR)
    size = files.fstat(fd).st_size
    files.pwrite(fd, stale[size:], size)
    files.close(fd)
    _, found = after(monkeypatch, files.crash_image(Random(0), survives=1), encoder)
    assert found == [(1, b"ONE")]


def test_after_a_failed_sync_nothing_counts_as_durable_that_was_not_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, log, encoder = machine(monkeypatch, "always")
    for number in range(5):
        append(log, encoder, bytes([number]) * 400)
        if number == 1:
            log.sync()
    files.fail_sync = True
    with pytest.raises(NotDurable):
        log.sync()
    log.close()
    log = Log(DataFolder.open(PATH, files=files), clock=ManualClock())
    log.recover_all(threads=1)
    assert log.shard(encoder.map, 0).is_durable
    _, found = after(monkeypatch, files.crash_image(Random(0), survives=0), encoder)
    assert found == [(number + 1, bytes([number]) * 400) for number in range(5)]


def test_the_range_that_was_lost_is_listed_with_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    files, log, encoder = machine(monkeypatch, "interval")
    folder, stream = log.folder, encoder.map
    append(log, encoder, b"a", b"b", b"c")
    log.sync()
    tail = log.shard(stream, 0).tail
    append(log, encoder, b"d", b"e")
    fd = files.open(f"{folder.shard_dir(stream, 0)}/ctl", os.O_RDONLY)
    files.fsync(fd)  # the page was written back, the records were not
    files.close(fd)

    image = files.crash_image(Random(0), survives=0)
    log, _ = after(monkeypatch, image, encoder)
    folder = log.folder
    (entry,) = damage.read(str(folder.shard_dir(stream, 0)), image)
    assert (entry.start, entry.first_counter, entry.records, entry.reason) == (tail, 4, 2, "power loss")
    assert entry.at_ms == ManualClock().epoch_ms
    append(log, encoder, b"f")
    reader = ShardReader(folder, stream, 0)
    (block,) = reader.read(tail)
    assert (block.offset, block.first_counter) == (entry.end, entry.next_counter)
    assert reader.issued(4, block.first_counter + 1) == 3
    assert ctl.Ctl.open(f"{folder.shard_dir(stream, 0)}", image, write=False).is_current
