"""Services of the query and REST protocols behind the door: botocore asks, a method answers, botocore reads."""

import io

import botocore.session
import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from kflow.aws.calls import LATER
from kflow.aws.columns import Columns
from kflow.aws.dispatch import Dispatcher
from kflow.aws.door import Door
from kflow.aws.frames import Decoder
from kflow.aws.spoken import formats_of
from kflow.errors import ResourceNotFound
from tests.unit.aws.fakes import HOME, Exchange, Timers, model


class Sns:
    service_name = "sns"

    def publish(self, call, given):
        if given.TopicArn is None:
            raise ResourceNotFound("no topic")
        attribute = given.MessageAttributes["a"]
        return {"MessageId": f"{given.Message}/{attribute.DataType}/{attribute.BinaryValue.hex()}"}

    def list_topics(self, call, given):
        return {"Topics": Columns(2, {"TopicArn": ["one", "two"]})}


class Functions:
    service_name = "lambda"

    def invoke(self, call, given):
        return {"StatusCode": 202, "Payload": given.Payload[::-1], "ExecutedVersion": given.Qualifier}

    def get_function(self, call, given):
        raise ResourceNotFound(f"no {given.FunctionName}")

    def invoke_with_response_stream(self, call, given):
        events = call.stream()
        events.send("PayloadChunk", {"Payload": b"one"})
        events.end()
        return LATER


class S3:
    service_name = "s3"

    def put_bucket_tagging(self, call, given):
        self.tags = [(tag.Key, tag.Value) for tag in given.Tagging.TagSet]
        return {}

    def get_bucket_tagging(self, call, given):
        return {"TagSet": [{"Key": key, "Value": value} for key, value in self.tags]}


@pytest.fixture
def door():
    services = [Sns(), Functions(), S3()]
    models = {service.service_name: model(service.service_name) for service in services}
    dispatcher = Dispatcher(services, models, call_later=Timers().call_later)
    return Door(dispatcher, home=HOME, formats=formats_of(models.values()))


@pytest.fixture(scope="module")
def session():
    return botocore.session.Session()


@pytest.fixture
def asked(door, session):
    """Has botocore call an operation, unsigned."""

    def ask(service, name, **parameters):
        theirs = session.get_service_model(service)
        operation = theirs.operation_model(name)
        written = create_serializer(theirs.metadata["protocol"], False).serialize_to_request(parameters, operation)
        prepare_request_dict(written, "http://127.0.0.1:4566")
        prepared = create_request_object(written).prepare()
        headers = {
            key.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for key, value in prepared.headers.items()
        }
        body = prepared.body or b""
        target = prepared.url.removeprefix("http://127.0.0.1:4566")
        exchange = Exchange(prepared.method, target, headers, body.encode() if isinstance(body, str) else bytes(body))
        door(exchange)
        if exchange.streams:
            return exchange.streams[0]
        answer = exchange.answer
        headers = HeadersDict({key.decode(): value.decode() for key, value in answer.headers.items()})
        is_stream = operation.has_streaming_output and answer.status < 300
        read = {
            "status_code": answer.status,
            "headers": headers,
            "body": io.BytesIO(answer.body) if is_stream else answer.body,
        }
        return create_parser(theirs.metadata["protocol"]).parse(read, operation.output_shape)

    return ask


def test_the_query_protocol_there_and_back(asked):
    answer = asked(
        "sns",
        "Publish",
        TopicArn="t",
        Message="hello",
        MessageAttributes={"a": {"DataType": "Binary", "BinaryValue": b"\0\xff"}},
    )
    assert answer["MessageId"] == "hello/Binary/00ff"
    assert answer["ResponseMetadata"]["RequestId"]
    assert asked("sns", "ListTopics")["Topics"] == [{"TopicArn": "one"}, {"TopicArn": "two"}]
    refused = asked("sns", "Publish", Message="x")
    assert (refused["Error"]["Code"], refused["Error"]["Message"]) == ("ResourceNotFound", "no topic")
    missing = asked("sns", "Publish", TopicArn="t")
    assert missing["Error"]["Code"] == "ValidationException"
    assert missing["Error"]["Message"] == (
        "1 validation error detected: Value null at 'message' failed to satisfy constraint: Member must not be null"
    )


def test_rest_json_there_and_back(asked):
    answer = asked("lambda", "Invoke", FunctionName="f", Payload=b"abc", Qualifier="7")
    assert (answer["StatusCode"], answer["Payload"].read(), answer["ExecutedVersion"]) == (202, b"cba", "7")
    refused = asked("lambda", "GetFunction", FunctionName="f")
    assert (refused["Error"]["Code"], refused["Error"]["Message"]) == ("ResourceNotFoundException", "no f")
    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_events_of_rest_json(asked):
    stream = asked("lambda", "InvokeWithResponseStream", FunctionName="f", Payload=b"")
    assert stream.headers[b"Content-Type"] == b"application/vnd.amazon.eventstream"
    (frame,) = Decoder().feed(stream.data)
    assert (frame.headers[":event-type"], frame.payload) == ("PayloadChunk", b"one")
    assert stream.is_closed


def test_rest_xml_there_and_back(asked):
    tags = [{"Key": "a<b", "Value": "c&d"}, {"Key": " e ", "Value": ""}]
    asked("s3", "PutBucketTagging", Bucket="b", Tagging={"TagSet": tags})
    assert asked("s3", "GetBucketTagging", Bucket="b")["TagSet"] == tags


def test_what_is_nobody_s_is_refused(door):
    exchange = Exchange("PATCH", "/nowhere")
    door(exchange)
    assert exchange.answer.status == 403
