"""Order per key and completeness, whatever dies: workers with several lanes, the node, and both while shards change."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.project import Project, project

KEYS, EACH = 16, 12
in_project = contextmanager(project)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    with in_project(tmp_path, max_workers=3) as made:
        made.run("streams", "create", "orders", "--shards", "2")
        yield made


def put_round(shop: Project, number: int) -> None:
    """The next EACH records of each of KEYS keys; `n` rises within a key over all rounds."""
    first = 1 + EACH * number
    lines = [json.dumps({"key": f"k{key}", "n": n}) for n in range(first, first + EACH) for key in range(KEYS)]
    (shop.folder / "round.jsonl").write_text("\n".join(lines) + "\n")
    shop.run("put", "orders", "--file", "round.jsonl", "--key-field", "key")


def handler(shop: Project, *, factor: int, pause_s: float) -> None:
    shop.handler(f"""
        import time
        from kflow import Batch, on_stream
        @on_stream("orders", batch_size=7, parallelization_factor={factor})
        def bill(batch: Batch) -> None:
            note(what="begin")
            for record in batch:
                note(what="record", **record.json())
            time.sleep({pause_s})
    """)


def check(shop: Project, rounds: int) -> None:
    """Each key's records all came, and none came for the first time after a later one of its key."""
    first_seen: dict[str, list[int]] = defaultdict(list)
    for note in shop.seen(what="record"):
        if note["n"] not in first_seen[note["key"]]:
            first_seen[note["key"]].append(note["n"])
    assert dict(first_seen) == {f"k{key}": list(range(1, 1 + EACH * rounds)) for key in range(KEYS)}
    assert shop.json("parked", "list") == []


def all_seen(shop: Project, rounds: int) -> bool:
    return len({(note["key"], note["n"]) for note in shop.seen(what="record")}) == KEYS * EACH * rounds


def kill_a_worker(shop: Project) -> None:
    """The one that began a batch last; it may have ended by itself meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(shop.seen(what="begin")[-1]["pid"], signal.SIGKILL)


def test_a_killed_worker_gives_all_its_lanes_back(shop: Project) -> None:
    handler(shop, factor=10, pause_s=0.05)
    put_round(shop, 0)
    process = shop.start()
    for batches in (1, 5, 10, 15):
        shop.wait_for(lambda batches=batches: len(shop.seen(what="begin")) >= batches)
        kill_a_worker(shop)

    shop.wait_for(lambda: all_seen(shop, 1))

    check(shop, 1)
    shop.stop(process)


def test_a_killed_node_and_its_successor_keep_the_order_of_every_lane(shop: Project) -> None:
    handler(shop, factor=4, pause_s=0.02)
    put_round(shop, 0)
    for batches in (2, 8):
        process = shop.start()
        shop.wait_for(lambda batches=batches: len(shop.seen(what="begin")) >= batches)
        process.kill()
        process.wait(30)

    shop.run("run", "--drain", "--timeout", "50")

    check(shop, 1)


def test_children_are_read_after_their_parents_in_every_lane(shop: Project) -> None:
    handler(shop, factor=5, pause_s=0.01)
    process = shop.start()
    put_round(shop, 0)
    shop.run("streams", "split", "orders", "0")
    put_round(shop, 1)
    shop.run("streams", "merge", "orders", "3", "1")
    put_round(shop, 2)

    shop.wait_for(lambda: all_seen(shop, 3))

    check(shop, 3)
    assert shop.stop(process) == 130


def test_workers_that_die_while_shards_change_cost_nothing_but_time(shop: Project) -> None:
    handler(shop, factor=3, pause_s=0.02)
    process = shop.start()
    put_round(shop, 0)
    shop.wait_for(lambda: shop.seen(what="begin"))
    kill_a_worker(shop)
    shop.run("streams", "scale", "orders", "--shards", "3")
    kill_a_worker(shop)
    put_round(shop, 1)
    shop.wait_for(lambda: len(shop.seen(what="begin")) >= 10)
    kill_a_worker(shop)

    shop.wait_for(lambda: all_seen(shop, 2))

    check(shop, 2)
    shop.stop(process)


def test_a_node_that_dies_between_parents_and_children_goes_on_with_the_parents(shop: Project) -> None:
    handler(shop, factor=2, pause_s=0.05)
    process = shop.start()
    put_round(shop, 0)
    shop.run("streams", "split", "orders", "0")
    put_round(shop, 1)
    process.kill()
    process.wait(30)
    put_round(shop, 2)

    shop.run("run", "--drain", "--timeout", "50")

    check(shop, 3)


def test_shards_that_changed_while_nothing_ran_are_read_from_their_beginning(shop: Project) -> None:
    handler(shop, factor=2, pause_s=0)
    put_round(shop, 0)
    shop.run("run", "--drain", "--timeout", "50")
    put_round(shop, 1)
    shop.run("streams", "split", "orders", "1")
    put_round(shop, 2)

    shop.run("run", "--drain", "--timeout", "50")

    check(shop, 3)


def test_a_consumer_from_the_tip_misses_nothing_that_is_put_to_children(shop: Project) -> None:
    shop.handler("""
        from kflow import Batch, on_stream
        @on_stream("orders", starting_position="LATEST", parallelization_factor=2)
        def bill(batch: Batch) -> None:
            for record in batch:
                note(what="record", **record.json())
    """)
    process = shop.start()
    put_round(shop, 0)
    shop.run("streams", "split", "orders", "0")
    put_round(shop, 1)
    assert shop.stop(process) == 130
    shop.run("streams", "split", "orders", "1")
    put_round(shop, 2)

    shop.run("run", "--drain", "--timeout", "50")

    check(shop, 3)


def test_a_drain_includes_the_children_of_shards_that_close_meanwhile(shop: Project) -> None:
    handler(shop, factor=2, pause_s=0.05)
    put_round(shop, 0)
    process = shop.start("--drain", "--timeout", "50")
    shop.wait_for(lambda: shop.seen(what="begin"))
    shop.run("streams", "split", "orders", "0")

    assert process.wait(60) == 0
    check(shop, 1)
