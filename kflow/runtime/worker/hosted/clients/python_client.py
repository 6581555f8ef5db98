"""Runs a Python function: with AWS's own client of the Runtime API where it can be imported, else with this one.

Run as a program, by whatever Python the function asks for: nothing but the standard library, of Python 3.8 and later,
is used here, and nothing of kflow. What the function's author sees is what AWS's client shows: errors, logs, the
context, how values are written.

Source: recorded: awslambdaric 4.2.
"""

# What user code raises, it may raise of any kind; and of the standard library only what the oldest Python has.
# ruff: noqa: BLE001, PTH120

from __future__ import annotations

import decimal
import importlib
import json
import logging
import math
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

NO_BREAK = "\u00a0"
WARNING = (
    "LAMBDA_WARNING: Unhandled exception. The most likely cause is an issue in the function code. However, in "
    "rare cases, a Lambda runtime update can cause unexpected function behavior. For functions using managed "
    "runtimes, runtime updates can be triggered by a function change, or can be applied automatically. To "
    "determine if the runtime has been updated, check the runtime version in the INIT_START log entry. If this "
    "error correlates with a change in the runtime version, you may be able to mitigate this error by "
    "temporarily rolling back to the previous runtime version. For more information, see "
    "https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


def main(argv: list[str]) -> None:
    """Serve invocations until the process is killed. Argument: the handler, as Lambda writes it."""
    handler = argv[1]
    try:
        importlib.import_module("runtime_client")  # AWS's client cannot do without it, and it is not for every system
        theirs = importlib.import_module("awslambdaric.__main__")
    except ImportError:
        theirs = None
    sys.argv = argv[:]
    # After the imports above: a module of the function's may have the name of one that they need.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    if theirs is not None:
        theirs.main(["awslambdaric", handler])
    else:
        _serve(handler, os.environ["AWS_LAMBDA_RUNTIME_API"])


class Fault(Exception):
    """A failure that the runtime itself has a name for."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace


# ---------------------------------------------------------------------- the conversation


def _serve(handler: str, address: str) -> NoReturn:
    sys.stdout = _Unbuffered(sys.stdout)
    sys.stderr = _Unbuffered(sys.stderr)
    log = _Log()
    client = _Client(address)
    try:
        call = _load(handler)
    except Fault as fault:
        _cannot_start(client, log, _error(fault.message, fault.kind, fault.trace))
    except Exception as raised:
        _cannot_start(client, log, _error(str(raised), type(raised).__name__, traceback.format_list(_users(raised))))
    encode = _encoder()
    while True:
        headers, body = client.next()
        request_id = headers["lambda-runtime-aws-request-id"]
        log.request_id = request_id
        trace_id = headers.get("lambda-runtime-trace-id")
        if trace_id is None:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        else:
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        result, kind, error = b"", "application/json", None
        try:
            context = Context(headers, log)
            response = call(_decode(body), context)
            if isinstance(response, bytes):
                result, kind = response, "application/unknown"
            else:
                try:
                    result = encode(response).encode()
                except Exception as raised:
                    raise Fault("Runtime.MarshalError", f"Unable to marshal response: {raised}") from None
        except Fault as fault:
            error = _error(fault.message, fault.kind, fault.trace, request_id)
        except Exception as raised:
            frames = traceback.format_list(_users(raised))
            error = _error(str(raised), type(raised).__name__, frames, request_id)
        if error is None:
            client.post("invocation/" + request_id + "/response", result, content=kind)
        else:
            log.error(error)
            client.post("invocation/" + request_id + "/error", encode(error).encode())


def _cannot_start(client: _Client, log: _Log, error: dict[str, Any]) -> NoReturn:
    """Tell that the handler could not be had, and end."""
    logging.getLogger().warning(WARNING)
    log.error(error)
    client.post("init/error", _encode(error).encode(), kind=error["errorType"])
    sys.exit(1)


def _load(handler: str) -> Any:
    module, dot, name = handler.rpartition(".")
    if not dot:
        text = f"Bad handler '{handler}': not enough values to unpack (expected 2, got 1)"
        raise Fault("Runtime.MalformedHandlerName", text)
    if module.split(".")[0] in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module} as a handler module")
    try:
        found = importlib.import_module(module.replace("/", "."))
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{module}': {error}") from None
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        text = f"Syntax error in module '{module}': {error}"
        raise Fault("Runtime.UserCodeSyntaxError", text, trace) from None
    try:
        return getattr(found, name)
    except AttributeError:
        text = f"Handler '{name}' missing on module '{module}'"
        raise Fault("Runtime.HandlerNotFound", text) from None


def _users(raised: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback from the first on that is not of this file."""
    frames = list(traceback.extract_tb(raised.__traceback__))
    for index, frame in enumerate(frames):
        if frame.filename != __file__:
            return frames[index:]
    return frames


def _error(message: str, kind: str, trace: list[str] | None, request_id: str = "") -> dict[str, Any]:
    return {"errorMessage": message or "", "errorType": kind or "", "requestId": request_id, "stackTrace": trace or []}


class _Client:
    """The Runtime API, over one connection that is kept."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._socket = socket.create_connection(self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", 1 << 18)

    def next(self) -> tuple[dict[str, str], bytes]:
        """The next invocation: its headers, names in small letters, and its body."""
        status, headers, body = self._ask("GET", "invocation/next", "", b"")
        if status != 200:
            raise RuntimeError(f"Failed to get next, status {status}: {body[:200]!r}")
        return headers, body

    def post(self, path: str, body: bytes, content: str = "application/json", kind: str | None = None) -> None:
        """Say what an invocation, or the initialisation, came to."""
        extra = f"Content-Type: {content}\r\nContent-Length: {len(body)}\r\n"
        if kind is not None:
            extra += f"Lambda-Runtime-Function-Error-Type: {kind}\r\n"
        status, _, said = self._ask("POST", path, extra, body)
        if not 200 <= status < 300:
            raise RuntimeError(f"Failed to post to {path}, status {status}: {said[:200]!r}")

    def _ask(self, method: str, path: str, extra: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        host, port = self._address
        head = f"{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{extra}\r\n"
        self._socket.sendall(head.encode() + body)
        return self._read()

    def _read(self) -> tuple[int, dict[str, str], bytes]:
        first = self._file.readline()
        if not first:
            sys.exit(0)  # the platform is gone
        headers = {}
        while True:
            line = self._file.readline().rstrip(b"\r\n")
            if not line:
                break
            name, _, value = line.partition(b":")
            headers[name.decode("latin-1").lower()] = value.strip().decode("utf-8")
        body = self._file.read(int(headers.get("content-length", "0")))
        return int(first.split(b" ")[1]), headers, body


# ---------------------------------------------------------------------- values


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from None


def _encoder() -> Callable[[Any], str]:
    """How results are written: decimals as they stand, named tuples as objects, NaN as it is."""
    older = os.environ.get("AWS_EXECUTION_ENV", "") in {
        "AWS_Lambda_python3." + minor for minor in ("8", "9", "10", "11")
    }
    mark = os.urandom(12).hex()  # nobody's text has it: what stands between two of them is a decimal
    decimals = re.compile(f'"{mark}([^"]*){mark}"')
    seen: list[decimal.Decimal] = []

    def default(value: Any) -> Any:
        if isinstance(value, decimal.Decimal):
            if value.is_nan():
                return math.nan
            seen.append(value)
            return mark + str(value) + mark
        if isinstance(value, bytes):
            return value.decode()
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    plain = json.JSONEncoder(ensure_ascii=older, default=default).encode

    def encode(value: Any) -> str:
        del seen[:]
        text = plain(_plain(value))
        return decimals.sub(r"\1", text) if seen else text

    return encode


def _plain(value: Any) -> Any:
    """A value with its named tuples as dictionaries."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()} if value else value
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _encode(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# ---------------------------------------------------------------------- the context


class Fields:
    """An object whose attributes are a mapping's values; None for those that it lacks."""

    def __init__(self, values: Any, **names: str) -> None:
        for name, key in names.items():
            setattr(self, name, values.get(key))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Context:
    """What a handler is told about its invocation."""

    def __init__(self, headers: dict[str, str], log: _Log) -> None:
        self._log = log
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms", "0"))
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        client = _header(headers, "lambda-runtime-client-context", "Client Context")
        w3c = client.pop("w3c", None) if isinstance(client, dict) else None
        names = ("traceparent", "tracestate", "baggage")
        self._w3c = {name: w3c[name] for name in names if isinstance(w3c, dict) and isinstance(w3c.get(name), str)}
        self.client_context: Fields | None = None
        if client is not None:
            self.client_context = Fields(client, custom="custom", env="env", client="client")
            if client.get("client") is not None:
                fields = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
                told = Fields(client["client"], **{name: name for name in fields})
                setattr(self.client_context, "client", told)  # noqa: B010 (its attributes are what was sent)
        identity = _header(headers, "lambda-runtime-cognito-identity", "Cognito Identity") or {}
        self.identity = Fields(
            identity, cognito_identity_id="cognitoIdentityId", cognito_identity_pool_id="cognitoIdentityPoolId"
        )

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out."""
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def log(self, msg: object) -> None:
        """Write to the log, without a line end of its own."""
        self._log.write(str(msg))

    def w3c(self) -> dict[str, str]:
        """The W3C trace context."""
        return dict(self._w3c)

    def __repr__(self) -> str:
        names = (
            "aws_request_id,log_group_name,log_stream_name,function_name,memory_limit_in_mb,function_version,"
            "invoked_function_arn,client_context,identity,tenant_id"
        )
        said = ",".join(f"{name}={getattr(self, name)}" for name in names.split(","))
        return f"LambdaContext([{said}])"


def _header(headers: dict[str, str], name: str, what: str) -> Any:
    text = headers.get(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except Exception as error:
        text = f"Unable to parse {what} JSON: {error}"
        raise Fault("Runtime.LambdaContextUnmarshalError", text) from None


# ---------------------------------------------------------------------- the log


class _Unbuffered:
    """Writes at once: what a handler printed before it was killed is in the log."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def writelines(self, lines: Any) -> None:
        self.stream.writelines(lines)
        self.stream.flush()


class _Log(logging.Handler):
    """The root logger's handler, and where errors are told."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""
        self._is_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
        fd = os.environ.pop("_LAMBDA_TELEMETRY_LOG_FD", None)
        self._file = None if fd is None else os.fdopen(int(fd), "wb", 0)
        logging.Formatter.converter = time.gmtime
        self.setFormatter(
            logging.Formatter(
                "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"
            )
        )
        root = logging.getLogger()
        level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        level = "DEBUG" if level == "TRACE" else level
        if isinstance(logging.getLevelName(level), int):
            root.setLevel(level)
        root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of a logger."""
        record.request_id = self.request_id
        self.write(self._as_json(record) if self._is_json else self.format(record), record.levelno)

    def _as_json(self, record: logging.LogRecord) -> str:
        failed = record.exc_info
        is_dict = isinstance(record.msg, dict) and not record.args
        fields = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.msg if is_dict else record.getMessage(),
            "logger": record.name,
            "stackTrace": traceback.format_tb(failed[2]) if failed else None,
            "errorType": failed[0].__name__ if failed and failed[0] else None,
            "errorMessage": str(failed[1]) if failed else None,
            "requestId": self.request_id,
            "location": f"{record.pathname}:{record.funcName}:{record.lineno}" if failed else None,
        }
        for name, value in record.__dict__.items():
            if name not in _PLAIN and name not in fields:
                fields[name] = value
        return _encode({name: value for name, value in fields.items() if value is not None}) + "\n"

    def error(self, error: dict[str, Any]) -> None:
        """Tell that the handler, or the initialisation, failed."""
        if self._is_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.write(_encode({"timestamp": now, "level": "ERROR", **error}) + "\n", logging.ERROR)
            return
        kind, message = error["errorType"], error["errorMessage"]
        lines = ["[ERROR]" + (" " + kind if kind else "") + (":" if kind and message else "") + " " + message]
        lines[0] = lines[0].rstrip(" ")
        lines.append("Traceback (most recent call last):")
        for entry in error["stackTrace"]:
            for line in entry.splitlines() or [""]:
                bare = line.lstrip(" ")
                lines.append(NO_BREAK * (len(line) - len(bare)) + bare)
        self.write(("\n" if self._file else "\r").join(lines) + "\n", logging.ERROR)

    def write(self, text: str, level: int = 0) -> None:
        """Write a text as it is: as a frame, where the platform takes some."""
        if self._file is None:
            sys.stdout.write(text)
            return
        data = text.encode("utf-8", "backslashreplace")
        kind = _FRAMES.get(min(50, max(0, level)) // 10 * 10, 0x03) - (1 if self._is_json else 0)
        head = (0xA55A0000 + kind).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        self._file.write(head + int(time.time() * 1e6).to_bytes(8, "big") + data)


_FRAMES = {0: 0x03, 10: 0x0B, 20: 0x0F, 30: 0x13, 40: 0x17, 50: 0x1B}
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "request_id", "taskName"}


if __name__ == "__main__":
    main(sys.argv)
