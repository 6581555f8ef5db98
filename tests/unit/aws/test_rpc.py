"""RPC v2 with CBOR: botocore asks, a method answers, botocore reads; and what other clients send."""

import datetime as dt
import gzip

import botocore.session
import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from kflow.aws import cbor, rpc
from kflow.aws.cbor_output import CborOutput
from kflow.aws.columns import Columns
from kflow.aws.dispatch import Dispatcher
from kflow.aws.door import Door
from kflow.aws.errors import SerializationFailed
from kflow.aws.inflating import body_of
from kflow.aws.structs import Milliseconds
from kflow.errors import ResourceNotFound
from tests.unit.aws.fakes import HOME, Exchange, Timers, model

PROTOCOL = "smithy-rpc-v2-cbor"
MOMENT = dt.datetime(2026, 11, 26, 12, 0, 0, 250_000, dt.UTC)


class Metrics:
    service_name = "cloudwatch"

    def put_metric_data(self, call, given):
        self.given = given
        self.context = call.context

    def get_metric_statistics(self, call, given):
        if given.Namespace == "none":
            raise ResourceNotFound("no such")
        moment = given.StartTime
        return {"Label": "n", "Datapoints": [{"Timestamp": moment, "Sum": 3, "Unit": "Count"}, {"Timestamp": 1000}]}

    def list_metrics(self, call, given):
        return {"Metrics": Columns(2, {"Namespace": ["a", "b"]}), "NextToken": None}


@pytest.fixture
def service():
    return Metrics()


@pytest.fixture
def door(service):
    dispatcher = Dispatcher([service], {"cloudwatch": model("cloudwatch")}, call_later=Timers().call_later)
    return Door(dispatcher, home=HOME, late=lambda exchange, name: None)


@pytest.fixture(scope="module")
def theirs():
    return botocore.session.Session().get_service_model("cloudwatch")


@pytest.fixture
def asked(door, theirs):
    """Has botocore call an operation, unsigned."""

    def ask(name, **parameters):
        operation = theirs.operation_model(name)
        request = create_serializer(PROTOCOL).serialize_to_request(parameters, operation)
        prepare_request_dict(request, "http://localhost:4566", {"client_region": "us-east-1"})
        prepared = create_request_object(request).prepare()
        headers = {key.lower(): _text(value) for key, value in prepared.headers.items()}
        body = prepared.body if isinstance(prepared.body, bytes) else prepared.body.encode() if prepared.body else b""
        path = "/" + prepared.url.split("/", 3)[3]
        exchange = Exchange("POST", path, {**headers, "host": "localhost:4566"}, body)
        door(exchange)
        answer = exchange.answer
        assert answer.headers[b"smithy-protocol"] == b"rpc-v2-cbor"
        assert answer.headers[b"Content-Type"] == b"application/cbor"
        read = {
            "status_code": answer.status,
            "headers": HeadersDict({key.decode(): value.decode() for key, value in answer.headers.items()}),
            "body": answer.body,
        }
        return create_parser(PROTOCOL).parse(read, operation.output_shape)

    return ask


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_an_input_arrives_with_its_times_and_numbers(asked, service):
    asked("PutMetricData", Namespace="App", MetricData=[{"MetricName": "n", "Value": 2.5, "Timestamp": MOMENT}])
    (datum,) = service.given.MetricData
    assert (datum.MetricName, datum.Value) == ("n", 2.5)
    assert datum.Timestamp == round(MOMENT.timestamp() * 1000)
    assert service.context.protocol == "rpc-v2-cbor"


def test_an_output_is_read_with_its_times_as_seconds(asked):
    answer = asked("GetMetricStatistics", Namespace="a", MetricName="n", StartTime=MOMENT, EndTime=MOMENT, Period=60)
    first, second = answer["Datapoints"]
    assert (first["Timestamp"], first["Sum"], first["Unit"]) == (MOMENT, 3.0, "Count")
    assert second["Timestamp"] == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
    assert answer["ResponseMetadata"]["RequestId"]


def test_columns_are_written_as_rows(asked):
    assert asked("ListMetrics")["Metrics"] == [{"Namespace": "a"}, {"Namespace": "b"}]


def test_errors_name_their_shape_and_their_older_code(asked):
    given = {"MetricName": "n", "StartTime": MOMENT, "EndTime": MOMENT, "Period": 60}
    refused = asked("GetMetricStatistics", Namespace="none", **given)
    assert refused["Error"] == {
        "Code": "ResourceNotFoundException",
        "Message": "no such",
        "QueryErrorCode": "ResourceNotFoundException",
        "Type": "Sender",
    }
    missing = asked("PutMetricData", Namespace="x" * 300)
    assert missing["Error"]["Code"] == "ValidationError"
    assert "at 'namespace' failed to satisfy constraint" in missing["Error"]["Message"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/service/Logs_1/operation/Get", "Logs_1.Get"),
        ("/prefix/more/service/Logs_1/operation/Get?x=1", "Logs_1.Get"),
        ("/service/com.example.Logs_1/operation/Get", "Logs_1.Get"),
        ("/service/Logs_1/operation/", ""),
        ("/operation/Get", ""),
        ("/", ""),
    ],
)
def test_a_path_names_the_operation(path, target):
    assert rpc.target(path) == target


