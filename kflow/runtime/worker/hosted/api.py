"""The Runtime API's rules: what a request means in which state, and what it is answered. No sockets, no time.

    STARTED --next--> READY --deliver--> RUNNING --response | error--> ANSWERED --next--> READY
       |                                 ^     |
       +--init/error--> INIT_ERROR       +next-+  the same event again

Source: documented: Lambda Developer Guide, runtimes-api; recorded: awslambdaric 4.2, and AWS's own emulator of the
interface, for the names of the states in texts; chosen: which of two errors wins where a request has both.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
from typing import Final, NamedTuple

from kflow.lambda_.payloads import RESPONSE_BYTES
from kflow.runtime.worker.hosted.requests import Request

ROOT: Final = "/2018-06-01/runtime/"
_INVOCATION: Final = ROOT + "invocation/"
_ACCEPTED: Final = (
    b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'
)
_REASONS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
}


class State(enum.Enum):
    """Where a runtime is; the values are the names in the API's errors."""

    STARTED = "Started"
    INIT_ERROR = "InitError"
    READY = "Ready"
    RUNNING = "Running"
    ANSWERED = "ResponseSent"


class Event(NamedTuple):
    """An invocation as a runtime gets it.

    Attributes:
        request_id: UUID.
        body: the event, JSON.
        head: the response's head, complete.
    """

    request_id: str
    body: bytes
    head: bytes


class Answer(NamedTuple):
    """What a runtime answered.

    Attributes:
        body: the result, or the error's JSON, as it was sent.
        failed: whether it is an error.
        error_type: from the header; empty without.
        too_large: the result, or the error, was over the limit, and is not here.
    """

    body: bytes
    failed: bool = False
    error_type: str = ""
    too_large: bool = False


def event(
    request_id: str,
    body: bytes,
    *,
    arn: str,
    deadline_ms: int,
    trace_id: str,
    client_context: str = "",
) -> Event:
    """An invocation with its headers.

    Args:
        request_id: UUID.
        body: JSON text; never empty.
        arn: of the function, with the qualifier that the caller used.
        deadline_ms: when it times out, milliseconds since the epoch.
        trace_id: as X-Ray writes it.
        client_context: JSON text on one line; empty: none.
    """
    # recorded: the type must be exactly this, without a charset, or a runtime passes bytes on, and ends without any
    context = f"Lambda-Runtime-Client-Context: {client_context}\r\n" if client_context else ""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
        f"Lambda-Runtime-Invoked-Function-Arn: {arn}\r\n"
        f"Lambda-Runtime-Trace-Id: {trace_id}\r\n"
        f"{context}Content-Length: {len(body)}\r\n\r\n"
    )
    return Event(request_id, body, head.encode())


class Api:
    """One runtime's conversation.

    Attributes:
        state: where it is.
        answer: of the running invocation, or of the initialisation that failed; taken by `deliver`.
        event: the running invocation.
    """

    __slots__ = ("answer", "event", "state")

    def __init__(self) -> None:
        self.state = State.STARTED
        self.answer: Answer | None = None
        self.event: Event | None = None

    def deliver(self, invocation: Event) -> None:
        """The runtime is given an invocation: it is `READY`."""
        self.state = State.RUNNING
        self.event = invocation
        self.answer = None

    def handle(self, request: Request) -> bytes | Event | None:
        """What a request is answered.

        Returns:
            A response; the running event, once more; or None: it waits for the next invocation.
        """
        path, method = request.path, request.method
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            # chosen: a page in a browser reaches every port of this machine, and is no runtime
            return _error(403, "Forbidden", "The Runtime API is for runtimes, not for pages in a browser")
        if path.startswith(_INVOCATION):
            rest = path[len(_INVOCATION) :]
            if rest == "next":
                return self._next() if method == "GET" else _not_allowed()
            request_id, _, what = rest.partition("/")
            if what in ("response", "error"):
                return self._answered(request, request_id, what) if method == "POST" else _not_allowed()
        elif path == ROOT + "init/error":
            return self._init_error(request) if method == "POST" else _not_allowed()
        return _error(404, "NotFound", f"There is no {method} {path[:200]} in the Runtime API")

    def _next(self) -> bytes | Event | None:
        if self.state is State.RUNNING:
            return self.event
        if self.state is State.INIT_ERROR:
            return _transition(self.state, "Ready")
        self.state = State.READY
        return None

    def _answered(self, request: Request, request_id: str, what: str) -> bytes:
        failed = what == "error"
        if self.state in (State.STARTED, State.INIT_ERROR):
            return _transition(self.state, "InvocationErrorResponse" if failed else "InvocationResponse")
        if self.state is not State.RUNNING or self.event is None or request_id != self.event.request_id:
            return _error(400, "InvalidRequestID", "Invalid request ID")
        mode = request.headers.get("lambda-runtime-function-response-mode", "")
        if not failed and mode.lower() not in ("", "streaming"):
            return _error(400, "InvalidFunctionResponseMode", f"Invalid function response mode {mode!r}")
        self.state = State.ANSWERED
        self.event = None
        if not failed and request.too_large:
            self.answer = Answer(b"", failed=True, too_large=True)
            text = f"Exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes)."
            return _error(413, "RequestEntityTooLarge", text)
        kind = request.headers.get("lambda-runtime-function-error-type", "")
        body = request.body
        if request.trailers.get("lambda-runtime-function-error-type"):  # it failed in the middle of a stream
            failed, kind = True, request.trailers["lambda-runtime-function-error-type"]
            body = _decoded(request.trailers.get("lambda-runtime-function-error-body", ""))
        self.answer = Answer(body, failed=failed, error_type=kind, too_large=request.too_large)
        return _ACCEPTED

    def _init_error(self, request: Request) -> bytes:
        if self.state is not State.STARTED:
            return _transition(self.state, "InitError")
        self.state = State.INIT_ERROR
        kind = request.headers.get("lambda-runtime-function-error-type", "")
        self.answer = Answer(request.body, failed=True, error_type=kind)
        return _ACCEPTED


def malformed(text: str) -> bytes:
    """The answer to what is no request."""
    return _error(400, "TruncatedHTTPRequest", text)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _transition(state: State, wanted: str) -> bytes:
    text = f"State transition from {state.value} to {wanted} failed for runtime. Error: State transition is not allowed"
    return _error(403, "InvalidStateTransition", text)


def _not_allowed() -> bytes:
    return _error(405, "MethodNotAllowed", "Method not allowed")


def _error(status: int, kind: str, text: str) -> bytes:
    body = json.dumps({"errorMessage": text, "errorType": kind}, separators=(",", ":")).encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
