"""The events of an answer, over a response stream that only remembers."""

import json
import logging

from kflow.aws.eventstream import Event, Events, Vocabulary, event_head, initial_response
from kflow.aws.frames import Decoder, Frame, Kind
from kflow.errors import InvalidArgument, KflowError, ResourceInUse


class Out:
    def __init__(self):
        self.sent = b""
        self.buffered = 0
        self.on_drain = None
        self.on_close = None
        self.is_closed = False
        self.ends = 0

    def write(self, data):
        self.sent += data

    def end(self):
        self.ends += 1
        self.is_closed = True

    def frames(self):
        return Decoder().feed(self.sent)


def as_json(members):
    return json.dumps(members).encode()


VOCABULARY = Vocabulary(
    events={
        "SubscribeToShardEvent": Event(event_head("SubscribeToShardEvent", "application/json"), as_json),
        "Progress": Event(
            event_head("Progress", ""),
            lambda _: b"",
            (("Done", Kind.TRUE), ("Percent", Kind.INTEGER), ("Note", Kind.STRING)),
        ),
    },
    failures={
        "ResourceInUseException": "ResourceInUseException",
        "InternalFailureException": "InternalFailureException",
    },
    initial=initial_response(b"{}", "application/x-amz-json-1.1"),
    failure=as_json,
    content_type="application/x-amz-json-1.1",
)


def test_the_initial_response_comes_first_and_events_follow():
    out = Out()
    events = Events(out, VOCABULARY)
    events.send("SubscribeToShardEvent", {"Records": [], "MillisBehindLatest": 0})
    events.end()

    assert out.frames() == [
        Frame(
            {
                ":message-type": "event",
                ":event-type": "initial-response",
                ":content-type": "application/x-amz-json-1.1",
            },
            b"{}",
        ),
        Frame(
            {":message-type": "event", ":event-type": "SubscribeToShardEvent", ":content-type": "application/json"},
            b'{"Records": [], "MillisBehindLatest": 0}',
        ),
    ]
    assert out.ends == 1


def test_members_travel_as_headers_where_the_model_says_so():
    out = Out()
    Events(out, VOCABULARY).send("Progress", {"Done": False, "Percent": 50})

    assert out.frames()[1] == Frame(
        {":message-type": "event", ":event-type": "Progress", "Done": False, "Percent": 50}, b""
    )


def test_a_modelled_failure_is_an_exception_event_and_the_last():
    out = Out()
    events = Events(out, VOCABULARY)
    events.fail(ResourceInUse("Another active subscription exists for this consumer: 1:s:shardId-000000000000:c"))
    events.send("SubscribeToShardEvent", {})
    events.fail(ResourceInUse("again"))
    events.end()

    assert out.frames()[1:] == [
        Frame(
            {
                ":message-type": "exception",
                ":exception-type": "ResourceInUseException",
                ":content-type": "application/x-amz-json-1.1",
            },
            b'{"message": "Another active subscription exists for this consumer: 1:s:shardId-000000000000:c"}',
        )
    ]
    assert out.ends == 1
    assert events.is_closed


def test_a_failure_without_a_model_is_an_error_event():
    out = Out()
    Events(out, VOCABULARY).fail(InvalidArgument("no"))

    assert out.frames()[1] == Frame(
        {":message-type": "error", ":error-code": "InvalidArgumentException", ":error-message": "no"}, b""
    )


def test_a_fault_of_ours_is_logged_and_keeps_its_text(caplog):
    out = Out()
    with caplog.at_level(logging.ERROR):
        Events(out, VOCABULARY).fail(KflowError("/secret/path"))

    assert out.frames()[1] == Frame(
        {
            ":message-type": "exception",
            ":exception-type": "InternalFailureException",
            ":content-type": "application/x-amz-json-1.1",
        },
        b'{"message": "an internal error"}',
    )
    assert "/secret/path" in caplog.text


def test_what_is_sent_after_the_peer_has_gone_is_dropped():
    out = Out()
    events = Events(out, VOCABULARY)
    out.is_closed = True
    sent = out.sent
    events.send("SubscribeToShardEvent", {})
    events.fail(ResourceInUse("x"))

    assert events.is_closed
    assert out.sent == sent


def test_what_the_stream_knows_of_its_peer_is_seen_through():
    out = Out()
    events = Events(out, VOCABULARY)
    out.buffered = 7
    events.on_drain = "drained"
    events.on_close = "closed"

    assert events.buffered == 7
    assert (out.on_drain, out.on_close) == (events.on_drain, events.on_close) == ("drained", "closed")
