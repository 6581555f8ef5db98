"""Splitting, merging and scaling through the public door, with a runtime and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import KFLOW, Project, project

HANDLER = """
    import json
    from kflow import Batch, on_stream

    @on_stream("orders", batch_size=50)
    def bill(batch: Batch) -> None:
        for record in batch:
            note(what="record", key=record.partition_key, number=record.json(), shard=record.shard_id)
"""

PLUGIN = """
    import json
    from pathlib import Path
    from kflow.plugins import hookimpl

    @hookimpl
    def shards_changed(stream, closed, opened):
        with Path(__file__).with_name("changes.jsonl").open("a") as file:
            file.write(json.dumps([stream, closed, opened]) + "\\n")
"""

PUTTING = """
import sys, time
from pathlib import Path
import kflow
stop = Path(sys.argv[1])
number = 0
while not stop.exists():
    kflow.put_many("orders", [(number + i, f"key-{i % 13}") for i in range(40)])
    number += 40
    time.sleep(0.02)  # handlers are to keep up with it
print(number)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def shards(shop: Project) -> list[tuple[str, bool, list[str]]]:
    found = shop.json("streams", "describe", "orders")["shards"]
    return [(shard["shard_id"][-2:], shard["open"], [parent[-2:] for parent in shard["parents"]]) for shard in found]


@pytest.mark.parametrize("running", [True, False], ids=["with-a-runtime", "without"])
def test_shards_are_split_merged_and_scaled_the_same_way(shop: Project, running: bool) -> None:
    shop.run("streams", "create", "orders")
    if running:
        shop.handler(HANDLER)
        shop.start()

    assert shop.json("streams", "split", "orders", "0") == {
        "stream": "orders",
        "closed": ["shardId-000000000000"],
        "opened": ["shardId-000000000001", "shardId-000000000002"],
        "open_shards": 2,
    }
    assert shop.run("streams", "merge", "orders", "1", "2").stdout == "orders: shards 1, 2 -> shard 3, 1 open shard\n"
    assert shop.run("streams", "scale", "orders", "--shards", "2").stdout == (
        "orders: shard 3 -> shards 4, 5, 2 open shards\n"
    )
    assert shards(shop) == [
        ("00", False, []),
        ("01", False, ["00"]),
        ("02", False, ["00"]),
        ("03", False, ["01", "02"]),
        ("04", True, ["03"]),
        ("05", True, ["03"]),
    ]
    text = shop.run("streams", "describe", "orders").stdout
    assert "2 open shards, 4 closed" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("shardId")] == ["closed"] * 4 + [
        "open"
    ] * 2


@pytest.mark.parametrize("running", [True, False], ids=["with-a-runtime", "without"])
def test_what_aws_refuses_is_refused_in_its_words(shop: Project, running: bool) -> None:
    shop.run("streams", "create", "orders", "--shards", "2")
    if running:
        shop.handler(HANDLER)
        shop.start()

    for command, text in (
        (("split", "orders", "x"), "Could not find shard x in stream orders under account 123456789012."),
        (("split", "orders", "9"), "Could not find shard shardId-000000000009 in stream orders"),
        (("split", "orders", "0", "--at", "1"), "is not both greater than one plus the shard's StartingHashKey 0"),
        (("merge", "orders", "1", "0"), "are not an adjacent pair of shards eligible for merging"),
        (("scale", "orders", "--shards", "9"), "cannot scale up over double your current open shard count"),
        (("split", "ordrs", "0"), "Did you mean orders?"),
    ):
        refused = shop.run("streams", *command, check=None)
        assert refused.returncode in (1, 2)
        assert text in refused.stderr
    assert len(shards(shop)) == 2


def test_handlers_see_each_keys_records_once_and_in_order_while_its_shards_change(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "2")
    shop.handler(HANDLER)
    runtime = shop.start()
    stop = shop.folder / "stop"
    producer = subprocess.Popen(
        [sys.executable, "-c", PUTTING, str(stop)], cwd=shop.folder, env=shop.environment, stdout=subprocess.PIPE
    )
    try:
        shop.wait_for(lambda: len(shop.seen(what="record")) > 100, "the first records")
        for command in (("split", "orders", "0"), ("merge", "orders", "3", "1"), ("scale", "orders", "--shards", "4")):
            before = len(shop.seen(what="record"))
            shop.run("streams", *command)
            shop.wait_for(lambda before=before: len(shop.seen(what="record")) > before + 100, "records after a change")
        stop.touch()
        out, _ = producer.communicate(timeout=60)
    finally:
        producer.kill()
        producer.communicate()
    total = int(out)
    shop.wait_for(lambda: len(shop.seen(what="record")) >= total, "all records")
    assert shop.stop(runtime) == 130

    notes = shop.seen(what="record")
    by_key: dict[str, list[int]] = {}
    for note in notes:
        by_key.setdefault(note["key"], []).append(note["number"])
    assert sorted(number for numbers in by_key.values() for number in numbers) == list(range(total))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert len({note["shard"] for note in notes}) > 4


