"""Operations that run functions.

Source: documented: Lambda API reference, Invoke; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from kflow.aws.calls import LATER, Answer, Call, EventStream
from kflow.errors import KflowError
from kflow.lambda_ import asynchronous
from kflow.lambda_.asyncconfig import Chosen, choose
from kflow.lambda_.control.function import Target
from kflow.lambda_.control.shown import is_pending
from kflow.lambda_.errors import (
    InvalidParameterValue,
    InvalidRequestContent,
    RequestTooLarge,
    ResourceConflict,
)
from kflow.lambda_.fleet import Reply, Request
from kflow.lambda_.requests import new_request_id
from kflow.services.answering import answering
from kflow.services.lambda_.parts import Base

PAYLOAD_BYTES: Final = 6_291_456
"""The largest event of a synchronous invocation. Source: documented: Invoke."""
CONTEXT_CHARACTERS: Final = 3583
"""The longest client context, in base64. Source: documented: Invoke."""
_IN_LINE_BYTES: Final = 65_536
"""Longer payloads are looked at by a thread: reading JSON takes up to 4 ns a byte."""
_CHUNK_BYTES: Final = 65_536
_EMPTY: Final = b"{}"
"""What a handler receives where no payload was given (chosen)."""
_WORD: Final = re.compile(r"\s*([A-Za-z_$][A-Za-z0-9_$]*)")
_WORDS: Final = frozenset({"null", "true", "false"})

Replied = Callable[[Reply], object]


class Invoking(Base):
    """Operations that run functions."""

    def invoke(self, call: Call, given: Any) -> Answer:
        """Once, and wait for the response; or at some time, and again where it fails; or see whether that may be."""
        target = self._target(call, given)
        context = _client_context(given.ClientContext)
        kind = given.InvocationType or "RequestResponse"
        payload = given.Payload or _EMPTY
        _check_size(payload, is_event=kind == "Event")
        self._checked(call, payload, partial(self._invoked, call, given, target, context, payload, kind))
        return LATER

    def invoke_async(self, call: Call, given: Any) -> Answer:
        """The old form of an asynchronous invocation."""
        target = self._runnable(call, given.FunctionName, None)
        payload = given.InvokeArgs or _EMPTY
        _check_size(payload, is_event=True)
        self._checked(call, payload, partial(self._accept, call, target, payload, {"Status": 202}))
        return LATER

    def invoke_with_response_stream(self, call: Call, given: Any) -> Answer:
        """Once; the response follows as a stream, when it is there as a whole."""
        target = self._target(call, given)
        context = _client_context(given.ClientContext)
        payload = given.Payload or _EMPTY
        _check_size(payload, is_event=False)
        tail = given.LogType == "Tail"

        def run() -> None:
            if given.InvocationType == "DryRun":
                call.answer({"StatusCode": 204})
            else:
                chosen = choose(target)
                self._run(call, target, chosen, payload, context, tail=tail, then=partial(self._stream, call, chosen))

        self._checked(call, payload, run)
        return LATER

    # ------------------------------------------------------------------ inside

    def _target(self, call: Call, given: Any) -> Target:
        if given.TenantId is not None:
            raise InvalidParameterValue(
                "The invoked function is not enabled with tenancy configuration."  # chosen
            )
        if getattr(given, "DurableExecutionName", None) is not None:
            raise InvalidParameterValue("kflow has no durable executions: leave DurableExecutionName out")  # chosen
        return self._runnable(call, given.FunctionName, given.Qualifier)

    def _runnable(self, call: Call, name: str, qualifier: str | None) -> Target:
        target = self.functions.target(call.context.place, name, qualifier)
        if is_pending(target.configuration, self.host.now_ms()):
            raise ResourceConflict(
                "The operation cannot be performed at this time. The function is currently in the following state: "
                "Pending"
            )
        return target

    def _checked(self, call: Call, payload: bytes, then: Callable[[], object]) -> None:
        """Go on where a payload is JSON."""
        if len(payload) <= _IN_LINE_BYTES:
            _check_json(payload)
            then()
            return

        def looked(failure: KflowError | None) -> None:
            if failure is None:
                then()
            else:
                call.refuse(failure)

        self.host.submit(partial(_check_json, payload), looked)

    def _invoked(self, call: Call, given: Any, target: Target, context: str, payload: bytes, kind: str) -> None:
        if kind == "DryRun":
            call.answer({"StatusCode": 204})
        elif kind == "Event":
            self._accept(call, target, payload, {"StatusCode": 202})
        else:
            chosen = choose(target)
            tail = given.LogType == "Tail"
            then = partial(_answer, call, chosen, tail=tail)
            self._run(call, target, chosen, payload, context, tail=tail, then=then)

    def _run(
        self,
        call: Call,
        target: Target,
        chosen: Chosen,
        payload: bytes,
        context: str,
        *,
        tail: bool,
        then: Replied,
    ) -> None:
        request = Request(
            request_id=_request_id(call),
            payload=payload,
            arn=target.arn,
            client_context=context,
            tail=tail,
            trace=call.context.trace,
        )

        def replied(reply: Reply | KflowError) -> None:
            if isinstance(reply, KflowError):
                call.refuse(reply)
            else:
                then(reply)

        self.fleet.invoke(chosen.key, request, replied)

    def _accept(self, call: Call, target: Target, payload: bytes, output: dict[str, Any]) -> None:
        """Answer when it is durable."""
        told = answering(call, lambda _: output)
        self.parts.events.accept(target.function.arn, target.qualifier, _request_id(call), payload, told)

    def _stream(self, call: Call, chosen: Chosen, reply: Reply) -> None:
        if call.is_closed:
            return
        try:
            events = call.stream({"ExecutedVersion": chosen.version})
        except KflowError as error:  # a caller of this process that has no place for events
            call.refuse(error)
            return
        last = {"LogResult": base64.b64encode(reply.log).decode() if reply.log else None}
        if reply.error is not None:
            last |= {"ErrorCode": "Unhandled", "ErrorDetails": reply.payload.decode("utf-8", "replace")}
        self._send(events, memoryview(reply.payload), last)

    def _send(self, events: EventStream, left: memoryview, last: dict[str, Any]) -> None:
        """A piece in each round of the loop."""
        if events.is_closed:
            return
        if left:
            events.send("PayloadChunk", {"Payload": bytes(left[:_CHUNK_BYTES])})
            self.host.call_later(0, lambda: self._send(events, left[_CHUNK_BYTES:], last))
        else:
            events.send("InvokeComplete", last)
            events.end()


def _answer(call: Call, chosen: Chosen, reply: Reply, *, tail: bool) -> None:
    call.answer(
        {
            "StatusCode": 200,
            "FunctionError": None if reply.error is None else "Unhandled",
            "LogResult": base64.b64encode(reply.log).decode() if tail else None,
            "ExecutedVersion": chosen.version,
            "Payload": reply.payload,
        }
    )


def _request_id(call: Call) -> bytes:
    """The call's own; callers of this process have none."""
    text = call.context.request_id
    return bytes.fromhex(text.replace("-", "")) if text else new_request_id()


