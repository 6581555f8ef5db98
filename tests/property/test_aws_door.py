"""Whatever is sent to the door, one answer comes, and none is our fault."""

import contextlib
import json

import cbor2
from hypothesis import example, given
from hypothesis import strategies as st

from kflow.aws import cbor
from tests.unit.aws.fakes import SIGNED, Exchange, Kinesis, make_door

TYPES = [
    "application/x-amz-json-1.1",
    "application/x-amz-cbor-1.1",
    "application/json",
    "text/plain",
    "",
    ";",
    "x" * 99,
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["StreamName", "StreamARN", "Data", "Records", "PartitionKey", "Tags", "Limit", "ShardFilter"]),
    VALUES,
)


def json_of(value):
    return json.dumps(value, default=lambda data: data.hex()).encode("utf-8", "surrogatepass")


def cbor_of(value):
    try:
        return cbor2.dumps(value)
    except (UnicodeEncodeError, ValueError):
        return b"\xa0"


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(TYPES) | st.text(max_size=20),
        "x-amz-target": st.sampled_from(
            [f"Kinesis_20131202.{name}" for name in ("PutRecord", "PutRecords", "ListShards", "AddTagsToStream", "No")]
        )
        | st.text(max_size=20),
        "authorization": st.sampled_from([SIGNED, "", "AWS4-HMAC-SHA256 Credential=////,"]) | st.text(max_size=40),
        "host": st.sampled_from(["localhost", "127.0.0.1:80", "evil", "[::1]", "[", "a@b:c:d"]) | st.text(max_size=20),
        "origin": st.sampled_from(["http://localhost", "http://evil", "null", "http://[", ""]) | st.text(max_size=20),
        "accept": st.sampled_from(TYPES),
        "access-control-request-headers": st.text(max_size=20),
    },
)
SERVICE = {name: {} for name in ("put_record", "put_records", "list_shards")} | {"add_tags_to_stream": None}


@given(
    st.sampled_from(["POST", "POST", "POST", "GET", "OPTIONS", "", "\x00"]),
    st.sampled_from(["/", "/_kflow/health", "*", "", "/?X-Amz-Credential=a/b/c/d/e", "/?%zz"]) | st.text(max_size=20),
    HEADERS,
    st.binary(max_size=200) | MEMBERS.map(json_of) | MEMBERS.map(cbor_of),
)
@example("POST", "/", {"x-amz-target": "Kinesis_20131202.PutRecord", "content-type": TYPES[0]}, b'{"Data":"="}')
def test_every_request_gets_one_answer_and_never_a_fault_of_ours(method, target, headers, body):
    exchange = Exchange(method, target, headers, body)
    make_door(Kinesis(**SERVICE))(exchange)
    assert exchange.answer.status < 500
    assert b"x-amzn-RequestId" in exchange.answer.headers


@given(st.binary(max_size=300))
def test_any_bytes_are_cbor_or_are_refused(content):
    with contextlib.suppress(cbor.CborError):
        cbor.decode(content)


@given(st.binary(max_size=20), st.integers(0, 200))
def test_a_piece_of_good_cbor_is_refused(tail, cut):
    content = cbor2.dumps({"StreamName": "orders", "Records": [{"Data": tail, "PartitionKey": "k"}] * 3})
    if cut < len(content):
        try:
            cbor.decode(content[:cut])
        except cbor.CborError:
            return
        raise AssertionError("a piece was taken for the whole")
