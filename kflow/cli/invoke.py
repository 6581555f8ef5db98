"""`kflow invoke FUNCTION [EVENT]`: run a function once, and show its log and its response."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from kflow.cli.arguments import Arguments, Command, Parser
from kflow.cli.paths import open_folder
from kflow.cli.terminal import Terminal
from kflow.errors import AwsError, NoNode, StorageError, UsageError
from kflow.settings import nearest

if TYPE_CHECKING:
    from kflow.broker.folder import DataFolder

_SECONDS = 960.0
"""The longest a function may run is 900 s; it may also wait for a place."""


def invoke(arguments: Arguments, terminal: Terminal) -> int:
    """Invoke, and say what came of it: 0 where the function worked, 1 where it failed."""
    folder = open_folder(arguments)
    parameters: dict[str, Any] = {
        "FunctionName": arguments.function,
        "Payload": _event(arguments.event),
        "InvocationType": "Event" if arguments.asynchronous else "RequestResponse",
    }
    if arguments.qualifier is not None:
        parameters["Qualifier"] = arguments.qualifier
    if arguments.client_context is not None:
        parameters["ClientContext"] = base64.b64encode(arguments.client_context.encode()).decode()
    if not arguments.asynchronous:
        parameters["LogType"] = "Tail"
    with _Node(folder) as node:
        try:
            output, request_id = node.call("Invoke", parameters)
        except _Refused as error:
            if error.code == "ResourceNotFoundException":
                raise _unknown(node, arguments.function, error) from None
            raise
    if arguments.asynchronous:
        said = f"accepted, request {request_id}; `kflow logs {arguments.function}` shows what it prints"
        terminal.answer(said, {"status": output["StatusCode"], "request_id": request_id}, json=arguments.json)
        return 0
    log = base64.b64decode(output.get("LogResult") or "").decode("utf-8", "replace")
    payload = output["Payload"].decode("utf-8", "replace")
    error_kind = output.get("FunctionError")
    if arguments.json:
        terminal.json(
            {
                "status": output["StatusCode"],
                "function_error": error_kind,
                "executed_version": output["ExecutedVersion"],
                "request_id": request_id,
                "payload": _value(output["Payload"]),
                "log": log,
            }
        )
    else:
        if log:
            terminal.note(log.rstrip("\n"))
        terminal.line(terminal.paint(payload, "red") if error_kind else payload)
    return 1 if error_kind else 0


def _value(payload: bytes) -> Any:
    """A response; the text where a runtime of one's own answered something else than JSON."""
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace")


class _Refused(AwsError):
    """The node refused the call.

    Attributes:
        code: AWS's.
        http_status: as HTTP has it.
    """

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message or code)
        self.code = code
        self.http_status = status
        self.sender_fault = status < 500


class _Node:
    """A connection to the node of a data folder, for calls of Lambda."""

    def __init__(self, folder: DataFolder) -> None:
        from kflow.broker import handshake, linking

        try:
            self._link = linking.connect(folder.socket_path, handshake.own_hello(folder.id), timeout_s=_SECONDS)
        except (NoNode, OSError) as error:
            raise UsageError(
                f"nothing runs on {folder.path}: start the runtime with `kflow run` (or `kflow serve`, for functions "
                "that were created by the API), then try again"
            ) from error
        self._calls = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def call(self, operation: str, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The output as boto3 gives it, and the request's id."""
        from kflow.broker import wirecalls

        self._calls += 1
        call = wirecalls.Call(service="lambda", operation=operation, parameters=dict(parameters))
        try:
            answer = self._link.call(self._calls, call)
        except OSError as error:
            raise StorageError(
                f"the runtime went away before it answered, perhaps the function ran: {error}"
            ) from error
        if answer.error is not None:
            raise _Refused(answer.error.code, answer.error.message, answer.error.status)
        return answer.output or {}, answer.request_id


def _event(text: str | None) -> bytes:
    """The payload: JSON as it stands, `@file`, or `-` for standard input; none: an empty event.

    Raises:
        UsageError: it cannot be read, or is no JSON.
    """
    where = "EVENT"
    if text is None:
        return b"{}"
    if text == "-":
        where, content = "standard input", sys.stdin.buffer.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            content = Path(where).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {where}: {error.strerror or error}") from error
    else:
        content = text.encode(errors="surrogateescape")
    try:
        msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        hint = ""
        if where == "EVENT" and Path(text).is_file():
            hint = f"; for the content of the file say @{text}"
        raise UsageError(f"{where} is no JSON: {error}{hint}") from error
    return content


def _unknown(node: _Node, function: str, error: _Refused) -> UsageError:
    """What there is instead."""
    names: list[str] = []
    parameters: dict[str, Any] = {}
    while True:
        page, _ = node.call("ListFunctions", parameters)
        names += [each["FunctionName"] for each in page.get("Functions", [])]
        if not page.get("NextMarker"):
            break
        parameters = {"Marker": page["NextMarker"]}
    if function in names:
        return UsageError(str(error))
    known = ", ".join(names) or "there is none"
    return UsageError(f"no function `{function}`{nearest(function, names)}; functions here: {known}")


def configure(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument("function", metavar="FUNCTION", help="name or ARN of the function, or of a handler")
    parser.add_argument("event", nargs="?", metavar="EVENT", help="JSON, @FILE, or - for standard input; default {}")
    parser.add_argument(
        "--async", dest="asynchronous", action="store_true", help="do not wait; it is retried on failure"
    )
    parser.add_argument("--qualifier", metavar="Q", help="a version or an alias")
    parser.add_argument("--client-context", metavar="JSON", help="what the handler sees as context.client_context")


COMMAND = Command(
    name="invoke",
    help="run a function once, with its log and its response; needs a running `kflow run` or `kflow serve`",
    run=invoke,
    configure=configure,
    reads=True,
    examples=(
        ("kflow invoke delays '{\"id\": 1}'", "the log to standard error, the response to standard output"),
        ("kflow invoke delays @event.json", "an event out of a file"),
        ("kflow event kinesis '{\"id\": 1}' | kflow invoke delays -", "a batch of one record"),
        ("kflow invoke resize '{}' --async", "as an asynchronous invocation: retried, and told to destinations"),
        ("kflow invoke resize '{}' --qualifier live --json", "an alias; all there is, for programs"),
    ),
)
