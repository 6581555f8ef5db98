"""Every operation of several services, there and back: botocore writes the request, and reads the answer.

Values are made from the model, with a seed of its own for each operation: all members once, some members other times.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from kflow.aws import rpc
from kflow.aws.models import load
from kflow.aws.query import Ec2, Query
from kflow.aws.rest_json import RestJson
from kflow.aws.rest_xml import RestXml
from kflow.aws.shapes import ListOf, MapOf, Member, Operation, Shape, Structure
from kflow.aws.structs import Milliseconds

FORMATS = {made.name: made for made in (Query(), Ec2(), RestJson(), RestXml())}
SERVICES = [
    "sns",
    "sts",
    "iam",
    "cloudformation",
    "autoscaling",
    "sdb",
    "ec2",
    "lambda",
    "apigateway",
    "kinesisvideo",
    "kinesis-video-archived-media",
    "kinesis-video-media",
    "iot",
    "glacier",
    "s3",
    "s3control",
    "route53",
    "cloudfront",
]
AMBIGUOUS = {"PutBucketNotification", "GetBucketNotification"}
"""Two members of one name in XML; AWS has made others of these."""
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DEEPEST = 4


class Values:
    """Makes values of shapes: as we have them (milliseconds), and as botocore does (datetimes)."""

    def __init__(self, seed: str, *, share: float) -> None:
        self.chance = random.Random(seed)
        self.share = share

    def structure(self, shape: Structure, depth: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = {}
        one = self.chance.choice([*shape.members]) if shape.traits.get("union") else ""
        for name, member in shape.members.items():
            if one and name != one:
                continue
            if member.trait("jsonvalue") or self.is_beyond(member.shape):
                continue
            if shape.model.service == "s3" and name == "Expires":
                continue  # botocore gives it another type than the model
            if depth >= DEEPEST and not member.is_required and not one:
                continue
            if name in {shape.payload, one} or member.is_required or self.chance.random() < self.share:
                value = self.member(member, depth)
                if value is not None:
                    found[name] = value
        return found

    def is_beyond(self, shape: Shape) -> bool:
        return isinstance(shape, Structure) and (shape.is_document or shape.is_event_stream)

    def member(self, member: Member, depth: int) -> Any:
        if member.trait("hostLabel"):
            return "123456789012"
        if member.location in {"header", "headers"}:
            return self.in_header(member)
        if member.location == "statusCode":
            return self.chance.randrange(200, 300)
        return self.value(member.shape, depth)

    def in_header(self, member: Member) -> Any:
        shape = member.shape
        if isinstance(shape, MapOf):
            return {f"k{index}": self.word() for index in range(2)}
        if isinstance(shape, ListOf):
            return [self.in_header(shape.element) for _ in range(2)]
        return self.word() if shape.kind == "string" else self.value(shape, 0)

    def word(self) -> str:
        return "".join(self.chance.choices("abcXYZ019-_.:/+=@ %", k=5)).join("<>")

    def value(self, shape: Shape, depth: int) -> Any:
        if isinstance(shape, Structure):
            return self.structure(shape, depth + 1)
        if isinstance(shape, ListOf):
            inner = shape.element.shape
            count = 0 if depth >= DEEPEST + 2 or self.is_beyond(inner) else 2
            return [self.value(inner, depth + 1) for _ in range(count)]
        if isinstance(shape, MapOf):
            inner = shape.value.shape
            count = 0 if depth >= DEEPEST + 2 or self.is_beyond(inner) else 2
            return {f"{self.word()}{index}": self.value(inner, depth + 1) for index in range(count)}
        match shape.kind:
            case "boolean":
                return self.chance.random() < 0.5
            case "timestamp":
                return Milliseconds(self.chance.randrange(0, 4_000_000_000) * 1000)
            case "blob":
                return self.chance.randbytes(5)
            case "byte" | "short" | "integer" | "long":
                return self.chance.randrange(0, 100)
            case "float" | "double":
                return self.chance.randrange(-1000, 1000) / 8
        return (
            "".join(self.chance.choices("ab Z9.,;'\"<>&ü€\n\t/?#%+=\\~{}[]\U0001f600", k=self.chance.randrange(1, 9)))
            + "x"
        )


def as_botocore_has_it(value: Any) -> Any:
    if isinstance(value, Milliseconds):
        return EPOCH + dt.timedelta(milliseconds=value)
    if isinstance(value, dict):
        return {key: as_botocore_has_it(part) for key, part in value.items()}
    return [as_botocore_has_it(part) for part in value] if isinstance(value, list) else value


def without_empty(value: Any) -> Any:
    """An empty list or structure is not always told from none."""
    if isinstance(value, dict):
        found = {key: without_empty(part) for key, part in value.items()}
        return {key: part for key, part in found.items() if part not in ({}, [], None)}
    if isinstance(value, list):
        return [part for part in map(without_empty, value) if part not in ({}, [], None)]
    return value


class Request:
    """The part of an exchange that formats read."""

    version = "1.1"

    def __init__(self, serialized: dict[str, Any]) -> None:
        prepare_request_dict(serialized, "http://127.0.0.1:4566")
        prepared = create_request_object(serialized).prepare()
        parts = urlsplit(prepared.url)
        self.method = prepared.method
        self.target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.headers = {
            name.lower(): value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in prepared.headers.items()
        }
        body = prepared.body or b""
        self.body = body.encode() if isinstance(body, str) else bytes(body)


@pytest.fixture(scope="module")
def session():
    return botocore.session.Session()


def samples(operation: Operation, shape: Structure):
    for share in (1.0, 0.6, 0.2):
        yield Values(f"{operation.model.service}.{operation.name}.{share}", share=share).structure(shape)


@pytest.mark.parametrize("service", SERVICES)
def test_requests_that_botocore_writes_are_routed_and_read(service, session):
    model = load(service)
    theirs = session.get_service_model(service)
    format_ = FORMATS[model.protocol]
    serializer = create_serializer(model.protocol, False)
    for name in model.operation_names:
        operation = model.operation(name)
        if name in AMBIGUOUS:
            continue
        if operation.input is None:
            request = Request(serializer.serialize_to_request({}, theirs.operation_model(name)))
            assert format_.route([model], request).input is None
            continue
        for values in samples(operation, operation.input):
            written = serializer.serialize_to_request(as_botocore_has_it(values), theirs.operation_model(name))
            request = Request(written)
            routed = format_.route([model], request)
            assert routed is not None, (name, request.method, request.target)
            if routed is not operation:  # two that only their host tells apart
                assert (routed.http_method, routed.request_uri) == (operation.http_method, operation.request_uri), name
            found = without_empty(format_.parse(operation, request))
            if "ContentLength" not in values:
                found.pop("ContentLength", None)  # HTTP has it, whether it was given or not
            assert found == without_empty(values), name


@pytest.mark.parametrize("service", SERVICES)
def test_answers_are_read_by_botocore(service, session):
    model = load(service)
    theirs = session.get_service_model(service)
    format_ = FORMATS[model.protocol]
    parser = create_parser(model.protocol)
    for name in model.operation_names:
        operation = model.operation(name)
        if operation.output is None or operation.event_stream is not None or name in AMBIGUOUS:
            continue
        for values in samples(operation, operation.output):
            status, headers, body = format_.serialise(operation, values, "00000000-0000-4000-8000-000000000000")
            answer = {
                "status_code": status,
                "headers": HeadersDict({key.decode("latin-1"): value.decode("latin-1") for key, value in headers}),
                "body": body,
            }
            expected = without_empty(as_botocore_has_it(values))
            payload = operation.output.payload
            if payload and operation.output.members[payload].shape.kind in {"blob", "string"}:
                answer["body"] = body.decode("latin-1")  # it would decode what is a stream
                given = values.get(payload, "")
                expected[payload] = (
                    given.decode("latin-1") if isinstance(given, bytes) else given.encode().decode("latin-1")
                )
            parsed = parser.parse(answer, theirs.operation_model(name).output_shape)
            del parsed["ResponseMetadata"]
            found = without_empty(parsed)
            for member in operation.output.members.values():
                if member.location == "statusCode" and member.name not in values:
                    found.pop(member.name, None)
                if member.wire_name.lower() == "content-type" and member.name not in values:
                    found.pop(member.name, None)  # there is always one
                if member.location == "headers" and not member.location_name:
                    found.pop(member.name, None)  # it reads all headers into this one
                    expected.pop(member.name, None)
            assert found == expected, name


@pytest.mark.parametrize("service", SERVICES)
def test_errors_are_read_by_botocore(service, session):
    from kflow.errors import InvalidArgument

    model = load(service)
    theirs = session.get_service_model(service)
    format_ = FORMATS[model.protocol]
    name = model.operation_names[0]
    status, headers, body = format_.error(model.operation(name), InvalidArgument("<no>"), "the-id")
    answer = {
        "status_code": status,
        "headers": HeadersDict({key.decode(): value.decode() for key, value in headers}),
        "body": body,
    }
    parsed = create_parser(model.protocol).parse(answer, theirs.operation_model(name).output_shape)

    assert status == 400
    assert {"Code": parsed["Error"]["Code"], "Message": parsed["Error"]["Message"]} == {
        "Code": "InvalidArgumentException",
        "Message": "<no>",
    }


RPC = ["cloudwatch", "kinesis", "logs", "sqs"]
"""Of any service that speaks JSON; its target's prefix is the service's name in the path."""


@pytest.mark.parametrize("service", RPC)
def test_requests_of_rpc_are_read(service, session):
    model = load(service)
    theirs = session.get_service_model(service)
    serializer = create_serializer("smithy-rpc-v2-cbor", False)
    wire = rpc.RpcWire()
    for name in model.operation_names:
        operation = model.operation(name)
        for values in samples(operation, operation.input) if operation.input is not None else [{}]:
            written = serializer.serialize_to_request(as_botocore_has_it(values), theirs.operation_model(name))
            request = Request(written)
            assert rpc.target(request.target) == f"{model.target_prefix}.{name}"
            assert without_empty(wire.plain(request.body)) == without_empty(values), name


@pytest.mark.parametrize("service", RPC)
def test_answers_of_rpc_are_read_by_botocore(service, session):
    model = load(service)
    theirs = session.get_service_model(service)
    parser = create_parser("smithy-rpc-v2-cbor")
    wire = rpc.RpcWire()
    for name in model.operation_names:
        operation = model.operation(name)
        if operation.output is None or operation.event_stream is not None:
            continue
        for values in samples(operation, operation.output):
            answer = {"status_code": 200, "headers": HeadersDict(), "body": wire.write(operation.output, values)}
            parsed = parser.parse(answer, theirs.operation_model(name).output_shape)
            del parsed["ResponseMetadata"]
            assert without_empty(parsed) == without_empty(as_botocore_has_it(values)), name
