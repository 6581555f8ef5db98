"""`always`: puts that are answered when they are durable, over a bare loop of writes and syncs."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kflow import put
from kflow.broker import handshake, linking
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.runtime.intake.ingest import Ingest
from kflow.runtime.lifeline import die_with_parent
from kflow.runtime.loop import Loop
from tests.bench.figures import Figure, Pair, interleave, median, median_pair
from tests.bench.running import RECORD_BYTES, create_stream, data_folder, wait_for

_STREAM = "bench"
_BLOCK_BYTES = 64 + 7 + 6 + RECORD_BYTES
_KINDS = (
    # putters, puts of each, acknowledgements per sync that must be reached
    (1, 200, None),
    (8, 100, 3.5),
    (64, 30, 20.0),
)


def always(quick: bool) -> Iterator[Figure]:
    """1, 8, 64 putters that wait for each answer: records a second over bare pwrite + fdatasync of the same blocks."""
    with data_folder(fsync="always") as folder:
        create_stream(folder, _STREAM, 1)
        with _node(folder) as syncs:
            for putters, count, shared in _KINDS:
                count = 3 if quick else count  # noqa: PLW2901
                per_sync: list[float] = []

                def ours(putters: int = putters, count: int = count, found: list[float] = per_sync) -> float:
                    before = syncs[0]
                    rate = _rate(putters, count)
                    found.append(putters * count / (syncs[0] - before))
                    return rate

                pair: Pair = median_pair(interleave(ours, lambda: _bare_rate(folder), 1 if quick else 7))
                yield Figure(
                    bench=f"always, waiting putters: {putters}",
                    value=pair.ours,
                    limit=pair.limit,
                    unit="records/s",
                    must=0.8,
                    aim=None,
                    more_is_better=True,
                )
                if shared is not None:
                    yield Figure(
                        bench=f"always, waiting putters: {putters}, shared",
                        value=median(per_sync),
                        unit="answers/sync",
                        must=shared,
                        aim=None,
                        more_is_better=True,
                    )


class CountingFiles(Files):
    """Counts the syncs of files in memory that another process sees."""

    def __init__(self, count: memoryview) -> None:
        self._count = count

    def fdatasync(self, fd: int) -> None:
        """Counted; threads of one process add to it, so a few may be missed, never invented."""
        os.fdatasync(fd)
        self._count[0] += 1


@contextmanager
def _node(folder: DataFolder) -> Iterator[memoryview]:
    """What takes puts in a node, in a process of its own; the number of its syncs so far."""
    count = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            die_with_parent(parent)
            _serve(DataFolder.open(folder.path, files=CountingFiles(count)))
            code = 0
        finally:
            os._exit(code)
    wait_for(folder.socket_path.exists, "the node's socket")
    try:
        yield count
    finally:
        linking.call(folder.path, "stop")
        os.waitpid(pid, 0)


def _serve(folder: DataFolder) -> None:
    loop, store = Loop(), Log(folder)

    def control(_connection: object, _request: int, message: dict[str, Any]) -> Any:
        if message["op"] == "stop":
            loop.stop()
        return {}

    lock = folder.writer_lock()
    lock.acquire(10, announce=True)
    ingest = Ingest(
        store, loop=loop, on_append=lambda *_: None, on_control=control, hello=handshake.own_hello(folder.id)
    )
    ingest.listen(folder.make_socket_path())
    loop.run()
    ingest.close()
    store.close()
    lock.release()


def _rate(putters: int, count: int) -> float:
    """Records a second, all putters together; they begin at the same time."""
    gate, opened = os.pipe()
    pids = [_putter(gate, opened, count, number) for number in range(putters)]
    os.close(gate)
    time.sleep(0.2)  # for them to have connected
    begin = time.perf_counter()
    os.close(opened)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    spent = time.perf_counter() - begin
    if any(statuses):
        raise RuntimeError("a putter failed")
    return putters * count / spent


def _putter(gate: int, opened: int, count: int, number: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(opened)
            data, key = bytes(RECORD_BYTES), f"user-{number % 10}"
            put(_STREAM, data, partition_key=key)
            os.read(gate, 1)
            for _ in range(count):
                put(_STREAM, data, partition_key=key)
            code = 0
        finally:
            os._exit(code)
    return pid


def _bare_rate(folder: DataFolder, count: int = 200) -> float:
    """Blocks a second of a loop that writes one and syncs it."""
    block: Sequence[bytes] = (bytes(_BLOCK_BYTES),)
    fd = os.open(folder.path / "bare", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        begin = time.perf_counter()
        for number in range(count):
            os.pwritev(fd, block, number * _BLOCK_BYTES)
            os.fdatasync(fd)
        return count / (time.perf_counter() - begin)
    finally:
        os.close(fd)
