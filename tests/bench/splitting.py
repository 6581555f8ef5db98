"""`split`: what others notice while a shard is split, and merged again, and again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kflow import put
from kflow.broker import wire
from kflow.broker.folder import DataFolder
from kflow.broker.sequence import shard_id
from tests.bench.figures import Figure, interleave, median_pair, percentile
from tests.bench.running import RECORD_BYTES, Node, create_stream, data_folder, wait_for

_STREAM = "bench"
_SHARDS = 4


def split(quick: bool) -> Iterator[Figure]:
    """p99 of single puts to other shards while one is split and merged without a pause, over the same in quiet."""
    puts, pairs = (200, 1) if quick else (4000, 9)
    with data_folder() as folder:
        stream = create_stream(folder, _STREAM, _SHARDS)
        others = [shard.start for shard in stream.open_shards[1:]]
        with Node(folder):

            def quiet() -> float:
                return percentile(_put(others, puts), 0.99)

            def busy() -> float:
                with _resharding(folder):
                    return percentile(_put(others, puts), 0.99)

            quiet()
            pair = median_pair(interleave(busy, quiet, pairs))
    yield Figure(
        bench="split, p99 of puts to other shards",
        value=pair.ours / 1e3,
        limit=pair.limit / 1e3,
        unit="us",
        must=2.0,
        aim=None,
    )


def _put(others: Sequence[int], count: int) -> list[int]:
    """How long each put took, nanoseconds."""
    data, clock = bytes(RECORD_BYTES), time.perf_counter_ns
    found = []
    for number in range(count):
        hash_key = others[number % len(others)]
        begin = clock()
        put(_STREAM, data, partition_key="k", explicit_hash_key=hash_key)
        found.append(clock() - begin)
    return found


@contextmanager
def _resharding(folder: DataFolder) -> Iterator[None]:
    """Another process that splits the first shard and merges it again, for as long as the block runs."""
    begun, over = Path(folder.path, "begun"), Path(folder.path, "over")
    for mark in (begun, over):
        mark.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _split_and_merge(folder, begun, over)
            code = 0
        finally:
            os._exit(code)
    wait_for(begun.exists, "the first split")
    yield
    over.touch()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("the process that splits and merges failed")


def _split_and_merge(folder: DataFolder, begun: Path, over: Path) -> None:
    while not over.exists():
        first = folder.map(_STREAM).open_shards[0]
        wire.call(folder.path, "split", name=_STREAM, shard=shard_id(first.index))
        begun.touch()
        left, right = folder.map(_STREAM).open_shards[:2]
        wire.call(folder.path, "merge", name=_STREAM, shard=shard_id(left.index), adjacent=shard_id(right.index))
