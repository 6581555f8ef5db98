"""Metrics: the text format, what is in it, when it is written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from pathlib import Path

import pytest

from kflow.broker.checkpoints import SlotFile
from kflow.broker.slots import Slot, SlotState
from kflow.interfaces import BatchOutcome, BatchResult
from kflow.monitoring.measures import Measures
from kflow.records import BEGIN_COUNTER, Position
from kflow.runtime.measures.lambda_ import LambdaMeasures
from kflow.runtime.plan.leases import Lease, LeaseState, LeaseTable
from kflow.runtime.status.metrics import FILE_NAME, Measured, Metrics
from kflow.runtime.status.prometheus import Family, lines
from kflow.runtime.worker.logfiles import MOST_BYTES, log_path
from tests.deadline import eventually
from tests.storing import FaultyFiles, Store

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+]+)')


class Feed:
    dropped = 0


def parse(text: str) -> dict[str, dict[str, float]]:
    """Samples by family and labels; checks the format on the way: HELP, TYPE, then that family's samples, once."""
    found: dict[str, dict[str, float]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in found
            found[name] = {}
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in ([name, "counter"], [name, "gauge"])
            assert line.endswith("counter") == name.endswith("_total")
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == name
            labels = match[2] or ""
            assert labels not in found[name]
            found[name][labels] = float(match[3])
    return found


class Node:
    """A metrics object with a store, a consumer `bill` of it, and the node's table."""

    def __init__(self, path: Path, *, shards: int = 1, factor: int = 1, files: FaultyFiles | None = None) -> None:
        self.files = files or FaultyFiles()
        self.store = Store(path, shards=shards, files=self.files)
        self.table = LeaseTable(2)
        self.feed = Feed()
        self.slots = SlotFile.open(
            self.store.folder.path,
            "bill",
            self.store.stream.id,
            files=self.files,
            create_for=range(shards),
            factor=factor,
            sync=False,
        )
        self.metrics = Metrics(self.store.folder, interval_s=0.01, first_s=0, share=0)
        self.path = self.store.folder.path / FILE_NAME

    def start(self) -> None:
        self.metrics.start(self.table, self.feed)

    def read(self) -> dict[str, dict[str, float]]:
        return parse(self.path.read_text())

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, None where the file or the sample is not there."""
        if not self.path.exists():
            return None
        key = ",".join(f'{label}="{text}"' for label, text in labels.items())
        return self.read().get(name, {}).get(key)

    def until(self, wanted: float | None, name: str, **labels: str) -> None:
        eventually(lambda: self.value(name, **labels) == wanted or None, what=f"{name} {labels} to be {wanted}")

    def close(self) -> None:
        self.metrics.close()
        self.slots.close()


BILL = {"function": "bill", "stream": "orders", "shard": "0"}
ORDERS = {"stream": "orders", "shard": "0"}


def test_the_text_format_escapes_what_it_must() -> None:
    family = Family("kflow_x_total", "counter", "A \\ and\na line.")
    text = "".join(
        lines(
            [
                (family, {(("name", 'a"b\\c\nd'),): 3, (): 2.5}),
                (Family("kflow_none", "gauge", "No samples."), {}),
            ]
        )
    )
    assert text == (
        "# HELP kflow_x_total A \\\\ and\\na line.\n"
        "# TYPE kflow_x_total counter\n"
        'kflow_x_total{name="a\\"b\\\\c\\nd"} 3\n'
        "kflow_x_total 2.500\n"
    )


def test_large_numbers_are_whole(tmp_path: Path) -> None:
    assert "".join(lines([(Family("a_total", "counter", "x"), {(): 2**53})])).endswith(f"a_total {2**53}\n")


def test_what_was_put_and_settled_is_counted(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.store.put(b"1", b"2", b"3")
    node.slots.store(
        0,
        0,
        Slot(
            checkpoint=Position(0, 1),
            checkpoint_counter=BEGIN_COUNTER + 1,
            state=SlotState.FAILED,
            attempt=2,
            succeeded=1,
            delivered=7,
            invocations=4,
            failures=2,
            parked=5,
            dropped=6,
            lost=8,
            interruptions=3,
            error_type="ValueError",
        ),
    )
    node.start()
    node.until(1, "kflow_up")
    node.close()
    found = node.read()
    one = 'stream="orders",shard="0"'
    bill = f'function="bill",{one}'
    assert found["kflow_records_total"] == {one: 3}
    assert found["kflow_stored_records"] == {one: 3}
    assert found["kflow_stored_bytes"][one] > 64
    wanted = {
        "kflow_succeeded_records_total": 1,
        "kflow_delivered_records_total": 7,
        "kflow_parked_records_total": 5,
        "kflow_dropped_records_total": 6,
        "kflow_lost_records_total": 8,
        "kflow_invocations_total": 4,
        "kflow_failed_invocations_total": 2,
        "kflow_behind_records": 2,
        "kflow_blocked_lanes": 1,
        "kflow_suspect_lanes": 1,
    }
    assert {name: found[name] for name in wanted} == {name: {bill: value} for name, value in wanted.items()}
    assert found["kflow_iterator_age_seconds"][bill] > 1_000_000  # the manual clock stands in 2023
    assert found["kflow_oldest_record_timestamp_seconds"][bill] == pytest.approx(1_700_000_000, abs=10)
    assert found["kflow_up"] == {"": 0}
    assert list(found["kflow_info"].values()) == [1]
    assert found["kflow_free_bytes"][""] > 0


def test_a_change_is_written_and_nothing_is_written_without_one(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.start()
    node.until(0, "kflow_records_total", **ORDERS)
    before = node.path.stat().st_ino
    assert not threading.Event().wait(0.1)  # ten intervals
    assert node.path.stat().st_ino == before
    node.store.put(b"1")
    node.metrics.appended(node.store.stream, 0)
    node.until(1, "kflow_records_total", **ORDERS)
    node.until(1, "kflow_behind_records", **BILL)
    tail = node.store.log.shard(node.store.stream, 0).tail
    node.slots.store(0, 0, Slot(checkpoint=Position(tail, 0), checkpoint_counter=BEGIN_COUNTER + 1, succeeded=1))
    node.metrics.outcome(outcome())
    node.until(0, "kflow_behind_records", **BILL)
    assert node.value("kflow_succeeded_records_total", **BILL) == 1
    assert node.value("kflow_iterator_age_seconds", **BILL) == 0
    assert node.value("kflow_oldest_record_timestamp_seconds", **BILL) is None
    node.close()


def outcome() -> BatchOutcome:
    return BatchOutcome(
        function="bill",
        stream="orders",
        shard_id="shardId-000000000000",
        records=1,
        succeeded=1,
        result=BatchResult.OK,
    )


def test_only_what_has_changed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kflow.runtime.status import metrics as module

    node = Node(tmp_path, shards=20)
    read: list[int] = []
    plain = module.survey.lanes
    monkeypatch.setattr(module.survey, "lanes", lambda *a: (read.append(a[3]), plain(*a))[1])
    node.start()
    node.until(0, "kflow_behind_records", function="bill", stream="orders", shard="19")
    assert read == list(range(20))
    node.metrics.appended(node.store.stream, 7)
    eventually(lambda: len(read) > 20)
    node.close()
    assert read[20:] == [7]


def test_lines_that_were_lost_make_it_look_at_everything(tmp_path: Path) -> None:
    node = Node(tmp_path, shards=3)
    node.start()
    node.until(0, "kflow_behind_records", function="bill", stream="orders", shard="2")
    node.slots.store(2, 0, Slot(succeeded=9))  # its outcome was dropped
    node.feed.dropped = 1
    node.metrics.appended(node.store.stream, 0)
    node.until(9, "kflow_succeeded_records_total", function="bill", stream="orders", shard="2")
    node.until(1, "kflow_dropped_lines_total")
    node.close()


def test_lanes_are_summed(tmp_path: Path) -> None:
    node = Node(tmp_path, factor=4)
    for lane in range(4):
        node.slots.store(0, lane, Slot(succeeded=10, error_type="E" if lane else ""))
    node.start()
    node.until(40, "kflow_succeeded_records_total", **BILL)
    assert node.value("kflow_blocked_lanes", **BILL) == 3
    node.close()


def test_a_deleted_stream_leaves_the_metrics_and_a_new_one_comes(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.start()
    node.until(0, "kflow_records_total", **ORDERS)
    other = node.store.log.create_stream("other", 1)
    node.store.log.delete_stream("orders")
    node.metrics.appended(other, 0)
    node.until(0, "kflow_records_total", stream="other", shard="0")
    assert node.value("kflow_records_total", **ORDERS) is None
    assert node.value("kflow_behind_records", **BILL) is None
    node.close()


def test_leases_and_workers_are_counted_by_state(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for number, state in enumerate((LeaseState.NEWS, LeaseState.NEWS, LeaseState.READY)):
        lease = Lease(number, "bill", 1, number, 0, settled_at=0.0)
        lease.state = state
        node.table.leases[number] = lease
    node.start()
    node.until(2, "kflow_lanes", function="bill", state="news")
    assert node.value("kflow_lanes", function="bill", state="ready") == 1
    node.close()
    assert "kflow_lanes" not in node.read()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_is_said_once_and_tried_again(
    tmp_path: Path, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path)
    node.files.errors["replace"] = code
    node.files.only = FILE_NAME
    node.start()
    for count in range(1, 4):
        eventually(lambda: node.files.calls.get("replace", 0) >= count)  # noqa: B023  # called at once
        node.metrics.appended(node.store.stream, 0)
    assert not node.path.exists()
    node.files.errors.clear()
    node.store.put(b"1")
    node.metrics.appended(node.store.stream, 0)
    node.until(1, "kflow_records_total", **ORDERS)
    node.close()
    assert len([each for each in caplog.records if "metrics cannot be written" in each.getMessage()]) == 1


def test_a_listener_hears_everything_and_the_metrics_their_part(tmp_path: Path) -> None:
    heard: list[object] = []

    class Listener:
        def ready(self, info) -> None:
            heard.append(info)

        def outcome(self, outcome) -> None:
            heard.append(outcome)

        def notice(self, level, text) -> None:
            heard.append((level, text))

        def stopped(self, summary) -> None:
            heard.append(summary)

    node = Node(tmp_path)
    measured = Measured(Listener(), node.metrics)
    measured.ready("info")  # type: ignore[arg-type]  # passed on, not looked at
    measured.outcome(outcome())
    measured.notice("info", "text")
    measured.stopped("summary")  # type: ignore[arg-type]  # likewise
    assert heard == ["info", outcome(), ("info", "text"), "summary"]
    assert node.metrics._changes == {("orders", 0)}
    node.close()


def test_without_a_start_nothing_is_written(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.close()
    assert not node.path.exists()


def test_a_log_that_one_invocation_fills_is_cut_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is appended meanwhile, and no batch ends: the thread wakes up by itself as long as a lease is held."""
    node = Node(tmp_path)
    lease = Lease(1, "bill", 1, 0, 0, settled_at=0.0)
    lease.state = LeaseState.GRANTED
    node.table.leases[1] = lease
    node.start()
    node.until(1, "kflow_lanes", function="bill", state="running")
    path = log_path(node.store.folder.path, "bill")
    path.write_text("")
    os.truncate(path, MOST_BYTES + 1)  # a hole: no disk is filled
    eventually(lambda: path.stat().st_size == 0)
    node.close()
    (record,) = [each for each in caplog.records if "cut off" in each.getMessage()]
    assert f"function=bill one invocation has written {MOST_BYTES + 1} bytes" in record.getMessage()


def test_the_text_is_made_when_somebody_asks(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.store.put(b"a", b"b")
    found = parse(node.metrics.exposition().decode())
    assert found["kflow_records_total"] == {'stream="orders",shard="0"': 2}
    assert found["kflow_up"] == {"": 1}
    assert not node.path.exists()


def test_functions_and_streams_are_measured_for_cloudwatch(tmp_path: Path) -> None:
    node = Node(tmp_path)
    invoked = LambdaMeasures(Measures(node.store.folder))
    node.metrics.start(node.table, node.feed, invoked)
    node.metrics.outcome(
        BatchOutcome(
            function="bill", stream="orders", shard_id="shardId-000000000000", records=1, succeeded=1,
            result=BatchResult.OK, duration_us=3000,
        )
    )  # fmt: skip
    node.metrics.outcome(
        BatchOutcome(function="bill", stream="jobs", shard_id="", records=1, succeeded=1, result=BatchResult.OK)
    )
    node.metrics.close()
    found = node.read()
    assert found["kflow_function_invocations_total"] == {'function="bill"': 1}
    assert found["kflow_function_errors_total"] == {'function="bill"': 0}
    assert found["kflow_function_duration_seconds_total"] == {'function="bill"': 0.003}
    folder = node.store.folder
    with contextlib.closing(Measures(folder)) as kept:
        names = {each.name for each in kept.metrics(folder.account, folder.region)}
    assert {"Invocations", "Errors", "Duration"} <= names
