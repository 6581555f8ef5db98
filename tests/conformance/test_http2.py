"""HTTP/2 as the independent `h2` package speaks it to `kflow serve`: with prior knowledge, and by ALPN over TLS."""

from __future__ import annotations

import base64
import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.events
import h2.settings
import pytest
from botocore.eventstream import EventStreamBuffer

from tests.conformance.wire import CBOR, JSON, Caller, Http1, Http2, encode, headers_of
from tests.deadline import eventually
from tests.served import Served, served

SHARD = "shardId-000000000000"
MIB = 1 << 20


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("http2"), "--tls") as made:
        made.url = made.url.replace("https://", "http://")
        yield made


@pytest.fixture
def connection(endpoint: Served) -> Iterator[Http2]:
    made = Http2(endpoint.url)
    yield made
    made.close()


def create(connection: Http2, name: str, *, large: bool = False) -> str:
    """Make a stream; returns its ARN."""
    caller = Caller(connection, JSON)
    caller.call("CreateStream", StreamName=name, ShardCount=1, **({"MaxRecordSizeInKiB": 10_240} if large else {}))

    def is_active() -> Any:
        return summary(caller, name)["StreamStatus"] == "ACTIVE"

    eventually(is_active, what="the stream")
    return str(summary(caller, name)["StreamARN"])


def summary(caller: Caller, name: str) -> Any:
    return caller.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]


def subscribe(connection: Http2, arn: str) -> int:
    """Subscribe to the stream's shard from its end; returns the stream of HTTP/2."""
    caller = Caller(connection, JSON)
    consumer = caller.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="fast")["Consumer"]["ConsumerARN"]
    body = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}}
    stream = connection.ask(headers_of("SubscribeToShard"), encode(JSON, body))
    assert connection.head(stream)[0] == 200
    return stream


def records(connection: Http2, stream: int) -> list[str]:
    """The payloads that have come of a subscription."""
    frames = EventStreamBuffer()
    frames.add_data(connection.body(stream))
    events = [json.loads(frame.payload) for frame in frames][1:]
    return [base64.b64decode(record["Data"]).decode() for event in events for record in event["Records"]]


def frames(connection: Http2) -> Iterator[tuple[int, int, int, bytes]]:
    """What comes after a GOAWAY, which `h2` as a client does not read: type, flags, stream, payload of each frame."""
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            more = connection.socket.recv(65_536)
            assert more, "the server has closed the connection"
            data += more
        size = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]
        data = data[9 + size :]


def put(data: str, name: str) -> bytes:
    body = {"StreamName": name, "Data": base64.b64encode(data.encode()).decode(), "PartitionKey": "k"}
    return encode(JSON, body)


def test_a_hundred_requests_are_under_way_on_one_connection(connection: Http2) -> None:
    create(connection, "hundred")
    connection.wait(lambda: connection.has(0, h2.events.RemoteSettingsChanged))
    limit = connection.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
    streams = [connection.begin(headers_of("PutRecord")) for _ in range(100)]
    for number, stream in reversed(list(enumerate(streams))):
        connection.give(stream, put(f"{number}", "hundred"))
    answers = [connection.answer(stream) for stream in streams]
    assert limit == 100
    assert {answer.status for answer in answers} == {200}
    numbers = [int(answer.value["SequenceNumber"]) for answer in answers]
    assert numbers == sorted(numbers, reverse=True)  # in the order in which the bodies were complete


def test_puts_and_pings_go_on_beside_a_subscription_of_the_same_connection(connection: Http2) -> None:
    stream = subscribe(connection, create(connection, "beside"))
    for number in range(20):
        assert connection.send(headers_of("PutRecord"), put(f"{number}", "beside")).status == 200
    connection.h2.ping(b"12345678")
    connection.flush()
    connection.wait(lambda: connection.has(0, h2.events.PingAckReceived))
    connection.wait(lambda: len(records(connection, stream)) == 20)
    assert records(connection, stream) == [f"{number}" for number in range(20)]
    assert not connection.has(stream, h2.events.StreamEnded)


def test_a_subscription_that_is_reset_leaves_the_connection_and_can_be_taken_up(connection: Http2) -> None:
    arn = create(connection, "reset")
    stream = subscribe(connection, arn)
    connection.h2.reset_stream(stream)
    connection.flush()
    assert connection.send(headers_of("PutRecord"), put("one", "reset")).status == 200


