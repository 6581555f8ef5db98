"""Producers while the shards under them are split, merged and scaled, by nodes that are killed in the middle of it.

Invariants: no acknowledged record missing, none stored twice, the order of each key's records kept from parents to
children, hash keys covered once at every moment, sequence numbers that only rise.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.hashkeys import HASH_KEY_END
from kflow.broker.reader import ShardReader
from kflow.broker.sequence import number
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from tests.faults.test_producers import PUTTING, ended, environment, finished, script

ROOT = Path(__file__).parents[2]
LIVES = 12
FULL_LIVES = 60
KILLS = ("made", "page", "unwritten", "published", "anytime")


@contextmanager
def keeper(folder: DataFolder, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.resharding_node", str(folder.path), *options],
        cwd=ROOT,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stored(folder: DataFolder, stream: StreamMap) -> dict[str, list[int]]:
    """The numbers of each key, shard after shard: parents have lower indexes than their children."""
    found: dict[str, list[int]] = {}
    last = dict.fromkeys(range(len(stream.shards)), 0)
    for shard in stream.shards:
        reader, offset = ShardReader(folder, stream, shard.index), 0
        floor = max((last[parent] for parent in shard.parents), default=0)
        while blocks := reader.read(offset):
            for block in blocks:
                assert block.arrival_ms >= floor, "an arrival went back"
                floor = block.arrival_ms
                for data in block.columns()[0]:
                    _, key, count = data.decode().split(" ")
                    found.setdefault(key, []).append(int(count))
            offset = blocks[-1].end
        assert bool(reader.closed) is not shard.is_open
        last[shard.index] = floor
        reader.close()
    return found


def check_map(stream: StreamMap) -> None:
    ranges = [(shard.start, shard.end) for shard in stream.open_shards]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == HASH_KEY_END
    assert all(end + 1 == start for (_, end), (start, _) in itertools.pairwise(ranges))
    for shard in stream.shards:
        for parent in shard.parents:
            closed = stream.shards[parent].closed
            assert closed is not None
            assert closed < number(shard.created_s, shard.index, 0, 0)


def put_through(folder: DataFolder, lives: int, seed: int, ends: str) -> tuple[list[str], int]:
    """Producers put while nodes reshard and die; checks the invariants. How the nodes ended, and how many changes."""
    work = folder.path.parent
    ways = {"a": "many", "b": "producer", "c": "one"}
    with keeper(folder, "--lives", str(lives), "--seed", str(seed), "--ends", ends) as nodes:
        producers = [script(folder, PUTTING, name, way, str(work)) for name, way in ways.items()]
        try:
            out = ended(nodes, producers)
            (work / "stop").touch()
            for process in producers:
                finished(process)
        finally:
            for process in producers:
                process.kill()
                process.communicate()
    with writing(folder) as log:  # as the next node does
        log.recover_all()
    stream = folder.map("orders")
    check_map(stream)
    names = os.listdir(folder.stream_dir(stream))
    assert sorted(name for name in names if name.isdigit()) == sorted(str(shard.index) for shard in stream.shards)
    places = stored(folder, stream)
    for name in ways:
        acknowledged = int((work / f"acknowledged-{name}").read_text().split()[-1])
        found = sorted(count for key, counts in places.items() if key.startswith(f"{name}-") for count in counts)
        assert found == list(range(1, acknowledged + 1)), f"{name}: records missing or doubled"
    for key, counts in places.items():
        assert counts == sorted(counts), f"{key} is out of order"
    lines = [line for line in out.split("\n") if line and line != "ready"]
    return lines[:-1], int(lines[-1].split()[1])


@pytest.fixture(params=["none", "interval", "always"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> DataFolder:
    opened = DataFolder.open(tmp_path / "data", create=True, fsync=request.param)
    with writing(opened) as log:
        log.create_stream("orders", 2)
    return opened


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_in_the_middle_of_changes_neither_lose_nor_double_nor_reorder_puts(
    folder: DataFolder, seed: int, request: pytest.FixtureRequest
) -> None:
    lives = FULL_LIVES if request.config.getoption("--full") else LIVES
    ends, changes = put_through(folder, lives, seed, ",".join(KILLS))

    assert len(ends) == lives
    assert set(ends) == set(KILLS)
    assert changes >= lives // 2


def test_shards_change_all_the_time_under_producers(folder: DataFolder) -> None:
    ends, changes = put_through(folder, 6, 3, "stop")

    assert ends == ["stop"] * 6
    assert changes == 6 * 6 + 2
