"""Damage of every kind, met by processes of their own: `kflow doctor` finds it, `--repair` ends it, runtimes go on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kflow
from tests.damaging import flip
from tests.project import Project, project

HANDLER = """
from kflow import on_stream

@on_stream("orders", batch_size=10, maximum_retry_attempts=0)
def bill(event, context):
    import base64
    for record in event["Records"]:
        data = base64.b64decode(record["kinesis"]["data"]).decode()
        note(data=data)
        if data == "poison":
            raise ValueError("no")
"""

ELSEWHERE = """
from kflow import Batch, on_stream
@on_stream("other")
def nothing(batch: Batch) -> None:
    pass
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def filled(made: Project, *, run: bool = False) -> list[str]:
    """Three blocks of records; consumed if `run`, with a poison that is parked."""
    made.handler(HANDLER)
    made.run("streams", "create", "orders", "--shards", "1")
    if run:
        made.run("put", "orders", "poison", "--key", "k")
    for block in range(3):
        (made.folder / "some").write_text("".join(f"{block}{number}\n" for number in range(5)))
        made.run("put", "orders", "--file", "some", "--format", "text", "--key", "k")
    if run:
        made.run("run", "--drain", seconds=120)
    return [f"{block}{number}" for block in range(3) for number in range(5)]


def stored(made: Project) -> list[str]:
    """The records, by `kflow tail`."""
    lines = made.run("tail", "orders", "--from", "trim_horizon", "--no-follow", "--json").stdout.splitlines()
    return [json.loads(line)["data"] for line in lines]


def one(made: Project, pattern: str) -> Path:
    (path,) = made.data_dir.glob(pattern)
    return path


def segment_header(made: Project) -> None:
    flip(one(made, "streams/*/0/*.seg"), 30)


def block_body(made: Project) -> None:
    path = one(made, "streams/*/0/*.seg")
    flip(path, path.read_bytes().index(b"10111213"))


def last_block(made: Project) -> None:
    path = one(made, "streams/*/0/*.seg")
    flip(path, path.read_bytes().index(b"20212223"))


def block_header(made: Project) -> None:
    path = one(made, "streams/*/0/*.seg")
    flip(path, path.read_bytes().index(b"10111213") - 5 * 7 - 5 - 60)


def tail(made: Project) -> None:
    flip(one(made, "streams/*/0/ctl"), 6 * 8)


def counter(made: Project) -> None:
    flip(one(made, "streams/*/0/ctl"), 7 * 8 + 1)


def map_(made: Project) -> None:
    flip(one(made, "streams/*/map.json"), 70)


def map_and_copy(made: Project) -> None:
    map_(made)
    flip(one(made, "streams/*/map.json.twin"), 70)


def catalogue(made: Project) -> None:
    path = made.data_dir / "catalogue.db"
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("damaging", "what", "gone"),
    [
        (segment_header, r"seg: the segment's header", []),
        (block_body, r"seg: the block at \d+ is damaged", ["10", "11", "12", "13", "14"]),
        (block_header, r"seg: the block at \d+ is damaged", ["10", "11", "12", "13", "14"]),
        (tail, "ctl: (its words contradict each other|the tail is|segments lie)", []),
        (counter, r"ctl: the next counter is \d+, and the last record's 15", []),
        (map_, r"map.json: is not the map of a stream: its checksum is wrong", []),
        (map_and_copy, r"map.json: is not the map of a stream: its checksum is wrong", []),
        (catalogue, r"catalogue.db: it cannot be read", []),
    ],
)
def test_damage_is_found_and_repaired(
    made: Project, damaging: Callable[[Project], None], what: str, gone: list[str]
) -> None:
    datas = filled(made)
    assert "every checksum is right" in made.run("doctor").stdout
    damaging(made)
    harmless = damaging is catalogue
    found = made.run("doctor", check=0 if harmless else 1).stdout
    assert re.search(what, found), found
    planned = made.run("doctor", "--repair", check=2)  # nobody to ask
    assert "Say so with --yes" in planned.stderr
    assert re.search(what, planned.stdout), planned.stdout
    assert " will " in planned.stdout
    repaired = made.run("doctor", "--repair", "--yes")
    assert re.search(what, repaired.stdout), "the plan alone has changed nothing"
    assert "nothing is damaged any more" in repaired.stdout, repaired.stdout
    assert stored(made) == [data for data in datas if data not in gone]
    after = made.run("doctor").stdout
    assert "every checksum is right" in after
    assert ("5 records of orders/0 by damage" in after) == bool(gone)
    made.run("put", "orders", "later", "--key", "k")
    assert stored(made) == [*(data for data in datas if data not in gone), "later"]