def ask(door, body, *, path="ListMetrics", method="POST", **headers):
    given = {"smithy-protocol": "rpc-v2-cbor", "content-type": "application/cbor", **headers}
    exchange = Exchange(method, f"/service/GraniteServiceVersion20100801/operation/{path}", given, body)
    door(exchange)
    return exchange.answer.status, cbor.decode(exchange.answer.body) if exchange.answer.body else None


def test_an_empty_body_is_an_empty_input(door):
    status, answer = ask(door, b"")
    assert (status, [each["Namespace"] for each in answer["Metrics"]]) == (200, ["a", "b"])


def test_an_answer_without_an_output_is_empty(door):
    body = cbor.encode({"Namespace": "a", "MetricData": []})
    assert ask(door, body, path="PutMetricData") == (200, None)


@pytest.mark.parametrize(
    ("body", "given", "code"),
    [
        (b"\xff", {}, "SerializationException"),
        (b"\x01", {}, "SerializationException"),
        (cbor.encode({"Namespace": 5}), {}, "SerializationException"),
        (b"", {"path": "Nothing"}, "UnknownOperationException"),
        (b"", {"method": "GET"}, "UnknownOperationException"),
        (b"", {"smithy-protocol": "rpc-v3"}, "UnknownOperationException"),
        (b"no gzip", {"content-encoding": "gzip"}, "SerializationException"),
    ],
)
def test_what_is_no_call(door, body, given, code):
    status, answer = ask(door, body, **given)
    assert status == 400
    assert answer["__type"].rpartition("#")[2] == code


def test_whole_seconds_are_seconds_and_doubles_are_written_as_such():
    wire = rpc.RpcWire()
    assert wire.plain(cbor.encode({"a": Milliseconds(5)}))["a"] == 5000  # a whole number under the tag
    assert wire.plain(b"\xa1\x61a\xc1\xfb\x40\x16\x00\x00\x00\x00\x00\x00")["a"] == 5500
    shape = model("cloudwatch").structure("Datapoint")
    assert wire.write(shape, {"Sum": 3}) == b"\xa1\x63Sum\xfb\x40\x08\x00\x00\x00\x00\x00\x00"
    assert CborOutput().bytes_of(shape, {"Sum": 3}) == b"\xa1\x63Sum\x03"
    assert wire.write(shape, {"Timestamp": 5000}) == b"\xa1\x69Timestamp\xc1\x05"
    assert wire.write(shape, {"Timestamp": MOMENT})[11:13] == b"\xc1\xfb"


def test_a_compressed_body_is_inflated_and_bombs_are_refused(door, service):
    body = gzip.compress(cbor.encode({"Namespace": "a", "MetricData": []}))
    assert ask(door, body, path="PutMetricData", **{"content-encoding": "gzip"}) == (200, None)
    assert service.given.Namespace == "a"
    bomb = Exchange("POST", "/", {"content-encoding": "gzip"}, gzip.compress(b"0" * (17 << 20)))
    with pytest.raises(SerializationFailed, match="more than 16777216 bytes"):
        body_of(bomb)
    cut = Exchange("POST", "/", {"content-encoding": "gzip"}, body[:-5])
    with pytest.raises(SerializationFailed, match="cut off"):
        body_of(cut)


def test_compressed_json_is_read_too(door, service):
    body = gzip.compress(b'{"Namespace": "a", "MetricData": []}')
    target = "GraniteServiceVersion20100801.PutMetricData"
    headers = {"x-amz-target": target, "content-type": "application/x-amz-json-1.0", "content-encoding": "gzip"}
    exchange = Exchange("POST", "/", headers, body)
    door(exchange)
    assert exchange.answer.status == 200
    assert service.given.Namespace == "a"


def test_a_service_that_is_not_here_is_refused_as_such(door):
    exchange = Exchange(
        "POST",
        "/service/Other/operation/Get",
        {
            "smithy-protocol": "rpc-v2-cbor",
            "authorization": "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/other/aws4_request, Signature=00",
        },
    )
    door._stranger = lambda name: f"kflow has no {name}"
    door(exchange)
    assert exchange.answer.status == 501
    assert b"kflow has no other" in exchange.answer.body
