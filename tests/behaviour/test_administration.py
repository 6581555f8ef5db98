"""Administration while a runtime is there, and while none is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import KFLOW, Project, project

HANDLER = """
    from kflow import Record, on_stream
    @on_stream("orders")
    def bill(record: Record) -> None:
        note(what="record", data=record.data.decode())
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def names(shop: Project) -> list[str]:
    return [stream["stream"] for stream in shop.json("streams", "list")]


@pytest.mark.parametrize("running", [True, False], ids=["with-a-runtime", "without"])
def test_streams_are_created_and_deleted_the_same_way(shop: Project, running: bool) -> None:
    shop.handler(HANDLER)
    process = shop.start() if running else None

    shop.run("streams", "create", "other", "--shards", "3")
    shop.run("put", "other", "one", "--key", "k")
    before = names(shop)
    shop.run("streams", "delete", "other", "--yes")

    assert "other" in before
    assert "other" not in names(shop)
    gone = shop.run("put", "other", "two", "--key", "k", check=2)
    assert "kflow streams create other" in gone.stderr
    if process is not None:
        assert shop.stop(process) == 130


def test_a_stream_that_a_running_handler_reads_is_not_deleted(shop: Project) -> None:
    shop.handler(HANDLER)
    process = shop.start()

    refused = shop.run("streams", "delete", "orders", "--yes", check=2)

    assert "bill" in refused.stderr
    assert "kflow stop" in refused.stderr
    assert shop.stop(process) == 130


def test_reset_empties_records_and_positions_and_never_repeats_a_sequence_number(shop: Project) -> None:
    shop.handler(HANDLER)
    shop.run("streams", "create", "orders")
    first = shop.run("put", "orders", "one", "--key", "k", "--json").stdout
    shop.run("run", "--drain", "--timeout", "50")

    shop.run("reset", "--stream", "orders", "--yes")
    second = shop.run("put", "orders", "two", "--key", "k", "--json").stdout
    shop.run("run", "--drain", "--timeout", "50")

    assert [note["data"] for note in shop.seen(what="record")] == ["one", "two"]
    assert first != second


def test_stop_ends_a_runtime_and_says_which_process(shop: Project) -> None:
    shop.handler(HANDLER)
    process = shop.start()

    said = shop.run("stop")

    assert str(process.pid) in said.stdout
    assert process.wait(30) == 0


def test_tail_follows_a_stream_that_a_runtime_serves(shop: Project) -> None:
    shop.handler(HANDLER)
    process = shop.start()
    tail = subprocess.Popen(
        [*KFLOW, "tail", "orders", "--from", "trim_horizon", "--json"],
        cwd=shop.folder,
        env=shop.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    try:
        for number in range(3):
            shop.run("put", "orders", f"record {number}", "--key", "k")
            assert f'"record {number}"' in tail.stdout.readline()
    finally:
        tail.kill()
        tail.wait()
        tail.stdout.close()
    assert shop.stop(process) == 130
