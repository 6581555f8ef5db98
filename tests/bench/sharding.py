"""`shards`: what a batch costs in a stream of 1,000 shards, over one in a stream of 4: counted, not timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from kflow.broker.checkpoints import SlotFile
from kflow.broker.encode import Encoder, Part
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.clock import SystemClock
from kflow.declarations import MappingOptions
from kflow.interfaces import Invocation, Outcome
from kflow.lambda_.mapping import EventSourceMapping, Grant, StepKind
from kflow.lambda_.shapes import RecordShape
from tests.bench.figures import Figure
from tests.bench.running import data_folder

_FEW, _MANY = 4, 1000
_RECORDS = 100
_ROUNDS = 3


def shards(quick: bool) -> Iterator[Figure]:
    """System calls and bytes a batch, appended and delivered: 1,000 shards that are all in use, over 4."""
    many = 50 if quick else _MANY
    with data_folder() as folder:
        few_counts, many_counts = _measure(folder.path, _FEW), _measure(folder.path, many)
    for what, at in (("system calls", 0), ("bytes", 1)):
        yield Figure(
            bench=f"shards {many} against {_FEW}, {what}",
            value=many_counts[at],
            limit=few_counts[at],
            unit=f"{what} a batch",
            must=1.0,
            aim=None,
        )


class CountingFiles(Files):
    """File calls that are counted, and the bytes they move."""

    def __init__(self) -> None:
        self.calls = 0
        self.moved = 0

    def _count(self, call: Callable[..., Any], *arguments: Any) -> Any:
        self.calls += 1
        return call(*arguments)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """Counted."""
        return int(self._count(os.open, path, flags, mode))

    def close(self, fd: int) -> None:
        """Counted."""
        self._count(os.close, fd)

    def stat(self, path: Any) -> os.stat_result:
        """Counted."""
        found: os.stat_result = self._count(os.stat, path)
        return found

    def fstat(self, fd: int) -> os.stat_result:
        """Counted."""
        found: os.stat_result = self._count(os.fstat, fd)
        return found

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Counted, with its bytes."""
        found: bytes = self._count(os.pread, fd, length, offset)
        self.moved += len(found)
        return found

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """Counted, with its bytes."""
        written = int(self._count(os.pwrite, fd, data, offset))
        self.moved += written
        return written

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        """Counted, with its bytes."""
        written = int(self._count(os.pwritev, fd, buffers, offset))
        self.moved += written
        return written


class _Nothing:
    """A function that does nothing."""

    def invoke(self, invocation: Invocation) -> Outcome:
        """Run it."""
        del invocation
        return Outcome()


def _measure(path: Any, count: int) -> tuple[float, float]:
    """Calls and bytes of one batch, once everything has been used before."""
    files = CountingFiles()
    folder = DataFolder.open(path, files=files)
    store = Log(folder, clock=_Still(), open_shards=count)
    stream = store.create_stream(f"bench-{count}", count)
    slots = SlotFile.open(folder.path, f"touch-{count}", stream.id, files=files, create_for=range(count), sync=False)
    engines = [_engine(folder, stream, slots, shard) for shard in range(count)]
    parts = [_part(stream, shard) for shard in range(count)]
    for round_ in range(_ROUNDS + 1):
        if round_ == 1:
            files.calls = files.moved = 0
        for engine, part in zip(engines, parts, strict=True):
            store.append(stream, [part])
            engine.resume(Grant(1, os.getpid()))
            while engine.step(SystemClock().now()).kind is StepKind.AGAIN:
                continue
    batches = _ROUNDS * count
    store.close()
    return files.calls / batches, files.moved / batches


class _Still(SystemClock):
    """A clock of which no second passes: what is looked at once a second is no part of a batch."""

    def __init__(self) -> None:
        self._now = super().now()

    def now(self) -> Any:
        """The same moment again."""
        return self._now


def _engine(folder: DataFolder, stream: StreamMap, slots: SlotFile, shard: int) -> EventSourceMapping:
    return EventSourceMapping(
        options=MappingOptions(batch_size=_RECORDS),
        function=f"touch-{len(stream.shards)}",
        stream=stream.name,
        stream_id=stream.id,
        shard=shard,
        source=ShardReader(folder, stream, shard),
        slots=slots,
        invoker=_Nothing(),
        parking=ParkedStore(folder.path, files=folder.files, fsync="none"),
        shape=RecordShape(stream.created_s, shard),
    )


def _part(stream: StreamMap, shard: int) -> Part:
    """One block for a shard."""
    key = stream.shards[shard].start
    (part,) = Encoder(stream).encode_many(["k"] * _RECORDS, [bytes(100)] * _RECORDS, [key] * _RECORDS)
    return part
