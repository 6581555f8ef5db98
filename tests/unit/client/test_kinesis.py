"""`kflow.client("kinesis")`: boto3's methods, answers and errors over local data."""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, OperationNotPageableError, ParamValidationError

import kflow
from kflow.broker.checkpoints import slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.writing import writing
from kflow.client import kinesis
from kflow.errors import UsageError
from kflow.producing import runtime

SHARD_0 = "shardId-000000000000"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder.open(tmp_path / "data", create=True, fsync="none")
    with writing(made) as log:
        log.create_stream("orders", 2)
    with runtime(made.path):
        yield made


@pytest.fixture
def client(folder: DataFolder) -> Any:
    return kflow.client("kinesis")


def put(client: Any, *datas: bytes, shard: int = 0) -> list[str]:
    """Put records into one shard; their sequence numbers."""
    hash_key = str(shard * 2**127)
    records = [{"Data": data, "PartitionKey": "k", "ExplicitHashKey": hash_key} for data in datas]
    return [entry["SequenceNumber"] for entry in client.put_records(StreamName="orders", Records=records)["Records"]]


def read(client: Any, iterator: str, **options: Any) -> tuple[list[bytes], dict[str, Any]]:
    answer = client.get_records(ShardIterator=iterator, **options)
    return [record["Data"] for record in answer["Records"]], answer


def iterator(client: Any, kind: str, **options: Any) -> str:
    answer = client.get_shard_iterator(StreamName="orders", ShardId=SHARD_0, ShardIteratorType=kind, **options)
    token: str = answer["ShardIterator"]
    return token


def error(call: Any, **parameters: Any) -> dict[str, str]:
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    found: dict[str, str] = raised.value.response["Error"]
    return found


def test_a_record_put_comes_back_as_boto3_shows_it(client: Any) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    answer = client.put_record(StreamName="orders", Data=b"x", PartitionKey="k", ExplicitHashKey="0")
    assert answer["ShardId"] == SHARD_0
    assert len(answer["SequenceNumber"]) == 56
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200

    (record,) = client.get_records(ShardIterator=iterator(client, "TRIM_HORIZON"))["Records"]
    arrival = record.pop("ApproximateArrivalTimestamp")
    assert before <= arrival <= datetime.now(UTC)
    assert record == {"SequenceNumber": answer["SequenceNumber"], "Data": b"x", "PartitionKey": "k"}


def test_put_records_answers_by_index(client: Any) -> None:
    answer = client.put_records(
        StreamName="orders",
        Records=[
            {"Data": "text", "PartitionKey": "k", "ExplicitHashKey": "0"},
            {"Data": bytearray(b"array"), "PartitionKey": "k", "ExplicitHashKey": str(2**128 - 1)},
            {"Data": io.BytesIO(b"file"), "PartitionKey": "k", "ExplicitHashKey": "0"},
        ],
    )

    assert answer["FailedRecordCount"] == 0
    assert [entry["ShardId"] for entry in answer["Records"]] == [SHARD_0, "shardId-000000000001", SHARD_0]
    assert read(client, iterator(client, "TRIM_HORIZON"))[0] == [b"text", b"file"]


def test_pages_follow_each_other_and_using_a_token_twice_reads_the_same(client: Any) -> None:
    put(client, *[b"%d" % number for number in range(7)])
    put(client, *[b"%d" % number for number in range(7, 10)])
    token = iterator(client, "TRIM_HORIZON")

    first, answer = read(client, token, Limit=4)
    assert first == [b"0", b"1", b"2", b"3"]
    assert answer["MillisBehindLatest"] >= 0
    assert read(client, token, Limit=4)[0] == first
    second, answer = read(client, answer["NextShardIterator"], Limit=4)
    third, answer = read(client, answer["NextShardIterator"], Limit=4)
    assert second + third == [b"4", b"5", b"6", b"7", b"8", b"9"]
    nothing, last = read(client, answer["NextShardIterator"])
    assert (nothing, last["MillisBehindLatest"]) == ([], 0)
    assert last["NextShardIterator"] != answer["NextShardIterator"]