def _check_size(payload: bytes, *, is_event: bool) -> None:
    if is_event and len(payload) > asynchronous.PAYLOAD_BYTES:
        raise RequestTooLarge(
            f"{len(payload)} byte payload is too large for the Event invocation type "
            f"(limit {asynchronous.PAYLOAD_BYTES} bytes)"
        )
    if len(payload) > PAYLOAD_BYTES:
        raise RequestTooLarge(f"Request must be smaller than {PAYLOAD_BYTES} bytes for the InvokeFunction operation")


def _check_json(payload: bytes) -> None:
    """Whether a payload is JSON.

    Raises:
        InvalidRequestContent: it is not.
    """
    try:
        if not payload.isascii():
            payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestContent(
            f"Could not parse request body into json: Could not parse payload into json: {_wrong(payload, error)}"
        ) from None


def _wrong(payload: bytes, error: Exception) -> str:
    """What is wrong with it, in the words of AWS's reader where it begins with a word that is none (chosen: else)."""
    text = payload[:200].decode("utf-8", "replace")
    word = _WORD.match(text)
    if word is None or word[1] in _WORDS:
        return str(error)
    line = text.count("\n", 0, word.end()) + 1
    column = word.end() - (text.rfind("\n", 0, word.end()) + 1) + 1
    return (
        f"Unrecognized token '{word[1]}': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or "
        f"'false')\n at [Source: (byte[])\"{text}\"; line: {line}, column: {column}]"
    )


def _client_context(given: str | None) -> str:
    """JSON text; empty: none.

    Raises:
        InvalidRequestContent: it is no JSON object in base64, or too long (chosen: the texts).
    """
    if not given:
        return ""
    if len(given) > CONTEXT_CHARACTERS:
        raise InvalidRequestContent(f"Client context must be no more than {CONTEXT_CHARACTERS} bytes.")
    try:
        text = base64.b64decode(given, validate=True)
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.")
    return text.decode()
