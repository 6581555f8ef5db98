"""A data folder that kflow 0.1.0 left, in the hands of today's: through the public door, nothing lost or doubled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.older import unpack
from tests.project import Project

HANDLERS = """
    from dataclasses import dataclass
    from kflow import Record, on_stream

    @dataclass
    class Order:
        id: int
        qty: int

    @on_stream("orders", maximum_retry_attempts=2, bisect_batch_on_function_error=True)
    def bill(order: Record[Order]) -> None:
        note(what="billed", id=order.value.id)

    @on_stream("orders", batch_size=10)
    def audit(event, context):
        note(what="audited", count=len(event["Records"]))
"""
STATES = """
    @on_stream("states")
    def states(record: Record) -> None:
        note(what="state", data=record.json(), shard=record.shard_id)
"""


BOTH = pytest.mark.parametrize("old", ["copied", "same machine"], indirect=True)


@pytest.fixture
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project whose data folder is of layout 1; its handlers do not fail any more."""
    unpack(1, tmp_path / "was", same_machine=getattr(request, "param", "same machine") == "same machine")
    (tmp_path / "now").mkdir()
    made = Project(tmp_path / "now")
    (tmp_path / "was/data").rename(made.data_dir)
    made.handler(HANDLERS)
    try:
        yield made
    finally:
        made.close()


def layout(project: Project) -> int:
    found: int = json.loads((project.data_dir / "FORMAT").read_text())["layout"]
    return found


def handlers(project: Project) -> dict[str, dict]:
    return {each["function"]: each for each in project.json("status")["handlers"]}


@BOTH
def test_it_is_looked_at_as_it_is(old: Project, request: pytest.FixtureRequest) -> None:
    found = handlers(old)
    assert (found["bill"]["processed"], found["bill"]["parked"], found["bill"]["behind"]) == (56, 4, 0)
    assert found["audit"]["processed"] == 60
    states = found["states"]["lanes"]
    assert [lane["state"] for lane in states] == [
        "idle",
        "idle",
        "running",
        "failed",
        "failed",
        "failed",
        "failed",
        "idle",
    ]
    assert [lane["behind"] for lane in states] == [0, 6, 10, 10, 10, 10, 10, 10]
    assert [lane["suspect"] for lane in states] == [False] * 5 + [True, False, False]
    assert states[1]["lost"] == 77
    assert states[3]["error_message"].startswith("the dose makes the poison")
    assert [each["number"] for each in old.json("parked", "list")] == [1, 2, 4]
    assert [stream["stream"] for stream in old.json("streams", "list")] == ["clicks", "orders", "states"]
    copied = request.node.callspec.params["old"] == "copied"  # then it is recovered first, which is a write
    assert layout(old) == (2 if copied else 1)


@BOTH
def test_handlers_go_on_where_they_stood(old: Project) -> None:
    old.run("put", "orders", json.dumps({"id": 100, "qty": 1}), "--key", "100")
    assert layout(old) == 2
    done = old.run("run", "--drain", "--timeout", "50")
    assert [note["id"] for note in old.seen(what="billed")] == [100]
    assert sum(note["count"] for note in old.seen(what="audited")) == 1
    found = handlers(old)
    assert (found["bill"]["processed"], found["bill"]["parked"]) == (57, 4)
    assert re.search(r"bill +57 ", done.stdout)


@pytest.mark.parametrize("old", ["copied"], indirect=True)
def test_batches_in_every_state_are_taken_over(old: Project) -> None:
    """One of them is suspect, and waits for ten seconds before it runs alone."""
    old.handler(HANDLERS + STATES)
    old.run("run", "--drain", "--timeout", "50")
    seen = [(note["shard"], note["data"]["n"]) for note in old.seen(what="state")]
    wanted = {1: range(4, 10), **dict.fromkeys(range(2, 8), range(10))}
    assert sorted(seen) == sorted((f"shardId-{shard:012d}", n) for shard in wanted for n in wanted[shard])
    assert handlers(old)["states"]["behind"] == 0


def test_the_first_run_says_that_it_brings_the_folder_up_to_date(old: Project) -> None:
    done = old.run("run", "--drain", "--timeout", "50")
    assert "was of layout 1 and is of layout 2 now: an older kflow cannot open it any more" in done.stdout
    assert layout(old) == 2
    assert "layout 1" not in old.run("run", "--drain", "--timeout", "50").stdout


def test_what_was_parked_is_sent_again(old: Project) -> None:
    process = old.start()
    for number in (1, 2, 4):  # 2 was claimed by a runtime that is no more
        old.run("parked", "redrive", str(number))
    assert sorted(note["id"] for note in old.seen(what="billed")) == [5, 23, 44]
    assert old.json("parked", "list") == []
    assert old.stop(process) == 130


def test_positions_are_moved_in_it(old: Project) -> None:
    old.run("checkpoints", "set", "audit", "--to", "trim_horizon")
    assert layout(old) == 2
    old.run("run", "--drain", "--timeout", "50")
    assert sum(note["count"] for note in old.seen(what="audited")) == 60


def test_an_upgrade_that_was_killed_is_done_by_the_next_one(old: Project) -> None:
    """The only trace of one that died before its commit is a half-written file beside FORMAT."""
    (old.data_dir / "FORMAT.123.0.tmp").write_text('{"layout": 2')
    old.run("put", "orders", "{}", "--key", "k")
    assert layout(old) == 2
    assert os.path.isdir(old.data_dir / "checkpoints")
