"""Lanes, filters, windows and drops through the public door: what a handler sees of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project, project


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put(shop: Project, *orders: dict[str, object]) -> None:
    """Orders in one stream of one shard, by their key."""
    if not (shop.folder / ".kflow").exists():
        shop.run("streams", "create", "orders", "--shards", "1")
    path = shop.folder / "orders.jsonl"
    path.write_text("".join(json.dumps(order) + "\n" for order in orders))
    shop.run("put", "orders", "--file", str(path), "--key-field", "key")


def test_lanes_keep_the_order_of_each_key_and_a_poison_record_blocks_its_own_lane_alone(shop: Project) -> None:
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", parallelization_factor=10, batch_size=7)
        def bill(batch: Batch) -> None:
            orders = [record.json() for record in batch]
            if any(order["n"] == 0 for order in orders):
                raise ValueError("poison")
            for order in orders:
                note(what="order", key=order["key"], n=order["n"])
    """)
    keys = [f"key-{number}" for number in range(20)]
    put(shop, *[{"key": keys[n % 20], "n": n} for n in range(200)])
    process = shop.start()

    def settled_elsewhere() -> bool:
        return len({note["key"] for note in shop.seen(what="order")}) >= 15

    shop.wait_for(settled_elsewhere, "the other lanes to go on")
    by_key: dict[str, list[int]] = {}
    for note in shop.seen(what="order"):
        by_key.setdefault(note["key"], []).append(note["n"])
    assert "key-0" not in by_key
    for key, seen in by_key.items():
        first = list(dict.fromkeys(seen))
        assert first == sorted(first), key
    assert shop.stop(process) == 130


def test_only_what_passes_the_filters_reaches_the_handler_as_it_was_put(shop: Project) -> None:
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", filters=[{"data": {"type": ["good"], "n": [{"numeric": [">", 2]}]}}])
        def bill(record: Record) -> None:
            note(what="record", data=record.data.decode())
    """)
    put(shop, *[{"key": "k", "type": "good" if n % 2 else "bad", "n": n} for n in range(8)])

    shop.run("run", "--drain")

    assert [json.loads(note["data"])["n"] for note in shop.seen(what="record")] == [3, 5, 7]
    assert shop.seen(what="record")[0]["data"] == '{"key": "k", "type": "good", "n": 3}'


def test_a_window_carries_its_state_from_run_to_run_and_ends_with_one_final_call(shop: Project) -> None:
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", tumbling_window_in_seconds=5, batch_size=2)
        def bill(batch: Batch) -> None:
            batch.state["count"] = batch.state.get("count", 0) + len(batch)
            window = batch.window
            note(what="call", start=window.start_s, records=len(batch), final=window.is_final, **batch.state)
    """)
    put(shop, *[{"key": "k", "n": n} for n in range(5)])
    shop.run("run", "--drain")
    put(shop, *[{"key": "k", "n": n} for n in range(3)])
    process = shop.start()

    def totals() -> dict[int, int]:
        return {note["start"]: note["count"] for note in shop.seen(what="call", final=True)}

    shop.wait_for(lambda: sum(totals().values()) == 8, "the windows to end")
    finals = shop.seen(what="call", final=True)
    assert len(finals) == len(totals())
    assert all(note["records"] == 0 for note in finals)
    assert sum(note["records"] for note in shop.seen(what="call")) == 8
    assert shop.stop(process) == 130


def test_with_drop_a_spent_record_is_gone_and_nothing_is_parked(shop: Project) -> None:
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", maximum_retry_attempts=1, bisect_batch_on_function_error=True, on_failure="drop")
        def bill(record: Record) -> None:
            n = record.json()["n"]
            note(what="tried", n=n)
            if n == 1:
                raise ValueError("one")
    """)
    put(shop, *[{"key": "k", "n": n} for n in range(3)])

    shop.run("run", "--drain")

    assert shop.json("parked", "list") == []
    assert [note["n"] for note in shop.seen(what="tried")][-1] == 2


def test_a_redrive_whose_response_names_a_failed_record_leaves_the_batch_parked(shop: Project) -> None:
    shop.handler("""
        import pathlib
        from kflow import Batch, on_stream
        @on_stream("orders", maximum_retry_attempts=0, report_batch_item_failures=True)
        def bill(batch: Batch) -> None:
            if not pathlib.Path(__file__).with_name("up").exists():
                raise ValueError("down")
            for record in batch:
                if record.json()["n"] == 1 and not pathlib.Path(__file__).with_name("mended").exists():
                    batch.failed(record)
    """)
    put(shop, *[{"key": "k", "n": n} for n in range(3)])
    shop.run("run", "--drain")
    (shop.folder / "functions" / "up").touch()
    process = shop.start()

    failed = shop.run("parked", "redrive", "1", check=1)
    shown = shop.json("parked", "show", "1")
    (shop.folder / "functions" / "mended").touch()
    shop.run("parked", "redrive", "1")

    assert "failed again: BatchItemFailure" in failed.stdout
    assert (shown["records"][1]["data"], shown["attempts"]) == ('{"key": "k", "n": 1}', 2)
    assert shown["document"]["requestContext"]["approximateInvokeCount"] == 2
    assert shown["document"]["KinesisBatchInfo"]["batchSize"] == 3
    assert shop.json("parked", "list") == []
    assert shop.stop(process) == 130
