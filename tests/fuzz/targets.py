"""What is fuzzed: functions of bytes that raise where a promise is broken, and inputs to begin with.

They know no fuzzer: `tests/fuzz/__main__.py` runs them under atheris, `tests/fuzz/test_targets.py` on a few inputs.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import math
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import botocore.eventstream
import cbor2
import msgspec

from kflow.aws import cbor, models, xml
from kflow.aws.errors import SerializationFailed
from kflow.aws.frames import BrokenFrame, Decoder, encode, headers
from kflow.aws.query import Query
from kflow.errors import AwsError, ExpiredIterator, ExpiredNextToken, InvalidArgument, ValidationFailed
from kflow.kinesis import iterators, pages
from kflow.kinesis.queues import receipts
from kflow.kinesis.queues.asking import Delivery
from kflow.kinesis.seals import Seal
from kflow.records import Position
from kflow.web.certificate import keep_certificate
from kflow.web.connection import Connection
from kflow.web.frames import PREFACE
from kflow.web.options import HIGH_BYTES, Tls, WebOptions
from kflow.web.tls import make_context, secure
from tests.controlling import model
from tests.generating import CBOR, JSON, World, body_of, judge, simplest, world
from tests.unit.aws.fakes import SIGNED, Exchange, Kinesis, make_door
from tests.webbing import Desk, MemorySocket, answers, echo

Check = Callable[[bytes], None]


class Target(NamedTuple):
    """One thing to fuzz.

    Attributes:
        check: raises where a promise is broken.
        seeds: makes inputs to begin with.
        words: what inputs are made of, for the fuzzer's dictionary.
    """

    check: Check
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()


class Complaints(logging.Handler):
    """A fault that was caught and logged is a fault."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            raise AssertionError(record.getMessage()) from record.exc_info[1]


# ---------------------------------------------------------------------------------------------------- the web

NARROW = WebOptions(header_bytes=600, body_bytes=2000, held_bytes=4000, streams=4, header_count=12)


def _echo(exchange: Any) -> None:
    if exchange.method == "HEAD":
        exchange.respond(200, ())  # whoever reads the answers does not know what they answer
    else:
        echo(exchange)


def _wire(data: bytes, *, begin: bytes = b"", context: Any = None) -> MemorySocket:
    """Give a connection some bytes, in the pieces that the first byte says; then its peer goes away."""
    size = (data[0] if data else 0) * 3 + 1
    data = begin + data[1:]
    desk = Desk(NARROW, answer=_echo)
    peer = MemorySocket()
    closed: list[Connection] = []
    secured = None if context is None else (lambda connection: secure(connection, desk.hub, context))
    connection = Connection(desk.hub, peer, bytearray(HIGH_BYTES), secured, closed.append)  # type: ignore[arg-type]
    for at in range(0, len(data), size):
        if not connection.is_open or 77 not in desk.loop.watched:
            break
        peer.incoming.append(data[at : at + size])
        desk.loop.watched[77][1](1)
        desk.loop.settle()
    if connection.is_open and 77 in desk.loop.watched:
        peer.incoming.append(b"")
        desk.loop.watched[77][1](1)
        desk.loop.settle()
    for _ in range(4):
        desk.loop.now += 1000
        desk.hub.now = desk.loop.now
        if connection.is_open:
            connection.sweep(desk.hub.now)
        desk.loop.settle()
    assert closed == [connection], "the connection is left open"
    assert desk.hub.held == 0, "a body is left"
    assert desk.loop.watched == {}, "a descriptor is left"
    return peer


def http1(data: bytes) -> None:
    """HTTP/1.1: whatever arrives, whole answers go back."""
    sent = bytes(_wire(data).sent)
    if sent.startswith(b"HTTP/1.1"):
        assert {status for status, _ in answers(sent)} <= {200, 400, 408, 413, 417, 431, 501, 503, 505}


def _http1_seeds() -> Iterator[bytes]:
    yield b"\x50GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    yield b"\x01POST /p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
    yield b"\x09POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: x\r\n\r\n"
    yield b"\x40" + b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 3
    yield b"\x02POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999\r\n\r\nabc"


def http2(data: bytes) -> None:
    """HTTP/2 behind its preface."""
    _wire(data, begin=PREFACE)


