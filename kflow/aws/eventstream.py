"""The events of an answer that goes on, over a response stream: one frame an event, and a last one where it fails.

    OPEN (initial response sent) ── send ──> OPEN ── end ──> CLOSED
                                       └── fail: an exception frame ──┘   (also: the peer goes away)

Knows no protocol: each event of an operation is a `Vocabulary` entry that turns members into a payload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kflow.aws.frames import Kind, encode, header, headers
from kflow.errors import AwsError, KflowError
from kflow.web.exchange import ResponseStream

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

Payload = Callable[[Mapping[str, Any]], bytes]
"""Writes the members of one event in the protocol's format."""

_ERROR: Final = headers({":message-type": "error"})


@dataclass(frozen=True, slots=True)
class Event:
    """How one event is written.

    Attributes:
        head: its headers but those that are members, coded.
        payload: of the members that are not headers.
        members: those that travel as headers: name and kind.
    """

    head: bytes
    payload: Payload
    members: tuple[tuple[str, Kind], ...] = ()

    def frame(self, members: Mapping[str, Any]) -> bytes:
        """The event as a frame."""
        if not self.members:
            return encode(self.head, self.payload(members))
        given = [(name, kind, members[name]) for name, kind in self.members if members.get(name) is not None]
        more = [header(name, value, _kind_of(kind, value)) for name, kind, value in given]
        return encode(b"".join((self.head, *more)), self.payload(members))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be sent in the answer of one operation, in one protocol. Made once, used by all its answers.

    Attributes:
        events: by member name in the event stream's shape.
        failures: the members that are exceptions, by error code.
        initial: the initial response's frame; empty where the operation's protocol has none.
        failure: writes `{"message": text}` in the protocol's format.
        content_type: of exceptions.
    """

    events: Mapping[str, Event]
    failures: Mapping[str, str]
    initial: bytes
    failure: Payload
    content_type: str


@dataclass(slots=True)
class Events:
    """An open event stream; `kflow.aws.calls.EventStream` says what its methods promise. Belongs to the loop.

    Attributes:
        out: where frames go; its `on_drain` and `on_close` are this object's.
        vocabulary: of the operation.
    """

    out: ResponseStream
    vocabulary: Vocabulary
    _has_ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.vocabulary.initial:
            self.out.write(self.vocabulary.initial)

    @property
    def buffered(self) -> int:
        """Bytes the peer has not taken yet."""
        return self.out.buffered

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._has_ended or self.out.is_closed

    @property
    def on_drain(self) -> Callable[[], object] | None:
        """Called when the peer has taken most of what was buffered."""
        return self.out.on_drain

    @on_drain.setter
    def on_drain(self, call: Callable[[], object] | None) -> None:
        self.out.on_drain = call

    @property
    def on_close(self) -> Callable[[], object] | None:
        """Called once if the peer goes away."""
        return self.out.on_close

    @on_close.setter
    def on_close(self, call: Callable[[], object] | None) -> None:
        self.out.on_close = call

    def send(self, event: str, members: Mapping[str, Any]) -> None:
        """Send one event, by its member name in the event stream's shape; dropped where the peer is gone."""
        if not self.is_closed:
            self.out.write(self.vocabulary.events[event].frame(members))

    def fail(self, error: KflowError) -> None:
        """End with an exception event, or with an error event where the shape has no such exception.

        What is no `AwsError` is a fault of ours: it is logged, and its text stays here.
        """
        if self.is_closed:
            return
        if isinstance(error, AwsError):
            code, text = error.code, str(error)
        else:
            log.error("an event stream failed: %s", error, exc_info=error)
            code, text = AwsError.code, "an internal error"
        self.out.write(_failure(self.vocabulary, code, text))
        self.end()

    def end(self) -> None:
        """End without an error."""
        if not self._has_ended:
            self._has_ended = True
            self.out.end()


def event_head(name: str, content_type: str) -> bytes:
    """The headers of an event; without a content type where it has no payload."""
    values = {":message-type": "event", ":event-type": name}
    if content_type:
        values[":content-type"] = content_type
    return headers(values)


def initial_response(payload: bytes, content_type: str) -> bytes:
    """The frame that comes first: the operation's output without its event stream."""
    return encode(event_head("initial-response", content_type), payload)


def _failure(vocabulary: Vocabulary, code: str, text: str) -> bytes:
    # InternalFailure is the code outside of streams, InternalFailureException the modelled one.
    member = vocabulary.failures.get(code) or vocabulary.failures.get(f"{code}Exception")
    if member is None:
        # documented: Smithy, Amazon Event Stream specification: what is not modelled is a message of type error
        return encode(_ERROR + headers({":error-code": code, ":error-message": text[:8000]}), b"")
    head = {":message-type": "exception", ":exception-type": member, ":content-type": vocabulary.content_type}
    return encode(headers(head), vocabulary.failure({"message": text}))


def _kind_of(kind: Kind, value: Any) -> Kind:
    return kind if kind > Kind.FALSE else Kind.TRUE if value else Kind.FALSE
