"""Events of the models' operations, and what botocore's parser makes of them."""

import datetime as dt

import botocore.session
import pytest
from botocore.eventstream import EventStream
from botocore.parsers import create_parser

from kflow.aws.columns import Columns, Constant
from kflow.aws.eventstream import Events
from kflow.aws.json_output import JsonOutput, encode
from kflow.aws.models import load
from kflow.aws.vocabulary import vocabulary
from kflow.errors import ResourceInUse
from tests.unit.aws.test_eventstream import Out


class Raw:
    """The part of a urllib3 response that botocore reads events from."""

    def __init__(self, data):
        self.data = data

    def stream(self):
        yield self.data

    def close(self):
        pass


@pytest.fixture(scope="module")
def session():
    return botocore.session.Session()


def events_of(session, service, operation, member, sent):
    model = session.get_service_model(service)
    shape = model.operation_model(operation).output_shape.members[member]
    parser = create_parser(model.metadata["protocol"])._event_stream_parser
    return EventStream(Raw(sent), shape, parser, operation)


def test_botocore_reads_what_subscribe_to_shard_sends(session):
    operation = load("kinesis").operation("SubscribeToShard")
    words = vocabulary(
        operation,
        JsonOutput().bytes_of,
        encode,
        content_type="application/x-amz-json-1.1",
        event_content_type="application/json",
        has_initial_response=True,
    )
    out = Out()
    events = Events(out, words)
    records = Columns(
        2,
        {
            "SequenceNumber": ["1", "2"],
            "ApproximateArrivalTimestamp": Constant(1459799926480),
            "Data": [b"one", b"two"],
            "PartitionKey": ["a", "b"],
        },
    )
    events.send(
        "SubscribeToShardEvent", {"Records": records, "ContinuationSequenceNumber": "2", "MillisBehindLatest": 0}
    )
    events.fail(ResourceInUse("taken over"))
    read = events_of(session, "kinesis", "SubscribeToShard", "EventStream", out.sent)

    assert read.get_initial_response().headers[":content-type"] == "application/x-amz-json-1.1"
    found = []
    with pytest.raises(Exception, match="taken over") as raised:
        found.extend(read)
    assert raised.value.response["Error"]["Code"] == "ResourceInUseException"


def test_the_records_of_an_event_come_out(session):
    operation = load("kinesis").operation("SubscribeToShard")
    words = vocabulary(operation, JsonOutput().bytes_of, encode, content_type="application/x-amz-json-1.1")
    out = Out()
    Events(out, words).send(
        "SubscribeToShardEvent",
        {
            "Records": [
                {
                    "SequenceNumber": "1",
                    "ApproximateArrivalTimestamp": 1459799926480,
                    "Data": b"one",
                    "PartitionKey": "a",
                }
            ],
            "ContinuationSequenceNumber": "2",
            "MillisBehindLatest": 0,
            "ChildShards": None,
        },
    )
    (event,) = events_of(session, "kinesis", "SubscribeToShard", "EventStream", out.sent)

    record = event["SubscribeToShardEvent"]["Records"][0]
    assert record.pop("ApproximateArrivalTimestamp").astimezone(dt.UTC) == dt.datetime(
        2016, 4, 4, 19, 58, 46, 480_000, tzinfo=dt.UTC
    )
    assert event == {
        "SubscribeToShardEvent": {
            "Records": [{"SequenceNumber": "1", "Data": b"one", "PartitionKey": "a"}],
            "ContinuationSequenceNumber": "2",
            "MillisBehindLatest": 0,
        }
    }


def test_a_payload_of_bytes_is_sent_as_it_is(session):
    operation = load("lambda").operation("InvokeWithResponseStream")
    words = vocabulary(operation, JsonOutput().bytes_of, encode, content_type="application/json")
    out = Out()
    events = Events(out, words)
    events.send("PayloadChunk", {"Payload": b"\0\xff"})
    events.send("InvokeComplete", {"ErrorCode": "no"})

    assert out.frames()[0].headers[":content-type"] == "application/octet-stream"
    assert list(events_of(session, "lambda", "InvokeWithResponseStream", "EventStream", out.sent)) == [
        {"PayloadChunk": {"Payload": b"\0\xff"}},
        {"InvokeComplete": {"ErrorCode": "no"}},
    ]