def test_positions_and_parked_records_that_are_damaged(made: Project) -> None:
    datas = filled(made, run=True)
    slots = one(made, "checkpoints/bill/*.slots")
    for copy in (0, 256):
        flip(slots, 512 + copy + 50)
    parked = one(made, "parked/bill/*.parked")
    flip(parked, 60)
    found = json.loads(made.run("doctor", "--json", check=1).stdout)
    texts = [each["text"] for each in found if each["what"] == "damage"]
    assert len(texts) == 2, texts
    assert "both copies of 1 of the positions of bill in orders are damaged" in texts[0]
    assert "would restart bill at the beginning of shard 0" in texts[0]
    assert "the parked batch is damaged" in texts[1]
    done = json.loads(made.run("doctor", "--repair", "--yes", "--json").stdout)
    assert [each["failed"] for each in done["repaired"]] == [False, False]
    assert done["left"] == []
    assert made.run("parked", "list").stdout.count("bill") == 0
    made.seen_file.unlink()
    made.run("run", "--drain", seconds=120)
    assert [note["data"] for note in made.seen()] == ["poison", *datas[9:]]  # its batch of ten is parked again
    assert "bill" in made.run("parked", "list").stdout


@pytest.mark.parametrize(
    ("damaging", "gone"),
    [
        (block_body, ["10", "11", "12", "13", "14"]),
        (block_header, ["10", "11", "12", "13", "14"]),
        (last_block, ["20", "21", "22", "23", "24"]),
        (segment_header, []),
    ],
)
def test_a_runtime_leaves_out_what_is_damaged_and_goes_on(
    made: Project, damaging: Callable[[Project], None], gone: list[str]
) -> None:
    datas = filled(made)
    damaging(made)
    made.run("run", "--drain", seconds=120)
    assert [note["data"] for note in made.seen()] == [data for data in datas if data not in gone]
    (lane,) = [lane for each in made.json("status")["handlers"] for lane in each["lanes"]]
    assert (lane["lost"], lane["behind"]) == (len(gone), 0)
    after = made.run("doctor").stdout
    assert "every checksum is right" in after
    assert ("5 records of orders/0 by damage" in after) == bool(gone)


@pytest.mark.parametrize("runs", [True, False], ids=["beside-a-runtime", "alone"])
@pytest.mark.parametrize(
    ("damaging", "gone"),
    [(block_body, ["10", "11", "12", "13", "14"]), (last_block, ["20", "21", "22", "23", "24"]), (segment_header, [])],
)
def test_whoever_reads_beside_the_writer_leaves_out_what_is_damaged(
    made: Project, monkeypatch: pytest.MonkeyPatch, damaging: Callable[[Project], None], gone: list[str], runs: bool
) -> None:
    datas = [data for data in filled(made) if data not in gone]
    damaging(made)
    if runs:
        made.handler(ELSEWHERE)  # no worker comes upon it
        made.start()
    assert stored(made) == datas
    assert ("5 records of orders/0 by damage" in made.run("doctor").stdout) == bool(gone)

    monkeypatch.setenv("KFLOW_DATA_DIR", str(made.data_dir))
    client = kflow.client("kinesis")
    where = {"StreamName": "orders", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    found = client.get_records(ShardIterator=client.get_shard_iterator(**where)["ShardIterator"])["Records"]
    assert [record["Data"].decode().strip() for record in found] == datas


@pytest.mark.parametrize("runs", [True, False], ids=["beside-a-runtime", "alone"])
def test_get_records_has_damage_put_aside(made: Project, monkeypatch: pytest.MonkeyPatch, runs: bool) -> None:
    datas = filled(made)
    block_body(made)
    if runs:
        made.handler(ELSEWHERE)
        made.start()
    monkeypatch.setenv("KFLOW_DATA_DIR", str(made.data_dir))
    client = kflow.client("kinesis")
    where = {"StreamName": "orders", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    found = client.get_records(ShardIterator=client.get_shard_iterator(**where)["ShardIterator"])["Records"]
    assert [record["Data"].decode().strip() for record in found] == datas[:5] + datas[10:]


def test_lanes_leave_out_what_is_damaged_and_count_each_record_once(made: Project) -> None:
    datas = filled(made)
    made.handler(HANDLER.replace("batch_size=10", "batch_size=10, parallelization_factor=3"))
    last_block(made)
    made.run("run", "--drain", seconds=120)
    assert sorted(note["data"] for note in made.seen()) == datas[:10]
    lanes = [lane for each in made.json("status")["handlers"] for lane in each["lanes"]]
    assert [lane["behind"] for lane in lanes] == [0, 0, 0]
    assert sum(lane["lost"] for lane in lanes) == 5


def test_repair_waits_for_no_runtime(made: Project) -> None:
    filled(made)
    running = made.start()
    flip(one(made, "streams/*/map.json.twin"), 50)
    refused = made.run("doctor", "--repair", "--yes", check=1)
    assert "`kflow stop` first" in refused.stderr
    assert made.stop(running) == 130
    assert "the copy is written anew" in made.run("doctor", "--repair", "--yes").stdout
