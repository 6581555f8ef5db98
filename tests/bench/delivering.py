"""`deliver-lambda`, `deliver-batch`: from the log through the engine to a handler that reads data and key of records.

The handler stamps the CPU clock of its process at the start of each invocation; what lies between the first stamp and
the last is what the records cost that were handed over in between. One worker serves all shards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from kflow import put_many
from kflow.broker.folder import DataFolder
from tests.bench.figures import Figure, interleave, median, median_pair
from tests.bench.running import (
    RECORDS_PER_CALL,
    Node,
    create_stream,
    data_folder,
    forget_checkpoints,
    record_sets,
    run_to_end,
)

BATCH = 100
_SHARDS = 4
_STREAM = "bench"

STAMPS = """\
import mmap, os, time

_file = os.open(f"{out}/{{os.getpid()}}.stamps", os.O_CREAT | os.O_RDWR)
os.ftruncate(_file, mmap.PAGESIZE)
_stamps = memoryview(mmap.mmap(_file, mmap.PAGESIZE)).cast("Q")


def stamp(count):
    # CPU at the first invocation's start, at this one's, records before it, records with it
    now = time.process_time_ns()
    if not _stamps[3]:
        _stamps[0] = now
    _stamps[1] = now
    _stamps[2] = _stamps[3]
    _stamps[3] += count
"""
"""Source of the stamps, for handlers: `out` is the folder they go to, one file a process."""

_LAMBDA = """
from kflow import on_stream


@on_stream("{stream}", batch_size={batch})
def touch(event, context):
    records = event["Records"]
    stamp(len(records))
    for record in records:
        kinesis = record["kinesis"]
        kinesis["data"]
        kinesis["partitionKey"]
"""

_BATCH = """
from kflow import Batch, on_stream


@on_stream("{stream}", batch_size={batch})
def touch(batch: Batch):
    stamp(len(batch))
    for record in batch:
        record.data
        record.partition_key
"""


def deliver_lambda(quick: bool) -> Iterator[Figure]:
    """Lambda events, 4 shards, batch 100: records per worker CPU second over the same loop fed from RAM.

    Told beside it: over a bare loop, which builds the same events and calls the handler, and nothing else.
    """
    with data_folder() as folder:
        deliveries = Deliveries(folder, _LAMBDA, 5_000 if quick else 300_000)
        for kind, judged in (("loop", True), ("bare", False)):
            pair = median_pair(
                interleave(deliveries.by_runtime, lambda kind=kind: deliveries.from_ram(kind), 1 if quick else 7)  # type: ignore[misc]  # bound now
            )
            yield Figure(
                bench="deliver-lambda 100 B, batch 100" + ("" if judged else ", bare loop"),
                value=pair.ours,
                limit=pair.limit,
                unit="M records/CPU s",
                must=0.75 if judged else None,
                aim=0.9 if judged else None,
                more_is_better=True,
            )


def deliver_batch(quick: bool) -> Iterator[Figure]:
    """`Batch` form, 4 shards, batch 100: records per worker CPU second."""
    with data_folder() as folder:
        deliveries = Deliveries(folder, _BATCH, 5_000 if quick else 300_000)
        yield Figure(
            bench="deliver-batch 100 B, batch 100",
            value=median([deliveries.by_runtime() for _ in range(1 if quick else 9)]),
            unit="M records/CPU s",
            must=0.8,
            aim=1.3,
            more_is_better=True,
        )


class Deliveries:
    """A stream with records, delivered again and again."""

    def __init__(self, folder: DataFolder, handler: str, count: int) -> None:
        """Fill the stream, and write the handler.

        Args:
            folder: the data folder, in use by nobody else.
            handler: source of the handler, which calls `stamp`; `{stream}` and `{batch}` stand for their values.
            count: how many records, a multiple of 500.
        """
        self._folder = folder
        self._count = count
        self._out = folder.path.parent / "out"
        self._out.mkdir()
        self._module = folder.path.parent / "handlers" / "touch.py"
        self._module.parent.mkdir()
        self.handler(handler)
        create_stream(folder, _STREAM, _SHARDS)
        sets = record_sets(8)
        for number in range(count // RECORDS_PER_CALL):
            put_many(_STREAM, sets[number % len(sets)])

    def handler(self, source: str) -> None:
        """From here on another handler runs."""
        self._module.write_text(STAMPS.format(out=self._out) + source.format(stream=_STREAM, batch=BATCH))

    def by_runtime(self) -> float:
        """Millions of records per CPU second of the worker, under the real runtime."""
        forget_checkpoints(self._folder)
        with Node(self._folder, self._module, drain=True, max_workers=1) as node:
            node.wait()
        return self._rate()

    def from_ram(self, kind: str) -> float:
        """The same for a loop that has the blocks in memory: the worker's own `loop`, or a `bare` one."""
        forget_checkpoints(self._folder)
        run_to_end("tests.bench.ram", [kind, self._folder.path, _STREAM, str(BATCH), self._module])
        return self._rate()

    def _rate(self) -> float:
        spent_ns = between = total = 0
        for path in self._out.iterdir():
            first, last, before, handed = read_stamps(path)
            spent_ns += last - first
            between += before
            total += handed
            path.unlink()
        if total != self._count:
            raise RuntimeError(f"{total} records were handed over, not {self._count}")
        return between * 1e3 / spent_ns


def read_stamps(path: Path) -> tuple[int, int, int, int]:
    """What a handler stamped: CPU at its first invocation, at its last one, records before that one, records in all."""
    first, last, before, handed = struct.unpack_from("<4Q", path.read_bytes())
    return first, last, before, handed
