"""The bytes themselves: JSON and CBOR, over HTTP/1.1 and HTTP/2, say the same; CBOR by the independent `cbor2`."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import cbor2
import pytest
from botocore.eventstream import EventStreamBuffer

from tests.conformance.wire import CBOR, JSON, Caller, Http1, Http2, Milliseconds, decode, encode, headers_of
from tests.deadline import eventually
from tests.served import ACCOUNT, Served, served

SHARD = "shardId-000000000000"
WAYS = [(Http1, JSON), (Http1, CBOR), (Http2, JSON), (Http2, CBOR)]
NAMES = count()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("wire")) as made:
        yield made


@pytest.fixture(params=WAYS, ids=["http1-json", "http1-cbor", "http2-json", "http2-cbor"])
def caller(request: pytest.FixtureRequest, endpoint: Served) -> Iterator[Caller]:
    kind, content_type = request.param
    connection = kind(endpoint.url)
    yield Caller(connection, content_type)
    connection.close()


@pytest.fixture(params=[Http1, Http2], ids=["http1", "http2"])
def connection(request: pytest.FixtureRequest, endpoint: Served) -> Iterator[Http1 | Http2]:
    made = request.param(endpoint.url)
    yield made
    made.close()


def created(caller: Caller, **more: Any) -> str:
    name = f"wire-{next(NAMES)}"
    assert caller.call("CreateStream", StreamName=name, ShardCount=1, **more) is None
    eventually(
        lambda: (
            caller.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]
            == "ACTIVE"
        )
    )
    return name


def token_of(caller: Caller, name: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
    answer = caller.call("GetShardIterator", StreamName=name, ShardId=SHARD, ShardIteratorType=kind, **more)
    return str(answer["ShardIterator"])


# ---------------------------------------------------------------------- what every answer has


def test_every_answer_has_two_ids_its_type_and_its_length(caller: Caller) -> None:
    seen = set()
    for operation, given, status in (
        ("ListStreams", {}, 200),
        ("ListTagsForStream", {"StreamName": "nope"}, 400),
        ("CreateStream", {"StreamName": "!", "ShardCount": 0}, 400),
    ):
        answer = caller.ask(operation, **given)
        assert answer.status == status
        assert re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-amzn-requestid"])
        assert 64 <= len(base64.b64decode(answer.headers["x-amz-id-2"], validate=True)) <= 80
        assert answer.headers["content-type"] == caller.content_type
        assert answer.headers["content-length"] == str(len(answer.body))
        seen |= {answer.headers["x-amzn-requestid"], answer.headers["x-amz-id-2"]}
    assert len(seen) == 6


def test_an_operation_without_output_answers_nothing_at_all(caller: Caller) -> None:
    name = created(caller)
    answer = caller.ask("AddTagsToStream", StreamName=name, Tags={"a": "b"})
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


# ---------------------------------------------------------------------- values


def test_records_keep_every_byte_and_times_every_millisecond(caller: Caller) -> None:
    name = created(caller)
    every, key = bytes(range(256)), "ключ-🔑"
    began = time.time()
    one = caller.call("PutRecord", StreamName=name, Data=caller.blob(every), PartitionKey=key)
    many = caller.call(
        "PutRecords",
        StreamName=name,
        Records=[{"Data": caller.blob(b"%d" % n), "PartitionKey": str(n)} for n in range(500)],
    )
    page = caller.call("GetRecords", ShardIterator=token_of(caller, name))

    assert sorted(one) == ["SequenceNumber", "ShardId"]
    assert many["FailedRecordCount"] == 0
    assert [row["SequenceNumber"] for row in page["Records"]] == [
        one["SequenceNumber"],
        *(row["SequenceNumber"] for row in many["Records"]),
    ]
    first = page["Records"][0]
    assert sorted(first) == ["ApproximateArrivalTimestamp", "Data", "PartitionKey", "SequenceNumber"]
    assert (first["Data"], first["PartitionKey"]) == (caller.blob(every), key)
    arrival = first["ApproximateArrivalTimestamp"]
    if caller.content_type == CBOR:
        assert isinstance(arrival, Milliseconds)
        arrival /= 1000
    assert began - 0.001 <= arrival <= time.time()
    assert round(arrival * 1000) / 1000 == arrival


def test_numbers_too_large_for_json_are_text_and_times_have_three_decimals(endpoint: Served) -> None:
    connection = Http1(endpoint.url)
    caller = Caller(connection, JSON)
    name = created(caller)
    caller.call("PutRecord", StreamName=name, Data="eA==", PartitionKey="k")
    described = caller.ask("DescribeStream", StreamName=name).body.decode()
    page = caller.ask("GetRecords", ShardIterator=token_of(caller, name)).body.decode()
    connection.close()

    assert '"HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"340282366920938463463374607431768211455"}' in (
        described
    )
    assert re.search(r'"StreamCreationTimestamp":\d{10}(\.\d{1,3})?[,}]', described)
    assert re.search(r'"ApproximateArrivalTimestamp":\d{10}(\.\d{1,3})?[,}]', page)
    assert '"Data":"eA=="' in page
    assert "null" not in described + page


def test_json_and_cbor_say_the_same(endpoint: Served) -> None:
    connections = [Http1(endpoint.url), Http2(endpoint.url)]
    text, binary = (Caller(each, kind) for each, kind in zip(connections, (JSON, CBOR), strict=True))
    name = created(text, Tags={"équipe": "π"})
    text.call("PutRecord", StreamName=name, Data="eA==", PartitionKey="k")
    arn = text.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    text.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="fast")
    token = token_of(text, name)
    eventually(lambda: text.call("ListStreamConsumers", StreamARN=arn)["Consumers"][0]["ConsumerStatus"] == "ACTIVE")
    for operation, given in (
        ("DescribeStream", {"StreamName": name}),
        ("DescribeStreamSummary", {"StreamARN": arn}),
        ("ListShards", {"StreamName": name}),
        ("ListStreams", {"ExclusiveStartStreamName": name[:-1], "Limit": 1}),
        ("ListTagsForResource", {"ResourceARN": arn}),
        ("ListStreamConsumers", {"StreamARN": arn}),
        ("GetResourcePolicy", {"ResourceARN": arn}),
        ("DescribeLimits", {}),
        ("DescribeAccountSettings", {}),
        ("GetRecords", {"ShardIterator": token}),
        ("EnableEnhancedMonitoring", {"StreamName": name, "ShardLevelMetrics": ["ALL"]}),
    ):
        answers = [plain(caller.call(operation, **given)) for caller in (text, binary)]
        for answer in answers:
            for changing in ("NextShardIterator", "MillisBehindLatest", "CurrentShardLevelMetrics", "NextToken"):
                answer.pop(changing, None)
        assert answers[0] == answers[1], operation
    for each in connections:
        each.close()


def plain(value: Any) -> Any:
    """A decoded answer without what the encodings do differently."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Milliseconds):
        return value / 1000
    return value


