"""The lines people see while a runtime works."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from kflow.cli.live import JsonLines, LiveLines, failure_text, printable, shard_number, short
from kflow.cli.terminal import Terminal
from kflow.interfaces import BatchOutcome, BatchResult, FunctionError
from kflow.runtime.feed import HandlerInfo, HandlerSummary, ReadyInfo, Summary

HERE = Path("/project")
ERROR = FunctionError(type="ZeroDivisionError", message="division by zero", file="/project/functions/app.py:11")
SAMPLE = b'{"id": 5, "qty": 0}'
NUMBER = "49" + "0" * 51 + "386"
NOTHING = Summary(seconds=2.5, handlers=())


def outcome(result: BatchResult, records: int = 8, **fields: object) -> BatchOutcome:
    values = {
        "function": "bill",
        "stream": "orders",
        "shard_id": "shardId-000000000000",
        "records": records,
        "succeeded": records if result is BatchResult.OK else 0,
        "result": result,
    }
    return BatchOutcome(**{**values, **fields})


def shown(*outcomes: BatchOutcome, summary: bool = False) -> list[str]:
    out = io.StringIO()
    lines = LiveLines(Terminal(out, io.StringIO(), environ={}), HERE, summary=summary)
    for each in outcomes:
        lines.outcome(each)
    lines.stopped(NOTHING)
    return out.getvalue().splitlines()


def test_ready_says_where_the_data_is_and_what_runs() -> None:
    out = io.StringIO()
    lines = LiveLines(Terminal(out, io.StringIO(), environ={}), HERE)
    bill = HandlerInfo(
        name="bill",
        place="/project/functions/app.py:10",
        stream="orders",
        shards=1,
        created=True,
        options="batch 100, 2 retries, bisect",
    )
    lines.ready(ReadyInfo(seconds=0.46, data_dir="/project/.kflow", handlers=(bill,)))
    lines.stopped(NOTHING)
    assert out.getvalue().splitlines() == [
        "ready 0.5 s   data .kflow",
        "bill  functions/app.py:10  <- orders (created, 1 shard)  batch 100, 2 retries, bisect",
        "stopped after 2.5 s",
    ]


def test_the_tour_of_one_bad_record() -> None:
    failed = {"error": ERROR, "sample": SAMPLE, "attempts_allowed": 3}
    assert shown(
        outcome(
            BatchResult.PARTIAL, 8, succeeded=4, failed_sequence_number=NUMBER, duration_us=1400, attempt=1, **failed
        ),
        outcome(BatchResult.BISECT, 4, duration_us=300, **failed),
        outcome(BatchResult.BISECT, 2, duration_us=300, **failed),
        outcome(BatchResult.PARKED, 1, attempt=3, parked=1, **failed),
        outcome(BatchResult.OK, 1, duration_us=200),
        outcome(BatchResult.OK, 2, duration_us=300),
    ) == [
        "bill orders/0  8 records      4 ok, failed at 49…386       1.4 ms  v1",
        '     ZeroDivisionError  functions/app.py:11  {"id": 5, "qty": 0}',
        "bill orders/0  4 records      failed, bisect               0.3 ms  v1",
        "bill orders/0  2 records      failed, bisect               0.3 ms  v1",
        "bill orders/0  1 record       failed 3 of 3, PARKED #1             v1",
        "bill orders/0  3 records      ok in 2 invocations          0.5 ms  v1",
    ]


def test_successes_are_written_before_the_failure_that_follows_them() -> None:
    assert [line.split("  ")[1] for line in shown(outcome(BatchResult.OK, 3), outcome(BatchResult.FAILED, 2))] == [
        "3 records",
        "2 records",
    ]


def test_a_batch_that_blocks_its_shard_is_called_so_from_its_second_attempt_on() -> None:
    assert shown(
        outcome(BatchResult.FAILED, attempt=1, error=ERROR, sample=SAMPLE),
        outcome(BatchResult.FAILED, attempt=2, error=ERROR, sample=SAMPLE),
    ) == [
        "bill orders/0  8 records      failed                               v1",
        '     ZeroDivisionError  functions/app.py:11  {"id": 5, "qty": 0}',
        "BLOCKED bill orders/0 attempt 2 ZeroDivisionError",
    ]


def test_more_shards_than_lines_are_summed_by_stream() -> None:
    many = [outcome(BatchResult.OK, 10, shard_id=f"shardId-{shard:012d}", duration_us=1000) for shard in range(13)]
    assert shown(*many) == ["bill orders/*  130 records    ok in 13 invocations        13.0 ms  v1"]


def test_an_error_without_a_place_shows_its_message() -> None:
    timed_out = FunctionError(type="Sandbox.Timedout", message="Task timed out after 3.00 seconds")
    assert shown(outcome(BatchResult.FAILED, error=timed_out))[1] == (
        "     Sandbox.Timedout  Task timed out after 3.00 seconds"
    )


def test_the_summary_is_a_table() -> None:
    out = io.StringIO()
    lines = LiveLines(Terminal(out, io.StringIO(), environ={}), HERE)
    bill = HandlerSummary(name="bill", processed=27004, redelivered=10, parked=1)
    lines.stopped(Summary(seconds=10.02, handlers=(bill,)))
    assert out.getvalue().splitlines() == [
        "stopped after 10.0 s",
        "handler  processed  redelivered  parked  lost",
        "bill        27,004           10       1     0",
    ]


def test_warnings_go_to_standard_error_and_notices_to_output() -> None:
    out, err = io.StringIO(), io.StringIO()
    lines = LiveLines(Terminal(out, err, environ={}), HERE)
    lines.notice("info", "ended 1 worker")
    lines.notice("warning", "slow")
    assert (out.getvalue(), err.getvalue()) == ("ended 1 worker\n", "warning: slow\n")


@pytest.mark.parametrize(
    ("result", "fields", "text"),
    [
        (BatchResult.FAILED, {"attempt": 2, "attempts_allowed": 3}, "failed 2 of 3"),
        (BatchResult.FAILED, {}, "failed"),
        (BatchResult.EXPIRED, {"parked": 4}, "too old, PARKED #4"),
        (BatchResult.PARKED, {"parked": 5, "attempt": 0}, "never sent, PARKED #5"),
        (BatchResult.LOST, {}, "gone from the log, LOST"),
        (BatchResult.EXPIRED, {}, "too old, DROPPED"),
        (BatchResult.DROPPED, {"attempt": 3, "attempts_allowed": 3}, "failed 3 of 3, DROPPED"),
        (BatchResult.DROPPED, {"attempt": 0}, "never sent, DROPPED"),
        (BatchResult.PARTIAL, {"succeeded": 4}, "4 ok, failed"),
    ],
)
def test_what_became_of_a_batch(result: BatchResult, fields: dict, text: str) -> None:
    assert failure_text(outcome(result, **fields)) == text


def test_json_lines_are_one_object_an_event() -> None:
    out = io.StringIO()
    lines = JsonLines(Terminal(out, io.StringIO(), environ={}))
    lines.outcome(outcome(BatchResult.PARKED, 1, error=ERROR, sample=b"\xff\n", parked=1))
    lines.notice("warning", "slow")
    lines.stopped(NOTHING)
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["function"], first["result"], first["parked"]) == ("outcome", "bill", "parked", 1)
    assert first["sample"] == "\\xff\\n"
    assert first["error"]["type"] == "ZeroDivisionError"
    assert second == {"event": "notice", "level": "warning", "text": "slow"}
    assert third == {"event": "stopped", "seconds": 2.5, "handlers": [], "dropped_lines": 0}


def test_small_texts() -> None:
    assert short(NUMBER) == "49…386"
    assert short("1234567") == "1234567"
    assert shard_number("shardId-000000000012") == "12"
    assert shard_number("*") == "*"
    assert printable("é\n".encode()) == "é\\n"


def test_a_queue_has_messages_and_no_shards() -> None:
    out = io.StringIO()
    lines = LiveLines(Terminal(out, io.StringIO(), environ={}), HERE, summary=False)
    work = HandlerInfo(
        name="work",
        place="/project/functions/app.py:3",
        stream="jobs",
        shards=0,
        created=True,
        options="batch 10",
        source="queue",
    )
    lines.ready(ReadyInfo(seconds=0.46, data_dir="/project/.kflow", handlers=(work,)))
    queue = {"function": "work", "stream": "jobs", "shard_id": "", "attempts_allowed": 2}
    named = "a1b2c3d4-0000-0000-0000-000000000xyz"
    lines.outcome(outcome(BatchResult.OK, 3, duration_us=1400, **queue))
    lines.outcome(outcome(BatchResult.PARTIAL, 3, succeeded=2, failed_sequence_number=named, **queue))
    lines.outcome(outcome(BatchResult.FAILED, 1, attempt=2, error=ERROR, sample=b"bad", **queue))
    lines.outcome(outcome(BatchResult.FAILED, 1, attempt=5, **{**queue, "attempts_allowed": 0}))
    lines.stopped(NOTHING)
    assert [" ".join(line.split()) for line in out.getvalue().splitlines()[1:]] == [
        "work functions/app.py:3 <- jobs (created, queue) batch 10",
        "work jobs 3 messages ok 1.4 ms v1",
        "work jobs 3 messages 2 ok, failed at a1…xyz v1",
        "work jobs 1 message failed 2 of 2 v1",
        "ZeroDivisionError functions/app.py:11 bad",
        "work jobs 1 message failed v1",
    ]
