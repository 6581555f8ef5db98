"""The smaller services and SQS behind one door, stepped by hand; botocore writes the requests and reads the answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote, urlencode

import botocore.session
import cbor2
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from kflow.aws import cbor, models
from kflow.aws.calls import Place
from kflow.aws.dispatch import Deferred, Dispatcher
from kflow.aws.door import Door
from kflow.aws.shapes import Model, Structure, snake_case
from kflow.broker.files import FILES
from kflow.clock import ManualClock
from kflow.lambda_.errors import ResourceNotFound
from kflow.lambda_.fleet import Replied, Reply, Request
from kflow.monitoring.measures import Measures
from kflow.runtime.endpoint.deferred import Smaller
from kflow.runtime.measures.lambda_ import LambdaMeasures
from kflow.services.cloudwatch import CloudWatch
from kflow.services.lambda_.service import Lambda
from kflow.services.lambda_.wire import as_recorded
from kflow.services.logs import Logs
from kflow.services.sns import Sns
from kflow.services.sqs.forms import Forms
from kflow.services.sqs.models import forms, loose
from kflow.services.sqs.parts import Parts
from kflow.services.sqs.service import Sqs
from kflow.services.sts import Sts
from tests.generating import conforms
from tests.lambdaing import ROLE, FakeFleet, FakeHost, zipped
from tests.mappingworld import FakeRunner
from tests.unit.aws.fakes import Exchange

HOME: Final = Place("123456789012", "us-east-1")
ARN: Final = "arn:aws:lambda:us-east-1:123456789012:function:f"
PROTOCOLS: Final = (
    ("lambda", "rest-json"),
    ("logs", "json"),
    ("cloudwatch", "smithy-rpc-v2-cbor"),
    ("cloudwatch", "json"),
    ("cloudwatch", "query"),
    ("sqs", "json"),
    ("sqs", "query"),
    ("sns", "query"),
    ("sts", "query"),
)
"""Services, and the protocols that each speaks."""
_CBOR: Final = "smithy-rpc-v2-cbor"
REQUEST_LEVEL: Final = frozenset(
    {
        "InvalidAction",
        "MalformedInput",
        "SerializationException",
        "UnknownOperationException",
        "ValidationError",
        "ValidationException",
        # of the query protocols of SQS, SNS and STS
        "InvalidAddress",
        "InvalidAttributeName",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "MissingParameter",
    }
)
"""Errors of a request, whatever the operation: no model lists them."""
_SESSION: Final = botocore.session.Session()


class AnsweringFleet(FakeFleet):
    """Runs nothing, and answers."""

    retry_backoff_scale = 0.0

    def invoke(self, key: str, request: Request, replied: Replied) -> None:
        known = key in self.published
        replied(Reply(payload=b'"ok"') if known else ResourceNotFound(f"Function not found: {request.arn}"))

    def most(self, function: str) -> int | None:
        return self.limits.get(function)


@functools.cache
def model(service: str) -> Model:
    """As the node has it."""
    found = models.load(service)
    return {"lambda": as_recorded, "sqs": loose}.get(service, lambda same: same)(found)


class World:
    """All of them, with something in each.

    Attributes:
        host: stepped by hand.
        known: names that only this world knows.
    """

    def __init__(self, path: Path) -> None:
        self.host: Any = FakeHost(path, ManualClock(1_700_000_000_000), 0, FILES)
        self.host.measures = Measures(self.host.folder, lambda: self.host.now_ms() / 1000)
        self.host.function_measures = LambdaMeasures(self.host.measures)
        names = ("cloudwatch", "lambda", "logs", "sns", "sts", "sqs")
        known = {name: model(name) for name in names}
        fleet: Any = AnsweringFleet()

        def invoke(*call: Any) -> object:
            return dispatcher.invoke(*call)

        self._smaller = Smaller(self.host, known, lambda: "http://localhost:4566", fleet, invoke)
        self._smaller.lambdas.runner = FakeRunner()  # type: ignore[assignment]  # as much of them as is asked for
        self._sqs = Sqs(Parts(host=self.host, home=HOME, url=lambda: "http://localhost:4566"))
        sqs = Deferred("sqs", "AmazonSQS", "1.0", lambda: (self._sqs, known["sqs"]))
        dispatcher = Dispatcher(
            [], known, call_later=self.host.call_later, deferred={"sqs": sqs, **self._smaller.deferred}
        )
        self._smaller.lambdas.start()
        self._forms = (Forms(), [forms(models.load("sqs"))])
        self._door = Door(dispatcher, home=HOME, late=self._form)
        self.known: dict[str, str] = {}

    def _form(self, exchange: Any, signing_name: str) -> Any:
        return self._forms if signing_name == "sqs" else self._smaller.form(exchange, signing_name)

    def furnish(self, service: str) -> World:
        """Make what requests are about."""
        ask = functools.partial(self.call, service)
        if service == "lambda":
            code = {"ZipFile": zipped()}
            ask("CreateFunction", FunctionName="f", Runtime="python3.12", Role=ROLE, Handler="app.handler", Code=code)
            ask("PublishVersion", FunctionName="f")
            ask("CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
            source = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
            made = ask(
                "CreateEventSourceMapping", FunctionName="f", EventSourceArn=source, StartingPosition="TRIM_HORIZON"
            )
            self.known["UUID"] = made["UUID"]
            ask("PublishLayerVersion", LayerName="libs", Content={"ZipFile": zipped({"python/x.py": "x = 1"})})
        elif service == "logs":
            ask("CreateLogGroup", logGroupName="g")
            ask("CreateLogStream", logGroupName="g", logStreamName="s")
            event = {"timestamp": self.host.now_ms(), "message": '{"a": 1}'}
            ask("PutLogEvents", logGroupName="g", logStreamName="s", logEvents=[event])
        elif service == "cloudwatch":
            ask("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": 1.0}])
        elif service == "sqs":
            for name in ("jobs", "dead"):
                ask("CreateQueue", QueueName=name)
            ask("CreateQueue", QueueName="jobs.fifo", Attributes={"FifoQueue": "true"})
            ask("SendMessage", QueueUrl="http://localhost:4566/123456789012/jobs", MessageBody="one")
        elif service == "sns":
            ask("CreateTopic", Name="news")
        return self

    def close(self) -> None:
        """Close all files."""
        self._sqs.close(lambda: None)
        self._smaller.lambdas.stop(lambda: self._smaller.stop(lambda: None))
        self.host.run()
        self.host.advance(10_000)
        self.host.measures.close()

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """A call that goes well."""
        protocol = next(protocol for name, protocol in PROTOCOLS if name == service)
        answer = self.send(written(service, protocol, operation, parameters))
        code, output = read(service, protocol, operation, answer)
        assert not code, (operation, output)
        return output

    def send(self, exchange: Exchange) -> Any:
        """Let a request in, and as much time pass as its answer takes."""
        self._door(exchange)
        self.host.run()
        if not exchange.answers and not exchange.streams:
            self.host.advance(21_000)  # longer than anybody may ask to wait
        if exchange.streams:
            (stream,) = exchange.streams
            for _ in range(200):
                self.host.advance(1)
            assert stream.is_closed
            return SimpleNamespace(status=stream.status, headers=stream.headers, body=stream.data)
        return exchange.answer


# ---------------------------------------------------------------------------------------------------- botocore


@functools.cache
def theirs(service: str) -> Any:
    """Botocore's own model."""
    return _SESSION.get_service_model(service)