def _frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def _http2_seeds() -> Iterator[bytes]:
    settings = b"\xff" + _frame(4, 0, 0)
    post = b"\x83\x86\x84\x41\x01h"
    yield settings + _frame(1, 5, 1, b"\x82\x86\x84\x41\x01h")
    yield settings + _frame(1, 4, 1, post) + _frame(0, 1, 1, b"abc") + _frame(8, 0, 0, b"\0\0\1\0")
    yield settings + _frame(1, 0, 1, post[:3]) + _frame(9, 4, 1, post[3:]) + _frame(3, 0, 1, b"\0\0\0\x08")
    yield settings + _frame(6, 0, 0, b"12345678") * 3 + _frame(7, 0, 0, b"\0\0\0\0\0\0\0\0")
    yield settings + _frame(4, 0, 0, b"\0\4\0\0\0\0\0\1\0\0\0\0") + _frame(2, 0, 1, b"\0\0\0\0\x10")
    yield settings + _frame(1, 0x2D, 1, b"\2\0\0\0\0\1" + post + b"\0\0") + _frame(0, 9, 1, b"\1abc\0")


@functools.cache
def _context() -> Any:
    folder = Path(tempfile.mkdtemp(prefix="kflow-fuzz-"))
    keep_certificate(folder)
    return make_context(Tls(folder=folder))


def tls(data: bytes) -> None:
    """TLS records, broken ones mostly."""
    _wire(data, begin=b"\x16", context=_context())


def _tls_seeds() -> Iterator[bytes]:
    import ssl

    client = ssl.create_default_context()
    client.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    shaking = client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        shaking.do_handshake()
    except ssl.SSLWantReadError:
        yield b"\xff" + outgoing.read()[1:]
    yield b"\xff\x03\x01\x00\x05\x01\x00\x00\x01\x00"


# ---------------------------------------------------------------------------------------------------- encodings

NAMES = model().operation_names


def cbor_bytes(data: bytes) -> None:
    """What is read as CBOR is what the independent codec reads, and is written so that it is read back."""
    try:
        value = cbor.decode(data)
    except cbor.CborError:
        return
    try:
        written = cbor.encode(value)
    except struct.error:
        return  # big numbers are read, and never answered
    again = cbor.decode(written)
    assert _same(again, _without_null(value)), (value, again)
    if data[0] >> 5 == 6:
        return  # tags are read otherwise: AWS's times are in milliseconds, and others mean nothing
    try:
        theirs = cbor2.loads(data)
    except Exception:  # noqa: BLE001  # stricter than ours: dates, sets, keys of any kind
        return
    if isinstance(value, str | int | bytes) and type(theirs) is type(value):
        assert theirs == value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    return bool(one == other) and isinstance(other, bool) == isinstance(one, bool)


def _without_null(value: Any) -> Any:
    """Absent is how null is answered."""
    if isinstance(value, dict):
        return {key: _without_null(part) for key, part in value.items() if part is not None}
    return [_without_null(part) for part in value] if isinstance(value, list) else value


def _cbor_seeds() -> Iterator[bytes]:
    for name in NAMES:
        yield _simplest(name, CBOR)
    yield cbor2.dumps({"a": [1, -1, 1.5, None, True, b"x", "y", cbor2.CBORTag(1, 1_700_000_000_000)], "b": {}})
    yield b"\xbf\x61a\x9f\x01\xff\x61b\x5f\x41x\x41y\xff\x61c\x7f\x61x\xff\xff"


def _simplest(name: str, content_type: str) -> bytes:
    operation = model().operation(name)
    assert operation is not None
    return body_of(operation, {} if operation.input is None else simplest(operation.input), content_type)


def json_input(data: bytes) -> None:
    """An input read quickly is read exactly as well, and the same. The first byte picks the operation."""
    bound = _door()._dispatcher.bound("kinesis", NAMES[(data[0] if data else 0) % len(NAMES)])
    assert bound is not None
    reader = bound.json_input
    body = data[1:]
    quick = reader.quick(body) if body else None
    from kflow.aws.json_input import plain

    try:
        exact = reader.exact(plain(body))
    except (SerializationFailed, ValidationFailed):
        assert quick is None, "what AWS refuses was taken"
        return
    if quick is not None:
        assert _same(_plainly(quick), _plainly(exact))


def _plainly(struct: Any) -> Any:
    return msgspec.to_builtins(struct, builtin_types=(bytes,))


def _json_seeds() -> Iterator[bytes]:
    for number, name in enumerate(NAMES):
        yield bytes([number]) + _simplest(name, JSON)


@functools.cache
def _door() -> Any:
    from kflow.aws.shapes import snake_case

    return make_door(Kinesis(**{snake_case(name): None for name in NAMES}))


