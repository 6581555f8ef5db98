"""Operations that run functions: what is asked of the fleet, what is refused before, and what is answered."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from kflow.aws.calls import Context
from kflow.aws.dispatch import Dispatcher
from kflow.errors import KflowError, StorageFull
from kflow.interfaces import FunctionError
from kflow.lambda_.errors import (
    InvalidParameterValue,
    InvalidRequestContent,
    RequestTooLarge,
    ResourceConflict,
    ResourceNotFound,
    TooManyRequests,
)
from kflow.lambda_.fleet import Replied, Reply, Request
from kflow.services.lambda_.invoke import Invoking
from kflow.services.lambda_.parts import Parts
from tests.lambdaing import ARN, HOME, World, model

ID = "9a1e8c0f-2b7d-4f3a-b1c6-d5e4f3a2b1c0"


class Service(Invoking):
    """Invocations alone."""

    service_name = "lambda"


class Desk(World):
    """A world whose functions run: what is asked, and what they answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, transition_s=0.5)
        self.create(Publish=True)
        self.asked: list[tuple[str, Request]] = []
        self.accepted: list[tuple[str, str, bytes, bytes]] = []
        self.reply: Reply | KflowError = Reply(payload=b'"ok"', log=b"END\n")
        self.failure: KflowError | None = None
        nothing: Any = None
        parts = Parts(
            host=self.host,
            home=HOME,
            fleet=self,  # type: ignore[arg-type]  # what is needed of one
            functions=self.functions,
            layers=self.layers,
            events=self,
            mappings=nothing,
            runner=nothing,
            invoke=nothing,
            url=lambda: "",
        )
        self._invoking = Dispatcher([Service(parts)], {"lambda": model()}, call_later=self.host.call_later)

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        self.asked.append((key, request))
        replied(self.reply)

    def accept(self, function: str, qualifier: str, request_id: bytes, payload: bytes, told: Any) -> None:
        self.accepted.append((function, qualifier, request_id, payload))
        told(self.failure)

    def run(self, operation: str = "Invoke", **parameters: Any) -> dict[str, Any]:
        results: list[dict[str, Any] | KflowError] = []
        context = Context(place=HOME, request_id=ID)
        given = {"FunctionName": "f", **parameters}
        self._invoking.invoke(context, "lambda", operation, given, results.append)
        self.host.run()
        (result,) = results
        if isinstance(result, KflowError):
            raise result
        return result


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path / "data")
    made.host.advance(1_000)
    return made


def test_an_invocation_is_asked_of_the_fleet_by_key_with_the_calls_own_id(desk: Desk) -> None:
    context = base64.b64encode(b'{"custom": {}}').decode()
    output = desk.run(Payload=b'{"a": 1}', Qualifier="1", LogType="Tail", ClientContext=context)

    assert output == {
        "StatusCode": 200,
        "ExecutedVersion": "1",
        "Payload": b'"ok"',
        "LogResult": base64.b64encode(b"END\n").decode(),
    }
    assert desk.asked == [
        (
            "f:1",
            Request(
                request_id=bytes.fromhex(ID.replace("-", "")),
                payload=b'{"a": 1}',
                arn=f"{ARN}:f:1",
                client_context='{"custom": {}}',
                tail=True,
            ),
        )
    ]


def test_a_failure_is_unhandled_and_a_refusal_is_told(desk: Desk) -> None:
    desk.reply = Reply(payload=b"{}", error=FunctionError(type="ValueError", message="no"))
    assert desk.run() == {
        "StatusCode": 200,
        "FunctionError": "Unhandled",
        "ExecutedVersion": "$LATEST",
        "Payload": b"{}",
    }
    desk.reply = TooManyRequests()
    with pytest.raises(TooManyRequests, match="Rate Exceeded"):
        desk.run()


def test_a_function_that_is_pending_runs_not_yet(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "data")
    for kind in ("RequestResponse", "Event", "DryRun"):
        with pytest.raises(ResourceConflict, match="currently in the following state: Pending"):
            desk.run(InvocationType=kind)
    desk.host.advance(500)
    assert desk.run()["StatusCode"] == 200


def test_an_event_is_answered_when_it_is_durable_and_refused_where_it_is_not(desk: Desk) -> None:
    assert desk.run(InvocationType="Event", Payload=b"[1]", Qualifier="$LATEST") == {"StatusCode": 202}
    assert desk.run("InvokeAsync", InvokeArgs=b"[2]") == {"Status": 202}
    identity = bytes.fromhex(ID.replace("-", ""))
    assert desk.accepted == [(f"{ARN}:f", "$LATEST", identity, b"[1]"), (f"{ARN}:f", "", identity, b"[2]")]
    assert desk.asked == []

    desk.failure = StorageFull("no room")
    with pytest.raises(StorageFull):
        desk.run(InvocationType="Event")


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"FunctionName": "g"}, ResourceNotFound, f"Function not found: {ARN}:g"),
        ({"Qualifier": "9"}, ResourceNotFound, f"Function not found: {ARN}:f:9"),
        ({"TenantId": "t"}, InvalidParameterValue, "The invoked function is not enabled with tenancy configuration."),
        ({"DurableExecutionName": "d"}, InvalidParameterValue, "kflow has no durable executions"),
        ({"ClientContext": "e30=="}, InvalidRequestContent, "Client context must be a valid Base64-encoded JSON obj"),
        (
            {"ClientContext": "W10="},
            InvalidRequestContent,
            "Client context must be a valid Base64-encoded JSON object.",
        ),
        ({"ClientContext": "e" * 3584}, InvalidRequestContent, "Client context must be no more than 3583 bytes."),
        (
            {"Payload": b"\n  foo"},
            InvalidRequestContent,
            (
                "Could not parse request body into json: Could not parse payload into json: Unrecognized token 'foo': "
                "was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n at [Source: "
                '(byte[])"\n  foo"; line: 2, column: 6]'
            ),
        ),
        ({"Payload": b"true false"}, InvalidRequestContent, "Could not parse request body into json: Could not parse"),
        ({"Payload": b'{"a": NaN}'}, InvalidRequestContent, "Could not parse request body into json: Could not parse"),
        ({"Payload": b"[" * 70_000}, InvalidRequestContent, "Could not parse request body into json: Could not parse"),
        (
            {"Payload": b"1" * 6_291_457},
            RequestTooLarge,
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            {"Payload": b"1" * 1_048_577, "InvocationType": "Event"},
            RequestTooLarge,
            "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    desk: Desk, given: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        desk.run(**given)
    assert str(caught.value).startswith(text)
    assert (desk.asked, desk.accepted) == ([], [])


def test_large_payloads_are_looked_at_by_a_thread(desk: Desk) -> None:
    before = desk.host.submitted
    desk.run(Payload=b'"' + b"x" * 60_000 + b'"')
    assert desk.host.submitted == before
    desk.run(Payload=b'"' + b"x" * 70_000 + b'"')
    assert desk.host.submitted == before + 1
    assert len(desk.asked) == 2


def test_who_has_no_place_for_events_is_told_so(desk: Desk) -> None:
    with pytest.raises(KflowError, match="come over HTTP only"):
        desk.run("InvokeWithResponseStream")
    assert desk.run("InvokeWithResponseStream", InvocationType="DryRun")["StatusCode"] == 204
