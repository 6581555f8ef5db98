"""Every operation of the smaller services with inputs made from its model, right and wrong, in each of its protocols.

Never a fault of ours, never nothing: an error is one that the model lists, or one of any request; a success is of the
output's shape; botocore's own serializers write the requests, and its own parsers read the answers.

More examples than usual: `EXAMPLES=1000 pytest tests/property/test_services_generated.py`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kflow.aws.shapes import ListOf, MapOf, Scalar, Shape, Structure
from tests.everything import ARN, PROTOCOLS, World, judge, model, performed, signed, written
from tests.generating import cbor_of, json_of, resolve, skewed
from tests.lambdaing import ROLE, zipped

EXAMPLES = int(os.environ.get("EXAMPLES", "8"))
QUEUE = "arn:aws:sqs:us-east-1:123456789012:jobs"
URL = "http://localhost:4566/123456789012/"
TOPIC = "arn:aws:sns:us-east-1:123456789012:news"
KNOWN = ("queue", "consumer", "number", "iterator", "tip", "shards", "streams", "now", "receipt")
GROUP = "arn:aws:logs:us-east-1:123456789012:log-group:g"

NAMED: dict[str, tuple[Any, ...]] = {
    "FunctionName": ("f", "f", ARN, "g", "123456789012:function:f", f"{ARN}:live"),
    "Qualifier": ("$LATEST", "1", "live", "9"),
    "FunctionVersion": ("1", "$LATEST"),
    "Name": ("live", "news", "hot"),
    "UUID": ("UUID", "14e0db71-5d35-4eb5-b481-8945cf9d10c2"),
    "EventSourceArn": (QUEUE, "arn:aws:kinesis:us-east-1:123456789012:stream/orders"),
    "LayerName": ("libs", "other"),
    "VersionNumber": (1, 2),
    "Role": (ROLE,),
    "Runtime": ("python3.12", "nodejs20.x", "provided.al2023"),
    "Handler": ("app.handler",),
    "ZipFile": (zipped(), b"no zip"),
    "Payload": (b"{}", b"{", b""),
    "InvokeArgs": (b"{}", b"x"),
    "Resource": (ARN, f"{ARN}:live"),
    "logGroupName": ("g", "g", "h", "/aws/lambda/f"),
    "logStreamName": ("s", "t"),
    "logGroupIdentifier": ("g", GROUP),
    "resourceArn": (GROUP,),
    "filterPattern": ("", "a", "{ $.a = 1 }", "{ $.a", '"', "?a ?b", "[a, b]"),
    "Namespace": ("N", "AWS/Lambda"),
    "MetricName": ("m",),
    "Expression": ("a + 1", "SUM(METRICS())", "(", "a", "1"),
    "Stat": ("Average", "p99", "Sum", "tm(1:2)"),
    "Period": (60, 300, 1, 7),
    "QueueName": ("jobs", "jobs.fifo", "fresh", "fresh.fifo"),
    "QueueUrl": (URL + "jobs", URL + "jobs", URL + "jobs.fifo", URL + "nobody", "jobs"),
    "TopicArn": (TOPIC, f"{TOPIC}.fifo"),
    "TargetArn": (TOPIC,),
    "ResourceArn": (TOPIC,),
    "ResourceARN": ("arn:aws:cloudwatch:us-east-1:123456789012:alarm:a",),
    "SubscriptionArn": (f"{TOPIC}:14e0db71-5d35-4eb5-b481-8945cf9d10c2",),
    "Protocol": ("sqs", "lambda", "http", "email"),
    "Endpoint": (QUEUE, ARN),
    "RoleArn": (ROLE,),
    "SourceArn": (QUEUE,),
    "AttributeNames": (["All"], []),
    "MessageAttributes": ({}, {"a": {"DataType": "String", "StringValue": "b"}}),
    "MessageSystemAttributes": ({},),
    "ReceiptHandle": ("", "AAAA"),
    "DelaySeconds": (0, 1, 901),
    "VisibilityTimeout": (0, 30),
    "WaitTimeSeconds": (0, 1),
    "MaxNumberOfMessages": (1, 10, 11),
    "MessageGroupId": ("a",),
    "MessageDeduplicationId": ("a",),
    "MessageBody": ("one", "\ufffe"),
    "Policy": ("{}", "{"),
    "NextToken": ("", "AAAA"),
    "nextToken": ("f/0", "b/0", "AAAA"),
    "Marker": ("", "AAAA"),
    "StartTime": (1_699_999_000,),
    "EndTime": (1_700_000_060,),
    "Attributes": ({}, {"VisibilityTimeout": "0"}, {"FifoQueue": "true"}),
}
"""What there is, by member; UUID stands for the one that only the running world knows."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
STRANGE = st.sampled_from(
    ["", "\x00", "é☃🔑", "x" * 300, "../..", "%2F", "a/b", "a:b:c", "arn:aws:lambda:us-east-1:1:function:f", "{}", "\n",
     "-1", "NaN", "$LATEST", "\ufffe", " "]
)  # fmt: skip


