"""Requests of every operation made from the model, a whole service in memory to send them to, and a judge of answers.

What an answer must look like is written down here once more, apart from the code that makes it, and read by botocore.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import botocore.eventstream
import botocore.session
import cbor2
from botocore.parsers import create_parser
from hypothesis import strategies as st

from kflow.aws import cbor
from kflow.aws.door import Door
from kflow.aws.shapes import ListOf, MapOf, Operation, Scalar, Shape, Structure
from kflow.broker.encode import Part
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, StaleMap
from kflow.kinesis.host import PutResult, Stored
from tests.controlling import ARN, HOME, ControlHost, Desk, model
from tests.unit.aws.fakes import Exchange, ask

JSON = "application/x-amz-json-1.1"
SHOWN = 65_536
"""Characters of a value that an error shows at most."""
CBOR = "application/x-amz-cbor-1.1"
QUEUE_ARN = f"arn:aws:kinesis:us-east-1:{HOME.account}:queue/jobs"


# ---------------------------------------------------------------------------------------------------- the service


class Watch:
    def __init__(self, watches: list[Watch], key: tuple[int, int], news: Callable[[], object]) -> None:
        self.watches = watches
        self.key = key
        self.news = news
        watches.append(self)

    def close(self) -> None:
        if self in self.watches:
            self.watches.remove(self)


class WholeHost(ControlHost):
    """Does everything: it appends, too, and tells readers of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.watches: list[Watch] = []

    def put(
        self, stream: StreamMap, parts: Sequence[Part], done: Callable[[list[PutResult]], object]
    ) -> list[PutResult] | None:
        del done
        current = self.stream_by_id(stream.id)
        if current is None or current.generation != stream.generation:
            return [StaleMap("the shards have changed") for _ in parts]
        results = self.log.append_each(current, parts)
        for watch in list(self.watches):
            if watch.key[0] == stream.id:
                watch.news()
        return [result if isinstance(result, KflowError) else Stored(*result) for result in results]

    def watch(self, stream: StreamMap, shard: int, news: Callable[[], object]) -> Watch:  # type: ignore[override]
        return Watch(self.watches, (stream.id, shard), news)


class World(Desk):
    """A stream of two shards with a consumer and records, an on-demand one with a queue, and the door to them."""

    host_type = WholeHost

    def start(self) -> None:
        super().start()
        self.door = Door(self.dispatcher, home=HOME)
        self.known: dict[str, str] = {}

    def furnish(self) -> World:
        """Make what requests are about, and learn its names."""
        self.stream("orders", ShardCount=2)
        self.stream("events", StreamModeDetails={"StreamMode": "ON_DEMAND"})
        consumer = self.call("RegisterStreamConsumer", StreamARN=ARN, ConsumerName="fast")["Consumer"]
        events = ARN.replace("orders", "events")
        made = self.call(
            "CreateQueue",
            QueueName="jobs",
            StreamConfigurationList=[{"StreamARN": events, "StartingPosition": {"Type": "TRIM_HORIZON"}}],
        )
        self.settle()
        placed = self.call("PutRecord", StreamName="orders", Data=b"one", ExplicitHashKey="0", PartitionKey="k")
        for data in (b"two", b""):
            self.call("PutRecord", StreamName="orders", Data=data, PartitionKey="k")
            self.call("PutRecord", StreamName="events", Data=data, PartitionKey="k")
        self.call("AddTagsToStream", StreamName="orders", Tags={"team": "a"})
        here = {"StreamName": "orders", "ShardId": "0"}
        queue = made["QueueDescription"]["QueueARN"]
        self.known = {
            "queue": queue,
            "consumer": consumer["ConsumerARN"],
            "number": placed["SequenceNumber"],
            "iterator": self.call("GetShardIterator", **here, ShardIteratorType="TRIM_HORIZON")["ShardIterator"],
            "tip": self.call("GetShardIterator", **here, ShardIteratorType="LATEST")["ShardIterator"],
            "shards": self.call("ListShards", StreamName="orders", MaxResults=1)["NextToken"],
            "streams": self.call("ListStreams", Limit=1)["NextToken"],
            "now": str(self.clock.epoch_ms),
        }
        waiting = self.begin("ReceiveQueueRecords", QueueARN=queue, Limit=1, WaitTimeSeconds=1)
        self.host.advance(1000)
        (received,) = waiting
        assert not isinstance(received, Exception), received
        self.known["receipt"] = received["QueueRecords"][0]["ReceiptHandle"]
        return self

    def send(self, exchange: Exchange) -> Answer:
        """Let a request in, let as much time pass as its answer takes, and then its peer goes away."""
        self.door(exchange)
        self.host.work()
        if not exchange.answers and not exchange.streams:
            self.host.advance(25_000)  # longer than anybody may ask to wait
        if exchange.streams:
            (stream,) = exchange.streams
            self.host.advance(6_000)
            if stream.on_close is not None and not stream.is_closed:
                stream.is_closed = True
                stream.on_close()
            assert not exchange.answers
            return Answer(stream.status, stream.headers, stream.data)
        answer = exchange.answer
        return Answer(answer.status, answer.headers, answer.body)

    def ask(self, name: str, body: bytes, content_type: str = JSON) -> Answer:
        """One request as an SDK sends it."""
        return self.send(ask(name, body, content_type=content_type))

    def end(self) -> None:
        """Close all files."""
        closed: list[bool] = []
        self.service.end_subscriptions()
        self.service.queues.close(lambda: closed.append(True))
        self.host.work()
        assert closed
        self.log.close()


