"""`archive` on a real batch, and on what a redelivery makes of it."""

import gzip
import json
from pathlib import Path

import pytest

from functions.archive.app import archive
from kflow import lambda_handler

EVENT = json.loads(Path(__file__).with_name("event.json").read_text())
RECORDS = EVENT["Records"]
FIRST = "49670424469207652119694055926781450864006414235630305314"
SECOND = "49670424469207652119694055926782659789826028864805011490"
handler = lambda_handler(archive)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARCHIVE_DIR", str(tmp_path))
    return tmp_path / "flights" / "shardId-000000000002"


def deliver(start: int, stop: int) -> None:
    handler({"Records": RECORDS[start:stop]}, None)


def aircraft(path: Path) -> list[str]:
    return [json.loads(line)["tailnum"] for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_a_batch_is_one_file_named_by_its_first_record(folder: Path) -> None:
    deliver(0, 3)
    assert [path.name for path in folder.iterdir()] == [f"{FIRST}.jsonl.gz"]
    assert aircraft(folder / f"{FIRST}.jsonl.gz") == ["N14228", "N619AA", "N487AA"]


def test_the_same_batch_again_makes_the_same_file(folder: Path) -> None:
    deliver(0, 3)
    before = (folder / f"{FIRST}.jsonl.gz").read_bytes()
    deliver(0, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {f"{FIRST}.jsonl.gz": before}


def test_a_longer_redelivery_replaces_the_shorter_file(folder: Path) -> None:
    deliver(0, 2)
    deliver(0, 3)
    assert [path.name for path in folder.iterdir()] == [f"{FIRST}.jsonl.gz"]
    assert aircraft(folder / f"{FIRST}.jsonl.gz") == ["N14228", "N619AA", "N487AA"]


def test_a_shorter_redelivery_and_what_follows_it_hold_each_record_once(folder: Path) -> None:
    deliver(0, 3)
    deliver(0, 1)
    deliver(1, 3)
    assert aircraft(folder / f"{FIRST}.jsonl.gz") == ["N14228"]
    assert aircraft(folder / f"{SECOND}.jsonl.gz") == ["N619AA", "N487AA"]
