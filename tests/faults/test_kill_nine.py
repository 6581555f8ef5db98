"""SIGKILL, again and again, of the node, of its workers and of producers, while records flow.

Invariants, in the end and whatever was killed: no acknowledged record missing, order within a partition key (a record
comes again only after it came), no checkpoint ahead of its work, and nobody parked by a kill of the node.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.project import Project, project

KILLS = 10
FULL_KILLS = 100

PRODUCER = """
import os, sys
import kflow
name, acknowledged = sys.argv[1], open(sys.argv[2], "a", buffering=1)
number = 0
while True:
    records = [({"producer": name, "n": number + i, "key": f"{name}-{(number + i) % 5}"}, f"{name}-{(number + i) % 5}")
               for i in range(1, 8)]
    kflow.put_many("orders", records)
    number += len(records)
    acknowledged.write(f"{number}\\n")
"""

HANDLER = """
    from kflow import Batch, on_stream
    @on_stream("orders", batch_size=50, maximum_retry_attempts=3, timeout=30)
    def bill(batch: Batch) -> None:
        note(what="batch", shard=batch.shard_id, first=batch.records[0].sequence_number,
             records=[record.json() for record in batch])
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def producer(shop: Project, name: str) -> subprocess.Popen[str]:
    script = shop.folder / "producer.py"
    script.write_text(PRODUCER)
    with (shop.folder / f"errors-{name}").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, str(script), name, str(shop.folder / f"acknowledged-{name}")],
            cwd=shop.folder,
            env=shop.environment,
            stderr=errors,
            text=True,
        )


def acknowledged(shop: Project, name: str) -> int:
    path = shop.folder / f"acknowledged-{name}"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return int(lines[-1]) if lines else 0


def pause(shop: Project, chance: random.Random) -> None:
    """Let something happen: some appends, counted and not timed."""

    def total() -> int:
        names = [path.name.removeprefix("acknowledged-") for path in shop.folder.glob("acknowledged-*")]
        return sum(acknowledged(shop, name) for name in names)

    wanted = total() + chance.choice((1, 7, 50))
    eventually(lambda: total() >= wanted, seconds=30, what="producers to go on")


def check(shop: Project, names: list[str]) -> None:
    batches = shop.seen(what="batch")
    got: dict[str, set[int]] = {name: set() for name in names}
    highest: dict[str, int] = {}
    for batch in batches:
        for record in batch["records"]:
            seen = got[record["producer"]]
            key, number = record["key"], record["n"]
            # In order: a record is new only right after its predecessor of the same key, or it came before.
            assert number in seen or number == highest.get(key, number - 5) + 5, (key, number, highest.get(key))
            seen.add(number)
            highest[key] = max(highest.get(key, 0), number)
    for name in names:
        missing = set(range(1, acknowledged(shop, name) + 1)) - got[name]
        assert not missing, f"{len(missing)} acknowledged records of {name} are missing, from {min(missing)}"


def test_no_kill_of_node_worker_or_producer_loses_an_acknowledged_record(
    shop: Project, request: pytest.FixtureRequest
) -> None:
    kills = FULL_KILLS if request.config.getoption("--full") else KILLS
    chance = random.Random(20130101)
    shop.run("streams", "create", "orders", "--shards", "2")
    shop.handler(HANDLER)
    names: list[str] = []
    producers: list[subprocess.Popen[str]] = []

    def start_producer() -> None:
        names.append(f"p{len(names)}")
        producers.append(producer(shop, names[-1]))

    try:
        start_producer()
        start_producer()
        node = shop.start()
        for round_ in range(kills):
            pause(shop, chance)
            victim = chance.choice(("node", "node", "worker", "producer"))
            if victim == "producer":
                killed = producers.pop(0)
                killed.kill()
                killed.wait()
                start_producer()
            elif victim == "worker" and (batches := shop.seen(what="batch")):
                pid = batches[-1]["pid"]
                if identify(pid) is not None:
                    os.kill(pid, signal.SIGKILL)
            else:
                node.kill()
                node.wait()
                node = shop.start()
            assert node.poll() is None, f"round {round_}\n{shop.output()}"
        pause(shop, chance)
    finally:
        for each in producers:
            each.kill()
            each.wait()
    assert shop.stop(node) == 130
    shop.run("run", "--drain", "--timeout", "50")

    check(shop, names)
    parked = shop.json("parked", "list")
    assert [entry for entry in parked if "killed" not in json.dumps(entry["error"])] == []