def world(path: Path) -> World:
    """All furnished."""
    return World(path, transition_ms=0).furnish()


class Answer(NamedTuple):
    """Of whatever door."""

    status: int
    headers: Mapping[Any, Any]
    body: bytes


# ---------------------------------------------------------------------------------------------------- requests


class Known(NamedTuple):
    """Stands for something whose name only the running world knows."""

    name: str


def _places(name: str) -> list[str]:
    return [f"arn:aws:kinesis:us-east-1:{HOME.account}:stream/{each}" for each in (name, "nobody")]


_NAMED: Mapping[str, st.SearchStrategy[Any]] = {
    "StreamName": st.sampled_from(["orders", "orders", "orders", "events", "fresh", "nobody"]),
    "StreamARN": st.sampled_from([ARN, ARN, ARN, *_places("events"), ARN.replace("us-east-1", "eu-west-1")]),
    "ConsumerARN": st.sampled_from([Known("consumer"), Known("consumer"), f"{ARN}/consumer/other:1"]),
    "ConsumerName": st.sampled_from(["fast", "slow"]),
    "QueueARN": st.sampled_from([Known("queue"), Known("queue"), QUEUE_ARN]),
    "QueueName": st.sampled_from(["jobs", "tasks"]),
    "ResourceARN": st.sampled_from([ARN, Known("consumer"), Known("queue"), QUEUE_ARN.replace("queue/", "channel/")]),
    "ShardId": st.sampled_from(["0", "1", "shardId-000000000001", "shardId-000000000009", "orders"]),
    "ShardIterator": st.sampled_from([Known("iterator"), Known("tip"), Known("shards")]),
    "NextToken": st.sampled_from([Known("shards"), Known("streams"), Known("iterator")]),
    "ReceiptHandle": st.sampled_from([Known("receipt"), Known("iterator"), "AAAA"]),
    "SequenceNumber": st.sampled_from([Known("number"), Known("number"), "0", "9" * 56]),
    "HashKey": st.sampled_from(["0", "1", "2", str(2**127), str(2**128 - 1), str(2**128)]),
    "Policy": st.sampled_from(['{"Version":"2012-10-17","Statement":[]}', "{", ""]),
}
"""By shape."""