def test_a_page_holds_10_mib_and_always_one_record(client: Any) -> None:
    put(client, *[bytes(1_000_000)] * 9)
    put(client, *[bytes(1_000_000)] * 9)
    token = iterator(client, "TRIM_HORIZON")

    first, answer = read(client, token)
    second, _ = read(client, answer["NextShardIterator"])
    assert (len(first), len(second)) == (10, 8)


def test_iterators_begin_where_their_type_says(client: Any) -> None:
    numbers = put(client, b"a", b"b", b"c")
    latest = iterator(client, "LATEST")
    put(client, b"d")

    at = iterator(client, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1])
    assert read(client, at)[0] == [b"b", b"c", b"d"]
    after = iterator(client, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1])
    assert read(client, after)[0] == [b"c", b"d"]
    assert read(client, latest)[0] == [b"d"]
    past = datetime.now(UTC) - timedelta(hours=1)
    assert read(client, iterator(client, "AT_TIMESTAMP", Timestamp=past))[0] == [b"a", b"b", b"c", b"d"]


def test_a_shards_own_starting_number_is_a_place(client: Any) -> None:
    put(client, b"a")
    start = client.list_shards(StreamName="orders")["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"]

    assert read(client, iterator(client, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=start))[0] == [b"a"]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}, "InvalidArgumentException", "and no StartingSequenceNumber."),
        (
            {"ShardIteratorType": "LATEST", "StartingSequenceNumber": "1"},
            "InvalidArgumentException",
            "and also a StartingSequenceNumber.",
        ),
        (
            {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "17"},
            "InvalidArgumentException",
            "StartingSequenceNumber 17 used in GetShardIterator on shard shardId-000000000000 in stream orders",
        ),
        ({"ShardIteratorType": "AT_TIMESTAMP"}, "InvalidArgumentException", "Must specify timestampInMillis parameter"),
        (
            {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime(2999, 1, 1, tzinfo=UTC)},
            "InvalidArgumentException",
            "cannot be greater than the currentTimestampInMillis",
        ),
        ({"ShardIteratorType": "SOMEWHERE"}, "ValidationException", "Member must satisfy enum value set"),
        (
            {"ShardIteratorType": "LATEST", "ShardId": "shardId-000000000007"},
            "ResourceNotFoundException",
            "Shard shardId-000000000007 in stream orders under account 123456789012 does not exist",
        ),
        (
            {"ShardIteratorType": "LATEST", "ShardId": "what"},
            "ResourceNotFoundException",
            "Could not find shard what in stream orders under account 123456789012.",
        ),
        (
            {"ShardIteratorType": "LATEST", "StreamName": "none"},
            "ResourceNotFoundException",
            "Shard shardId-000000000000 in stream none under account 123456789012 does not exist",
        ),
    ],
)
def test_an_iterator_that_cannot_be_is_refused_in_awss_words(
    client: Any, options: dict[str, Any], code: str, text: str
) -> None:
    found = error(client.get_shard_iterator, **{"StreamName": "orders", "ShardId": SHARD_0, **options})

    assert found["Code"] == code
    assert text in found["Message"]


def test_a_number_of_another_shard_or_stream_is_refused(client: Any) -> None:
    (number,) = put(client, b"x", shard=1)
    found = error(
        client.get_shard_iterator,
        StreamName="orders",
        ShardId=SHARD_0,
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        StartingSequenceNumber=number,
    )
    assert found["Message"].startswith("Invalid StartingSequenceNumber. It encodes shardId-000000000001, while")


def test_the_positions_of_consumers_go_with_their_stream(client: Any, folder: DataFolder) -> None:
    slots = Path(slots_path(folder.path, "bill", folder.map("orders").id))
    slots.parent.mkdir(parents=True)
    slots.touch()
    client.delete_stream(StreamName="orders")
    assert not slots.exists()


def test_an_iterator_of_a_deleted_stream_finds_nothing(client: Any) -> None:
    token = iterator(client, "LATEST")
    client.delete_stream(StreamName="orders")
    client.create_stream(StreamName="orders", ShardCount=2)

    assert error(client.get_records, ShardIterator=token)["Code"] == "ResourceNotFoundException"


