"""`fsync = "always"` through the public door: puts by many processes, handlers, kills."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from tests.project import Project, project

HANDLER = """
    from kflow import Batch, on_stream
    @on_stream("orders")
    def bill(batch: Batch) -> None:
        note(what="batch", data=[record.data.decode() for record in batch])
"""

PRODUCER = """
import sys, kflow
for number in range(int(sys.argv[2])):
    kflow.put("orders", f"{sys.argv[1]} {number}", partition_key=sys.argv[1])
    print(number, flush=True)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path, fsync="always")


def producer(shop: Project, name: str, count: int) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", PRODUCER, name, str(count)],
        cwd=shop.folder,
        env={**shop.environment, "KFLOW_DATA_DIR": str(shop.data_dir)},
        stdout=subprocess.PIPE,
        text=True,
    )
    shop.processes.append(made)
    return made


def test_many_producers_and_a_handler_with_a_node(shop: Project) -> None:
    shop.handler(HANDLER)
    process = shop.start()
    producers = [producer(shop, f"p{number}", 30) for number in range(4)]
    assert [each.wait(60) for each in producers] == [0] * 4
    shop.wait_for(lambda: sum(len(note["data"]) for note in shop.seen(what="batch")) >= 120, "all records")
    seen = [text for note in shop.seen(what="batch") for text in note["data"]]
    for number in range(4):
        assert [text for text in seen if text.startswith(f"p{number} ")] == [f"p{number} {each}" for each in range(30)]
    assert shop.stop(process) == 130
    for each in producers:
        assert each.stdout is not None
        each.stdout.close()


def test_a_killed_node_has_lost_and_doubled_nothing_that_was_put(shop: Project) -> None:
    shop.handler(HANDLER)
    process = shop.start()
    putting = producer(shop, "p", 60)
    assert putting.stdout is not None
    told = 0
    for _ in range(2):
        while told < 20:
            told += bool(putting.stdout.readline())
        told = 0
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process = shop.start()
    assert putting.wait(60) == 0
    putting.stdout.close()
    shop.wait_for(
        lambda: {text for note in shop.seen(what="batch") for text in note["data"]} == {f"p {n}" for n in range(60)},
        "all records",
    )
    assert shop.stop(process) == 130
    folder = DataFolder.open(shop.data_dir)
    assert folder.fsync == "always"
    reader, offset, stored = ShardReader(folder, folder.map("orders"), 0), 0, list[bytes]()
    while blocks := reader.read(offset):
        stored += [data for block in blocks for data in block.columns()[0]]
        offset = blocks[-1].end
    assert stored == [b"p %d" % number for number in range(60)]


def test_without_a_node_the_same_and_drained(shop: Project) -> None:
    shop.handler(HANDLER)
    shop.run("streams", "create", "orders", "--shards", "2")
    producers = [producer(shop, f"p{number}", 20) for number in range(3)]
    assert [each.wait(60) for each in producers] == [0] * 3
    shop.run("run", "--drain")
    seen = [text for note in shop.seen(what="batch") for text in note["data"]]
    assert sorted(seen) == sorted(f"p{number} {each}" for number in range(3) for each in range(20))
    for each in producers:
        assert each.stdout is not None
        each.stdout.close()