@functools.cache
def fitting(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that keep every constraint of a shape, many of them about what there is; blobs are bytes, times ms."""
    if isinstance(shape, Structure):
        if shape.is_document or shape.is_event_stream:
            return st.just({})
        members = {name: fitting(member.shape, depth + 1) for name, member in shape.members.items()}
        required = {name: members[name] for name in shape.required}
        optional = {name: value for name, value in members.items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)
    least = shape.minimum or 0
    if isinstance(shape, ListOf):
        return st.lists(fitting(shape.element.shape, depth + 1), min_size=least, max_size=least + 2)
    if isinstance(shape, MapOf):
        keys, inner = fitting(shape.key.shape), fitting(shape.value.shape)
        return st.dictionaries(keys, inner, min_size=least, max_size=least + 2)
    assert isinstance(shape, Scalar)
    return (st.one_of(_NAMED[shape.name], _scalar(shape))) if shape.name in _NAMED else _scalar(shape)


def _scalar(shape: Scalar) -> st.SearchStrategy[Any]:
    least = shape.minimum or 0
    match shape.kind:
        case "blob":
            return st.binary(min_size=least, max_size=40)
        case "timestamp":
            return st.one_of(st.integers(0, 4 * 10**12), st.just(Known("now")))
        case "boolean":
            return st.booleans()
        case "integer" | "long":
            greatest = shape.maximum or (2**31 - 1 if shape.kind == "integer" else 2**63 - 1)
            return st.one_of(st.integers(least, min(greatest, least + 8)), st.integers(least, greatest))
    if shape.enum:
        return st.sampled_from(shape.enum)
    greatest = min(shape.maximum or 30, least + 9)
    if shape.pattern is None or "\\p" in shape.pattern:  # that is Java's
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=greatest)
    return st.from_regex(re.compile(shape.pattern, re.ASCII), fullmatch=True).filter(
        lambda text: least <= len(text) <= (shape.maximum or 1 << 30) and "\n" not in text
    )


_PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**66), 2**66), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "yes", "QUJD", "QR==", "=", "0", "x" * 300, '"', "é" * 130]),
)  # fmt: skip
ANYTHING = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)


@functools.cache
def skewed(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that fit here and there; required members may be missing."""
    if isinstance(shape, Structure):
        members = {name: skewed(member.shape) for name, member in shape.members.items()}
        return st.one_of(st.fixed_dictionaries({}, optional=members), ANYTHING)
    if isinstance(shape, ListOf):
        return st.one_of(st.lists(skewed(shape.element.shape), max_size=3), ANYTHING)
    if isinstance(shape, MapOf):
        return st.one_of(st.dictionaries(st.text(max_size=3), skewed(shape.value.shape), max_size=3), ANYTHING)
    return st.one_of(fitting(shape), fitting(shape), ANYTHING)


def resolve(value: Any, known: Mapping[str, str]) -> Any:
    """The same with real names in the place of `Known`."""
    if isinstance(value, Known):
        return int(known["now"]) if value.name == "now" else known[value.name]
    if isinstance(value, dict):
        return {key: resolve(part, known) for key, part in value.items()}
    return [resolve(part, known) for part in value] if isinstance(value, list) else value


def json_of(shape: Shape | None, value: Any) -> Any:
    """As JSON has it: base64, seconds. What does not fit its shape stays as it is."""
    if isinstance(shape, Structure) and isinstance(value, dict):
        return {name: json_of(_member(shape, name), part) for name, part in value.items()}
    if isinstance(shape, ListOf) and isinstance(value, list):
        return [json_of(shape.element.shape, part) for part in value]
    if isinstance(shape, MapOf) and isinstance(value, dict):
        return {name: json_of(shape.value.shape, part) for name, part in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value / 1000 if shape is not None and shape.kind == "timestamp" and type(value) is int else value


def cbor_of(shape: Shape | None, value: Any) -> Any:
    """As AWS's CBOR has it: bytes, times tagged."""
    if isinstance(shape, Structure) and isinstance(value, dict):
        return {name: cbor_of(_member(shape, name), part) for name, part in value.items()}
    if isinstance(shape, ListOf) and isinstance(value, list):
        return [cbor_of(shape.element.shape, part) for part in value]
    is_time = shape is not None and shape.kind == "timestamp" and type(value) is int and abs(value) < 1 << 63
    return cbor2.CBORTag(1, value) if is_time else value


def _member(shape: Structure, name: str) -> Shape | None:
    member = shape.members.get(name)
    return None if member is None else member.shape


def body_of(operation: Operation, value: Any, content_type: str) -> bytes:
    """A request's body."""
    if content_type == CBOR:
        return cbor2.dumps(cbor_of(operation.input, value))
    return json.dumps(json_of(operation.input, value)).encode()


def requests(kind: Callable[[Shape], st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[str, Any, str]]:
    """An operation, its input, and the encoding."""

    def of(name: str) -> st.SearchStrategy[tuple[str, Any, str]]:
        shape = _operation(name).input
        given = st.just({}) if shape is None else kind(shape)
        return st.tuples(st.just(name), given, st.sampled_from([JSON, CBOR]))

    return st.sampled_from(model().operation_names).flatmap(of)


def _operation(name: str) -> Operation:
    found = model().operation(name)
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------------- the judge

REQUEST_LEVEL = frozenset(
    {
        "SerializationException",
        "ValidationException",  # any operation's input has constraints, whether its model lists this or not
    }
)
_CLASS = r"class (?:java\.lang\.\w+|java\.nio\.HeapByteBuffer|com\.amazon\.coral\.value\.json\.numbers\.\w+)"
_CONVERSION = re.compile(
    rf"{_CLASS} can not be converted to (?:an (?:String|Integer|Long|Boolean|Double)|a Blob|milliseconds since epoch)"
    r"|'.*' can not be converted to (?:an Boolean|a Blob: (?:Base64 encoded length is expected a multiple of 4 bytes "
    r"but found: \d+|Invalid Base64 character: '.'|Invalid last non-pad Base64 character dectected))"
    r"|Start of list found where not expected|Start of structure or map found where not expected\."
    r"|Expected list or null|Expected map or null|Expected null",
    re.DOTALL,
)
_ITEM = re.compile(
    r"Value(?: null| '.*?')? at '[a-z][\w.]*[^']*' failed to satisfy constraint: (?:Member must (?:not be null|satisfy "
    r"(?:regular expression pattern: \S+|enum value set: \[[A-Z_, a-z]+\]|constraint: \[.+?\])|have (?:length|value) "
    r"(?:greater|less) than or equal to \d+)|Map (?:keys|value) must satisfy constraint: \[.+?\])(?=; Value|\Z)",
    re.DOTALL,
)
_SESSION = botocore.session.Session()
_PARSER = create_parser("json")
_BELOW_THE_MODEL = frozenset({"FailedRecordCount", "ContinuationSequenceNumber"})
"""Members whose constraint AWS itself does not keep: 0 failed records are usual, and a shard's end has no number."""


def judge(name: str, answer: Answer, content_type: str) -> str:
    """Fail unless the answer is one that AWS might give; returns the error's code, or nothing."""
    operation = _operation(name)
    headers = {_text(key).lower(): _text(value) for key, value in answer.headers.items()}
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}", headers["x-amzn-requestid"])
    assert "x-amz-id-2" in headers
    if answer.status == 200:
        if headers.get("content-type") == "application/vnd.amazon.eventstream":
            _judge_events(operation, answer.body, content_type)
        else:
            assert headers["content-type"] == content_type
            _judge_output(operation, answer.body, content_type)
        return ""
    assert answer.status == 400, (answer, operation)
    assert headers["content-type"] == content_type
    error = cbor2.loads(answer.body) if content_type == CBOR else json.loads(answer.body)
    code = error.pop("__type")
    assert code in REQUEST_LEVEL or code in operation.errors, (code, error, operation.errors)
    if code == "SerializationException":
        assert set(error) <= {"Message"}
        assert not error or _CONVERSION.fullmatch(error["Message"]), error
        return code
    assert set(error) == {"message"}
    text = error["message"]
    assert text
    assert text == text.strip()
    if "failed to satisfy constraint" in text or "validation error" in text:
        assert code == "ValidationException"
        count, _, items = text.partition(" detected: ")
        found = list(_ITEM.finditer(items))
        assert found, text
        if len(found) < 11:  # a value that is shown may hold anything, even this form
            assert re.fullmatch(r"1 validation error|([2-9]|10) validation errors", count), text
    return str(code)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _judge_output(operation: Operation, body: bytes, content_type: str) -> None:
    if operation.output is None:
        assert body == b""
        return
    if content_type == CBOR:
        conforms(operation.output, cbor.decode(body), is_text=False)
        return
    conforms(operation.output, json.loads(body), is_text=True)
    theirs = _SESSION.get_service_model("kinesis").operation_model(operation.name).output_shape
    parsed = _PARSER.parse({"status_code": 200, "headers": {}, "body": body}, theirs)
    assert set(parsed) - {"ResponseMetadata"} == set(json.loads(body))


def _judge_events(operation: Operation, body: bytes, content_type: str) -> None:
    buffer = botocore.eventstream.EventStreamBuffer()
    buffer.add_data(body)
    first, *events = list(buffer)
    assert first.headers[":event-type"] == "initial-response"
    member = operation.event_stream
    assert member is not None
    assert isinstance(member.shape, Structure)
    for event in events:
        kind = event.headers.get(":event-type") or event.headers[":exception-type"]
        shape = member.shape.members[kind].shape
        content = cbor.decode(event.payload) if content_type == CBOR else json.loads(event.payload)
        if event.headers[":message-type"] == "event":
            conforms(shape, content, is_text=content_type == JSON)
        else:
            assert set(content) == {"message"}


def conforms(shape: Shape, value: Any, *, is_text: bool, path: str = "") -> None:
    """Fail unless a value keeps to its shape: nothing unknown, nothing null, nothing missing, no constraint broken."""
    if isinstance(shape, Structure):
        assert isinstance(value, dict), path
        assert set(value) <= set(shape.members), (path, set(value) - set(shape.members))
        missing = set(shape.required) - set(value) - _BELOW_THE_MODEL
        assert not missing, (path, missing)
        for name, part in value.items():
            member = shape.members[name].shape
            if name not in _BELOW_THE_MODEL:
                conforms(member, part, is_text=is_text, path=f"{path}.{name}")
        return
    length: float | None = None
    if isinstance(shape, ListOf):
        assert isinstance(value, list), path
        for part in value:
            conforms(shape.element.shape, part, is_text=is_text, path=f"{path}[]")
        return  # lists of answers may be empty, whatever least length their shape has for requests
    if isinstance(shape, MapOf):
        assert isinstance(value, dict), path
        for key, part in value.items():
            conforms(shape.key.shape, key, is_text=is_text, path=f"{path}{{}}")
            conforms(shape.value.shape, part, is_text=is_text, path=f"{path}{{{key}}}")
        return
    assert isinstance(shape, Scalar)
    match shape.kind:
        case "string":
            assert isinstance(value, str), (path, value)
            length = len(value)
            assert not shape.enum or value in shape.enum, (path, value)
            assert shape.pattern is None or re.fullmatch(shape.pattern, value), (path, value)
        case "blob":
            assert isinstance(value, str if is_text else bytes), (path, value)
            length = len(base64.b64decode(value, validate=True) if is_text else value)
        case "timestamp":
            assert type(value) in ({int, float} if is_text else {_milliseconds()}), (path, value)
        case "boolean":
            assert isinstance(value, bool), (path, value)
        case "integer" | "long":
            assert type(value) is int, (path, value)
            length = value
    if length is not None:
        assert shape.minimum is None or length >= shape.minimum, (path, value)
        assert shape.maximum is None or length <= shape.maximum, (path, value)


@functools.cache
def _milliseconds() -> type:
    return type(cbor.decode(cbor2.dumps(cbor2.CBORTag(1, 1))))


# ---------------------------------------------------------------------------------------------------- every mistake


class Mistake(NamedTuple):
    """An input that is right but for one place.

    Attributes:
        operation: its name.
        what: is wrong, for the name of the test.
        value: the input.
        code: of the error.
        text: of the error; None: it depends on the encoding.
    """

    operation: str
    what: str
    value: Any
    code: str
    text: str


_BAD_TYPE = "SerializationException"
_NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
_BOOLEAN = "class java.lang.Boolean"
_STRING = "class java.lang.String"
_LIST = "Start of list found where not expected"
_MAP = "Start of structure or map found where not expected."


def simplest(shape: Shape) -> Any:
    """The least that a shape takes: required members, least lengths."""
    if isinstance(shape, Structure):
        return {name: simplest(shape.members[name].shape) for name in shape.required}
    least = shape.minimum or 0
    if isinstance(shape, ListOf):
        return [simplest(shape.element.shape) for _ in range(least)]
    if isinstance(shape, MapOf):
        return {f"k{number}": simplest(shape.value.shape) for number in range(least)}
    assert isinstance(shape, Scalar)
    match shape.kind:
        case "blob":
            return b"x" * least
        case "boolean":
            return True
        case "timestamp":
            return 1_700_000_000_000
        case "integer" | "long":
            return least
    if shape.enum:
        return shape.enum[0]
    return _SIMPLE.get(shape.name) or "x" * least


_SIMPLE: Mapping[str, str] = {
    "StreamARN": ARN,
    "ConsumerARN": f"{ARN}/consumer/fast:1",
    "ResourceARN": ARN,
    "QueueARN": QUEUE_ARN,
    "ChannelARN": QUEUE_ARN.replace(":queue/", ":channel/"),
    "BucketARN": "arn:aws:s3:::bucket",
    "TableBucketARN": "arn:aws:s3tables:us-east-1:123456789012:bucket/bucket",
    "RoleARN": "arn:aws:iam::123456789012:role/r",
    "GSRSchemaARN": "arn:aws:glue:us-east-1:123456789012:schema/r/s",
    "SequenceNumber": "0",
    "HashKey": "0",
    "StreamId": "abcdefghij0123456789-abc",
    "ExpectedBucketOwner": HOME.account,
}


def mistakes() -> Iterator[Mistake]:
    """Each way to break each place of each input by itself."""
    for name in model().operation_names:
        shape = _operation(name).input
        if shape is not None:
            for what, value, code, text in _of_structure(shape, ""):
                yield Mistake(name, what, value, code, text)


Broken = tuple[str, Any, str, str]


def _of_structure(shape: Structure, path: str) -> Iterator[Broken]:
    base = simplest(shape)
    for name, member in shape.members.items():
        where = f"{path}{name[0].lower()}{name[1:]}"
        if member.is_required:
            without = {key: value for key, value in base.items() if key != name}
            yield f"{where} missing", without, "ValidationException", _one(where, "Member must not be null", " null")
            null = {**base, name: None}
            yield f"{where} null", null, "ValidationException", _one(where, "Member must not be null", " null")
        for what, value, code, text in _of(member.shape, where):
            yield what, {**base, name: value}, code, text


def _of(shape: Shape, path: str) -> Iterator[Broken]:
    if isinstance(shape, Structure):
        yield f"{path} is a number", 5, _BAD_TYPE, "Expected null"
        yield f"{path} is a list", [], _BAD_TYPE, _LIST
        yield from _of_structure(shape, f"{path}.")
    elif isinstance(shape, ListOf):
        yield f"{path} is a number", 5, _BAD_TYPE, "Expected list or null"
        yield f"{path} is a map", {}, _BAD_TYPE, _MAP
        yield from _of_list(shape, path)
    elif isinstance(shape, MapOf):
        yield f"{path} is a text", "x", _BAD_TYPE, "Expected map or null"
        yield f"{path} is a list", [], _BAD_TYPE, _LIST
        yield from _of_map(shape, path)
    else:
        assert isinstance(shape, Scalar)
        yield f"{path} is a list", ["x"], _BAD_TYPE, _LIST
        yield f"{path} is a map", {"x": 1}, _BAD_TYPE, _MAP
        yield from _of_scalar(shape, path)


def _of_list(shape: ListOf, path: str) -> Iterator[Broken]:
    inner = shape.element.shape
    one = simplest(inner)
    shows = isinstance(inner, Scalar)
    for count, bound in ((shape.minimum, "greater"), (shape.maximum, "less")):
        if not count:
            continue
        value = [one] * (count - 1 if bound == "greater" else count + 1)
        shown = f" '[{', '.join(map(str, value))}]'" if shows else ""
        yield (
            f"{path} {bound}",
            value,
            "ValidationException",
            _one(path, f"Member must have length {bound} than or equal to {count}", shown),
        )
    if isinstance(inner, Structure):
        least = [one] * max(1, shape.minimum or 0)
        for what, value, code, text in _of_structure(inner, f"{path}.{len(least)}.member."):
            yield what, [*least[:-1], value], code, text


def _of_map(shape: MapOf, path: str) -> Iterator[Broken]:
    inner = simplest(shape.value.shape)
    if shape.maximum is not None:
        value = {f"k{number}": inner for number in range(shape.maximum + 1)}
        shown = ", ".join(f"{key}={part}" for key, part in value.items())
        text = f"Member must have length less than or equal to {shape.maximum}"
        yield f"{path} too many", value, "ValidationException", _one(path, text, f" '{{{shown}}}'")
    keys = shape.key.shape
    if keys.maximum is not None:
        key = "k" * (keys.maximum + 1)
        rules = f"[Member must have length less than or equal to {keys.maximum}"
        rules += "" if keys.minimum is None else f", Member must have length greater than or equal to {keys.minimum}"
        text = _one(path, f"Map keys must satisfy constraint: {rules}]", f" '{{{key}={inner}}}'")
        yield f"{path} long key", {key: inner}, "ValidationException", text


def _of_scalar(shape: Scalar, path: str) -> Iterator[Broken]:
    wrong = {
        "string": ((True, _BOOLEAN), (5, _NUMBER)),
        "integer": ((True, _BOOLEAN), ("5", _STRING)),
        "long": ((True, _BOOLEAN), ("5", _STRING)),
        "boolean": ((23, _NUMBER),),
        "blob": ((True, _BOOLEAN), (5, _NUMBER)),
        "timestamp": ((True, _BOOLEAN), ("5", _STRING)),
    }
    into = {
        "string": "an String",
        "integer": "an Integer",
        "long": "an Long",
        "boolean": "an Boolean",
        "blob": "a Blob",
        "timestamp": "milliseconds since epoch",
    }
    for value, kind in wrong[shape.kind]:
        yield f"{path} {kind}", value, _BAD_TYPE, f"{kind} can not be converted to {into[shape.kind]}"
    if shape.kind == "boolean":
        yield f"{path} is a word", "maybe", _BAD_TYPE, "'MAYBE' can not be converted to an Boolean"
    if shape.kind in {"integer", "long"}:
        for bound, number, step in (("greater", shape.minimum, -1), ("less", shape.maximum, 1)):
            if number is not None:
                text = f"Member must have value {bound} than or equal to {number}"
                yield f"{path} {bound}", number + step, "ValidationException", _one(path, text, f" '{number + step}'")
    if shape.kind != "string":
        return
    if shape.enum:
        text = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        yield f"{path} no such", "WRONG", "ValidationException", _one(path, text, " 'WRONG'")
        return
    candidates = ["", "\u20ac", "x" * ((shape.maximum or 0) + 1)] if shape.maximum else ["", "\u20ac"]
    for value in candidates:
        items = _items(shape, value)
        if items:
            texts = "; ".join(f"Value '{value}' at '{path}' failed to satisfy constraint: {item}" for item in items)
            head = "1 validation error" if len(items) == 1 else f"{len(items)} validation errors"
            yield f"{path} {value[:5]!r}", value, "ValidationException", f"{head} detected: {texts}"


def _items(shape: Scalar, value: str) -> list[str]:
    found: list[str] = []
    if len(value) > SHOWN:
        return found  # an answer is no amplifier: the value is cut
    if shape.pattern is not None and not re.fullmatch(shape.pattern, value, re.ASCII):
        found.append(f"Member must satisfy regular expression pattern: {shape.pattern}")
    if shape.minimum is not None and len(value) < shape.minimum:
        found.append(f"Member must have length greater than or equal to {shape.minimum}")
    if shape.maximum is not None and len(value) > shape.maximum:
        found.append(f"Member must have length less than or equal to {shape.maximum}")
    return found


def _one(path: str, constraint: str, shown: str) -> str:
    return f"1 validation error detected: Value{shown} at '{path}' failed to satisfy constraint: {constraint}"
