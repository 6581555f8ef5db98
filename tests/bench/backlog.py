"""`backlog`: what a record costs, and how much memory the worker takes, where ten million records wait behind it."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kflow import put_many
from kflow.broker.folder import DataFolder
from tests.bench.figures import Figure, interleave, median_pair
from tests.bench.running import Node, Record, create_stream, data_folder, forget_checkpoints, records, wait_for

_RECORDS_PER_CALL = 8_000
_CALLS_BEHIND = 1_250
_CALLS_MEASURED = 25
_BYTES_PER_RECORD = 130
_SPARE_BYTES = 2 << 30

_HANDLER = """\
import mmap, os, time
from kflow import Batch, on_stream

_file = os.open("{out}", os.O_RDWR)
_stamps = memoryview(mmap.mmap(_file, mmap.PAGESIZE)).cast("Q")
_seen = 0


@on_stream("{stream}", batch_size=100)
def touch(batch: Batch):
    # CPU and records at the first invocation, then, once enough were handed over, CPU, records, and peak memory in KiB
    global _seen
    if not _seen:
        _stamps[0] = time.process_time_ns()
    elif _seen >= {enough} and not _stamps[3]:
        _stamps[1] = time.process_time_ns()
        _stamps[2] = _seen
        with open("/proc/self/status") as status:
            _stamps[3] = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    for record in batch:
        record.data
        record.partition_key
    _seen += len(batch)
"""


class _Cost(NamedTuple):
    """Of a worker: CPU a record in nanoseconds, peak resident memory in MiB."""

    cpu_ns: float
    memory_mib: float


def backlog(quick: bool) -> Iterator[Figure]:
    """CPU a record and the worker's memory with 10 M records behind, over a stream with nothing behind."""
    behind, measured, pairs = (20, 2, 1) if quick else (_CALLS_BEHIND, _CALLS_MEASURED, 15)
    with data_folder(fsync="none") as folder:
        _check_space(folder.path, behind * _RECORDS_PER_CALL * _BYTES_PER_RECORD)
        call = records(_RECORDS_PER_CALL)
        enough = measured * _RECORDS_PER_CALL
        full = _Consumer(folder, "full", call, behind + measured, enough)
        empty = _Consumer(folder, "empty", call, measured + 1, enough)
        found = interleave(full.cost, empty.cost, pairs)
    millions = behind * _RECORDS_PER_CALL / 1e6
    cpu = median_pair([(ours.cpu_ns, limit.cpu_ns) for ours, limit in found])
    yield Figure(
        bench=f"backlog of {millions:g} M, cost",
        value=cpu.ours / 1e3,
        limit=cpu.limit / 1e3,
        unit="us CPU/record",
        must=1.10,
        aim=None,
    )
    memory = median_pair([(ours.memory_mib, limit.memory_mib) for ours, limit in found])
    yield Figure(
        bench=f"backlog of {millions:g} M, memory",
        value=memory.ours,
        limit=memory.limit,
        unit="MiB peak of worker",
        must=1.10,
        aim=None,
    )


class _Consumer:
    """A stream of one shard, and a handler that begins at its beginning each time it is run."""

    def __init__(self, folder: DataFolder, stream: str, call: Sequence[Record], calls: int, enough: int) -> None:
        self._folder = folder
        self._out = folder.path.parent / f"{stream}.stamps"
        self._module = folder.path.parent / stream / "touch.py"
        self._module.parent.mkdir()
        self._module.write_text(_HANDLER.format(out=self._out, stream=stream, enough=enough))
        create_stream(folder, stream, 1)
        for _ in range(calls):
            put_many(stream, call)

    def cost(self) -> _Cost:
        """Run the handler until it has seen enough."""
        self._out.write_bytes(bytes(4096))
        forget_checkpoints(self._folder)
        with Node(self._folder, self._module):
            wait_for(lambda: self._stamps()[3], "the handler to see enough records")
        begin, end, count, memory_kib = self._stamps()
        return _Cost((end - begin) / count, memory_kib / 1024)

    def _stamps(self) -> tuple[int, ...]:
        return struct.unpack_from("<4Q", self._out.read_bytes())


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if free < needed + _SPARE_BYTES:
        raise OSError(
            f"the bench needs {needed >> 20} MiB and {_SPARE_BYTES >> 20} MiB to spare below {path}, "
            f"and {free >> 20} MiB are free: set TMPDIR to where there is more"
        )