def written(service: str, protocol: str, operation: str, parameters: Mapping[str, Any]) -> Exchange:
    """A request as botocore writes it, without asking whether it is right.

    Raises whatever botocore raises where it cannot write that.
    """
    serializer = create_serializer(protocol, include_validation=False)
    request = serializer.serialize_to_request(dict(parameters), theirs(service).operation_model(operation))
    path = request["url_path"]
    if "//" in path or (path != "/" and path.endswith("/") and _ends_in_label(service, operation)):
        raise ValueError("no client sends an empty label: it would be another operation")
    query = request["query_string"]
    target = path + (f"{'&' if '?' in path else '?'}{urlencode(query, doseq=True, quote_via=quote)}" if query else "")
    body = request["body"]
    if isinstance(body, dict):
        body = urlencode(body, doseq=True).encode()
    headers = {name.lower(): str(value) for name, value in request["headers"].items()}
    return signed(service, request["method"], target, headers, body.encode() if isinstance(body, str) else body)


def _ends_in_label(service: str, operation: str) -> bool:
    return theirs(service).operation_model(operation).http["requestUri"].endswith("}")


def signed(service: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Exchange:
    """A request, with the header that says whose it is."""
    scope = f"AKID/20261123/us-east-1/{model(service).signing_name}/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00"
    return Exchange(method, target, {**headers, "authorization": authorization}, body)


def read(service: str, protocol: str, operation: str, answer: Any) -> tuple[str, Any]:
    """Code (empty: none) and content of an answer, as botocore's parser reads it."""
    shape = theirs(service).operation_model(operation)
    output = shape.output_shape
    headers = {_text(name): _text(value) for name, value in answer.headers.items()}
    raw = {"status_code": answer.status, "headers": _Caseless(headers), "body": answer.body}
    if output is not None and shape.has_event_stream_output and answer.status < 300:
        return "", {}
    if protocol == "query" and service == "sqs":  # their model has forgotten it
        output = None if answer.status < 300 else output
    parsed = create_parser(protocol).parse(raw, output)
    if answer.status < 300:
        return "", parsed
    return str(parsed["Error"]["Code"]), parsed["Error"]


class _Caseless(dict[str, str]):
    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in given.items()})

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def errors_of(service: str, operation: str) -> set[str]:
    """Codes that the model lists for an operation."""
    found: set[str] = set()
    for shape in theirs(service).operation_model(operation).error_shapes:
        found |= {shape.name, shape.metadata.get("error", {}).get("code", shape.name)}
    return found


