"""`split`: what others notice while a shard is split, and merged again, and again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from kflow import put
from kflow.broker import linking
from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import even_ranges
from kflow.broker.sequence import shard_id
from tests.bench.figures import Figure, interleave, median_pair, percentile
from tests.bench.running import RECORD_BYTES, Node, data_folder, wait_for

_SHARDS = 4
_PAUSE_S = 0.02
"""Between two changes: each takes about 4 ms, so a shard is being changed for a good part of the time."""


def split(quick: bool) -> Iterator[Figure]:
    """p99 of single puts to other shards while one is split and merged every 20 ms, over the same in quiet."""
    puts, pairs = (200, 1) if quick else (4000, 9)
    with data_folder() as folder:
        numbers = count()
        with Node(folder):

            def quiet() -> float:
                name = _create(folder, next(numbers))
                return percentile(_put(name, puts), 0.99)

            def busy() -> float:
                name = _create(folder, next(numbers))
                with _resharding(folder, name):
                    return percentile(_put(name, puts), 0.99)

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


def _create(folder: DataFolder, number: int) -> str:
    """A new stream, so that no measurement finds the closed shards of another one; its name."""
    name = f"bench-{number}"
    linking.call(folder.path, "create_stream", name=name, shards=_SHARDS)
    return name


def _put(name: str, puts: int) -> list[int]:
    """How long each put took, nanoseconds: to all shards but the first, which is the one that is split."""
    ranges = even_ranges(_SHARDS)
    others = [start for start, _ in ranges[1:]]
    data, clock = bytes(RECORD_BYTES), time.perf_counter_ns
    found = []
    for number in range(-_SHARDS, puts):
        hash_key = others[number % len(others)]
        begin = clock()
        put(name, data, partition_key="k", explicit_hash_key=hash_key)
        found.append(clock() - begin)
    return found[_SHARDS:]


@contextmanager
def _resharding(folder: DataFolder, name: str) -> Iterator[None]:
    """Another process that splits the first shard and merges it again, for as long as the block runs."""
    begun, over = Path(folder.path, "begun"), Path(folder.path, "over")
    for mark in (begun, over):
        mark.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _split_and_merge(folder, name, begun, over)
            code = 0
        finally:
            os._exit(code)
    wait_for(begun.exists, "the first split")
    yield
    over.touch()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("the process that splits and merges failed")


def _split_and_merge(folder: DataFolder, name: str, begun: Path, over: Path) -> None:
    while not over.exists():
        first = folder.map(name).open_shards[0]
        linking.call(folder.path, "split", name=name, shard=shard_id(first.index))
        begun.touch()
        time.sleep(_PAUSE_S)
        left, right = folder.map(name).open_shards[:2]
        linking.call(folder.path, "merge", name=name, shard=shard_id(left.index), adjacent=shard_id(right.index))
        time.sleep(_PAUSE_S)
