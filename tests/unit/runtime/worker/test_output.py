"""Lines of a function's log, as Lambda writes them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kflow.broker.functionlogs import index_path, older
from kflow.interfaces import FunctionError
from kflow.runtime.worker import output
from kflow.runtime.worker.logfiles import LogFile, log_path
from kflow.runtime.worker.output import FunctionLog, error_text, parse, report


def test_the_report_rounds_up_what_is_billed_and_ends_with_a_tab() -> None:
    assert report("abc", 3010, 128, 36, init_us=110_100) == (
        "END RequestId: abc\n"
        "REPORT RequestId: abc\tDuration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 36 MB\tInit Duration: 110.10 ms\t\n"
    )


def test_a_timeout_says_so_in_the_report() -> None:
    assert report("abc", 3_000_000, 128, 0, status="timeout").endswith("Max Memory Used: 0 MB\tStatus: timeout\t\n")


def test_a_trace_is_indented_with_no_break_spaces() -> None:
    error = FunctionError(
        type="ValueError", message="bad", trace=('  File "/app.py", line 6, in handler\n    raise ValueError("bad")\n',)
    )

    assert error_text(error) == (
        "[ERROR] ValueError: bad\nTraceback (most recent call last):\n"
        '\xa0\xa0File "/app.py", line 6, in handler\n\xa0\xa0\xa0\xa0raise ValueError("bad")\n'
    )


def test_the_lines_of_lambda_are_read_back() -> None:
    end, first = report("a-b", 3010, 128, 36, init_us=110_100).splitlines()
    assert parse("START RequestId: a-b Version: $LATEST") == {"type": "start", "request_id": "a-b"}
    assert parse(end) == {"type": "end", "request_id": "a-b"}
    assert parse(first) == {
        "type": "report",
        "request_id": "a-b",
        "duration_ms": 3.01,
        "billed_duration_ms": 4,
        "memory_size_mb": 128,
        "max_memory_used_mb": 36,
        "init_duration_ms": 110.1,
    }
    _, timeout = report("a-b", 3_000_000, 128, 0, status="timeout").splitlines()
    assert parse(timeout)["status"] == "timeout"


@pytest.mark.parametrize("line", ["", "hello", "END of it", "REPORT", "START RequestId:", " END RequestId: a"])
def test_what_a_handler_prints_is_output(line: str) -> None:
    assert parse(line) == {"type": "output"}


def test_a_log_that_cannot_be_rotated_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LogFile) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = FunctionLog(tmp_path, "bill", 128)
    monkeypatch.setattr(LogFile, "look", full)
    log.start("a-b")
    log.end(1000, None)
    lines = log_path(tmp_path, "bill").read_text().splitlines()
    assert lines[0] == "[WARNING] the log cannot be rotated: [Errno 28] No space left on device"
    assert lines[1:3] == ["START RequestId: a-b Version: $LATEST", "END RequestId: a-b"]
    log._file.close()


def test_a_worker_looks_at_the_size_of_its_log_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before each batch: that would be two calls of the system more."""
    looks: list[LogFile] = []
    monkeypatch.setattr(LogFile, "look", lambda self: bool(looks.append(self)))
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    log = FunctionLog(tmp_path, "bill", 128)
    for _ in range(5):
        log.start("a-b")
    assert len(looks) == 1
    monkeypatch.setattr("time.monotonic", lambda: 101.0)
    log.start("a-b")
    assert len(looks) == 2
    log._file.close()


def indexed(path: Path) -> list[tuple[int, int]]:
    """Offsets of the index, and lengths of what is one event."""
    rows = [line.split() for line in index_path(path).read_text().splitlines() if not line.startswith("@")]
    return [(int(row[0]), int(row[3]) if len(row) == 4 else 0) for row in rows]


def test_the_index_tells_an_error_of_several_lines_from_lines(tmp_path: Path) -> None:
    log = FunctionLog(tmp_path, "bill:3", 128, version="3", stream="2026/11/26/[3]ab")
    log.start("a-b")
    log.end(1000, FunctionError(type="ValueError", message="bad\nnews"))
    path = log_path(tmp_path, "bill")
    start, error = b"START RequestId: a-b Version: 3\n", b"[ERROR] ValueError: bad\nnews\n"
    assert path.read_bytes().startswith(start + error + b"END RequestId: a-b\nREPORT")
    assert indexed(path) == [(0, 0), (len(start), len(error))]
    assert index_path(path).read_text().splitlines()[0].endswith(" 2026/11/26/[3]ab")
    log._file.close()


def test_an_event_of_one_line_is_a_line(tmp_path: Path) -> None:
    log = FunctionLog(tmp_path, "bill", 128)
    log.event(b"one line\n")
    log.event(b"two\nlines\n")
    assert indexed(log_path(tmp_path, "bill")) == [(0, 0), (9, 10)]
    log._file.close()


def test_a_new_log_has_an_index_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log_path(tmp_path, "bill")
    log = FunctionLog(tmp_path, "bill", 128, stream="one")
    monkeypatch.setattr(FunctionLog, "_redirect", lambda self: None)
    log.start("a-b")
    log._file._file_bytes = 1
    log._look_due = 0.0
    log.start("c-d")
    assert b"a-b" in older(path, 1).read_bytes()
    assert b"c-d" in path.read_bytes()
    assert indexed(path) == indexed(older(path, 1)) == [(0, 0)]
    log._file.close()


def test_what_is_lost_on_a_full_disk_is_said_and_the_index_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FunctionLog(tmp_path, "bill", 128)
    log.start("a-b")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(output, "_write", full)
        log.event(b"two\nlines\n")
    log.event(b"three\nmore\nlines\n")
    text = log_path(tmp_path, "bill").read_bytes()
    assert b"two" not in text
    assert text.endswith(b"[WARNING] 10 bytes of this log were lost: No space left on device\nthree\nmore\nlines\n")
    assert indexed(log_path(tmp_path, "bill"))[-1] == (len(text) - 17, 17)
    log._file.close()
