"""What the endpoint answers below `/_kflow/`: whether it is well, what it holds, and a way to empty it.

- `GET /_kflow/`: a page for people.
- `GET /_kflow/health`: `{"status": "ok", "version": ..., "project": ..., "services": {...}}`.
- `GET /_kflow/metrics`: metrics as Prometheus text.
- `POST /_kflow/reset`: empties everything; only where that is allowed.
- `GET /_kflow/lambda/code/<sha256>.zip`: the code of a function or a layer, as it was uploaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from kflow.errors import InternalError, KflowError
from kflow.web.exchange import Exchange, Headers

PREFIX: Final = "/_kflow/"
_CODE: Final = "/_kflow/lambda/code/"

_JSON: Final = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_TEXT: Final = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), (b"cache-control", b"no-store"))
_HTML: Final = ((b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"))
_SHOWN: Final = 200
"""Rows of a table on the page: more than anybody reads, and few enough to write at once."""
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;margin:1.2rem 0}td,th{text-align:left;padding:.15rem 1rem .15rem 0}"
    "code{font-size:.95em}"
)


class Table(NamedTuple):
    """Things of one kind, as the page shows them.

    Attributes:
        kind: what one is called; heads the column of names.
        heads: of the other columns.
        rows: a name, and what is in the other columns.
    """

    kind: str
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]


class StreamRow(NamedTuple):
    """One stream, as the page shows it."""

    name: str
    region: str
    account: str
    status: str
    open_shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the pages are made of.

    Attributes:
        url: of the endpoint.
        project: folder of the project; None where there is none.
        services: names of the services that are spoken.
        version: of the library.
        streams: of all places, as they are now; None: they are shown to nobody.
        tables: what else there is, likewise.
        metrics: has the Prometheus text made, and calls back on the loop with it, or with the error; None: it is shown
            to nobody.
        reset: empties everything, and calls back on the loop with None or the error; None where it is not allowed.
        code: answers with the code of this name; its hash is all that a caller has to know.
    """

    url: str
    project: str | None
    services: Sequence[str]
    version: str
    streams: Callable[[], Sequence[StreamRow]] | None
    reset: Callable[[Callable[[KflowError | None], object]], object] | None
    tables: Callable[[], Sequence[Table]] = tuple
    metrics: Callable[[Callable[[bytes | KflowError], object]], object] | None = None
    code: Callable[[Exchange, str], bool] = lambda exchange, name: False  # noqa: ARG005  # there is none


class Pages:
    """Answers requests below `/_kflow/`. Belongs to the loop's thread."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._pages: dict[str, tuple[str, Callable[[Exchange], None]]] = {
            "/_kflow": ("GET", self._home),
            "/_kflow/": ("GET", self._home),
            "/_kflow/health": ("GET", self._health),
            "/_kflow/metrics": ("GET", self._metrics),
            "/_kflow/reset": ("POST", self._reset),
        }

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.target.partition("?")[0]
        found = self._pages.get(path)
        if path.startswith(_CODE) and exchange.method == "GET" and self._facts.code(exchange, path[len(_CODE) :]):
            return
        if found is None:
            _answer(exchange, 404, {"error": f"no page here: there are {', '.join(list(self._pages)[1:])}"})
            return
        method, page = found
        if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
            allow = (b"allow", b"GET, HEAD" if method == "GET" else method.encode())
            _answer(exchange, 405, {"error": f"{exchange.target} takes {method}"}, (*_JSON, allow))
            return
        page(exchange)

    def _health(self, exchange: Exchange) -> None:
        facts = self._facts
        services = dict.fromkeys(facts.services, "running")
        text = {"status": "ok", "version": facts.version, "project": facts.project, "services": services}
        _answer(exchange, 200, {**text, "pid": os.getpid()})

    def _reset(self, exchange: Exchange) -> None:
        if self._facts.reset is None:
            _answer(exchange, 403, {"error": "not allowed: start with --allow-reset"})
            return

        def answer(failure: KflowError | None) -> None:
            if failure is None:
                _answer(exchange, 200, {"status": "ok"})
            else:
                _answer(exchange, 500 if isinstance(failure, InternalError) else 409, {"error": str(failure)})

        self._facts.reset(answer)

    def _metrics(self, exchange: Exchange) -> None:
        if self._facts.metrics is None:
            _answer(
                exchange, 403, {"error": "metrics are shown to whoever can read them on this machine: metrics.prom"}
            )
            return

        def made(text: bytes | KflowError) -> None:
            if exchange.is_closed:
                return
            if isinstance(text, bytes):
                exchange.respond(200, _TEXT, text)
            else:
                _answer(exchange, 500, {"error": str(text)})

        self._facts.metrics(made)

    def _home(self, exchange: Exchange) -> None:
        exchange.respond(200, _HTML, self._page().encode())

    def _page(self) -> str:
        import html  # 2 ms, and most never look

        facts = self._facts
        shown = ""
        if facts.streams is None:
            shown = "<p>What is here is shown to whoever signs a request for it.</p>"
        else:
            streams = facts.streams()
            tables = [Table("stream", ("region", "account", "status", "open shards"), streams), *facts.tables()]
            shown = "".join(_table(each, html.escape) for each in tables if each.rows)
            if not streams:
                shown = f"<p>No streams yet.</p>{shown}"
        url = html.escape(facts.url)
        return (
            f"<!doctype html><html lang=en><title>kflow</title><style>{_STYLE}</style>"
            f"<h1>kflow {html.escape(facts.version)}</h1>"
            f"<p>AWS endpoint at <code>{url}</code> for {html.escape(', '.join(facts.services))}: "
            f'<code>eval "$(kflow env)"</code> points SDKs and the AWS CLI here. '
            f"<a href=/_kflow/metrics>Metrics</a></p>{shown}"
        )


def _table(table: Table, escape: Callable[[str], str]) -> str:
    heads = "".join(f"<th>{escape(each)}" for each in (table.kind, *table.heads))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in table.rows[:_SHOWN]
    )
    left = len(table.rows) - _SHOWN
    more = f"<p>and {left:,} more</p>" if left > 0 else ""
    return f"<table><tr>{heads}</tr>{rows}</table>{more}"


def _answer(exchange: Exchange, status: int, value: Any, headers: Headers = _JSON) -> None:
    exchange.respond(status, headers, msgspec.json.encode(value) + b"\n")
