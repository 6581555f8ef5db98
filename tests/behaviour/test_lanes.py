"""Parallelization factor, through the public door: order per key, every record once, as many at a time as asked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.project import Project, project

in_project = contextmanager(project)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put_keyed(shop: Project, keys: int, each: int, *, first: int = 1) -> None:
    """Records {"key", "n"}: n rises within each key; keys take turns."""
    lines = [json.dumps({"key": f"k{key}", "n": n}) for n in range(first, first + each) for key in range(keys)]
    (shop.folder / "keyed.jsonl").write_text("\n".join(lines) + "\n")
    shop.run("put", "orders", "--file", "keyed.jsonl", "--key-field", "key")


def by_key(shop: Project) -> dict[str, list[int]]:
    """What was seen, in order of arrival at the handlers."""
    seen = defaultdict(list)
    for note in shop.seen(what="record"):
        seen[note["key"]].append(note["n"])
    return dict(seen)


NOTES = """
    import time
    from kflow import Batch, on_stream
    @on_stream("orders", batch_size=10, parallelization_factor={factor}{options})
    def bill(batch: Batch) -> None:
        for record in batch:
            note(what="record", **record.json())
        {extra}
"""


@pytest.mark.parametrize(("factor", "max_workers"), [(10, 3), (3, 1), (2, 8)])
def test_every_key_arrives_in_order_and_every_record_once(tmp_path: Path, factor: int, max_workers: int) -> None:
    with in_project(tmp_path, max_workers=max_workers) as shop:
        shop.run("streams", "create", "orders", "--shards", "2")
        shop.handler(NOTES.format(factor=factor, options="", extra="pass"))
        put_keyed(shop, keys=20, each=25)

        shop.run("run", "--drain", "--timeout", "50")

        assert by_key(shop) == {f"k{key}": list(range(1, 26)) for key in range(20)}


def test_lanes_of_one_shard_run_at_the_same_time(shop: Project) -> None:
    """Each batch waits until another lane's has begun as well: with one at a time, nothing would ever end."""
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        import os, pathlib, time
        from kflow import Batch, on_stream
        @on_stream("orders", batch_size=10, parallelization_factor=2, timeout=60)
        def bill(batch: Batch) -> None:
            note(what="begin")
            seen = pathlib.Path(__file__).parent.parent / "seen.jsonl"
            while len({line.split(",")[0] for line in seen.read_text().splitlines()}) < 2:
                time.sleep(0.01)
            for record in batch:
                note(what="record", **record.json())
    """)
    put_keyed(shop, keys=20, each=1)

    shop.run("run", "--drain", "--timeout", "50")

    assert len({note["pid"] for note in shop.seen(what="record")}) == 2
    assert by_key(shop) == {f"k{key}": [1] for key in range(20)}


def test_a_record_that_fails_for_ever_blocks_its_own_lane_only(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", batch_size=1, parallelization_factor=10)
        def bill(record: Record) -> None:
            value = record.json()
            if value["key"] == "k0":
                raise ValueError("never")
            note(what="record", **value)
    """)
    put_keyed(shop, keys=30, each=2)
    process = shop.start()

    shop.wait_for(
        lambda: len(by_key(shop)) >= 20 and all(numbers == [1, 2] for numbers in by_key(shop).values()),
        "the other lanes to go on",
    )

    assert "k0" not in by_key(shop)
    shop.stop(process)


def test_another_factor_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    with in_project(tmp_path, max_workers=2) as shop:
        shop.run("streams", "create", "orders", "--shards", "1")
        for round_, factor in enumerate((1, 7, 3)):
            shop.handler(NOTES.format(factor=factor, options="", extra="pass"))
            put_keyed(shop, keys=12, each=10, first=1 + 10 * round_)
            shop.run("run", "--drain", "--timeout", "50")

        assert by_key(shop) == {f"k{key}": list(range(1, 31)) for key in range(12)}


def test_a_factor_that_changes_in_the_midst_delivers_again_and_never_out_of_order(tmp_path: Path) -> None:
    with in_project(tmp_path, max_workers=2) as shop:
        shop.run("streams", "create", "orders", "--shards", "1")
        shop.handler(NOTES.format(factor=5, options="", extra="time.sleep(0.02)"))
        put_keyed(shop, keys=15, each=20)
        process = shop.start()
        shop.wait_for(lambda: len(shop.seen(what="record")) >= 60)
        shop.stop(process)
        before = by_key(shop)

        shop.handler(NOTES.format(factor=4, options="", extra="pass"))
        shop.run("run", "--drain", "--timeout", "50")

        for key, numbers in by_key(shop).items():
            first, again = numbers[: len(before.get(key, []))], numbers[len(before.get(key, [])) :]
            assert first == list(range(1, len(first) + 1))
            assert again == list(range(again[0], 21))
            assert again[0] <= len(first) + 1
