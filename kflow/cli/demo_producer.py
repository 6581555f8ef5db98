"""The demo's producer, a process of its own: puts the flights at a pace, and goes on where an earlier run stopped.

    python -m kflow.cli.demo_producer DATA_DIR STREAM RATE      RATE: records a second, 0 for no pace

Writes to standard output how many records are stored, a line a time. Standard input is its lifeline: at its end (the
demo is gone, however it went) the process ends at once, so that it never puts beside its successor.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from kflow import producing
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import digest
from kflow.broker.locks import FileLock
from kflow.broker.streammap import StreamMap
from kflow.cli import packaged
from kflow.cli.flights import RECORDS, records
from kflow.errors import KflowError
from kflow.runtime.status import survey

_BATCH = 500
_BATCHES_PER_SECOND = 20
_LOCK_SECONDS = 10.0

Records = Iterator[tuple[bytes, str]]


def main(argv: list[str]) -> int:
    """Put what is missing. Returns the exit code."""
    threading.Thread(target=_end_with_parent, name="kflow-lifeline", daemon=True).start()
    data_dir, name, rate = Path(argv[0]), argv[1], float(argv[2])
    lock = FileLock(data_dir / "run" / "demo-producer.lock", Files())
    try:
        lock.acquire(_LOCK_SECONDS)
        folder = DataFolder.open(data_dir)
        stream = folder.map(name)
        stored = survey.stored(folder, stream)
        missing = without_stored(records(packaged.functions() / packaged.FLIGHTS), stream, stored)
        _put(name, missing, sum(stored), rate)
    except KflowError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def without_stored(all_records: Records, stream: StreamMap, stored: list[int]) -> Records:
    """The records that an earlier run did not store.

    One producer puts them in order and each belongs to one shard, so what a shard holds are the first of its records:
    as many are left out as it holds.

    Args:
        all_records: (data, partition key), always the same ones in the same order.
        stream: the map, for the routing.
        stored: how many records each shard holds, by index.
    """
    shards = stream.open_shards
    starts = [shard.start for shard in shards]
    left = list(stored)
    for record in all_records:
        shard = shards[bisect_right(starts, int.from_bytes(digest(record[1]), "big")) - 1].index
        if left[shard]:
            left[shard] -= 1
        else:
            yield record


def _put(name: str, missing: Records, stored: int, rate: float) -> None:
    size = min(_BATCH, max(1, int(rate / _BATCHES_PER_SECOND))) if rate else _BATCH
    begun, sent = time.monotonic(), 0
    _say(stored)
    while batch := list(islice(missing, size)):
        if rate:
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        producing.put_many(name, batch)
        sent += len(batch)
        _say(stored + sent)


def _say(stored: int) -> None:
    sys.stdout.write(f"{stored} of {RECORDS}\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
