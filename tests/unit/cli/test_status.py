"""`kflow status` of folders with everything that can be the matter, without a runtime and with one that answers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kflow.broker import damage
from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.ctl import CLOSED, Ctl
from kflow.broker.damage import LostRange
from kflow.broker.slots import COPY_BYTES, SLOT_BYTES, Slot, SlotState
from kflow.cli.main import main
from kflow.cli.status import MOST_TROUBLES
from kflow.cli.terminal import Terminal
from kflow.records import BEGIN_COUNTER, Position
from kflow.runtime.tools import admin
from tests.storing import Store

Run = Callable[..., str]


class Shop:
    """A store of two shards with a consumer `bill`, and `kflow` on it."""

    def __init__(self, path: Path, *, shards: int = 2, factor: int = 1) -> None:
        self.store = Store(path, shards=shards)
        self.factor = factor
        self.slots = SlotFile.open(
            path,
            "bill",
            self.store.stream.id,
            files=self.store.files,
            create_for=range(shards),
            factor=factor,
            sync=False,
        )

    def fill(self) -> None:
        """Five records in each shard."""
        for info in self.store.stream.shards:
            keys = [f"key {n}" for n in range(5)]
            parts = self.store.encoder.encode_many(keys, [b"data"] * 5, [info.start] * 5)
            self.store.log.append(self.store.stream, parts)

    def at_end(self, shard: int, **fields: Any) -> Slot:
        """A slot that has settled the five records of a shard."""
        tail = self.store.log.shard(self.store.stream, shard).tail
        return Slot(checkpoint=Position(tail, 0), checkpoint_counter=BEGIN_COUNTER + 5, **fields)

    def status(self, *arguments: str) -> str:
        out = io.StringIO()
        words = ("status", "--data-dir", str(self.store.folder.path), *arguments)
        assert main(words, terminal=Terminal(out, io.StringIO(), environ={})) == 0
        return out.getvalue()

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.status("--json"))
        return found

    def rows(self, *arguments: str) -> list[list[str]]:
        """The table's rows by words, the heading left out."""
        lines = self.status(*arguments).splitlines()
        begin = next(number for number, line in enumerate(lines) if line.startswith("handler "))
        rows = []
        for line in lines[begin + 1 :]:
            if not line.startswith(("bill ", "   ")):
                break
            rows.append(line.split())
        return rows

    def troubles(self) -> list[str]:
        words = ("BLOCKED", "SUSPECT", "DAMAGED", "LOST", "STORAGE", "FULL")
        return [line for line in self.status().splitlines() if line.startswith(words)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    made = Shop(tmp_path / "data")
    yield made
    made.slots.close()


def test_all_is_settled(shop: Shop) -> None:
    shop.fill()
    for shard in range(2):
        shop.slots.store(shard, 0, shop.at_end(shard, succeeded=5, delivered=7, invocations=3, failures=1))
    assert shop.rows() == [["bill", "orders/*", "idle", "0", "-", "10", "4", "0", "0"]]
    assert shop.rows("--shards")[1:] == [
        ["orders/0", "idle", "0", "-", "5", "2", "0", "0"],
        ["orders/1", "idle", "0", "-", "5", "2", "0", "0"],
    ]
    assert shop.troubles() == []


def test_what_waits_has_an_age(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(0, 0, shop.at_end(0, succeeded=5, delivered=5))
    (row,) = shop.rows()
    assert row[:4] == ["bill", "orders/*", "waiting", "5"]
    assert row[5] == "d"  # the manual clock stands years ago
    (bill,) = shop.json()["handlers"]
    assert [lane["behind"] for lane in bill["lanes"]] == [0, 5]
    assert bill["lanes"][0]["iterator_age_ms"] == 0
    assert bill["iterator_age_ms"] == bill["lanes"][1]["iterator_age_ms"] > 0


def test_a_suspect_batch_is_named(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(1, 0, Slot(state=SlotState.FAILED, interruptions=3, error_type="E", attempt=1))
    assert shop.rows()[0][2] == "suspect"
    assert shop.troubles() == ["SUSPECT bill orders/1: its batch was running when runtimes died; it runs alone"]


def test_a_blocked_batch_says_what_the_slot_kept(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(
        1, 0, Slot(state=SlotState.FAILED, attempt=12, error_type="ValueError", error_message="no\nquantity")
    )
    assert shop.troubles() == ["BLOCKED bill orders/1 attempt 12 ValueError: no"]
    assert shop.json()["handlers"][0]["blocked"] == 1


def test_a_thousand_blocked_shards_are_not_a_thousand_lines(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", shards=MOST_TROUBLES + 3)
    for shard in range(MOST_TROUBLES + 3):
        shop.slots.store(shard, 0, Slot(state=SlotState.FAILED, attempt=1, error_type="E"))
    assert len(shop.troubles()) == MOST_TROUBLES
    assert "and 3 more of these: `kflow status --json` has all" in shop.status()
    shop.slots.close()


def test_lanes_have_a_row_each_and_sum_up(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", shards=1, factor=3)
    shop.fill()
    shop.slots.store(0, 2, shop.at_end(0, succeeded=2, delivered=2))
    (bill,) = shop.json()["handlers"]
    assert bill["factor"] == 3
    lanes = {lane["lane"]: lane for lane in bill["lanes"]}
    (block,) = shop.store.reader().read(0)
    wanted = [sum(value % 3 == lane for value in block.lanes()) for lane in range(2)]
    assert [lanes[lane]["behind"] for lane in range(3)] == [*wanted, 0]
    rows = shop.rows("--lanes")
    assert [row[:3] for row in rows[1:]] == [["orders/0", "lane", str(lane)] for lane in range(3)]
    assert shop.rows("--shards")[1][:3] == ["orders/0", "waiting", str(sum(wanted))]
    assert rows[0][:4] == ["bill", "orders/*", "waiting", str(sum(wanted))]
    shop.slots.close()


def test_dropped_records_have_a_column_where_there_are_any(shop: Shop) -> None:
    assert "parked  lost" in shop.status()
    shop.slots.store(0, 0, Slot(dropped=3, delivered=3))
    assert "parked  dropped  lost" in shop.status()
    assert shop.rows()[0][-3:] == ["0", "3", "0"]
    (bill,) = shop.json()["handlers"]
    assert (bill["dropped"], bill["redelivered"]) == (3, 0)


def test_what_was_lost_is_told_by_reason(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(0, 0, shop.at_end(0, lost=3))
    where = str(shop.store.folder.shard_dir(shop.store.stream, 0))
    entry = LostRange(0, 64, BEGIN_COUNTER, BEGIN_COUNTER + 2, 2, damage.DAMAGE, 1_700_000_000_000)
    damage.note(where, shop.store.files, entry, sync=False)
    (line,) = shop.troubles()
    assert line.startswith("LOST orders/0: 2 records by damage, found 2023-11-1")
    (stream,) = shop.json()["streams"]
    assert (stream["lost"], stream["stored"]) == (2, 10)
    (found,) = stream["damage"]
    assert found["shard_id"] == "shardId-000000000000"
    assert (found["records"], found["reason"], found["start"], found["end"]) == (2, "damage", 0, 64)
    assert shop.rows()[0][-1] == "3"


def test_damage_that_nobody_has_quarantined_is_shown_and_the_rest_too(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(1, 0, shop.at_end(1, succeeded=5))
    (segment,) = shop.store.shard_path.glob("*.seg")
    raw = bytearray(segment.read_bytes())
    raw[-3] ^= 1
    segment.write_bytes(raw)
    assert shop.rows("--shards")[1][1] == "damaged"
    assert shop.rows("--shards")[2][1] == "idle"
    first, second = shop.troubles()
    assert first.startswith("DAMAGED orders/0: ")
    assert second.startswith("DAMAGED bill orders/0: the log is damaged at offset 0; `kflow doctor`")
    (stream,) = shop.json()["streams"]
    assert stream["trouble"][0]["shard_id"] == "shardId-000000000000"


def test_a_slot_without_a_valid_copy_is_shown_and_the_rest_too(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(1, 0, shop.at_end(1, succeeded=5))
    path = Path(slots_path(shop.store.folder.path, "bill", shop.store.stream.id))
    raw = bytearray(path.read_bytes())
    raw[512 + 9] ^= 1
    raw[512 + COPY_BYTES + 9] ^= 1
    path.write_bytes(raw)
    assert len(raw) == 512 + 2 * SLOT_BYTES
    assert shop.rows()[0][2] == "damaged"
    (line,) = shop.troubles()
    assert line.startswith(f"DAMAGED bill orders: {path}: 1 of its slots have no valid copy")
    (bill,) = shop.json()["handlers"]
    assert bill["processed"] == 5


def test_a_file_of_positions_that_is_damaged_is_shown_and_the_rest_too(shop: Shop) -> None:
    path = Path(slots_path(shop.store.folder.path, "bill", shop.store.stream.id))
    raw = bytearray(path.read_bytes())
    raw[20] ^= 1
    path.write_bytes(raw)
    assert shop.rows()[0][:3] == ["bill", "orders/*", "damaged"]
    assert shop.troubles()[0].startswith("DAMAGED bill orders: ")
    assert shop.json()["streams"][0]["shards"] == 2


def test_a_closed_shard_that_is_settled_is_drained(shop: Shop) -> None:
    shop.fill()
    shop.slots.store(0, 0, shop.at_end(0))
    where = str(shop.store.folder.shard_dir(shop.store.stream, 0))
    Ctl.open(where, shop.store.files, write=True).words[CLOSED] = 1
    assert [row[1] for row in shop.rows("--shards")[1:]] == ["drained", "waiting"]
    shop.slots.store(1, 0, shop.at_end(1))
    assert shop.rows()[0][2] == "idle"


def test_a_closed_shard_whose_window_is_still_to_be_ended_is_not_drained(shop: Shop) -> None:
    at_end = msgspec.structs.replace(shop.at_end(0), window_start_s=1_700_000_000)
    shop.slots.store(0, 0, at_end)
    where = str(shop.store.folder.shard_dir(shop.store.stream, 0))
    Ctl.open(where, shop.store.files, write=True).words[CLOSED] = 1
    assert shop.rows("--shards")[1][1] == "tumbling"


def test_slots_of_a_shard_that_expired_keep_their_totals(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "data", shards=1)
    slots = SlotFile.open(
        shop.store.folder.path, "bill", shop.store.stream.id, files=shop.store.files, create_for=[0, 1], sync=False
    )
    slots.store(1, 0, Slot(succeeded=7))
    slots.close()
    assert shop.rows("--shards")[2] == ["orders/1", "expired", "0", "-", "7", "0", "0", "0"]
    assert shop.rows()[0][:4] == ["bill", "orders/*", "idle", "0"]
    assert shop.troubles() == []
    shop.slots.close()


def test_an_open_tumbling_window_is_what_a_lane_waits_for(shop: Shop) -> None:
    for shard in range(2):
        shop.slots.store(shard, 0, Slot(window_start_s=1_700_000_000))
    assert shop.rows()[0][2] == "tumbling"
    assert shop.json()["handlers"][0]["lanes"][0]["window_start_s"] == 1_700_000_000


def test_a_disk_that_is_almost_full_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from kflow import limits

    monkeypatch.setattr(limits, "FREE_BYTES", 1 << 60)
    (line,) = shop.troubles()
    assert line.startswith("FULL  ")
    assert "puts are refused; handlers go on" in line


# ---------------------------------------------------------------------- with a runtime


def lease(shard: int, state: str, **fields: Any) -> dict[str, Any]:
    return {
        "function": "bill",
        "stream": "orders",
        "shard": shard,
        "lane": 0,
        "state": state,
        "due_in_ms": None,
        "detail": "",
        "error": None,
        **fields,
    }


def answering(monkeypatch: pytest.MonkeyPatch, *leases: dict[str, Any], **fields: Any) -> None:
    node = {"pid": 7, "uptime_s": 61.5, "stopping": False, "draining": False, "workers": [1, 2], "leases": leases}
    monkeypatch.setattr(admin, "node_status", lambda _: {**node, **fields})


def test_the_runtime_is_in_the_first_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    assert shop.status().splitlines()[0].startswith("runtime running  process 7  61.5 s  2 workers  data ")
    answering(monkeypatch, draining=True)
    assert shop.status().startswith("runtime draining ")
    answering(monkeypatch, draining=True, stopping=True)
    assert shop.status().startswith("runtime stopping ")


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (lease(0, "running"), "running"),
        (lease(0, "backoff", due_in_ms=2_500), "backoff 2.5 s"),
        (lease(0, "window", due_in_ms=290_000), "window 4 min"),
        (lease(0, "look-ahead", due_in_ms=50), "look-ahead 50.0 ms"),
        (lease(0, "parents"), "parents"),
        (lease(0, "ready"), "waiting"),
        (lease(0, "lane"), "waiting"),
        (lease(0, "storage", detail="the disk is full"), "storage"),
    ],
)
def test_the_runtime_says_what_a_lane_waits_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], state: str
) -> None:
    shop.fill()
    answering(monkeypatch, found)
    line = next(line for line in shop.status("--shards").splitlines() if " orders/0 " in line)
    assert f" {state}  " in line
    (bill,) = shop.json()["handlers"]
    assert bill["lanes"][0]["waits_for"] == found["state"]
    assert bill["lanes"][0]["due_in_ms"] == found["due_in_ms"]


def test_of_a_lane_that_waits_for_news_the_runtime_says_nothing_but_that_it_reads_the_stream(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill()
    answering(monkeypatch, lease(0, "running"), reads=[["bill", "orders"]])
    assert [lane["waits_for"] for lane in shop.json()["handlers"][0]["lanes"]][:2] == ["running", "news"]
    answering(monkeypatch, lease(0, "running"), reads=[["ship", "orders"]])
    assert [lane["waits_for"] for lane in shop.json()["handlers"][0]["lanes"]][:2] == ["running", None]


def test_a_runtime_of_an_older_version_says_less(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill()
    found = {"function": "bill", "stream": "orders", "shard": 0, "state": "running"}
    node = {"pid": 7, "uptime_s": 1, "stopping": False, "workers": [], "leases": [found]}
    monkeypatch.setattr(admin, "node_status", lambda _: node)
    assert shop.rows("--shards")[1][1] == "running"


def test_what_the_storage_refuses_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lease(1, "storage", detail="the disk is full"))
    assert shop.troubles() == ["STORAGE bill orders/1 waits: the disk is full"]


def test_the_runtime_knows_the_whole_error(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.fill()
    message = "a long one: " + "x" * 300
    shop.slots.store(0, 0, Slot(state=SlotState.FAILED, attempt=4, error_type="ValueError", error_message=message))
    error = {"type": "ValueError", "message": message, "file": "app.py:3"}
    answering(monkeypatch, lease(0, "backoff", due_in_ms=8_000, error=error))
    (line,) = shop.troubles()
    assert line.startswith("BLOCKED bill orders/0 attempt 4 ValueError: a long one: xxx")
    assert line.endswith("xxx…  next attempt in 8.0 s")
    assert 200 < len(line) < 280


def test_an_error_of_another_batch_is_not_shown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.slots.store(0, 0, Slot(state=SlotState.FAILED, attempt=1, error_type="KeyError", error_message="'id'"))
    answering(monkeypatch, lease(0, "running", error={"type": "ValueError", "message": "old", "file": ""}))
    assert shop.troubles() == ["BLOCKED bill orders/0 attempt 1 KeyError: 'id'"]


def test_queues_that_handlers_read_are_shown_with_their_last_error(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = {
        "function": "work",
        "queue": "jobs",
        "uuid": "u",
        "state": "idle",
        "running": 0,
        "processed": 1200,
        "redelivered": 3,
        "error": {"type": "ValueError", "message": "no\n\nreally", "file": ""},
    }
    gone = {**idle, "queue": "gone", "state": "gone", "processed": 0, "redelivered": 0, "error": None}
    answering(monkeypatch, queues=[idle, gone, {**gone, "queue": "mine", "state": "functionless"}])
    lines = [line.rstrip() for line in shop.status().splitlines() if line.startswith(("handler", "work"))]
    assert lines[-4:] == [
        "handler  queue  state                   processed  redelivered  last error",
        "work     gone   waits for its queue             0            0",
        "work     jobs   all is settled              1,200            3  ValueError: no really",
        "work     mine   waits for its function          0            0",
    ]
