"""What the endpoint answers below `/_kflow/`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from kflow.errors import InternalError, KflowError, UsageError
from kflow.runtime.endpoint.pages import Facts, Pages, StreamRow, Table


class Asked:
    """A request, and what it was answered."""

    def __init__(self, method: str, target: str) -> None:
        self.method = method
        self.target = target
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    is_closed = False

    def respond(self, status: int, headers: Any, body: bytes = b"") -> None:
        assert not self.status
        self.status, self.headers, self.body = status, dict(headers), body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(method: str, target: str, **facts: Any) -> Asked:
    asked = Asked(method, target)
    streams = [StreamRow("orders<b>", "us-east-1", "123456789012", "ACTIVE", 2)]
    given = {"url": "http://127.0.0.1:4566", "project": "/p", "services": ("kinesis",), "version": "1.2", "reset": None}
    Pages(Facts(**{**given, "streams": lambda: streams, **facts}))(asked)  # type: ignore[arg-type]
    return asked


def test_health_says_what_is_there() -> None:
    asked = ask("GET", "/_kflow/health?x=1")
    assert (asked.status, asked.headers[b"content-type"]) == (200, b"application/json")
    assert asked.json == {
        "status": "ok",
        "version": "1.2",
        "project": "/p",
        "services": {"kinesis": "running"},
        "pid": os.getpid(),
    }


def test_the_page_shows_streams_and_escapes_what_they_are_called() -> None:
    asked = ask("GET", "/_kflow/")
    assert (asked.status, asked.headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"<td>orders&lt;b&gt;</td><td>us-east-1</td>" in asked.body
    assert b"http://127.0.0.1:4566" in asked.body
    assert b"No streams yet." in ask("GET", "/_kflow/", streams=list).body


def test_a_long_list_of_streams_is_cut() -> None:
    rows = [StreamRow(f"s{n}", "us-east-1", "123456789012", "ACTIVE", 1) for n in range(203)]
    body = ask("GET", "/_kflow", streams=lambda: rows).body
    assert b"s199<" in body
    assert b"s200<" not in body
    assert b"and 3 more" in body


def test_reset_is_refused_unless_it_is_allowed() -> None:
    asked = ask("POST", "/_kflow/reset")
    assert (asked.status, asked.json) == (403, {"error": "not allowed: start with --allow-reset"})


@pytest.mark.parametrize(
    ("failure", "status", "answer"),
    [
        (None, 200, {"status": "ok"}),
        (UsageError("orders is read"), 409, {"error": "orders is read"}),
        (InternalError("disk"), 500, {"error": "disk"}),
    ],
)
def test_reset_answers_when_it_is_done(failure: KflowError | None, status: int, answer: object) -> None:
    later: list[Callable[[KflowError | None], object]] = []
    asked = ask("POST", "/_kflow/reset", reset=later.append)
    assert asked.status == 0
    later[0](failure)
    assert (asked.status, asked.json) == (status, answer)


def test_other_methods_and_pages_are_refused() -> None:
    asked = ask("GET", "/_kflow/reset")
    assert (asked.status, asked.headers[b"allow"]) == (405, b"POST")
    assert ask("DELETE", "/_kflow/health").headers[b"allow"] == b"GET, HEAD"
    assert ask("HEAD", "/_kflow/health").status == 200
    asked = ask("GET", "/_kflow/nothing")
    assert asked.status == 404
    assert asked.json == {"error": "no page here: there are /_kflow/, /_kflow/health, /_kflow/metrics, /_kflow/reset"}


def test_other_tables_stand_below_the_streams_and_empty_ones_are_left_out() -> None:
    tables = [Table("function", ("runtime",), [("bill&co", "kflow")]), Table("queue", ("region",), [])]
    body = ask("GET", "/_kflow/", tables=lambda: tables).body
    assert b"<tr><th>function<th>runtime</tr><tr><td>bill&amp;co</td><td>kflow</td></tr>" in body
    assert b"queue" not in body


def test_nothing_is_listed_where_requests_are_signed() -> None:
    tables = [Table("function", ("runtime",), [("bill", "kflow")])]
    body = ask("GET", "/_kflow/", streams=None, tables=lambda: tables).body
    assert b"bill" not in body
    assert b"shown to whoever signs a request for it" in body


def test_metrics_are_prometheus_text_and_shown_to_nobody_where_requests_are_signed() -> None:
    later: list[Callable[[bytes | KflowError], object]] = []
    asked = ask("GET", "/_kflow/metrics", metrics=later.append)
    assert asked.status == 0
    later[0](b"kflow_up 1\n")
    assert (asked.status, asked.body) == (200, b"kflow_up 1\n")
    assert asked.headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert ask("GET", "/_kflow/metrics").status == 403
    failing = ask("GET", "/_kflow/metrics", metrics=later.append)
    later[1](InternalError("disk"))
    assert (failing.status, failing.json) == (500, {"error": "disk"})
