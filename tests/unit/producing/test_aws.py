"""Putting through boto3: what is called, what is tried again, what its errors become. botocore's own stub answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.stub import ANY, Stubber

from kflow.errors import ProvisionedThroughputExceeded, ResourceNotFound, UsageError
from kflow.producing.aws import RemoteStream
from kflow.producing.pipeline import Entries


@pytest.fixture
def sdk() -> Iterator[Any]:
    made = boto3.client(
        "kinesis",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        endpoint_url="http://127.0.0.1:1",
        config=Config(retries={"max_attempts": 0}),
    )
    yield made
    made.close()


@pytest.fixture
def stub(sdk: Any) -> Iterator[Stubber]:
    with Stubber(sdk) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def stored(number: int) -> dict[str, str]:
    return {"ShardId": "shardId-000000000000", "SequenceNumber": str(number)}


def test_one_record_is_one_put_record(sdk: Any, stub: Stubber) -> None:
    stub.add_response(
        "put_record",
        stored(5),
        {"StreamName": "orders", "Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "7"},
    )

    placed = RemoteStream("orders", sdk).put_one(b"x", "k", 7)

    assert (placed.shard_id, placed.sequence_number) == ("shardId-000000000000", 5)


def test_an_arn_goes_as_one(sdk: Any, stub: Stubber) -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
    stub.add_response("put_record", stored(5), {"StreamARN": arn, "Data": b"x", "PartitionKey": "k"})

    RemoteStream(arn, sdk).put_one(b"x", "k", None)


def test_only_what_failed_is_tried_again(sdk: Any, stub: Stubber) -> None:
    failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
    stub.add_response("put_records", {"FailedRecordCount": 1, "Records": [stored(1), failed, stored(3)]})
    stub.add_response(
        "put_records",
        {"Records": [stored(4)]},
        {"StreamName": "orders", "Records": [{"Data": b"b", "PartitionKey": "k"}]},
    )

    placed, failures = RemoteStream("orders", sdk).put_all(Entries(["k"] * 3, [b"a", b"b", b"c"]), ordered=False)

    assert [place.sequence_number for place in placed if place is not None] == [1, 4, 3]
    assert failures == {}


def test_a_call_takes_500_records_and_5_mib(sdk: Any, stub: Stubber) -> None:
    for count in (500, 100):
        stub.add_response("put_records", {"Records": [stored(1)] * count})
    for count in (5, 2):
        stub.add_response("put_records", {"Records": [stored(1)] * count})
    stream = RemoteStream("orders", sdk)

    stream.put_all(Entries(["k"] * 600, [b"x"] * 600), ordered=False)
    stream.put_all(Entries(["k"] * 7, [bytes(1_000_000)] * 7), ordered=False)


def test_ordered_puts_name_the_number_before_them_of_their_key(sdk: Any, stub: Stubber) -> None:
    for number, key, after in ((1, "a", None), (2, "b", None), (3, "a", "1")):
        more = {} if after is None else {"SequenceNumberForOrdering": after}
        expected = {"StreamName": "orders", "Data": ANY, "PartitionKey": key, **more}
        stub.add_response("put_record", stored(number), expected)

    placed, _ = RemoteStream("orders", sdk).put_all(Entries(["a", "b", "a"], [b"x"] * 3), ordered=True)

    assert [place.sequence_number for place in placed if place is not None] == [1, 2, 3]


def test_an_error_of_aws_is_ours_and_of_each_record(sdk: Any, stub: Stubber) -> None:
    stub.add_client_error("put_record", "ResourceNotFoundException", "Stream orders under account 1 not found.")
    stub.add_client_error("put_records", "ProvisionedThroughputExceededException", "slow down")
    stream = RemoteStream("orders", sdk)

    with pytest.raises(ResourceNotFound, match="Stream orders under account 1 not found"):
        stream.put_one(b"x", "k", None)
    placed, failures = stream.put_all(Entries(["k", "k"], [b"a", b"b"]), ordered=False)

    assert placed == [None, None]
    assert [(failure.status, type(failure.error)) for failure in failures.values()] == [
        ("refused", ProvisionedThroughputExceeded)
    ] * 2


def test_an_endpoint_that_is_not_there_refuses(sdk: Any) -> None:
    _, failures = RemoteStream("orders", sdk).put_all(Entries(["k"], [b"a"]), ordered=True)

    assert failures[0].status == "refused"
    assert "http://127.0.0.1:1" in str(failures[0].error)


def test_missing_credentials_are_the_callers_mistake_and_the_text_knows_local_data() -> None:
    def put_record(**_: object) -> None:
        from botocore.exceptions import NoCredentialsError

        raise NoCredentialsError

    sdk = type("Sdk", (), {"put_record": staticmethod(put_record)})()

    with pytest.raises(UsageError, match="KFLOW_TARGET=local"):
        RemoteStream("orders", sdk).put_one(b"x", "k", None)