def test_shards_are_listed_with_their_ranges_and_in_pages(client: Any) -> None:
    client.create_stream(StreamName="many", ShardCount=5)
    (first, *_) = client.list_shards(StreamName="many", MaxResults=1)["Shards"]
    assert first["HashKeyRange"] == {
        "StartingHashKey": "0",
        "EndingHashKey": "68056473384187692692674921486353642290",
    }
    assert "EndingSequenceNumber" not in first["SequenceNumberRange"]

    page = client.list_shards(StreamName="many", MaxResults=2)
    ids = [shard["ShardId"] for shard in page["Shards"]]
    while "NextToken" in page:
        page = client.list_shards(NextToken=page["NextToken"], MaxResults=2)
        ids += [shard["ShardId"] for shard in page["Shards"]]
    assert ids == [f"shardId-{index:012d}" for index in range(5)]
    found = error(client.list_shards, StreamName="many", NextToken="x")
    assert found["Message"] == "NextToken and StreamName cannot be provided together."
    assert [
        len(client.list_shards(StreamName="many", ShardFilter=wanted)["Shards"])
        for wanted in ({"Type": "AT_LATEST"}, {"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000003"})
    ] == [5, 1]


def test_a_stream_is_described_as_aws_does(client: Any) -> None:
    description = client.describe_stream(StreamName="orders")["StreamDescription"]
    created = description.pop("StreamCreationTimestamp")
    shards = description.pop("Shards")

    assert created.tzinfo is not None
    assert [shard["ShardId"] for shard in shards] == [SHARD_0, "shardId-000000000001"]
    assert description == {
        "StreamName": "orders",
        "StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "HasMoreShards": False,
    }
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
    summary = client.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["ConsumerCount"], summary["MaxRecordSizeInKiB"]) == (2, 0, 1024)


def test_streams_are_listed_by_name_and_in_pages(client: Any) -> None:
    for name in ("b", "a", "c"):
        client.create_stream(StreamName=name, ShardCount=1)

    page = client.list_streams(Limit=3)
    assert (page["StreamNames"], page["HasMoreStreams"]) == (["a", "b", "c"], True)
    assert client.list_streams(NextToken=page["NextToken"])["StreamNames"] == ["orders"]
    assert client.list_streams(ExclusiveStartStreamName="bb")["StreamNames"] == ["c", "orders"]


