"""The log under kills, full disks, failing disks, closed descriptors, many writers and clocks that step."""

from __future__ import annotations

import errno
import itertools
import os
import random
import select
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kflow import limits
from kflow.broker import ctl
from kflow.broker.encode import Encoder
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.shard import Shard
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from kflow.clock import ManualClock
from kflow.errors import KflowError, StorageError
from tests.storing import FaultyFiles, Store, everything, read_all

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SEGMENT_BYTES = 20_000
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolling must be as frequent a moment to die in as writing."""
    monkeypatch.setattr(limits, "SEGMENT_BYTES", SEGMENT_BYTES)
    monkeypatch.setattr("kflow.broker.shard.INDEX_BYTES", 2_000)


# ------------------------------------------------------------------------------------------------ producers that die


class Producer:
    """A forked process that puts without a node until it is killed, and tells each acknowledgement over a pipe.

    Every record is `<producer> <key> <serial>`, the serial rising within (producer, key).
    """

    def __init__(self, path: Path, name: int, life: Callable[[Log, StreamMap], None] | None = None) -> None:
        self.name = name
        self.acknowledged: set[bytes] = set()
        self._text = b""
        self._pipe, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._pipe)
                self._live(path, write, life)
            finally:
                os._exit(9)
        os.close(write)

    def _live(self, path: Path, write: int, life: Callable[[Log, StreamMap], None] | None) -> None:
        folder = DataFolder.open(path)
        stream = folder.map("orders")
        encoder = Encoder(stream)
        random_ = random.Random(self.name)
        serials: dict[int, int] = defaultdict(int)
        while True:
            keys, datas = [], []
            for _ in range(random_.choice((1, 3, 40))):
                key = random_.randrange(12)
                serials[key] += 1
                keys.append(f"k{key}")
                datas.append(b"%d %d %d" % (self.name, key, serials[key]) + b" " * random_.randrange(200))
            parts = encoder.encode_many(keys, datas)
            with writing(folder, DEADLINE_S) as log:
                if life is not None:
                    life(log, stream)
                log.append(stream, parts)
            os.write(write, b"".join(data.strip() + b"\n" for data in datas))

    def read(self, wanted: int) -> bool:
        """Read acknowledgements until there are so many; False where the process died before."""
        while len(self.acknowledged) < wanted:
            if not select.select([self._pipe], [], [], DEADLINE_S)[0]:
                raise AssertionError("the producer is stuck")
            more = os.read(self._pipe, 1 << 16)
            if not more:
                return False
            *lines, self._text = (self._text + more).split(b"\n")
            self.acknowledged.update(lines)
        return True

    def end(self) -> int:
        """Kill it, read what it had still told, and return its wait status."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        self.read(1 << 60)
        os.close(self._pipe)
        return status


def check(folder: DataFolder, stream: StreamMap, acknowledged: set[bytes]) -> None:
    """No acknowledged record is missing, none is there twice, and each key's records are in order."""
    found = read_all(folder, stream)
    stored = [data.strip() for _, data in found]
    assert acknowledged - set(stored) == set()
    assert len(stored) == len(set(stored))
    last: dict[tuple[int, int], int] = defaultdict(int)
    for data in stored:
        producer, key, serial = map(int, data.split())
        assert serial > last[producer, key], "overtaken within a key"
        last[producer, key] = serial
    for shard in stream.shards:
        numbers = counters(folder, stream, shard.index)
        assert all(a < b for a, b in itertools.pairwise(numbers))


def counters(folder: DataFolder, stream: StreamMap, index: int) -> list[int]:
    reader, offset, found = ShardReader(folder, stream, index), 0, []
    while blocks := reader.read(offset):
        for block in blocks:
            found += range(block.first_counter, block.first_counter + block.count)
        offset = blocks[-1].end
    return found


