"""Why an invocation failed, in Lambda's words: one function a cause, each giving a `FunctionError`.

Source: recorded: answers of real Invoke calls; AWS's Python runtime interface client.
"""

from __future__ import annotations

import os
import signal
import traceback
from typing import Any, Final

from kflow.declarations import Handler
from kflow.interfaces import FunctionError
from kflow.loading.imports import HandlerNotFound
from kflow.loading.places import shown
from kflow.loading.tracebacks import is_users, trimmed, user_lines

RESPONSE_BYTES: Final = 6_291_556
"""The largest response of a synchronous invocation. Source: recorded."""

_SIGNALS: Final[dict[int, str]] = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
}
"""Go's names of signals: the supervisor on Lambda is written in it."""


def from_exception(error: BaseException, request_id: str, handler: Handler) -> FunctionError:
    """The handler raised.

    Args:
        error: what it raised.
        request_id: UUID of the invocation.
        handler: frames above the first one below its import root are not shown, as on Lambda.
    """
    return FunctionError(
        type=type(error).__name__,
        message=_said(error),
        trace=_trace(error, handler.root),
        request_id=request_id,
        file=_innermost(error, handler),
    )


def from_import_error(error: BaseException, handler: Handler) -> FunctionError:
    """The module could not be imported, or the handler is not in it. There is no request yet: its id is empty."""
    kind, message, trace = type(error).__name__, _said(error), _trace(error, handler.root)
    file = _innermost(error, handler)
    if isinstance(error, HandlerNotFound):
        kind, trace = "Runtime.HandlerNotFound", ()
        file = f"{shown(handler.file)}:{handler.line}"
    elif isinstance(error, ImportError):
        kind, trace = "Runtime.ImportModuleError", ()
        message = f"Unable to import module '{handler.module}': {message}"
    elif isinstance(error, SyntaxError):
        kind = "Runtime.UserCodeSyntaxError"
        message = f"Syntax error in module '{handler.module}': {message}"
        trace = (f'  File "{error.filename}" Line {error.lineno}\n    {error.text}',)
        file = f"{shown(error.filename or handler.file)}:{error.lineno or 1}"
    return FunctionError(type=kind, message=message, trace=trace, request_id="", file=file)


def timed_out(request_id: str, timeout_s: float) -> FunctionError:
    """The invocation took longer than the function's timeout (seconds)."""
    return FunctionError(
        type="Sandbox.Timedout",
        message=f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds",
    )


def exited(request_id: str, wait_status: int) -> FunctionError:
    """The process ended in the invocation; `wait_status` is what `os.waitpid` told."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        reason = f"exited with error: signal: {_SIGNALS.get(number, f'signal {number}')}"
        if os.WCOREDUMP(wait_status):
            reason += " (core dumped)"
    elif os.WEXITSTATUS(wait_status):
        reason = f"exited with error: exit status {os.WEXITSTATUS(wait_status)}"
    else:
        reason = "exited without providing a reason"
    return FunctionError(type="Runtime.ExitError", message=f"RequestId: {request_id} Error: Runtime {reason}")


def not_json(error: BaseException, request_id: str) -> FunctionError:
    """The handler returned what JSON cannot hold."""
    return FunctionError(
        type="Runtime.MarshalError",
        message=f"Unable to marshal response: {_said(error)}",
        trace=(),
        request_id=request_id,
    )


def not_an_event(error: BaseException, request_id: str) -> FunctionError:
    """The event is no JSON."""
    return FunctionError(
        type="Runtime.UnmarshalError",
        message=f"Unable to unmarshal input: {_said(error)}",
        trace=(),
        request_id=request_id,
    )


def too_large() -> FunctionError:
    """The response is larger than a synchronous invocation may return."""
    return FunctionError(
        type="Function.ResponseSizeTooLarge",
        message=f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes).",
    )


def payload(error: FunctionError) -> dict[str, Any]:
    """The JSON object that the caller of Invoke sees."""
    if error.request_id is None:  # of the platform, not of the runtime
        if error.type == "Function.ResponseSizeTooLarge":
            return {"errorMessage": error.message, "errorType": error.type}
        return {"errorType": error.type, "errorMessage": error.message}
    return {
        "errorMessage": error.message,
        "errorType": error.type,
        "requestId": error.request_id,
        "stackTrace": list(error.trace or ()),
    }


def _said(error: BaseException) -> str:
    try:
        return _writable(str(error))
    except Exception:  # noqa: BLE001  (an exception of the user's whose own text fails still has to be told)
        return f"<unprintable {type(error).__name__} object>"


def _trace(error: BaseException, root: str) -> tuple[str, ...]:
    return tuple(map(_writable, traceback.format_tb(trimmed(error.__traceback__, root))))


def _writable(text: str) -> str:
    """A text with lone surrogates written out: names of files bring them along, and UTF-8 cannot hold them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _innermost(error: BaseException, handler: Handler) -> str:
    """The user's innermost line; where none of the user's code was running (decoding), the handler's own line."""
    for frame in reversed(user_lines(error.__traceback__, handler.root)):
        if is_users(frame.filename, handler.root):
            return f"{shown(frame.filename)}:{frame.lineno}"
    return f"{shown(handler.file)}:{handler.line}"
