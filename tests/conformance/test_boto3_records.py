"""Records by boto3: sizes at each limit, places to begin at, distribution, encryption, tokens that grow old."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.kinesis import iterators, pages
from tests.botoing import ACCOUNT, LIVES, Desk, desk, refusal
from tests.deadline import eventually

SHARD = "shardId-000000000000"
MIB = 1 << 20
IA = "InvalidArgumentException"
V = "ValidationException"


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, it: Desk) -> Desk:
    """Each test makes what it needs, in each life of the endpoint."""
    it.reach(request.param)
    return it


def hash_key(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")


# ---------------------------------------------------------------------- sizes


def check_sizes(it: Desk, kib: int) -> None:
    """Whether a stream takes records of so many KiB, data and key together, and no larger ones."""
    client = it.client()
    name = it.stream(MaxRecordSizeInKiB=kib)
    data = b"x" * (kib * 1024 - 2)
    client.put_record(StreamName=name, Data=data, PartitionKey="é")  # two bytes, one character
    assert refusal(client.put_record, StreamName=name, Data=data, PartitionKey="éa").code == IA
    whole = data + b"xx"
    assert refusal(client.put_record, StreamName=name, Data=whole, PartitionKey="k").code == IA
    assert refusal(client.put_record, StreamName=name, Data=whole + b"x", PartitionKey="k") == (
        V,
        (
            "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must "
            "have length less than "
            f"or equal to {kib * 1024}"
        ),
        400,
    )
    client.put_record(StreamName=name, Data=b"", PartitionKey="k")
    assert [len(record["Data"]) for record in it.read(name)] == [len(data), 0]


def test_a_record_may_be_as_large_as_1_mib_with_its_key(living: Desk) -> None:
    check_sizes(living, 1024)


def test_a_record_may_be_as_large_as_10_mib_where_its_stream_says_so(it: Desk) -> None:
    check_sizes(it, 10240)


def test_put_records_takes_500_records(living: Desk) -> None:
    client = living.client()
    name = living.stream(4)
    records = [{"Data": b"%d" % n, "PartitionKey": f"key-{n}"} for n in range(500)]
    answer = client.put_records(StreamName=name, Records=records)
    assert answer["FailedRecordCount"] == 0
    assert len(answer["Records"]) == 500
    assert "EncryptionType" not in answer
    shards = [f"shardId-{hash_key(record['PartitionKey']) >> 126:012d}" for record in records]
    assert [each["ShardId"] for each in answer["Records"]] == shards
    placed = {(each["ShardId"], each["SequenceNumber"]): n for n, each in enumerate(answer["Records"])}
    assert len(placed) == 500
    for n in range(4):
        shard = f"shardId-{n:012d}"
        found = living.read(name, shard=shard)
        assert [placed[shard, each["SequenceNumber"]] for each in found] == sorted(int(each["Data"]) for each in found)
        assert len(found) == shards.count(shard)


def test_put_records_takes_10_mib_and_not_a_byte_more(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    records = [{"Data": b"x" * (MIB - 1), "PartitionKey": "k"} for _ in range(10)]
    assert client.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0
    more = [*records[:9], {"Data": b"x" * (MIB - 2), "PartitionKey": "k"}, {"Data": b"", "PartitionKey": "kk"}]
    assert refusal(client.put_records, StreamName=name, Records=more) == (IA, "Records size exceeds 10 MB limit", 400)
    assert len(living.read(name)) == 10


def test_get_records_stops_before_the_record_that_would_exceed_10_mib_and_at_the_limit(it: Desk) -> None:
    client = it.client()
    name = it.stream(MaxRecordSizeInKiB=10240)
    for size in (4 * MIB, 4 * MIB, 4 * MIB, 10 * MIB - 1, 1, 1):
        client.put_record(StreamName=name, Data=b"x" * size, PartitionKey="k")
    token, sizes = it.iterator(name), []
    for _ in range(4):
        page = client.get_records(ShardIterator=token)
        sizes.append([len(record["Data"]) for record in page["Records"]])
        token = page["NextShardIterator"]
    assert sizes == [[4 * MIB, 4 * MIB], [4 * MIB], [10 * MIB - 1], [1, 1]]
    page = client.get_records(ShardIterator=it.iterator(name), Limit=1)
    assert len(page["Records"]) == 1
    assert page["MillisBehindLatest"] >= 0


def test_a_partition_key_is_counted_in_characters(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    key = "\U0001f600" * 256
    client.put_record(StreamName=name, Data=b"", PartitionKey=key)
    assert living.read(name)[0]["PartitionKey"] == key
    assert refusal(client.put_record, StreamName=name, Data=b"", PartitionKey=key + "x").code == V


# ---------------------------------------------------------------------- where they go, and in which order


def test_explicit_hash_keys_choose_the_shard_at_both_ends_of_its_range(living: Desk) -> None:
    client = living.client()
    name = living.stream(3)
    ranges = [
        (int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]))
        for shard in client.list_shards(StreamName=name)["Shards"]
    ]
    assert ranges[0][1] == 113427455640312821154458202477256070484
    assert ranges[2] == (226854911280625642308916404954512140970, 340282366920938463463374607431768211455)
    for index, bounds in enumerate(ranges):
        for bound in bounds:
            put = client.put_record(StreamName=name, Data=b"", PartitionKey="k", ExplicitHashKey=str(bound))
            assert put["ShardId"] == f"shardId-{index:012d}"


def test_numbers_for_ordering_may_be_of_any_earlier_record(living: Desk) -> None:
    client = living.client()
    name = living.stream(2)
    first = client.put_record(StreamName=name, Data=b"1", PartitionKey="k", ExplicitHashKey="0")["SequenceNumber"]
    second = client.put_record(
        StreamName=name, Data=b"2", PartitionKey="k", ExplicitHashKey="0", SequenceNumberForOrdering=first
    )
    assert int(second["SequenceNumber"]) > int(first)
    other = client.put_record(
        StreamName=name, Data=b"3", PartitionKey="k", ExplicitHashKey=str(1 << 127), SequenceNumberForOrdering=first
    )
    assert other["ShardId"] == "shardId-000000000001"


def test_auto_distribution_needs_no_key_and_gives_back_those_that_were_given(living: Desk) -> None:
    client = living.client()
    name = living.on_demand()
    text = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: "
    missing = (V, text + "Member must not be null", 400)
    assert refusal(client.put_record, StreamName=name, Data=b"x") == missing
    client.update_stream_record_distribution_strategy(StreamARN=living.arn(name), RecordDistributionStrategy="AUTO")
    client.put_record(StreamName=name, Data=b"none")
    client.put_records(
        StreamName=name,
        Records=[{"Data": b"key", "PartitionKey": "k"}, {"Data": b"none"}, {"Data": b"both", "PartitionKey": "k"}],
    )
    found = [record for n in range(4) for record in living.read(name, shard=f"shardId-{n:012d}")]
    assert sorted((record["Data"], record.get("PartitionKey")) for record in found if record["Data"] != b"none") == [
        (b"both", "k"),
        (b"key", "k"),
    ]
    assert ["PartitionKey" in record for record in found if record["Data"] == b"none"] == [False, False]
    strategy = "USER_PARTITION_KEY"
    client.update_stream_record_distribution_strategy(StreamARN=living.arn(name), RecordDistributionStrategy=strategy)
    assert refusal(client.put_record, StreamName=name, Data=b"x") == missing


def test_encryption_is_said_of_records_that_were_put_under_it(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    key = {"EncryptionType": "KMS", "KeyId": "12345678-1234-1234-1234-123456789012"}
    plain = client.put_record(StreamName=name, Data=b"plain", PartitionKey="k")
    client.start_stream_encryption(StreamName=name, **key)
    sealed = client.put_record(StreamName=name, Data=b"sealed", PartitionKey="k")
    many = client.put_records(StreamName=name, Records=[{"Data": b"many", "PartitionKey": "k"}])
    client.stop_stream_encryption(StreamName=name, **key)
    after = client.put_record(StreamName=name, Data=b"after", PartitionKey="k")
    assert [each.get("EncryptionType") for each in (plain, sealed, many, after)] == [None, "KMS", "KMS", None]
    found = {record["Data"]: record.get("EncryptionType") for record in living.read(name)}
    assert found == {b"plain": None, b"sealed": "KMS", b"many": "KMS", b"after": None}


# ---------------------------------------------------------------------- where reading begins


def test_iterators_of_every_type_begin_where_they_say(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    put = [client.put_record(StreamName=name, Data=b"%d" % n, PartitionKey="k")["SequenceNumber"] for n in range(4)]

    def datas(kind: str, **at: Any) -> bytes:
        return b"".join(record["Data"] for record in living.read(name, kind, **at))

    start = client.list_shards(StreamName=name)["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"]
    latest = living.iterator(name, "LATEST")
    assert datas("TRIM_HORIZON") == b"0123"
    assert datas("LATEST") == b""
    assert datas("AT_SEQUENCE_NUMBER", StartingSequenceNumber=put[1]) == b"123"
    assert datas("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=put[1]) == b"23"
    assert datas("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=put[3]) == b""
    assert datas("AT_SEQUENCE_NUMBER", StartingSequenceNumber=start) == b"0123"
    assert datas("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=start) == b"0123"
    assert datas("AT_TIMESTAMP", Timestamp=1) == b"0123"
    assert datas("AT_TIMESTAMP", Timestamp=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) == b"0123"
    client.put_record(StreamName=name, Data=b"4", PartitionKey="k")
    assert [each["Data"] for each in client.get_records(ShardIterator=latest)["Records"]] == [b"4"]


def test_a_time_begins_with_the_first_record_that_is_not_older(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    client.put_record(StreamName=name, Data=b"before", PartitionKey="k")
    (before,) = living.read(name)
    arrived = before["ApproximateArrivalTimestamp"]
    between = arrived + dt.timedelta(milliseconds=1)
    eventually(lambda: time.time() > between.timestamp() + 0.002, what="the next millisecond")
    client.put_record(StreamName=name, Data=b"after", PartitionKey="k")
    assert [each["Data"] for each in living.read(name, "AT_TIMESTAMP", Timestamp=arrived)] == [b"before", b"after"]
    assert [each["Data"] for each in living.read(name, "AT_TIMESTAMP", Timestamp=between)] == [b"after"]
    (_, after) = living.read(name)
    tip = after["ApproximateArrivalTimestamp"] + dt.timedelta(milliseconds=1)
    eventually(lambda: time.time() > tip.timestamp() + 0.002, what="the next millisecond")
    token = living.iterator(name, "AT_TIMESTAMP", Timestamp=tip)
    client.put_record(StreamName=name, Data=b"last", PartitionKey="k")
    assert [each["Data"] for each in client.get_records(ShardIterator=token)["Records"]] == [b"last"]


def test_iterators_on_a_closed_shard_end_with_its_children_and_after_a_merge_both_parents_have_one(
    living: Desk,
) -> None:
    client = living.client()
    name = living.stream(2)
    client.put_record(StreamName=name, Data=b"0", PartitionKey="k", ExplicitHashKey="0")
    client.merge_shards(StreamName=name, ShardToMerge="0", AdjacentShardToMerge="1")
    child = {
        "ShardId": "shardId-000000000002",
        "ParentShards": [SHARD, "shardId-000000000001"],
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str((1 << 128) - 1)},
    }
    for shard, kind, wanted in (
        (SHARD, "TRIM_HORIZON", [b"0"]),
        (SHARD, "LATEST", []),
        ("shardId-000000000001", "TRIM_HORIZON", []),
    ):
        page = client.get_records(ShardIterator=living.iterator(name, kind, shard))
        found = list(page["Records"])
        while "NextShardIterator" in page:
            assert "ChildShards" not in page
            page = client.get_records(ShardIterator=page["NextShardIterator"])
            found += page["Records"]
        assert [each["Data"] for each in found] == wanted
        assert page["ChildShards"] == [child]
        assert page["MillisBehindLatest"] == 0


@pytest.mark.parametrize("shard", ["shardId-0", "x-0", "-0", "0", "shardId-000000000000"])
def test_a_shard_is_found_by_what_stands_behind_the_first_dash(living: Desk, shard: str) -> None:
    client = living.client(checked=False)
    name = living.stream()
    found = client.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="LATEST")
    assert found["ShardIterator"]


def test_a_stream_id_is_accepted_and_means_nothing(living: Desk) -> None:
    name = living.stream()
    client = living.new_client()

    def back(request: Any, **_: Any) -> None:
        """For a call with a StreamId botocore leaves the endpoint that it was given, and turns to AWS."""
        assert ".amazonaws.com" in request.url
        request.url = living.place.url

    client.meta.events.register("request-created.kinesis", back)
    client.put_record(StreamName=name, Data=b"x", PartitionKey="k", StreamId=f"{'a' * 20}-abc")
    client.close()
    assert len(living.read(name)) == 1


# ---------------------------------------------------------------------- tokens


def test_every_answer_has_another_iterator_and_each_may_be_used_again(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    client.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    token = living.iterator(name)
    pages_ = [client.get_records(ShardIterator=token) for _ in range(3)]
    assert [[each["Data"] for each in page["Records"]] for page in pages_] == [[b"x"]] * 3
    empty = [client.get_records(ShardIterator=pages_[0]["NextShardIterator"]) for _ in range(3)]
    assert [page["Records"] for page in empty] == [[], [], []]
    assert len({token, *(page["NextShardIterator"] for page in [*pages_, *empty])}) == 7
    assert all(1 <= len(page["NextShardIterator"]) <= 512 for page in pages_)


def test_an_iterator_of_five_minutes_ago_has_expired(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    now_ms = round(time.time() * 1000)
    place = iterators.decode(living.seal, living.iterator(name), now_ms)
    fresh = iterators.encode(living.seal, place, now_ms - 240_000)
    assert client.get_records(ShardIterator=fresh)["Records"] == []
    code, text, status = refusal(client.get_records, ShardIterator=iterators.encode(living.seal, place, 1421889722000))
    assert (code, status) == ("ExpiredIteratorException", 400)
    assert text.startswith(
        "Iterator expired. The iterator was created at time Thu Jan 22 01:22:02 UTC 2015 while right now it is "
    )
    assert text.endswith(" which is further in the future than the tolerated delay of 300000 milliseconds.")


def test_tokens_of_pages_of_five_minutes_ago_have_expired(living: Desk) -> None:
    client = living.client()
    name = living.stream(2)
    old_ms = round(time.time() * 1000) - 301_000
    token = client.list_shards(StreamName=name, MaxResults=1)["NextToken"]
    said = pages.said(living.seal, b"shards", token, old_ms)
    expired = (
        "ExpiredNextTokenException",
        "The pagination token passed to the operation is expired.",
        400,
    )
    assert refusal(client.list_shards, NextToken=pages.token(living.seal, b"shards", old_ms, *said)) == expired
    streams = pages.token(living.seal, b"streams", old_ms, "a")
    assert refusal(client.list_streams, NextToken=streams) == expired


def test_a_token_of_a_stream_that_was_made_anew_reads_nothing_of_the_new_one(living: Desk) -> None:
    client = living.client()
    name = living.stream()
    token = living.iterator(name)
    client.delete_stream(StreamName=name)
    living.stream(name=name)
    client.put_record(StreamName=name, Data=b"x", PartitionKey="k")
    text = f"Shard {SHARD} in stream {name} under account {ACCOUNT} does not exist"
    assert refusal(client.get_records, ShardIterator=token) == ("ResourceNotFoundException", text, 400)


# ---------------------------------------------------------------------- limits that are a setting


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path, KFLOW_ENFORCE_LIMITS="true") as it:
        yield it


def test_throttled_records_are_marked_and_the_others_are_stored(limited: Desk) -> None:
    client = limited.client()
    client.create_stream(StreamName="s", ShardCount=2)
    records = [
        {"Data": b"x" * (400 << 10), "PartitionKey": "k", "ExplicitHashKey": "0" if n < 5 else str(1 << 127)}
        for n in range(6)
    ]
    answer = client.put_records(StreamName="s", Records=records)
    failed = [each for each in answer["Records"] if "ErrorCode" in each]
    assert len(failed) == answer["FailedRecordCount"]
    assert 1 <= len(failed) <= 4
    assert failed[0] == {
        "ErrorCode": "ProvisionedThroughputExceededException",
        "ErrorMessage": f"Rate exceeded for shard {SHARD} in stream s under account {ACCOUNT}.",
    }
    assert answer["Records"][5]["ShardId"] == "shardId-000000000001"
    token = limited.iterator("s")
    assert len(client.get_records(ShardIterator=token)["Records"]) == 5 - len(failed)


def test_a_shard_is_read_five_times_a_second_by_all_together(limited: Desk) -> None:
    client = limited.client()
    client.create_stream(StreamName="s", ShardCount=1)
    token = limited.iterator("s")

    def throttled() -> Any:
        try:
            client.get_records(ShardIterator=token)
        except client.exceptions.ProvisionedThroughputExceededException as error:
            return error.response["Error"]["Message"]
        return None

    assert eventually(throttled, seconds=60) == f"Rate exceeded for Shard - {ACCOUNT}/s/{SHARD}"
    eventually(lambda: throttled() is None, seconds=60, what="the next second")
