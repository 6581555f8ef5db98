"""Error payloads, in Lambda's words, as recorded."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kflow import loading
from kflow.declarations import Handler, HandlerForm
from kflow.interfaces import FunctionError
from kflow.lambda_ import payloads

REQUEST = "0c3a5b9e-8d5c-4d0e-9b6a-0e2f5a7c1d11"


def handler_of(root: Path | str, **fields) -> Handler:
    return Handler(
        name="bill",
        file=f"{root}/h.py",
        line=1,
        root=str(root),
        module=fields.pop("module", "h"),
        qualname="handler",
        form=HandlerForm.EVENT,
        **fields,
    )


def raised(function, *arguments) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever it is)
        function(*arguments)
    # As the runtime catches it: without this function's own frame.
    return caught.value.with_traceback(caught.tb.tb_next)


def test_an_exception_is_told_with_its_stack_from_the_handler_on(tmp_path, monkeypatch):
    (tmp_path / "h_raises.py").write_text(
        "import json\n\ndef handler(event, context):\n    return helper()\n\ndef helper():\n    return json.loads('')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("h_raises")
    error = payloads.from_exception(raised(module.handler, {}, None), REQUEST, handler_of(tmp_path))
    assert error.trace is not None
    assert [entry.splitlines()[0].rpartition(", ")[2] for entry in error.trace][:3] == [
        "in handler",
        "in helper",
        "in loads",
    ]
    assert (error.type, error.message, error.request_id) == (
        "JSONDecodeError",
        "Expecting value: line 1 column 1 (char 0)",
        REQUEST,
    )
    assert error.file == "h_raises.py:7"


def test_a_handler_exception_is_awss_payload(tmp_path, monkeypatch):
    (tmp_path / "h_fails.py").write_text('def handler(event, context):\n    raise Exception("Handler fails")\n')
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("h_fails")
    error = payloads.from_exception(raised(module.handler, {}, None), REQUEST, handler_of(tmp_path))
    assert payloads.payload(error) == {
        "errorMessage": "Handler fails",
        "errorType": "Exception",
        "requestId": REQUEST,
        "stackTrace": [f'  File "{tmp_path}/h_fails.py", line 2, in handler\n    raise Exception("Handler fails")\n'],
    }


def test_an_exception_whose_own_text_fails_is_told_all_the_same():
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = payloads.from_exception(Silent(), REQUEST, handler_of("/nowhere"))
    assert error.message == "<unprintable Silent object>"


def test_a_message_that_utf_8_cannot_hold_is_told_with_what_it_cannot_hold_written_out():
    name = b"invoice-\xff.csv".decode("utf-8", "surrogateescape")  # what `os.listdir` gives for such a file
    error = payloads.from_exception(FileNotFoundError(2, "No such file", name), REQUEST, handler_of("/nowhere"))
    assert error.message == "[Errno 2] No such file: 'invoice-\\udcff.csv'"
    error = payloads.from_exception(ValueError(name), REQUEST, handler_of("/nowhere"))
    assert error.message == "invoice-\\udcff.csv"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(error))["message"] == error.message


def test_a_failure_without_a_line_of_the_users_is_told_with_the_handlers():
    error = payloads.from_exception(ValueError("x"), REQUEST, handler_of("/nowhere"))
    assert (error.trace, error.file) == ((), "/nowhere/h.py:1")


def test_a_module_that_is_missing_is_an_import_module_error():
    error = payloads.from_import_error(
        ModuleNotFoundError("No module named 'pandas'", name="pandas"), handler_of("/nowhere")
    )
    assert payloads.payload(error) == {
        "errorMessage": "Unable to import module 'h': No module named 'pandas'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": "",
        "stackTrace": [],
    }


def test_a_syntax_error_names_its_line(tmp_path):
    file = tmp_path / "h.py"
    file.write_text("x = = 1\n")
    error = payloads.from_import_error(raised(compile, "x = = 1\n", str(file), "exec"), handler_of(tmp_path))
    assert payloads.payload(error) == {
        "errorMessage": "Syntax error in module 'h': invalid syntax (h.py, line 1)",
        "errorType": "Runtime.UserCodeSyntaxError",
        "requestId": "",
        "stackTrace": [f'  File "{file}" Line 1\n    x = = 1\n'],
    }
    assert error.file.endswith("h.py:1")


def test_a_handler_that_is_not_there_is_handler_not_found():
    error = payloads.from_import_error(
        loading.HandlerNotFound("Handler 'handler' missing on module 'h'"), handler_of("/nowhere")
    )
    assert payloads.payload(error) == {
        "errorMessage": "Handler 'handler' missing on module 'h'",
        "errorType": "Runtime.HandlerNotFound",
        "requestId": "",
        "stackTrace": [],
    }


def test_any_other_exception_at_import_keeps_its_class():
    error = payloads.from_import_error(KeyError("TABLE"), handler_of("/nowhere"))
    assert (error.type, error.message, error.request_id) == ("KeyError", "'TABLE'", "")


def test_a_timeout_is_told_with_two_decimals():
    assert payloads.payload(payloads.timed_out(REQUEST, 1)) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {REQUEST} Error: Task timed out after 1.00 seconds",
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os._exit(127)", "Runtime exited with error: exit status 127"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.kill(os.getpid(), 15)", "Runtime exited with error: signal: terminated"),
        ("os.kill(os.getpid(), 40)", "Runtime exited with error: signal: signal 40"),
    ],
)
def test_an_exit_is_told_from_the_wait_status(code, reason):
    process = subprocess.Popen([sys.executable, "-c", f"import os; {code}"])
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0  # reaped here, not by Popen
    assert payloads.payload(payloads.exited(REQUEST, status)) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {REQUEST} Error: {reason}",
    }


def test_a_response_that_is_too_large_is_told_with_the_limit():
    assert payloads.payload(payloads.too_large()) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }


def test_a_response_that_is_not_json_is_a_marshal_error():
    assert payloads.not_json(TypeError("Object of type set is not JSON serializable"), REQUEST) == FunctionError(
        type="Runtime.MarshalError",
        message="Unable to marshal response: Object of type set is not JSON serializable",
        trace=(),
        request_id=REQUEST,
    )
