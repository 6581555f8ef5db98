"""Memory: a function's own limit costs attempts, and no process of kflow grows with the backlog or the records."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kflow
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from tests.project import Project, project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what a process holds")

KILLED = "Error: Runtime exited with error: signal: killed"


in_project = contextmanager(project)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put(shop: Project, count: int) -> None:
    (shop.folder / "numbers.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(1, count + 1)))
    shop.run("put", "orders", "--file", "numbers.jsonl", "--key", "k")


def errors(shop: Project) -> list[tuple[str, str, int, int]]:
    """Of each parked entry: the error's type and its text behind the request's id, attempts, records."""
    found = []
    for entry in shop.json("parked", "list"):
        text = entry["error"]["message"]
        found.append((entry["error"]["type"], text[text.index("Error:") :], entry["attempts"], entry["records"]))
    return found


GREEDY = """
    import time
    from kflow import Record, on_stream
    {before}
    kept = []
    @on_stream("orders", maximum_retry_attempts=1, bisect_batch_on_function_error=True, memory_size=128, timeout=40)
    def bill(record: Record) -> None:
        n = record.json()["n"]
        note(what="record", n=n)
        if n == 2:
            {greed}
"""


@pytest.mark.parametrize(
    "greed",
    ["kept.append(b'x' * (200 << 20))", "kept.append(b'x' * (200 << 20)); time.sleep(35)"],
    ids=["found by the worker after the batch", "found by the node while it runs"],
)
def test_a_function_that_takes_more_than_its_memory_fails_as_one_that_was_killed(shop: Project, greed: str) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler(GREEDY.format(before="", greed=greed))
    put(shop, 3)

    shop.run("run", "--drain", "--timeout", "50")

    assert errors(shop) == [("Runtime.ExitError", KILLED, 2, 1)]
    assert {note["n"] for note in shop.seen(what="record")} == {1, 2, 3}


def test_an_environment_that_used_its_memory_up_is_not_used_again(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler("""
        from kflow import Record, on_stream
        kept = []
        @on_stream("orders", batch_size=1, memory_size=128)
        def bill(record: Record) -> None:
            kept.append(b"x" * (50 << 20))
            note(what="record", n=record.json()["n"])
    """)
    put(shop, 6)

    shop.run("run", "--drain", "--timeout", "50")

    seen = shop.seen(what="record")
    assert len({note["pid"] for note in seen}) > 1
    assert sorted({note["n"] for note in seen}) == [1, 2, 3, 4, 5, 6]
    assert errors(shop) == []


def test_an_import_that_takes_more_than_the_memory_costs_attempts_too(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    in_the_worker = "__import__('os').environ.get('_HANDLER')"
    shop.handler(GREEDY.format(before=f"big = b'x' * (300 << 20 if {in_the_worker} else 0)", greed="pass"))
    put(shop, 1)

    shop.run("run", "--drain", "--timeout", "50")

    assert errors(shop) == [("Runtime.ExitError", KILLED, 2, 1)]


def test_a_function_within_its_memory_is_left_alone_whatever_was_imported_before_it(shop: Project) -> None:
    shop.run("streams", "create", "orders", "--shards", "1")
    shop.handler(GREEDY.format(before="", greed="kept.append(b'x' * (80 << 20))"))
    put(shop, 3)

    shop.run("run", "--drain", "--timeout", "50")

    assert errors(shop) == []


# ---------------------------------------------------------------------------------------------------------- bounds

LARGE, TOO_LARGE = 4 << 20, 9 << 20
"""Bytes: the largest that fits into an event by itself, nearly; and one that fits into none, and is parked."""


def peak_mb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError(f"process {pid} has no peak")


@pytest.mark.parametrize(("factor", "limit_mb"), [(1, 150), (10, 250)])
def test_memory_is_bounded_whatever_the_backlog_and_the_size_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int, limit_mb: int
) -> None:
    """60 records of 4 MiB and 20 of 9 MiB: 420 MiB, half of it there at the start. A process of Python takes 30 MB."""

    def put() -> None:
        with kflow.Producer("orders") as line:
            for number in range(40):
                line.put(os.urandom(TOO_LARGE if number % 4 == 3 else LARGE), partition_key=str(number))

    with in_project(tmp_path, max_workers=1) as shop:
        shop.handler(f"""
            from kflow import Batch, on_stream
            def peak():
                with open("/proc/self/status") as file:
                    return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) // 1024
            @on_stream("orders", parallelization_factor={factor}, memory_size=1024, maximum_retry_attempts=0)
            def bill(batch: Batch) -> None:
                note(what="batch", count=len(batch), peak=peak())
        """)
        monkeypatch.setenv("KFLOW_DATA_DIR", str(shop.data_dir))
        with writing(DataFolder.open(shop.data_dir, create=True)) as log:
            log.create_stream("orders", 1, max_record_bytes=10 << 20)
        put()
        process = shop.start()
        put()
        shop.wait_for(lambda: sum(note["count"] for note in shop.seen(what="batch")) >= 60)
        shop.wait_for(lambda: len(shop.json("parked", "list")) == 20)

        peaks = [peak_mb(process.pid), *(note["peak"] for note in shop.seen(what="batch"))]
        assert shop.stop(process) == 130
        assert max(peaks) < limit_mb, peaks
