"""The Runtime API's rules, request by request."""

from __future__ import annotations

import base64
import json

import pytest

from kflow.runtime.worker.hosted.api import Answer, Api, Event, State, event, malformed
from kflow.runtime.worker.hosted.requests import Request

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
ROOT = "/2018-06-01/runtime/"
EVENT = event(
    ID, b"{}", arn="arn:f:live", deadline_ms=1542409706888, trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700"
)
OK = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'


def ask(api: Api, what: str, body: bytes = b"", *, size: int | None = None, trailers=None, **headers: str):
    method = "GET" if what.endswith("next") else "POST"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = Request(method, ROOT + what, named, body, len(body) if size is None else size, trailers or {}, keep=True)
    return api.handle(sent)


def error(answer: object) -> tuple[int, str, str]:
    assert isinstance(answer, bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    said = json.loads(body)
    return int(head.split(b" ")[1]), said["errorType"], said["errorMessage"]


def running() -> Api:
    api = Api()
    assert ask(api, "invocation/next") is None
    api.deliver(EVENT)
    return api


def test_an_invocation_has_exactly_lambdas_headers():
    assert EVENT.head.decode() == (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: application/json\r\n"
        "Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n"
        "Lambda-Runtime-Deadline-Ms: 1542409706888\r\n"
        "Lambda-Runtime-Invoked-Function-Arn: arn:f:live\r\n"
        "Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700\r\n"
        "Content-Length: 2\r\n\r\n"
    )


def test_the_clients_context_is_sent_where_there_is_one():
    given = event(ID, b"1", arn="a", deadline_ms=1, trace_id="t", client_context='{"custom":{}}')
    assert b'Lambda-Runtime-Client-Context: {"custom":{}}\r\n' in given.head


def test_a_runtime_asks_answers_and_asks_again():
    api = running()
    assert api.state is State.RUNNING
    assert ask(api, f"invocation/{ID}/response", b'{"a":1}') == OK
    assert (api.state, api.answer) == (State.ANSWERED, Answer(b'{"a":1}'))
    assert ask(api, "invocation/next") is None
    assert api.state is State.READY


def test_an_error_is_passed_on_as_it_was_sent():
    api = running()
    body = b'{"errorMessage":"no","errorType":"ValueError"}'
    kind = "Unhandled"
    assert ask(api, f"invocation/{ID}/error", body, lambda_runtime_function_error_type=kind) == OK
    assert api.answer == Answer(body, failed=True, error_type="Unhandled")


def test_who_asks_again_while_it_runs_gets_the_same_event():
    api = running()
    assert ask(api, "invocation/next") is EVENT
    assert isinstance(EVENT, Event)
    assert ask(api, f"invocation/{ID}/response", b"1") == OK


def test_a_wrong_or_an_old_id_is_refused():
    api = running()
    assert error(ask(api, "invocation/other/response", b"1")) == (400, "InvalidRequestID", "Invalid request ID")
    assert ask(api, f"invocation/{ID}/response", b"1") == OK
    assert error(ask(api, f"invocation/{ID}/response", b"1")) == (400, "InvalidRequestID", "Invalid request ID")
    assert error(ask(api, f"invocation/{ID}/error", b"1")) == (400, "InvalidRequestID", "Invalid request ID")


def test_an_answer_before_the_first_question_is_in_the_wrong_state():
    assert error(ask(Api(), f"invocation/{ID}/response", b"1")) == (
        403,
        "InvalidStateTransition",
        (
            "State transition from Started to InvocationResponse failed for runtime. "
            "Error: State transition is not allowed"
        ),
    )


def test_an_initialisation_fails_before_the_first_question_only():
    api = Api()
    body = b'{"errorMessage":"no","errorType":"ImportError"}'
    assert ask(api, "init/error", body, lambda_runtime_function_error_type="ImportError") == OK
    assert (api.state, api.answer) == (State.INIT_ERROR, Answer(body, failed=True, error_type="ImportError"))
    assert error(ask(api, "invocation/next"))[:2] == (403, "InvalidStateTransition")
    assert error(ask(running(), "init/error", body)) == (
        403,
        "InvalidStateTransition",
        "State transition from Running to InitError failed for runtime. Error: State transition is not allowed",
    )


def test_a_response_over_the_limit_is_answered_and_not_kept():
    api = running()
    assert error(ask(api, f"invocation/{ID}/response", size=6_291_557)) == (
        413,
        "RequestEntityTooLarge",
        "Exceeded maximum allowed payload size (6291556 bytes).",
    )
    assert api.answer == Answer(b"", failed=True, too_large=True)
    assert ask(api, "invocation/next") is None


def test_an_error_over_the_limit_is_taken_and_not_kept():
    api = running()
    assert ask(api, f"invocation/{ID}/error", size=6_291_557) == OK
    assert api.answer == Answer(b"", failed=True, too_large=True)


def test_a_streamed_response_is_taken_as_a_whole_and_another_mode_refused():
    api = running()
    mode = "lambda_runtime_function_response_mode"
    assert error(ask(api, f"invocation/{ID}/response", b"1", **{mode: "buffered"}))[:2] == (
        400,
        "InvalidFunctionResponseMode",
    )
    assert api.state is State.RUNNING
    assert ask(api, f"invocation/{ID}/response", b"1", **{mode: "streaming"}) == OK
    assert api.answer == Answer(b"1")


def test_a_stream_that_fails_on_its_way_is_an_error():
    api = running()
    trailers = {
        "lambda-runtime-function-error-type": "Function.Broken",
        "lambda-runtime-function-error-body": base64.b64encode(b'{"errorMessage":"x"}').decode(),
    }
    assert ask(api, f"invocation/{ID}/response", b"half", trailers=trailers) == OK
    assert api.answer == Answer(b'{"errorMessage":"x"}', failed=True, error_type="Function.Broken")


def test_what_breaks_off_or_is_no_request_is_told():
    assert error(malformed("a body in chunks broke off")) == (
        400,
        "TruncatedHTTPRequest",
        "a body in chunks broke off",
    )


@pytest.mark.parametrize("what", ["restore/next", "restore/error", "x", "invocation/1/other"])
def test_what_is_not_there_is_not_found(what):
    assert error(ask(Api(), what))[:2] == (404, "NotFound")


def test_a_wrong_method_is_told():
    sent = Request("POST", ROOT + "invocation/next", {}, b"", 0, {}, keep=True)
    assert error(Api().handle(sent))[:2] == (405, "MethodNotAllowed")


@pytest.mark.parametrize("name", ["origin", "sec-fetch-site"])
def test_a_page_in_a_browser_gets_no_event(name):
    api = Api()
    sent = Request("GET", ROOT + "invocation/next", {name: "http://evil.example"}, b"", 0, {}, keep=True)
    assert error(api.handle(sent))[:2] == (403, "Forbidden")
    assert api.state is State.STARTED