def door(data: bytes) -> None:
    """A whole request in lines: method, target, headers, an empty line, body. One answer, and no fault of ours."""
    head, _, body = data.partition(b"\n\n")
    method, target, *lines = [*head.decode("latin-1").split("\n"), "", ""]
    given = dict(line.partition(":")[::2] for line in lines if ":" in line)
    exchange = Exchange(method, target, {"host": "localhost", **given}, body)
    _door()(exchange)
    if not exchange.streams:
        assert exchange.answer.status < 500, exchange.answer


def _door_seeds() -> Iterator[bytes]:
    for name in NAMES:
        for content_type in (JSON, CBOR):
            head = f"POST\n/\nx-amz-target:Kinesis_20131202.{name}\ncontent-type:{content_type}\n"
            yield f"{head}authorization:{SIGNED}\n\n".encode() + _simplest(name, content_type)
    yield b"OPTIONS\n/\norigin:http://localhost\naccess-control-request-headers:a\n\n"
    yield b"POST\n/?X-Amz-Credential=a%2Fb%2Fc%2Fd%2Fe\nhost:evil\norigin:http://evil\ncontent-type:application/json\n\n{}"


def events(data: bytes) -> None:
    """What is read as frames of an event stream is what botocore reads."""
    decoder = Decoder()
    try:
        found = decoder.feed(data)
    except BrokenFrame:
        return
    if not found:
        return
    theirs = botocore.eventstream.EventStreamBuffer()
    theirs.add_data(data[: len(data) - len(decoder._pending)])
    for frame, other in zip(found, list(theirs), strict=True):
        assert frame.payload == other.payload
        assert set(frame.headers) == set(other.headers)


def _events_seeds() -> Iterator[bytes]:
    yield encode(headers({":message-type": "event", ":event-type": "initial-response"}), b"{}")
    yield encode(headers({":message-type": "event"}), b'{"Records":[]}') * 2


SEAL = Seal(b"a folder")
QUEUE = "9a84a689f259460e8543afd28a652b2e"
NOW_MS = 1_700_000_000_000


@functools.cache
def _tokens() -> dict[str, str]:
    return {
        "iterator": iterators.encode(SEAL, iterators.Place(1, "orders", 0, Position(5, 5)), NOW_MS),
        "page": pages.token(SEAL, b"shards", NOW_MS, "orders", 3),
        "receipt": receipts.handle(SEAL, QUEUE, Delivery(1, 2, 3, False)),
    }


def tokens(data: bytes) -> None:
    """Tokens of three kinds: only those that were made are taken, and each for its own kind."""
    text = data.decode("utf-8", "surrogateescape")
    known = _tokens()
    for kind, reading in (
        ("iterator", lambda: iterators.decode(SEAL, text, NOW_MS)),
        ("page", lambda: pages.said(SEAL, b"shards", text, NOW_MS)),
        ("receipt", lambda: receipts.delivery_of(SEAL, QUEUE, text)),
    ):
        try:
            said = reading()
        except (InvalidArgument, ExpiredIterator, ExpiredNextToken):
            continue
        if said is not None:
            made = text.strip('"') if kind == "iterator" else text
            assert base64.b64decode(made) == base64.b64decode(known[kind]), (kind, text)


def _token_seeds() -> Iterator[bytes]:
    for token in _tokens().values():
        yield token.encode()
    yield f'"{_tokens()["iterator"]}"'.encode()