def test_times_are_taken_as_milliseconds_as_seconds_and_without_their_tag(endpoint: Served) -> None:
    connection = Http1(endpoint.url)
    caller = Caller(connection, CBOR)
    name = created(caller)
    caller.call("PutRecord", StreamName=name, Data=b"x", PartitionKey="k")
    (record,) = caller.call("GetRecords", ShardIterator=token_of(caller, name))["Records"]
    arrival = record["ApproximateArrivalTimestamp"]
    eventually(lambda: time.time() * 1000 > arrival + 2)
    now = time.time()
    for timestamp, is_found in (
        (cbor2.CBORTag(1, arrival), True),
        (cbor2.CBORTag(1, arrival + 1), False),
        (cbor2.CBORTag(1, (arrival + 1) / 1000), False),
        ((arrival + 1) / 1000, False),
        (cbor2.CBORTag(1, int(now * 1000) - 60_000), True),
        (cbor2.CBORTag(1, now - 60.5), True),  # a float counts seconds
        (int(now) - 60, True),
        (now - 60.5, True),
    ):
        token = token_of(caller, name, "AT_TIMESTAMP", Timestamp=timestamp)
        assert bool(caller.call("GetRecords", ShardIterator=token)["Records"]) is is_found
    refused = caller.refusal(
        "GetShardIterator",
        StreamName=name,
        ShardId=SHARD,
        ShardIteratorType="AT_TIMESTAMP",
        Timestamp=cbor2.CBORTag(1, 10**13),
    )
    assert refused["__type"] == "InvalidArgumentException"
    assert refused["message"].startswith("The timestampInMillis parameter cannot be greater than")
    assert "timestampInMillis: 10000000000000," in refused["message"]
    connection.close()