def test_hook_shards_changed_is_told_what_closed_and_what_opened(shop: Project) -> None:
    (shop.folder / "spy.py").write_text("\n".join(line[4:] for line in PLUGIN.splitlines()))
    with (shop.folder / "kflow.toml").open("a") as file:
        file.write('plugins = ["spy.py"]\n')
    shop.run("streams", "create", "orders")
    shop.handler(HANDLER)
    runtime = shop.start()
    shop.run("streams", "split", "orders", "0")
    changes = shop.folder / "changes.jsonl"
    shop.wait_for(changes.exists, "the hook")
    assert shop.stop(runtime) == 130
    assert json.loads(changes.read_text()) == [
        "orders",
        ["shardId-000000000000"],
        ["shardId-000000000001", "shardId-000000000002"],
    ]


def test_tail_goes_on_in_the_children(shop: Project) -> None:
    shop.run("streams", "create", "orders")
    shop.handler(HANDLER)
    shop.start()
    tail = subprocess.Popen(
        [*KFLOW, "tail", "orders", "--from", "trim_horizon", "--json"],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    try:
        shop.run("put", "orders", "in the parent", "--key", "k")
        assert json.loads(tail.stdout.readline())["data"] == "in the parent"
        shop.run("streams", "split", "orders", "0")
        shop.run("put", "orders", "in a child", "--key", "k")
        found = json.loads(tail.stdout.readline())
    finally:
        tail.kill()
        tail.wait()
        tail.stdout.close()
    assert found["data"] == "in a child"
    assert found["shard_id"] != "shardId-000000000000"


@pytest.mark.parametrize("command", ["reset", "delete"])
def test_streams_are_emptied_and_made_anew_under_producers(shop: Project, command: str) -> None:
    """Records are of one life of the stream or of the next; no put is lost within a life, none fails for good."""
    shop.run("streams", "create", "orders", "--shards", "2")
    shop.handler(HANDLER.replace("orders", "others"))  # a stream that a running handler reads is not deleted
    shop.start()
    stop = shop.folder / "stop"
    script = """
import sys, time
from pathlib import Path
import kflow
from kflow.errors import PutFailed, ResourceNotFound
stop, count, gone = Path(sys.argv[1]), 0, 0
with kflow.Producer("orders", linger_ms=1) as producer:
    while not stop.exists():
        try:
            kflow.put_many("orders", [(count + i, f"key-{i}") for i in range(20)])
            count += 20
            producer.put(count, "k")
            producer.flush()
        except (PutFailed, ResourceNotFound) as error:
            assert "not found" in str(error), error
            gone += 1
            time.sleep(0.005)
placed = kflow.put("orders", "last", partition_key="k")
print(count, gone, placed.sequence_number)
"""
    producer = subprocess.Popen(
        [sys.executable, "-c", script, str(stop)],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ids = set()
    try:
        for _ in range(4):
            description = shop.json("streams", "describe", "orders")
            ids.add(description["id"])
            shop.wait_for(lambda: shop.json("streams", "describe", "orders")["records"] > 40, "records")
            if command == "reset":
                shop.run("reset", "--stream", "orders", "--yes")
            else:
                shop.run("streams", "delete", "orders", "--yes")
                shop.run("streams", "create", "orders", "--shards", "2")
        stop.touch()
        out, errors = producer.communicate(timeout=60)
    finally:
        producer.kill()
        producer.communicate()
    assert producer.returncode == 0, errors
    count, gone, _ = map(int, out.split())
    assert len(ids) == 4
    assert count > 0
    assert gone == 0 or command == "delete"
    last = json.loads(shop.run("tail", "orders", "--no-follow", "--json").stdout.splitlines()[-1])
    assert shop.json("streams", "describe", "orders")["id"] not in ids
    assert last["stream"] == "orders"