def forms(data: bytes) -> None:
    """Bodies of the query protocol, and documents of XML: taken or refused."""
    exchange = Exchange("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, data)
    query = Query()
    sqs = _model("sns")
    try:
        operation = query.route([sqs], exchange)
        if operation is not None:
            query.parse(operation, exchange)
    except AwsError as error:
        _mends(error)
    s3 = _model("s3")
    try:
        node = xml.parse(data)
        xml.read_structure(s3.structure("LifecycleConfiguration"), node)
    except AwsError as error:
        _mends(error)


def _mends(error: AwsError) -> None:
    assert error.http_status < 500, "the caller's fault is called ours"


@functools.cache
def _model(service: str) -> Any:
    return models.load(service)


def _forms_seeds() -> Iterator[bytes]:
    yield b"Action=Publish&Version=2010-03-31&TopicArn=a&MessageAttributes.entry.1.Name=a"
    name = quote("ü")
    yield f"Action=CreateTopic&Name={name}&Attributes.entry.1.key=k&Attributes.entry.1.value=v&Tags.member.1=a".encode()
    yield (
        b"<LifecycleConfiguration><Rule><ID>a</ID><Status>Enabled</Status><Expiration><Days>3</Days></Expiration>"
        b"</Rule></LifecycleConfiguration>"
    )
    yield b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'


# ---------------------------------------------------------------------------------------------------- the service


class _Kept:
    world: World | None = None
    calls = 0


WAITS = frozenset({"ReceiveQueueRecords", "ReceiveDeadLetterQueueRecords"})


def service(data: bytes) -> None:
    """Bodies of JSON or CBOR to the whole service, over a log of its own, anew now and then: what AWS might answer."""
    if _Kept.world is None or _Kept.calls >= 1000:
        if _Kept.world is not None:
            _Kept.world.end()
        _Kept.world = world(Path(tempfile.mkdtemp(prefix="kflow-fuzz-")) / "data")
        _Kept.calls = 0
    _Kept.calls += 1
    made = _Kept.world
    if len(data) < 3:
        return
    name = NAMES[data[0] % len(NAMES)]
    content_type = CBOR if data[1] & 1 else JSON
    body = data[2:]
    for key, value in made.known.items():
        body = body.replace(f"<{key}>".encode(), value.encode()) if content_type == JSON else body
    answer = made.ask(name, body, content_type)
    if answer.status != 400 or b"SerializationException" not in answer.body:
        judge(name, answer, content_type)
    made.host.advance(1)


def _service_seeds() -> Iterator[bytes]:
    for number, name in enumerate(NAMES):
        yield bytes([number, 0]) + _simplest(name, JSON)
        yield bytes([number, 1]) + _simplest(name, CBOR)
    for name, value in {
        "GetRecords": {"ShardIterator": "<iterator>", "Limit": 2},
        "ListShards": {"NextToken": "<shards>"},
        "SubscribeToShard": {
            "ConsumerARN": "<consumer>",
            "ShardId": "0",
            "StartingPosition": {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "<number>"},
        },
        "PutRecords": {"StreamName": "orders", "Records": [{"Data": "QQ==", "PartitionKey": "k"}]},
        "SplitShard": {"StreamName": "orders", "ShardToSplit": "0", "NewStartingHashKey": "5"},
        "UpdateQueueRecordsVisibility": {
            "QueueARN": "<queue>",
            "Entries": [{"ReceiptHandle": "<receipt>", "VisibilityTimeoutSeconds": 0}],
        },
        "ReceiveQueueRecords": {"QueueARN": "<queue>"},
    }.items():
        yield bytes([NAMES.index(name), 0]) + json.dumps(value).encode()


_KNOWN = ("iterator", "tip", "shards", "streams", "consumer", "queue", "receipt", "number")
_INPUTS = [operation.input for operation in map(model().operation, NAMES) if operation is not None and operation.input]
_MEMBERS = sorted({member for shape in _INPUTS for member in shape.members})
_JSON_WORDS = tuple(f'"{name}"'.encode() for name in _MEMBERS) + tuple(f'"<{name}>"'.encode() for name in _KNOWN)
_HTTP_WORDS = (
    b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"\r\n\r\n", b"HTTP/1.1\r\n", b"Host: h\r\n", b"0\r\n\r\n", b"POST / ", PREFACE,
)  # fmt: skip
_DOOR_WORDS = (
    b"x-amz-target:Kinesis_20131202.", b"content-type:", JSON.encode(), CBOR.encode(), b"application/json", b"host:",
    b"origin:", b"authorization:", b"accept:", b"http://localhost", b"/_kflow/", b"X-Amz-Credential=", b"\n\n",
    b"; charset=utf-8",
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "http1": Target(http1, _http1_seeds, _HTTP_WORDS),
    "http2": Target(http2, _http2_seeds),
    "tls": Target(tls, _tls_seeds),
    "cbor": Target(cbor_bytes, _cbor_seeds),
    "json": Target(json_input, _json_seeds, _JSON_WORDS),
    "door": Target(door, _door_seeds, _DOOR_WORDS),
    "events": Target(events, _events_seeds),
    "tokens": Target(tokens, _token_seeds),
    "forms": Target(forms, _forms_seeds, (b"Action=", b".entry.1.key=", b"<!DOCTYPE", b"<!ENTITY", b"]]>", b"&#x")),
    "service": Target(service, _service_seeds, _JSON_WORDS),
}