def test_errors_are_botocores_and_have_their_own_classes(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as raised:
        client.put_record(StreamName="none", Data=b"x", PartitionKey="k")
    assert isinstance(raised.value, ClientError)
    assert str(raised.value) == (
        "An error occurred (ResourceNotFoundException) when calling the PutRecord operation: "
        "Stream none under account 123456789012 not found."
    )
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(client.exceptions.ResourceInUseException, match=r"Stream orders .* already exists"):
        client.create_stream(StreamName="orders", ShardCount=1)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.put_records(StreamName="none", Records=[{"Data": b"x", "PartitionKey": "k"}])
    with pytest.raises(client.exceptions.ClientError):
        client.describe_stream(StreamName="none")


@pytest.mark.parametrize(
    ("records", "code", "text"),
    [
        ([{"Data": b"", "PartitionKey": "k"}] * 501, "ValidationException", "less than or equal to 500"),
        ([{"Data": b"x"}], "ValidationException", "Value null at 'records.1.member.partitionKey'"),
        ([{"Data": bytes(1_048_577), "PartitionKey": "k"}], "ValidationException", "records.1.member.data"),
        ([{"Data": bytes(1_000_000), "PartitionKey": "k"}] * 11, "InvalidArgumentException", "exceeds 10 MB"),
        ([{"Data": b"", "PartitionKey": "k", "ExplicitHashKey": "-1"}], "ValidationException", "explicitHashKey"),
        (
            [{"Data": b"", "PartitionKey": "k", "ExplicitHashKey": str(2**128)}],
            "InvalidArgumentException",
            f"value was {2**128}",
        ),
    ],
)
def test_records_that_are_not_acceptable_fail_the_whole_call(
    client: Any, records: list[dict[str, Any]], code: str, text: str
) -> None:
    found = error(client.put_records, StreamName="orders", Records=records)

    assert found["Code"] == code
    assert text in found["Message"]
    assert read(client, iterator(client, "TRIM_HORIZON"))[0] == []


def test_parameters_are_checked_as_botocore_does(client: Any) -> None:
    with pytest.raises(ParamValidationError, match='Missing required parameter in input: "Data"') as raised:
        client.put_record(StreamName=7, Foo=1)
    assert 'Unknown parameter in input: "Foo", must be one of: StreamName, Data, PartitionKey' in str(raised.value)
    assert "Invalid type for parameter StreamName, value: 7" in str(raised.value)
    with pytest.raises(ParamValidationError, match=r'Missing required parameter in Records\[0\]: "Data"'):
        client.put_records(StreamName="orders", Records=[{"PartitionKey": "k"}])
    for records in ([], [{"Data": b"x", "PartitionKey": ""}]):
        with pytest.raises(ParamValidationError, match="valid min length: 1"):
            client.put_records(StreamName="orders", Records=records)
    with pytest.raises(ParamValidationError, match='Unknown parameter in input: "Limit"'):
        client.describe_limits(Limit=1)
    with pytest.raises(ParamValidationError, match="Invalid type for parameter Data, value: 5"):
        client.put_record(StreamName="orders", Data=5, PartitionKey="k")


def test_a_name_and_an_arn_must_agree_and_one_must_be_there(client: Any) -> None:
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/other"
    client.create_stream(StreamName="other", ShardCount=1)

    assert error(client.describe_stream, StreamName="orders", StreamARN=arn)["Code"] == "InvalidArgumentException"
    assert error(client.describe_stream)["Code"] == "InvalidArgumentException"


def test_what_is_not_there_is_said_with_what_is(client: Any) -> None:
    with pytest.raises(AttributeError, match="has no 'generate_presigned_url'; it has acknowledge_dead_letter_queue"):
        client.generate_presigned_url("put_record")
    assert copy.copy(client).list_streams()["StreamNames"] == ["orders"]


def test_the_client_has_all_that_boto3s_has_but_for_what_its_documentation_names(client: Any) -> None:
    theirs = boto3.client("kinesis", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s")
    documentation = str(kinesis.__doc__)

    absent = {name for name in dir(theirs) if name[0] != "_"} - set(dir(client))
    absent |= {f"meta.{name}" for name in dir(theirs.meta) if name[0] != "_" and not hasattr(client.meta, name)}
    said = documentation.partition("Absent: ")[2].partition(". ")[0].replace("\n", " ").split(", ")
    assert sorted(said) == sorted(absent)
    assert client.meta.method_to_api_mapping == theirs.meta.method_to_api_mapping
    assert sorted(client.waiter_names) == sorted(theirs.waiter_names)
    assert client.meta.region_name == "us-east-1"


def test_pages_and_waiters_are_botocores(client: Any) -> None:
    client.create_stream(StreamName="many", ShardCount=5)
    pages = client.get_paginator("describe_stream").paginate(StreamName="many", PaginationConfig={"PageSize": 2})
    assert [len(page["StreamDescription"]["Shards"]) for page in pages] == [2, 2, 1]
    assert (client.can_paginate("list_streams"), client.can_paginate("put_record")) == (True, False)
    with pytest.raises(OperationNotPageableError):
        client.get_paginator("put_record")

    client.get_waiter("stream_exists").wait(StreamName="many")
    client.delete_stream(StreamName="many")
    client.get_waiter("stream_not_exists").wait(StreamName="many")
    with pytest.raises(ValueError, match="Waiter does not exist: none"):
        client.get_waiter("none")


def test_times_are_taken_as_botocore_takes_them(client: Any) -> None:
    put(client, b"a")
    for moment in ("2020-01-01T00:00:00Z", "1577836800", 1577836800, 1577836800.5, datetime(2020, 1, 1)):  # noqa: DTZ001
        assert read(client, iterator(client, "AT_TIMESTAMP", Timestamp=moment))[0] == [b"a"]


def test_only_kinesis_has_a_client(folder: DataFolder) -> None:
    with pytest.raises(UsageError, match="sqs"):
        kflow.client("sqs")


def test_the_module_of_the_same_name_can_be_called(folder: DataFolder) -> None:
    module = importlib.import_module("kflow.client")

    assert module("kinesis").list_streams()["StreamNames"] == ["orders"]


def test_another_target_gets_boto3s_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    assert kflow.client("kinesis", target="http://127.0.0.1:1").meta.endpoint_url == "http://127.0.0.1:1"