def test_no_acknowledged_record_is_missing_after_30_kills_from_outside(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=3)
    random_ = random.Random(1)
    acknowledged: set[bytes] = set()
    running = [Producer(tmp_path, name) for name in range(3)]
    for name in range(3, 33):
        victim = running.pop(random_.randrange(3))
        victim.read(random_.randrange(1, 60))
        victim.end()
        acknowledged |= victim.acknowledged
        running.append(Producer(tmp_path, name))
    for producer in running:
        producer.read(50)
        producer.end()
        acknowledged |= producer.acknowledged
    check(store.folder, store.stream, acknowledged)
    store.reopen()
    store.log.recover_all()
    check(store.folder, store.stream, acknowledged)
    store.put(b"99 99 1")


class DyingFiles(Files):
    """Kills the process in its nth `call`: before it, half-way through its bytes, or after it."""

    def __init__(self, call: str, when: str, nth: int) -> None:
        self._call, self._when, self._left = call, when, nth

    def _due(self, call: str) -> bool:
        if call != self._call:
            return False
        self._left -= 1
        return self._left == 0

    def pwritev(self, fd, buffers, offset):
        due = self._due("pwritev")
        if due and self._when == "before":
            die()
        if due and self._when == "half":
            whole = b"".join(buffers)
            os.pwrite(fd, whole[: len(whole) // 2], offset)
            die()
        written = os.pwritev(fd, buffers, offset)
        if due:
            die()
        return written

    def replace(self, source, target):
        due = self._due("replace")
        if due and self._when == "before":
            die()
        os.replace(source, target)
        if due:
            die()

    def ftruncate(self, fd, length):
        due = self._due("ftruncate")
        if due and self._when == "before":
            die()
        os.ftruncate(fd, length)
        if due:
            die()


class DyingWords:
    """A control page whose nth store of one word kills the process, before or after it."""

    def __init__(self, words: memoryview, word: int, when: str, nth: int) -> None:
        self._words, self._word, self._when, self._left = words, word, when, nth

    def __getitem__(self, word: int) -> int:
        return self._words[word]

    def __setitem__(self, word: int, value: int) -> None:
        due = False
        if word == self._word:
            self._left -= 1
            due = self._left == 0
        if due and self._when == "before":
            die()
        self._words[word] = value
        if due:
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_files(call: str, when: str, nth: int) -> Callable[[Log, StreamMap], None]:
    """A life that ends in a file call."""
    dying = DyingFiles(call, when, nth)

    def live(log: Log, stream: StreamMap) -> None:
        for shard in stream.shards:
            log.shard(stream, shard.index)._files = dying

    return live


def in_words(word: int, when: str, nth: int) -> Callable[[Log, StreamMap], None]:
    """A life that ends in a store into a control page."""

    def live(log: Log, stream: StreamMap) -> None:
        shard = log.shard(stream, 1)
        if not isinstance(shard._words, DyingWords):
            shard._words = DyingWords(shard._words, word, when, nth)

    return live


MOMENTS = [
    *[("pwritev", when, nth) for when in ("before", "half", "after") for nth in (1, 2, 9)],
    *[("replace", when, nth) for when in ("before", "after") for nth in (1, 2, 3)],
    *[("ftruncate", when, 1) for when in ("before", "after")],
    *[
        (word, when, nth)
        for word in (ctl.DIRTY, ctl.COUNTER, ctl.ARRIVAL, ctl.TAIL, ctl.SEGMENT)
        for when in ("before", "after")
        for nth in (1, 2, 5)
    ],
]
IN_A_ROW = 12
"""Deaths on one folder."""


def test_no_acknowledged_record_is_missing_after_a_kill_at_every_moment_of_an_append(tmp_path: Path) -> None:
    """Each of these processes is killed by itself, at one moment; the next one finds what it left."""
    died = 0
    for first in range(0, len(MOMENTS), IN_A_ROW):  # all is read after each kill: not too many on one folder
        died += put_and_die(tmp_path / str(first), first, MOMENTS[first : first + IN_A_ROW])
    assert died >= 47


def put_and_die(path: Path, first: int, moments: Sequence[tuple[Any, str, int]]) -> int:
    """On one folder, one process after the other; how many have died."""
    store = Store(path, shards=3)
    acknowledged: set[bytes] = set()
    died = 0
    for name, (what, when, nth) in enumerate(moments, first):
        if what == "ftruncate":  # only recovery cuts files: leave something to recover
            torn = Producer(path, 1000 + name, in_files("pwritev", "half", 1))
            torn.read(1 << 60)
            died += os.WIFSIGNALED(torn.end())
            acknowledged |= torn.acknowledged
        life = in_files(what, when, nth) if isinstance(what, str) else in_words(what, when, nth)
        producer = Producer(path, name, life)
        producer.read(20_000)  # it dies long before
        assert os.WTERMSIG(producer.end()) == signal.SIGKILL
        died += 1
        acknowledged |= producer.acknowledged
        check(store.folder, store.stream, acknowledged)
    store.reopen()
    store.log.recover_all()
    check(store.folder, store.stream, acknowledged)
    return died


# ------------------------------------------------------------------------------------------------ many writers


def test_eight_threads_and_two_processes_put_to_one_shard(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync="interval")
    calls = 25

    def put(folder: DataFolder, writer: int) -> None:
        encoder = Encoder(folder.map("orders"))
        for serial in range(1, calls + 1):
            part = encoder.encode_one(b"%d 0 %d" % (writer, serial), f"k{writer}")
            with writing(folder, DEADLINE_S) as log:
                log.append(encoder.map, [part])

    def put_from_threads(first: int) -> None:
        folder = DataFolder.open(tmp_path)
        threads = [threading.Thread(target=put, args=(folder, first + number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = []
    for process in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                put_from_threads(process * 8)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    put_from_threads(16)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    check(store.folder, store.stream, {b"%d 0 %d" % (w, s) for w in range(24) for s in range(1, calls + 1)})
    assert counters(store.folder, store.stream, 0) == list(range(1, 24 * calls + 1))


def test_a_fork_in_a_producer_whose_parent_is_killed_leaves_no_lock_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        folder = DataFolder.open(tmp_path)
        with writing(folder) as log:
            log.append(store.stream, [store.encoder.encode_one(b"parent", "k")])
            if os.fork() == 0:  # while the lock is held
                os.write(write, b"%d" % os.getpid())
                signal.pause()
            signal.pause()
    child = int(os.read(read, 20))
    try:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with writing(store.folder, DEADLINE_S) as log:  # the child lives, and does not keep the lock
            log.append(store.stream, [store.encoder.encode_one(b"other", "k")])
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(read)
        os.close(write)
    assert store.datas() == [b"parent", b"other"]


# ------------------------------------------------------------------------------------------------ failing disks

CALLS = {
    "open": errno.EIO,
    "pread": errno.EIO,
    "pwrite": errno.ENOSPC,
    "pwritev": errno.ENOSPC,
    "ftruncate": errno.EIO,
    "replace": errno.ENOSPC,
    "rename": errno.EIO,
    "unlink": errno.EIO,
    "mkdir": errno.ENOSPC,
    "listdir": errno.EIO,
    "fsync": errno.EIO,
    "fdatasync": errno.EIO,
    "statvfs": errno.EIO,
}


class NthFails(Files):
    """Every call counts; the nth fails, as disks do: with an error, or, where `short`, by writing only half."""

    def __init__(self, nth: int, *, short: bool = False) -> None:
        self.nth, self.short, self.count, self.failed = nth, short, 0, ""

    def due(self, call: str) -> bool:
        self.count += 1
        if self.count != self.nth:
            return False
        self.failed = call
        return True


def _failing(call: str, code: int) -> Callable[..., object]:
    real = getattr(FILES, call)

    def invoke(self: NthFails, *arguments: object, **options: object) -> object:
        if self.due(call):
            if self.short and call == "pwritev":
                fd, buffers, offset = arguments
                whole = b"".join(buffers)  # type: ignore[call-overload]
                return os.pwrite(fd, whole[: len(whole) // 2], offset)  # type: ignore[call-overload]
            if self.short and call == "pwrite":
                fd, data, offset = arguments
                return os.pwrite(fd, data[: len(data) // 2], offset)  # type: ignore[index, call-overload]
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    return invoke


for _call, _code in CALLS.items():
    setattr(NthFails, _call, _failing(_call, _code))


def work(folder: DataFolder, clock: ManualClock) -> tuple[list[bytes], list[str]]:
    """A little of everything, going on after each error; what was acknowledged, and the errors as they were said."""
    acknowledged: list[bytes] = []
    said: list[str] = []
    log = Log(folder, clock=clock, open_shards=1)

    def trying(deed: Callable[[], object]) -> None:
        try:
            deed()
        except KflowError as error:
            said.append(f"{type(error).__name__}: {error}")

    for number in range(24):
        data = b"%d " % number + bytes(1500)

        def put(data: bytes = data) -> None:
            stream = folder.map("orders")
            log.append(stream, [Encoder(stream).encode_one(data, "k")])
            acknowledged.append(data)

        trying(put)
        clock.advance(1000)
        if number % 5 == 4:
            trying(log.sync)
        if number % 8 == 7:
            trying(lambda: log.create_stream("other", 2))
            trying(lambda: log.retain(clock.now()))
            trying(lambda: log.reset_stream("other"))
            trying(lambda: log.delete_stream("other"))
            log.close()
            trying(log.recover_all)
        if number % 6 == 5:
            trying(lambda: everything(ShardReader(folder, folder.map("orders"), 0)))
    log.close()
    return acknowledged, said


def count_calls(path: Path) -> int:
    Store(path)
    files = NthFails(-1)
    folder = DataFolder.open(path, files=files, fsync="interval")
    begun = files.count
    acknowledged, said = work(folder, ManualClock())
    assert said == []
    assert len(acknowledged) == 24
    return files.count - begun


@pytest.mark.parametrize("short", [False, True])
def test_whichever_file_call_fails_is_said_and_costs_nothing_that_was_acknowledged(
    tmp_path: Path, short: bool, caplog: pytest.LogCaptureFixture
) -> None:
    total = count_calls(tmp_path / "count")
    random_ = random.Random(7)
    chosen = sorted(random_.sample(range(1, total), 120))
    failed = set()
    for nth in chosen:
        path = tmp_path / str(nth)
        Store(path)
        files = NthFails(-1, short=short)
        folder = DataFolder.open(path, files=files, fsync="interval")
        files.nth = files.count + nth
        caplog.clear()
        acknowledged, said = work(folder, ManualClock())
        if files.failed in ("fdatasync", "fsync", "open", "listdir"):
            # A failed sync stops the shard until it is opened anew; `work` does so now and then.
            assert len(acknowledged) >= 16, said
        else:
            assert len(acknowledged) >= 22, said
        assert said or caplog.records, f"nobody was told that {files.failed} failed"
        failed.add(files.failed)
        folder = DataFolder.open(path)
        log = Log(folder)
        log.recover_all()
        assert [data for _, data in read_all(folder, folder.map("orders"))] == acknowledged
        log.close()
    assert failed >= {"open", "pread", "pwrite", "pwritev", "replace"}


# ------------------------------------------------------------------------------------------------ clocks, descriptors


def test_a_clock_that_steps_back_and_forward_keeps_arrivals_in_order_and_loses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, retention_hours=24)
    random_ = random.Random(3)
    datas = []
    for number in range(300):
        store.clock.advance(random_.randrange(2_000))
        if number % 10 == 9:
            store.clock.epoch_ms += random_.choice((-1, 1)) * random_.randrange(90_000, 40 * 3_600_000)
        datas.append(b"%d" % number + bytes(500))
        store.put(datas[-1])
        if number % 5 == 4:
            store.log.retain(store.clock.now())
    assert store.datas() == datas  # monotonic time has run for minutes only
    reader, offset, arrivals = store.reader(), 0, []
    while blocks := reader.read(offset):
        arrivals += [block.arrival_ms for block in blocks]
        offset = blocks[-1].end
    assert arrivals == sorted(arrivals)
    for arrival in set(arrivals):
        position = reader.seek_time(arrival)
        assert position.offset == next(offset for offset, found in _blocks(reader) if found >= arrival)


def _blocks(reader: ShardReader) -> list[tuple[int, int]]:
    offset, found = 0, []
    while blocks := reader.read(offset):
        found += [(block.offset, block.arrival_ms) for block in blocks]
        offset = blocks[-1].end
    return found


def test_user_code_that_closes_all_descriptors_and_opens_its_own_breaks_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, shards=4, fsync="interval")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            folder = DataFolder.open(tmp_path)
            encoder = Encoder(folder.map("orders"))
            users: list[int] = []
            for turn in range(1, 21):
                datas = [b"0 %d %d" % (key, turn) for key in range(12)]
                parts = encoder.encode_many([f"k{key}" for key in range(12)], datas)
                with writing(folder, DEADLINE_S) as log:
                    log.append(encoder.map, parts)
                    if turn % 4 == 0:
                        log.sync()
                for fd in users:
                    assert os.fstat(fd).st_size == 0, "somebody wrote into the user's file"
                os.closerange(3, 256)
                users = [os.open(tmp_path / f"users.{turn}.{number}", os.O_RDWR | os.O_CREAT) for number in range(20)]
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    check(store.folder, store.stream, {b"0 %d %d" % (key, turn) for key in range(12) for turn in range(1, 21)})


def test_a_full_disk_stops_puts_and_nothing_else(tmp_path: Path) -> None:
    class Full(Files):
        full = False

        def pwritev(self, fd, buffers, offset):
            if self.full:
                whole = b"".join(buffers)
                return os.pwrite(fd, whole[:100], offset)  # the first page still fits
            return os.pwritev(fd, buffers, offset)

    files = Full()
    store = Store(tmp_path, files=files)
    store.put(b"before")
    for _ in range(3):
        files.full = True
        for _ in range(3):
            with pytest.raises(StorageError, match="the disk is full"):
                store.put(bytes(1000))
        assert store.datas()[0] == b"before"
        files.full = False
        store.put(b"after")
    assert store.datas() == [b"before", b"after", b"after", b"after"]


class _HeldAfterWriting(FaultyFiles):
    """The next block is written, and its writer does not learn of that before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.sticks = False
        self.written = threading.Event()
        self.gate = threading.Event()

    def pwritev(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        count: int = super().pwritev(fd, buffers, offset)
        if self.sticks:
            self.sticks = False
            self.written.set()
            assert self.gate.wait(30)
        return count


def test_a_shard_that_is_evicted_in_the_middle_of_an_append_is_not_opened_twice(tmp_path: Path) -> None:
    # A second one would take the append under way for that of a dead writer, and cut what it wrote.
    files = _HeldAfterWriting()
    folder = DataFolder.open(tmp_path / "d", create=True, files=files)
    log = Log(folder, open_shards=1)
    stream = log.create_stream("orders", 2)
    part = Encoder(stream).encode_one(b"one", "key")
    files.sticks = True
    thread = threading.Thread(target=lambda: log.append(stream, [part]))
    thread.start()
    try:
        assert files.written.wait(30)
        log.shard(stream, 1 - part.shard)  # takes the only place
        assert log.shard(stream, part.shard).tail == 0
    finally:
        files.gate.set()
        thread.join()
    reader = ShardReader(folder, stream, part.shard)
    assert [block.count for block in reader.read(0)] == [1]


def test_two_threads_open_a_shard_once(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path / "d", create=True)
    Log(folder).create_stream("orders", 1)
    for _ in range(20):
        log = Log(folder)
        stream = folder.map("orders")
        begin = threading.Barrier(4)
        found: list[Shard] = []

        def look(log: Log = log, begin: threading.Barrier = begin, found: list[Shard] = found) -> None:
            begin.wait(30)
            found.append(log.shard(stream, 0))  # noqa: B023  # the same stream in every round

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len({id(each) for each in found}) == 1
