"""What the endpoint answers below `/_kflow/`: whether it is well, what it holds, and a way to empty it.

- `GET /_kflow/`: a page for people.
- `GET /_kflow/health`: `{"status": "ok", "version": ..., "project": ..., "services": {...}}`.
- `POST /_kflow/reset`: empties everything; only where that is allowed.
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

_JSON: Final = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_HTML: Final = ((b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"))
_SHOWN: Final = 1000
"""Streams on the page: more than anybody reads, and few enough to write at once."""
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0}code{font-size:.95em}"
)


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
        reset: empties everything, and calls back on the loop with None or the error; None where it is not allowed.
    """

    url: str
    project: str | None
    services: Sequence[str]
    version: str
    streams: Callable[[], Sequence[StreamRow]] | None
    reset: Callable[[Callable[[KflowError | None], object]], object] | None


class Pages:
    """Answers requests below `/_kflow/`. Belongs to the loop's thread."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._pages: dict[str, tuple[str, Callable[[Exchange], None]]] = {
            "/_kflow": ("GET", self._home),
            "/_kflow/": ("GET", self._home),
            "/_kflow/health": ("GET", self._health),
            "/_kflow/reset": ("POST", self._reset),
        }

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        found = self._pages.get(exchange.target.partition("?")[0])
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

    def _home(self, exchange: Exchange) -> None:
        exchange.respond(200, _HTML, self._page().encode())

    def _page(self) -> str:
        import html  # 2 ms, and most never look

        streams = () if self._facts.streams is None else self._facts.streams()
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in streams[:_SHOWN]
        )
        more = f"<p>and {len(streams) - _SHOWN:,} more</p>" if len(streams) > _SHOWN else ""
        heads = "<tr><th>stream<th>region<th>account<th>status<th>open shards</tr>"
        none = "No streams yet." if self._facts.streams else "Streams are shown to whoever signs a request for them."
        table = f"<table>{heads}{rows}</table>{more}" if streams else f"<p>{none}</p>"
        url = html.escape(self._facts.url)
        return (
            f"<!doctype html><html lang=en><title>kflow</title><style>{_STYLE}</style>"
            f"<h1>kflow {html.escape(self._facts.version)}</h1>"
            f"<p>AWS endpoint at <code>{url}</code> for {html.escape(', '.join(self._facts.services))}: "
            f'<code>eval "$(kflow env)"</code> points SDKs and the AWS CLI here.</p>{table}'
        )


def _answer(exchange: Exchange, status: int, value: Any, headers: Headers = _JSON) -> None:
    exchange.respond(status, headers, msgspec.json.encode(value) + b"\n")
