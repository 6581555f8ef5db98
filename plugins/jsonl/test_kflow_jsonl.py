"""The plugin by itself: hooks called as the runtime calls them, the file read back."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from kflow.interfaces import BatchOutcome, BatchResult, FunctionError, RuntimeInfo
from kflow.plugins.manager import PluginManager

PLUGIN = Path(__file__).with_name("kflow_jsonl.py")
OUTCOME = BatchOutcome(
    function="bill",
    stream="orders",
    shard_id="shardId-000000000000",
    records=100,
    succeeded=100,
    result=BatchResult.OK,
    duration_us=1400,
)


def started(folder: Path) -> PluginManager:
    manager = PluginManager.load([str(PLUGIN)])
    manager.call("runtime_started", info=RuntimeInfo(data_dir=str(folder)))
    return manager


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_batch_is_one_line_in_the_data_folder(tmp_path: Path) -> None:
    manager = started(tmp_path)
    parked = msgspec.structs.replace(
        OUTCOME,
        records=1,
        succeeded=0,
        result=BatchResult.PARKED,
        attempt=3,
        error=FunctionError(type="ZeroDivisionError", message="division by zero"),
        parked=7,
    )
    manager.call("batch_done", outcome=OUTCOME)
    manager.call("batch_done", outcome=parked)

    first, second = lines(tmp_path / "metrics.jsonl")  # whole lines before the runtime stops
    assert isinstance(first.pop("time_ms"), int)
    assert first == {
        "function": "bill",
        "stream": "orders",
        "shard_id": "shardId-000000000000",
        "result": "ok",
        "records": 100,
        "succeeded": 100,
        "batches": 1,
        "attempt": 1,
        "duration_us": 1400,
        "error": None,
        "parked": None,
    }
    assert second["result"] == "parked"
    assert second["attempt"] == 3
    assert second["error"] == "ZeroDivisionError"
    assert second["parked"] == 7
    manager.call("runtime_stopping", reason="drained")


def test_a_change_of_shards_is_a_line_too(tmp_path: Path) -> None:
    manager = started(tmp_path)
    manager.call("shards_changed", stream="orders", closed=["shardId-0"], opened=["shardId-1", "shardId-2"])
    manager.call("runtime_stopping", reason="drained")

    (line,) = lines(tmp_path / "metrics.jsonl")
    assert isinstance(line.pop("time_ms"), int)
    assert line == {"stream": "orders", "closed": ["shardId-0"], "opened": ["shardId-1", "shardId-2"]}


def test_the_environment_names_another_file_and_a_second_run_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFLOW_JSONL", str(tmp_path / "elsewhere.jsonl"))
    for _ in range(2):
        manager = started(tmp_path)
        manager.call("batch_done", outcome=OUTCOME)
        manager.call("runtime_stopping", reason="drained")
    assert [line["records"] for line in lines(tmp_path / "elsewhere.jsonl")] == [100, 100]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_file_that_cannot_be_opened_is_logged_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = started(tmp_path / "missing")
    manager.call("batch_done", outcome=OUTCOME)
    manager.call("runtime_stopping", reason="drained")
    assert [record.getMessage() for record in caplog.records] == [
        "plugin=kflow_jsonl hook=runtime_started failures_in_a_row=1"
    ]