def test_an_answer_waits_for_its_window_and_holds_up_no_other(endpoint: Served) -> None:
    connection = Http2(endpoint.url, window=1_000)
    connection.renews = False
    caller = Caller(connection, JSON)
    create(connection, "window", large=True)
    large = base64.b64encode(b"x" * MIB * 3).decode()
    caller.call("PutRecord", StreamName="window", Data=large, PartitionKey="k")
    token = caller.call("GetShardIterator", StreamName="window", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    stream = connection.ask(headers_of("GetRecords"), encode(JSON, token))
    connection.wait(lambda: len(connection.body(stream)) == 1_000)
    assert caller.call("DescribeLimits")["OpenShardCount"] >= 1
    assert len(connection.body(stream)) == 1_000

    connection.h2.increment_flow_control_window(4_000, stream)  # by a window of its own
    connection.flush()
    connection.wait(lambda: len(connection.body(stream)) == 5_000)
    connection.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 6_000})  # for all streams
    connection.flush()
    connection.wait(lambda: len(connection.body(stream)) == 10_000)
    connection.h2.increment_flow_control_window(8 * MIB)
    connection.h2.increment_flow_control_window(8 * MIB, stream)
    connection.flush()
    (record,) = connection.answer(stream).value["Records"]
    assert record["Data"] == large
    connection.close()


@pytest.mark.parametrize(("piece", "padding"), [(1, None), (100, 255), (16_384, 7)])
def test_a_body_may_come_in_pieces_of_any_size(connection: Http2, piece: int, padding: int | None) -> None:
    name = f"pieces-{piece}"
    create(connection, name)
    data = "0123456789" * (piece * 5)
    stream = connection.begin(headers_of("PutRecord"))
    connection.give(stream, put(data, name), piece=piece, padding=padding)
    assert connection.answer(stream).status == 200


def test_ten_mebibytes_go_in_and_come_out(connection: Http2) -> None:
    create(connection, "large", large=True)
    caller = Caller(connection, CBOR)
    rows = [{"Data": bytes([number]) * (MIB - 1), "PartitionKey": "k"} for number in range(10)]
    assert caller.call("PutRecords", StreamName="large", Records=rows)["FailedRecordCount"] == 0
    token = caller.call("GetShardIterator", StreamName="large", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    found = caller.call("GetRecords", **token)["Records"]
    assert [row["Data"] for row in found] == [row["Data"] for row in rows]


def test_trailers_end_a_request_and_a_long_head_is_continued(connection: Http2) -> None:
    create(connection, "head")
    headers = {**headers_of("PutRecord"), "x-amz-security-token": "t" * 30_000}  # longer than a frame
    stream = connection.begin(headers)
    body = put("x", "head")
    connection.h2.send_data(stream, body)
    connection.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    connection.flush()
    assert connection.answer(stream).status == 200


def test_a_request_that_is_broken_off_is_forgotten_and_the_others_go_on(connection: Http2) -> None:
    create(connection, "broken")
    caller = Caller(connection, JSON)
    body = put("x", "broken")
    stream = connection.begin(headers_of("PutRecord"))
    connection.h2.send_data(stream, body[:10])
    connection.h2.reset_stream(stream)
    connection.flush()
    connection.send(headers_of("PutRecord"), body)
    token = caller.call("GetShardIterator", StreamName="broken", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    assert len(caller.call("GetRecords", **token)["Records"]) == 1


def test_a_name_that_is_not_of_this_machine_is_refused(connection: Http2) -> None:
    connection.authority = "kinesis.attacker.example"
    answer = connection.send(headers_of("ListStreams"), b"{}")
    assert answer.status == 403
    assert b"is no name of this endpoint" in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_over_tls_http_2_is_chosen_and_the_certificate_holds_for_every_name_of_this_machine(
    endpoint: Served, host: str
) -> None:
    url = endpoint.url.replace("127.0.0.1", host)
    connection = Http2(url, ca=str(endpoint.data_dir / "tls" / "localhost.pem"))
    stream = subscribe(connection, create(connection, f"tls-{host}"))
    connection.send(headers_of("PutRecord"), put("one", f"tls-{host}"))
    connection.wait(lambda: records(connection, stream) == ["one"])
    connection.close()


def test_a_stopped_endpoint_says_goodbye_finishes_what_is_under_way_and_lets_the_peer_close(tmp_path: Path) -> None:
    with served(tmp_path) as endpoint:
        connection = Http2(endpoint.url)
        stream = subscribe(connection, create(connection, "orders"))
        connection.send(headers_of("PutRecord"), put("one", "orders"))
        connection.wait(lambda: records(connection, stream) == ["one"])
        endpoint.process.send_signal(signal.SIGTERM)
        found = frames(connection)
        assert next(found) == (7, 0, 0, struct.pack(">II", max(connection.events), 0))  # GOAWAY: no error
        assert next(found) == (0, 1, stream, b"")  # DATA that ends the stream
        connection.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            next(found)  # it is the peer that closes, when it has read what it was sent
        connection.close()
        assert endpoint.process.wait(60) == 0
        endpoint.start()
        again = Http1(endpoint.url)
        assert Caller(again, JSON).call("ListStreams")["StreamNames"] == ["orders"]
        again.close()
