"""The events that an operation's answer may hold, out of its model: made once for each operation and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from kflow.aws.eventstream import Event, Payload, Vocabulary, event_head, initial_response
from kflow.aws.frames import Kind
from kflow.aws.shapes import Member, Operation, Structure

Write = Callable[[Structure, Mapping[str, Any]], bytes]
"""A format's writer of structures."""

_KINDS: Final = {
    "boolean": Kind.TRUE,
    "byte": Kind.BYTE,
    "short": Kind.SHORT,
    "integer": Kind.INTEGER,
    "long": Kind.LONG,
    "blob": Kind.BYTES,
    "string": Kind.STRING,
    "timestamp": Kind.TIMESTAMP,
}


def vocabulary(
    operation: Operation,
    write: Write,
    failure: Payload,
    *,
    content_type: str,
    event_content_type: str = "",
    has_initial_response: bool = False,
) -> Vocabulary:
    """What may be sent in the answer of one operation.

    Args:
        operation: one with an event stream in its output.
        write: of the format; may take `Columns`.
        failure: writes `{"message": text}` in the format.
        content_type: of the format: said of the initial response and of exceptions,
        event_content_type: and this of events; empty: the same.
        has_initial_response: whether a frame with the output's other members comes first, as in JSON and CBOR; they
            are none here, for what is not in the stream is not known when it is opened.
    """
    stream = operation.event_stream
    assert stream is not None
    assert isinstance(stream.shape, Structure)
    assert operation.output is not None
    events: dict[str, Event] = {}
    failures: dict[str, str] = {}
    for name, member in stream.shape.members.items():
        assert isinstance(member.shape, Structure)
        if member.shape.is_exception:
            failures[member.shape.error_code] = failures[member.shape.name] = name
        else:
            events[name] = _event(name, member.shape, write, event_content_type or content_type)
    initial = initial_response(write(operation.output, {}), content_type) if has_initial_response else b""
    return Vocabulary(events, failures, initial, failure, content_type)


class Vocabularies:
    """The vocabularies of AWS's JSON protocol in one encoding, remembered by service and operation."""

    def __init__(self, write: Write, failure: Payload, *, content_type: str, event_content_type: str) -> None:
        self._make = partial(
            vocabulary,
            write=write,
            failure=failure,
            content_type=content_type,
            event_content_type=event_content_type,
            has_initial_response=True,
        )
        self._made: dict[tuple[str, str], Vocabulary] = {}

    def __call__(self, operation: Operation) -> Vocabulary:
        """The vocabulary of an operation."""
        key = (operation.model.service, operation.name)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(operation)
        return made


def _event(name: str, shape: Structure, write: Write, content_type: str) -> Event:
    in_headers = tuple(
        (member.name, _KINDS[member.shape.kind])
        for member in shape.members.values()
        if member.traits.get("eventheader")
    )
    whole = next((member for member in shape.members.values() if member.traits.get("eventpayload")), None)
    if whole is not None:
        kind, payload = _whole(whole, write, content_type)
        return Event(event_head(name, kind), payload, in_headers)
    if len(in_headers) == len(shape.members):
        return Event(
            event_head(name, "" if in_headers else content_type),
            _nothing if in_headers else _of(shape, write),
            in_headers,
        )
    if not in_headers:
        return Event(event_head(name, content_type), _of(shape, write))
    elsewhere = {header for header, _ in in_headers}

    def rest(members: Mapping[str, Any]) -> bytes:
        return write(shape, {name: value for name, value in members.items() if name not in elsewhere})

    return Event(event_head(name, content_type), rest, in_headers)


def _whole(member: Member, write: Write, content_type: str) -> tuple[str, Payload]:
    """The content type and the writer of an event whose payload is one member."""
    name, shape = member.name, member.shape
    if isinstance(shape, Structure):
        return content_type, lambda members: write(shape, members.get(name) or {})
    if shape.kind == "blob":
        return "application/octet-stream", lambda members: members.get(name) or b""
    return "text/plain", lambda members: str(members.get(name) or "").encode()


def _of(shape: Structure, write: Write) -> Payload:
    return lambda members: write(shape, members)


def _nothing(_: Mapping[str, Any]) -> bytes:
    return b""