@functools.cache
def right(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that suit a shape, many of them about what there is."""
    if isinstance(shape, Structure):
        if shape.is_document:
            return st.just({})
        members = {
            name: _named(name, right(member.shape, depth + 1))
            for name, member in shape.members.items()
            if depth < 4 or member.is_required
        }
        return st.fixed_dictionaries(
            {name: members.pop(name) for name in shape.required if name in members}, optional=members
        )
    least = shape.minimum or 0
    if isinstance(shape, ListOf):
        return st.lists(right(shape.element.shape, depth + 1), min_size=least, max_size=least + 2)
    if isinstance(shape, MapOf):
        keys, values = right(shape.key.shape, depth + 1), right(shape.value.shape, depth + 1)
        return st.dictionaries(keys, values, max_size=2)
    assert isinstance(shape, Scalar)
    match shape.kind:
        case "blob":
            return st.binary(max_size=20)
        case "boolean":
            return st.booleans()
        case "timestamp":
            return st.integers(0, 4 * 10**9)
        case "double" | "float":
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case "integer" | "long":
            most = shape.maximum or (2**31 - 1 if shape.kind == "integer" else 2**63 - 1)
            return st.integers(least, min(most, least + 20)) | st.integers(least, most)
    if shape.enum:
        return st.sampled_from(shape.enum)
    most = shape.maximum or 1 << 30
    if shape.pattern is not None and "\\p" not in shape.pattern:  # those are Java's
        texts = st.from_regex(re.compile(shape.pattern, re.ASCII), fullmatch=True)
        return texts.filter(lambda text: least <= len(text) <= most)
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(most, least + 9))


def _named(name: str, otherwise: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if name not in NAMED:
        return otherwise
    usual = st.sampled_from(NAMED[name])
    return st.one_of(usual, usual, usual, otherwise)


@functools.cache
def wrong(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of the right types that break constraints here and there; anything may be missing."""
    if isinstance(shape, Structure):
        if shape.is_document:
            return st.just({})
        members = {
            name: _named(name, wrong(member.shape, depth + 1)) for name, member in shape.members.items() if depth < 4
        }
        return st.fixed_dictionaries({}, optional=members)
    if isinstance(shape, ListOf):
        item = wrong(shape.element.shape, depth + 1)
        return st.lists(item, max_size=3) | item.map(lambda value: [value] * 120)
    if isinstance(shape, MapOf):
        keys, values = wrong(shape.key.shape, depth + 1), wrong(shape.value.shape, depth + 1)
        return st.dictionaries(keys, values, max_size=3)
    assert isinstance(shape, Scalar)
    match shape.kind:
        case "integer" | "long":
            return st.sampled_from([-1, 0, 1, 2**31 - 1, -(2**63), 2**63 - 1, 2**64]) | right(shape)
        case "double" | "float":
            return st.sampled_from([0.0, -1.0, 1e300, float("nan"), float("inf"), 1e-320]) | right(shape)
        case "timestamp":
            return st.sampled_from([0, -1, 253402300800, -62135596801]) | right(shape)
        case "string":
            return STRANGE | TEXT | right(shape)
    return right(shape)


def calls(service: str, kind: Any) -> st.SearchStrategy[list[tuple[str, Any]]]:
    def of(name: str) -> st.SearchStrategy[tuple[str, Any]]:
        operation = model(service).operation(name)
        assert operation is not None
        return st.tuples(st.just(name), st.just({}) if operation.input is None else kind(operation.input))

    return st.lists(st.sampled_from(sorted(performed(service))).flatmap(of), min_size=1, max_size=6)


def known(value: Any, names: dict[str, str]) -> Any:
    """The same with what only the world knows."""
    if isinstance(value, dict):
        return {key: known(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [known(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def play(service: str, protocol: str, made: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory(prefix="kflow-generated-") as folder, closing(World(Path(folder))) as world:
        world.furnish(service)
        for operation, value in made:
            try:
                exchange = written(service, protocol, operation, known(value, world.known))
            except Exception:  # noqa: BLE001  # no client could send this
                continue
            judge(service, protocol, operation, world.send(exchange))


IDS = [f"{service}-{protocol}" for service, protocol in PROTOCOLS]


@pytest.mark.parametrize(("service", "protocol"), PROTOCOLS, ids=IDS)
def test_calls_that_suit_the_model_are_answered_as_it_says(service: str, protocol: str) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(calls(service, right))
    def run(made: list[tuple[str, Any]]) -> None:
        play(service, protocol, made)

    run()


@pytest.mark.parametrize(("service", "protocol"), PROTOCOLS, ids=IDS)
def test_calls_that_break_it_here_and_there_are_refused_as_it_says(service: str, protocol: str) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(calls(service, wrong))
    def run(made: list[tuple[str, Any]]) -> None:
        play(service, protocol, made)

    run()


PIECE = st.binary(max_size=3) | st.sampled_from(
    [b'"', b"}", b"[", b"null", b"\\u0000", b"\xff", b"\xbf", b"1e999", b"&", b"%", b"=1&", b".member.1", b"\xa1\x61a"]
)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    made = {name: World(tmp_path_factory.mktemp(name)).furnish(name) for name in {service for service, _ in PROTOCOLS}}
    yield made
    for each in made.values():
        each.close()


@pytest.mark.parametrize(("service", "protocol"), PROTOCOLS, ids=IDS)
def test_bodies_and_paths_spoilt_byte_by_byte_are_read_or_refused(
    worlds: dict[str, World], service: str, protocol: str
) -> None:
    @settings(max_examples=EXAMPLES * 2, suppress_health_check=list(HealthCheck))
    @given(calls(service, right), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), PIECE), max_size=3))
    def run(made: list[tuple[str, Any]], changes: list[tuple[int, int, bytes]]) -> None:
        operation, value = made[0]
        try:
            exchange = written(service, protocol, operation, known(value, worlds[service].known))
        except Exception:  # noqa: BLE001  # no client could send this
            assume(False)
            return
        body = exchange.body
        for at, count, piece in changes:
            start = at % (len(body) + 1)
            body = body[:start] + piece + body[start + count :]
        answer = worlds[service].send(signed(service, exchange.method, exchange.target, exchange.headers, body))
        assert answer.status < 500, (operation, exchange.target, body, answer)

    run()


@pytest.mark.parametrize(("service", "protocol"), PROTOCOLS[:4] + PROTOCOLS[5:6], ids=lambda name: name)
def test_values_of_other_types_are_refused_or_taken(worlds: dict[str, World], service: str, protocol: str) -> None:
    """A time in the place of a list, a list in that of a text ..."""

    def both(name: str) -> st.SearchStrategy[tuple[str, Any, Any]]:
        operation = model(service).operation(name)
        assert operation is not None
        shape = operation.input
        assert shape is not None
        return st.tuples(st.just(name), right(shape), skewed(shape))

    names = [name for name in sorted(performed(service)) if model(service).operation(name).input]  # type: ignore[union-attr]

    @settings(max_examples=EXAMPLES * 4, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(names).flatmap(both))
    def run(made: tuple[str, Any, Any]) -> None:
        operation, value, content = made
        shape = model(service).operation(operation).input  # type: ignore[union-attr]
        content = resolve(content, dict.fromkeys(KNOWN, "1"))
        try:
            exchange = written(service, protocol, operation, known(value, worlds[service].known))
            body = cbor2.dumps(cbor_of(shape, content)) if "cbor" in protocol else json.dumps(json_of(shape, content))
        except Exception:  # noqa: BLE001  # no client could send this
            assume(False)
            return
        content = body if isinstance(body, bytes) else body.encode()
        sent = signed(service, exchange.method, exchange.target, exchange.headers, content)
        judge(service, protocol, operation, worlds[service].send(sent))

    run()


@pytest.mark.parametrize("content", [b"", b"\xa0", b"\x80", b"\xf6", b"\xa1\x01\x01", cbor2.dumps({"Namespace": 1})])
def test_whatever_comes_as_cbor_is_answered(worlds: dict[str, World], content: bytes) -> None:
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    headers = {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor"}
    answer = worlds["cloudwatch"].send(signed("cloudwatch", "POST", path, headers, content))
    assert answer.status == 400, answer