def test_maps_lists_and_strings_without_a_length_are_read_as_the_sdk_for_java_writes_them(endpoint: Served) -> None:
    connection = Http1(endpoint.url)
    caller = Caller(connection, CBOR)
    name = created(caller)
    head, end = cbor2.dumps, b"\xff"
    record = b"\xbf" + head("Data") + b"\x5f" + head(b"in ") + head(b"parts") + end + head("PartitionKey")
    record += b"\x7f" + head("k") + head("ey") + end + end
    body = b"\xbf" + head("Records") + b"\x9f" + record + record + end + head("StreamName") + head(name) + end
    answer = connection.send(headers_of("PutRecords", CBOR), body)
    assert (answer.status, answer.value["FailedRecordCount"]) == (200, 0)
    records = caller.call("GetRecords", ShardIterator=token_of(caller, name))["Records"]
    assert [(row["Data"], row["PartitionKey"]) for row in records] == [(b"in parts", "key")] * 2
    connection.close()


def test_what_is_unknown_or_null_is_as_if_it_were_not_there(caller: Caller) -> None:
    name = created(caller)
    given = {"StreamName": name, "StreamARN": None, "Limit": None, "Colour": {"deep": [1, None]}, "StreamId": None}
    assert caller.call("DescribeStream", **given)["StreamDescription"]["StreamName"] == name


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("operation", "given", "expected"),
    [
        (
            "DescribeStream",
            {"StreamName": "nope"},
            {
                "__type": "ResourceNotFoundException",
                "message": f"Stream nope under account {ACCOUNT} not found.",
            },
        ),
        (
            "PutRecord",
            {"StreamName": "n", "PartitionKey": "", "ExplicitHashKey": "-1"},
            {
                "__type": "ValidationException",
                "message": "3 validation errors detected: Value null at 'data' failed to satisfy constraint: "
                "Member must not be null; Value '' at 'partitionKey' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1; Value '-1' at 'explicitHashKey' failed to "
                r"satisfy constraint: Member must satisfy regular expression pattern: ^(0|([1-9]\d{0,38}))$",
            },
        ),
        (
            "DescribeStream",
            {"StreamName": True},
            {
                "__type": "SerializationException",
                "Message": "class java.lang.Boolean can not be converted to an String",
            },
        ),
        (
            "PutRecords",
            {"StreamName": "n", "Records": "x"},
            {"__type": "SerializationException", "Message": "Expected list or null"},
        ),
        ("MakeCoffee", {}, {"__type": "UnknownOperationException"}),
    ],
    ids=["unknown", "constraints", "type", "list", "operation"],
)
def test_errors_have_one_form_in_both_encodings(
    caller: Caller, operation: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert caller.refusal(operation, **given) == expected


UNNAMED = (
    b"<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be authorized</Message>\n"
    b"</AccessDeniedException>\n"
)
BROKEN: dict[str, tuple[dict[str, str], bytes, int, str | None, bytes]] = {
    "no body": (headers_of("ListStreams"), b"", 400, JSON, b'{"__type":"SerializationException"}'),
    "no body, no operation": (headers_of("Nope"), b"", 400, JSON, b'{"__type":"UnknownOperationException"}'),
    "no body, cbor": (
        headers_of("ListStreams", CBOR),
        b"",
        400,
        CBOR,
        cbor2.dumps({"__type": "SerializationException"}),
    ),
    "no JSON": (headers_of("ListStreams"), b"{", 400, JSON, b'{"__type":"SerializationException"}'),
    "no object": (headers_of("ListStreams"), b"[]", 400, JSON, b'{"__type":"SerializationException"}'),
    "no CBOR": (headers_of("ListStreams", CBOR), b"\xff", 400, CBOR, cbor2.dumps({"__type": "SerializationException"})),
    "JSON said to be CBOR": (
        headers_of("ListStreams", CBOR),
        b"{}",
        400,
        CBOR,
        cbor2.dumps({"__type": "SerializationException"}),
    ),
    "another type": (headers_of("ListStreams", "text/plain"), b"{}", 404, None, b"<UnknownOperationException/>\n"),
    "another type, no operation": (headers_of("", "text/plain"), b"{}", 403, None, UNNAMED),
    "plain JSON": (
        headers_of("ListStreams", "application/json"),
        b"{}",
        404,
        "application/json",
        b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}',
    ),
    "plain JSON, broken": (
        headers_of("ListStreams", "application/json"),
        b"{",
        400,
        "application/json",
        b'{"Output":{"__type":"com.amazon.coral.service#SerializationException"},"Version":"1.0"}',
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_requests_that_no_sdk_sends_get_the_answers_of_aws(connection: Http1 | Http2, case: str) -> None:
    headers, body, status, content_type, expected = BROKEN[case]
    answer = connection.send(headers, body)
    assert (answer.status, answer.headers.get("content-type"), answer.body) == (status, content_type, expected)
    again = connection.send(headers_of("ListStreams", f"{JSON}; charset=utf-8"), b"{}", path="/any/path?at=all")
    assert again.status == 200  # the connection goes on


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(connection: Http1 | Http2, method: str) -> None:
    answer = connection.send({}, b"", method=method)
    assert (answer.status, answer.headers.get("content-type"), answer.body) == (403, None, UNNAMED)


def test_an_offer_to_upgrade_to_http_2_is_answered_by_http_1(endpoint: Served) -> None:
    connection = Http1(endpoint.url)
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    answer = connection.send({**headers_of("ListStreams"), **upgrade}, b"{}")
    assert answer.status == 200
    connection.close()


# ---------------------------------------------------------------------- what goes on


def test_a_subscription_is_pushed_in_the_encoding_of_its_caller(caller: Caller, endpoint: Served) -> None:
    name = created(caller)
    arn = caller.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    consumer = caller.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="fast")["Consumer"]["ConsumerARN"]
    body = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}}
    headers = headers_of("SubscribeToShard", caller.content_type)
    status, told, pieces = caller.connection.stream(headers, encode(caller.content_type, body))
    other = type(caller.connection)(endpoint.url)
    put = Caller(other, caller.content_type).call(
        "PutRecord", StreamName=name, Data=caller.blob(b"after"), PartitionKey="k"
    )
    other.close()

    frames = EventStreamBuffer()  # botocore's: it checks lengths and sums
    found: list[Any] = []
    while len(found) < 2:
        frames.add_data(next(pieces))
        found += frames
    first, second = found[:2]
    assert (status, told["content-type"]) == (200, "application/vnd.amazon.eventstream")
    assert "content-length" not in told
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "initial-response",
        ":content-type": caller.content_type,
    }
    assert first.payload == encode(caller.content_type, {})
    assert (second.headers[":message-type"], second.headers[":event-type"]) == ("event", "SubscribeToShardEvent")
    is_binary = caller.content_type == CBOR
    assert second.headers[":content-type"] == ("application/cbor" if is_binary else "application/json")
    event = decode(caller.content_type, second.payload)
    assert sorted(event) == ["ContinuationSequenceNumber", "MillisBehindLatest", "Records"]
    (record,) = event["Records"]
    assert (record["Data"], record["PartitionKey"]) == (caller.blob(b"after"), "k")
    assert record["SequenceNumber"] == event["ContinuationSequenceNumber"] == put["SequenceNumber"]
    assert isinstance(record["ApproximateArrivalTimestamp"], Milliseconds if is_binary else float | int)
