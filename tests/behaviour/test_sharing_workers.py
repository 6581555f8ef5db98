"""Few workers, much to do: everybody gets a turn, and a drain ends when it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.project import Project, project

in_project = contextmanager(project)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    with in_project(tmp_path, max_workers=1) as made:
        yield made


def put(shop: Project, stream: str, count: int) -> None:
    lines = "".join(json.dumps({"n": n, "key": f"k{n}"}) + "\n" for n in range(count))
    (shop.folder / "numbers.jsonl").write_text(lines)
    shop.run("put", stream, "--file", "numbers.jsonl", "--key-field", "key")


def test_a_handler_with_a_long_backlog_lets_another_one_have_the_only_worker(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.run("streams", "create", "alarms", "--shards", "1")
    shop.handler("""
        import time
        from kflow import on_stream
        @on_stream("orders", batch_size=1)
        def bill(event, context):
            note(what="bill")
            time.sleep(0.05)
        @on_stream("alarms")
        def ring(event, context):
            note(what="ring")
    """)
    put(shop, "orders", 2_000)  # two minutes of work: a turn is ten times as long as a worker takes to start
    put(shop, "alarms", 1)
    process = shop.start()

    shop.wait_for(lambda: shop.seen(what="ring"))
    before = len(shop.seen(what="bill"))
    shop.wait_for(lambda: len(shop.seen(what="bill")) > before, "the long one to have its next turn")

    assert before < 2_000
    assert shop.stop(process) == 130


@pytest.mark.parametrize("factor", [1, 3])
def test_shards_and_lanes_with_long_backlogs_take_turns_with_the_only_worker(shop: Project, factor: int) -> None:
    shop.run("streams", "create", "orders", "--shards", "3")
    shop.handler(f"""
        import time
        from kflow import on_stream
        @on_stream("orders", batch_size=2, parallelization_factor={factor})
        def bill(event, context):
            for record in event["Records"]:
                note(shard=record["eventID"].split(":")[0], n=record["kinesis"]["partitionKey"])
            time.sleep(0.04)
    """)
    put(shop, "orders", 300)

    shop.run("run", "--drain", "--timeout", "50")

    seen = shop.seen()
    first = {shard: next(i for i, n in enumerate(seen) if n["shard"] == shard) for shard in {n["shard"] for n in seen}}
    last = {note["shard"]: number for number, note in enumerate(seen)}
    assert len(first) == 3
    assert max(first.values()) < min(last.values())
    assert len({note["n"] for note in seen}) == 300


def test_a_drain_keeps_a_tumbling_window_that_is_open(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        from kflow import on_stream
        @on_stream("orders", tumbling_window_in_seconds=900)
        def count(event, context):
            state = {"n": event["state"].get("n", 0) + len(event["Records"])}
            note(records=len(event["Records"]), before=event["state"], final=event["isFinalInvokeForWindow"])
            return {"state": state}
    """)
    put(shop, "orders", 5)
    shop.run("run", "--drain", "--timeout", "50")
    put(shop, "orders", 2)

    shop.run("run", "--drain", "--timeout", "50")

    calls = [(note["records"], note["before"], note["final"]) for note in shop.seen() if not note["final"]]
    assert calls[0] == (5, {}, False)
    assert calls[1] in ((2, {"n": 5}, False), (2, {}, False))  # the second is of a window that began in between
    assert len(calls) == 2


def test_a_drain_ends_though_producers_go_on(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        import kflow
        from kflow import on_stream
        @on_stream("orders", batch_size=1)
        def echo(event, context):
            kflow.put("orders", {"n": 0}, partition_key="again")
            note(what="echo")
    """)
    put(shop, "orders", 3)

    shop.run("run", "--drain", "--timeout", "50")

    assert len(shop.seen(what="echo")) >= 3