def judge(service: str, protocol: str, operation: str, answer: Any) -> str:
    """Fail unless an answer is one that AWS might give; returns the error's code, or nothing."""
    code, content = read(service, protocol, operation, answer)
    assert answer.status < 500, (operation, answer)
    if code:
        name = code.removeprefix("AWS.SimpleQueueService.").replace("NonExistentQueue", "QueueDoesNotExist")
        assert name in REQUEST_LEVEL or name in errors_of(service, operation), (operation, code, content)
        assert content["Message"] or code in {"SerializationException", "UnknownOperationException"}, (operation, code)
        return code
    output = _operation_output(service, operation)
    if operation == "GetFunctionCodeSigningConfig":  # no function has one, and AWS itself says nothing then
        return ""
    if output is None or theirs(service).operation_model(operation).has_event_stream_output:
        return ""
    if protocol in {"json", "rest-json"} and _has_body(service, operation):
        conforms(output, json.loads(answer.body or b"{}"), is_text=True)
    elif protocol == _CBOR:
        assert cbor2.loads(answer.body) is not None
        conforms(output, cbor.decode(answer.body), is_text=False)
    return ""


def _has_body(service: str, operation: str) -> bool:
    output = theirs(service).operation_model(operation).output_shape
    places = {member.serialization.get("location") for member in output.members.values()}
    return "payload" not in output.serialization and places <= {None}


def _operation_output(service: str, operation: str) -> Structure | None:
    found = model(service).operation(operation)
    assert found is not None
    return found.output


SERVICES: Final[Mapping[str, type]] = {
    "lambda": Lambda,
    "logs": Logs,
    "cloudwatch": CloudWatch,
    "sqs": Sqs,
    "sns": Sns,
    "sts": Sts,
}


def performed(service: str) -> list[str]:
    """The operations of a service that are here."""
    return [name for name in model(service).operation_names if hasattr(SERVICES[service], snake_case(name))]


__all__ = ["ARN", "PROTOCOLS", "REQUEST_LEVEL", "World", "judge", "model", "performed", "read", "signed", "written"]
