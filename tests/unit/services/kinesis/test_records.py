"""PutRecord, PutRecords, GetShardIterator, GetRecords and ListShards, by what AWS answers."""

import pytest

from kflow.broker import reshardplan
from kflow.broker.attributes import Pending
from kflow.broker.resharding import carry_out
from kflow.broker.sequence import number, parse
from kflow.broker.streammap import StreamMode
from kflow.errors import (
    DryRunOperation,
    ExpiredIterator,
    ExpiredNextToken,
    InternalError,
    InvalidArgument,
    ProvisionedThroughputExceeded,
    ResourceInUse,
    ResourceNotFound,
    StorageError,
    ValidationFailed,
)
from tests.recordsdesk import ACCOUNT, REGION, Desk

MIB = 1 << 20
HOUR_MS = 3_600_000
ARN = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/orders"
MAX = 2**128 - 1


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "data")


def put(desk, data=b"x", key="k", **more):
    return desk.call("PutRecord", StreamName="orders", Data=data, PartitionKey=key, **more)


def put_many(desk, *datas, key="k", **more):
    records = [{"Data": data, "PartitionKey": key} for data in datas]
    return desk.call("PutRecords", StreamName="orders", Records=records, **more)


def get(desk, token, **more):
    return desk.call("GetRecords", ShardIterator=token, **more)


def datas(answer):
    return [record["Data"] for record in answer["Records"]]


class TestPutRecord:
    def test_says_shard_and_number_and_nothing_of_encryption(self, desk):
        desk.create()
        answer = put(desk)
        assert answer == {"ShardId": "shardId-000000000000", "SequenceNumber": answer["SequenceNumber"]}
        assert len(answer["SequenceNumber"]) == 56
        assert parse(int(answer["SequenceNumber"])).counter == 1

    def test_a_put_that_is_sent_again_is_stored_again(self, desk):
        desk.create()
        numbers = [put(desk, b"1")["SequenceNumber"] for _ in range(2)]
        numbers += [each["SequenceNumber"] for each in put_many(desk, b"1", b"1")["Records"]]
        assert [each["SequenceNumber"] for each in desk.drain(desk.iterator())] == numbers
        assert sorted(map(int, set(numbers))) == list(map(int, numbers))

    def test_an_empty_payload_is_legal(self, desk):
        desk.create()
        put(desk, b"")
        assert datas(get(desk, desk.iterator())) == [b""]

    def test_the_stream_may_be_named_by_its_arn(self, desk):
        desk.create()
        desk.call("PutRecord", StreamARN=ARN, Data=b"x", PartitionKey="k")
        assert datas(get(desk, desk.iterator())) == [b"x"]

    def test_md5_of_the_key_chooses_the_shard_and_an_explicit_hash_key_overrides_it(self, desk):
        desk.create(shards=2)
        assert put(desk, key="a")["ShardId"] == "shardId-000000000000"  # 0cc175b9...
        assert put(desk, key="b")["ShardId"] == "shardId-000000000001"  # 92eb5ffe...
        assert put(desk, key="b", ExplicitHashKey="0")["ShardId"] == "shardId-000000000000"
        assert put(desk, key="a", ExplicitHashKey=str(2**127))["ShardId"] == "shardId-000000000001"
        assert put(desk, key="a", ExplicitHashKey=str(MAX))["ShardId"] == "shardId-000000000001"

    def test_a_hash_key_above_the_range_is_refused(self, desk):
        desk.create()
        with pytest.raises(InvalidArgument) as refused:
            put(desk, ExplicitHashKey=str(MAX + 1))
        assert str(refused.value) == (
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
            "Specified value was 340282366920938463463374607431768211456"
        )

    @pytest.mark.parametrize("state", ["absent", "creating", "deleting"])
    def test_a_stream_that_does_not_serve_is_not_found(self, desk, state):
        if state != "absent":
            stream = desk.create()
            pending = Pending(kind="delete", due_ms=1) if state == "deleting" else None
            desk.set(stream, active_ms=desk.clock.epoch_ms + 1, pending=pending)
        with pytest.raises(ResourceNotFound, match=rf"^Stream orders under account {ACCOUNT} not found\.$"):
            put(desk)

    def test_a_stream_that_is_updating_takes_records(self, desk):
        stream = desk.create()
        desk.set(stream, updated_ms=desk.clock.epoch_ms + 1000)
        assert put(desk)["ShardId"] == "shardId-000000000000"

    def test_a_missing_key_is_a_validation_error(self, desk):
        desk.create()
        with pytest.raises(ValidationFailed) as refused:
            desk.call("PutRecord", StreamName="orders", Data=b"x")
        assert str(refused.value) == (
            "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: "
            "Member must not be null"
        )

    def test_a_payload_above_the_streams_bound_is_a_validation_error(self, desk):
        desk.create()
        with pytest.raises(ValidationFailed) as refused:
            put(desk, b"x" * (MIB + 1))
        assert str(refused.value) == (
            "1 validation error detected: Value at 'data' failed to satisfy constraint: "
            "Member must have length less than or equal to 1048576"
        )

    def test_payload_and_key_together_above_the_bound_are_refused(self, desk):
        desk.create()
        put(desk, b"x" * (MIB - 1), key="k")
        put(desk, b"x" * (MIB - 2), key="ä")  # sizes count bytes of UTF-8
        with pytest.raises(InvalidArgument, match="1048577 bytes"):
            put(desk, b"x" * MIB, key="k")
        with pytest.raises(InvalidArgument, match="1048577 bytes"):
            put(desk, b"x" * (MIB - 1), key="ä")

    def test_a_stream_for_large_records_takes_ten_mebibytes(self, desk):
        desk.create(max_record_bytes=10 * MIB)
        put(desk, b"x" * (10 * MIB - 1))
        assert [len(data) for data in datas(get(desk, desk.iterator()))] == [10 * MIB - 1]

    def test_a_bound_that_was_lowered_leaves_what_is_stored(self, desk):
        stream = desk.create(max_record_bytes=10 * MIB)
        put(desk, b"x" * 2 * MIB)
        desk.learn(desk.log.alter_stream(stream.map, max_record_bytes=MIB))
        with pytest.raises(ValidationFailed):
            put(desk, b"x" * 2 * MIB)
        (record,) = desk.drain(desk.iterator())
        assert len(record["Data"]) == 2 * MIB

    def test_a_number_for_ordering_may_be_of_any_shard_but_not_of_the_future(self, desk):
        stream = desk.create(shards=2)
        first = put(desk, key="a")["SequenceNumber"]
        later = put(desk, key="b", SequenceNumberForOrdering=first)
        assert int(put(desk, key="a", SequenceNumberForOrdering=first)["SequenceNumber"]) > int(first)
        assert int(later["SequenceNumber"]) > int(first)
        future = str(number(stream.map.created_s, 0, 5, desk.clock.epoch_ms + 1000))
        for wrong in (future, "5", "0"):
            with pytest.raises(InvalidArgument) as refused:
                put(desk, SequenceNumberForOrdering=wrong)
            assert str(refused.value) == (
                f"ExclusiveMinimumSequenceNumber {wrong} used in PutRecord on stream orders "
                f"under account {ACCOUNT} is invalid."
            )

    def test_a_dry_run_is_refused_and_stores_nothing(self, desk):
        desk.create()
        with pytest.raises(DryRunOperation):
            put(desk, DryRun=True)
        with pytest.raises(ValidationFailed):  # what is wrong is said first
            put(desk, b"x" * (MIB + 1), DryRun=True)
        with pytest.raises(DryRunOperation):
            put_many(desk, b"x", DryRun=True)
        assert datas(get(desk, desk.iterator())) == []

    def test_an_encrypted_stream_says_so_of_puts_and_of_records_put_since(self, desk):
        stream = desk.create()
        put(desk, b"before")
        desk.set(stream, key_id="alias/aws/kinesis")
        assert put(desk, b"while")["EncryptionType"] == "KMS"
        assert put_many(desk, b"also")["EncryptionType"] == "KMS"
        desk.set(stream, key_id="")
        assert "EncryptionType" not in put(desk, b"after")
        found = get(desk, desk.iterator())["Records"]
        assert [(record["Data"], record.get("EncryptionType")) for record in found] == [
            (b"before", None),
            (b"while", "KMS"),
            (b"also", "KMS"),
            (b"after", None),
        ]

    def test_what_waits_for_a_slow_disk_is_answered_later(self, desk):
        desk.create()
        desk.host.held = True
        answers = desk.start("PutRecord", StreamName="orders", Data=b"x", PartitionKey="k")
        assert answers == []
        desk.host.release()
        assert answers[0]["ShardId"] == "shardId-000000000000"

    def test_a_queue_that_is_full_is_said_as_a_rate_that_is_exceeded(self, desk):
        desk.create()
        desk.host.refusal = ProvisionedThroughputExceeded("full")
        with pytest.raises(ProvisionedThroughputExceeded) as refused:
            put(desk)
        assert str(refused.value) == (
            f"Rate exceeded for shard shardId-000000000000 in stream orders under account {ACCOUNT}."
        )

    def test_a_disk_that_fails_is_an_error_of_ours(self, desk):
        desk.create()
        desk.host.refusal = StorageError("the disk is full")
        with pytest.raises(StorageError, match="the disk is full"):
            put(desk)


class TestPutRecords:
    def test_answers_are_aligned_with_the_request(self, desk):
        desk.create(shards=2)
        records = [{"Data": key.encode(), "PartitionKey": key} for key in "abab"]
        answer = desk.call("PutRecords", StreamName="orders", Records=records)
        assert answer["FailedRecordCount"] == 0
        assert [record["ShardId"][-1] for record in answer["Records"]] == ["0", "1", "0", "1"]
        assert [parse(int(record["SequenceNumber"])).counter for record in answer["Records"]] == [1, 1, 2, 2]
        assert sorted(answer["Records"][0]) == ["SequenceNumber", "ShardId"]
        assert "EncryptionType" not in answer

    def test_a_large_payload_fails_the_whole_call_and_names_its_place(self, desk):
        desk.create()
        with pytest.raises(ValidationFailed) as refused:
            put_many(desk, b"fine", b"x" * (MIB + 1))
        assert str(refused.value) == (
            "1 validation error detected: Value at 'records.2.member.data' failed to satisfy constraint: "
            "Member must have length less than or equal to 1048576"
        )
        assert datas(get(desk, desk.iterator())) == []

    def test_ten_problems_are_named_at_most(self, desk):
        desk.create()
        with pytest.raises(ValidationFailed) as refused:
            desk.call("PutRecords", StreamName="orders", Records=[{"Data": b"x"}] * 12)
        assert str(refused.value).startswith(
            "10 validation errors detected: Value null at 'records.1.member.partitionKey' failed to satisfy "
            "constraint: Member must not be null; Value null at 'records.2.member.partitionKey' failed"
        )
        assert str(refused.value).count(";") == 9

    def test_more_than_ten_mebibytes_are_refused(self, desk):
        desk.create()
        put_many(desk, *[b"x" * (MIB - 1)] * 10)
        with pytest.raises(InvalidArgument, match=r"^Records size exceeds 10 MB limit$"):
            put_many(desk, *[b"x" * (MIB - 1)] * 10, b"")

    def test_a_hash_key_above_the_range_fails_the_whole_call(self, desk):
        desk.create()
        records = [
            {"Data": b"1", "PartitionKey": "k"},
            {"Data": b"2", "PartitionKey": "k", "ExplicitHashKey": str(MAX + 1)},
        ]
        with pytest.raises(InvalidArgument, match="Specified value was 340282366920938463463374607431768211456"):
            desk.call("PutRecords", StreamName="orders", Records=records)
        assert datas(get(desk, desk.iterator())) == []

    def test_a_failure_of_the_disk_is_told_a_record_and_to_people(self, desk):
        desk.create()
        desk.host.refusal = StorageError("the disk is full")
        answer = put_many(desk, b"1", b"2")
        assert answer == {
            "FailedRecordCount": 2,
            "Records": [{"ErrorCode": "InternalFailure", "ErrorMessage": "Internal service failure."}] * 2,
        }
        put_many(desk, b"3")
        assert desk.host.notices == [("error", "records put to orders were not stored: the disk is full")]

    def test_a_large_call_is_put_in_slices_in_order(self, desk):
        desk.create()
        desk.host.run()
        before = desk.host.rounds
        payloads = [bytes([index]) * 100_000 for index in range(50)]
        assert put_many(desk, *payloads)["FailedRecordCount"] == 0
        assert desk.host.rounds - before > 10
        assert desk.drain(desk.iterator()) == desk.drain(desk.iterator(), Limit=7)
        assert [record["Data"] for record in desk.drain(desk.iterator())] == payloads

    def test_entries_that_faults_choose_fail_and_the_others_are_stored(self, tmp_path):
        desk = Desk(tmp_path / "data", entry_faults=lambda count: {1} if count == 3 else None)
        desk.create()
        answer = put_many(desk, b"1", b"2", b"3")
        assert answer["FailedRecordCount"] == 1
        assert answer["Records"][1] == {
            "ErrorCode": "ProvisionedThroughputExceededException",
            "ErrorMessage": f"Rate exceeded for shard shardId-000000000000 in stream orders under account {ACCOUNT}.",
        }
        assert datas(get(desk, desk.iterator())) == [b"1", b"3"]
        put_many(desk, b"4")

    def test_limits_refuse_a_shards_records_from_the_first_that_is_too_much(self, tmp_path):
        desk = Desk(tmp_path / "data", enforce_limits=True)
        desk.create(shards=2)
        records = [{"Data": b"%d" % index, "PartitionKey": "b" if index == 600 else "a"} for index in range(500)]
        assert desk.call("PutRecords", StreamName="orders", Records=records)["FailedRecordCount"] == 0
        desk.clock.advance(200)
        assert desk.call("PutRecords", StreamName="orders", Records=records)["FailedRecordCount"] == 0
        mixed = [{"Data": b"%d" % index, "PartitionKey": "ab"[index % 2]} for index in range(500)]
        answer = desk.call("PutRecords", StreamName="orders", Records=mixed)
        refused = [index for index, record in enumerate(answer["Records"]) if "ErrorCode" in record]
        assert answer["FailedRecordCount"] == 50
        assert refused == list(range(400, 500, 2))

    def test_a_call_whose_stream_went_meanwhile_is_refused_as_a_whole(self, desk):
        stream = desk.create()
        desk.host.held = True
        answers = desk.start("PutRecords", StreamName="orders", Records=[{"Data": b"x", "PartitionKey": "k"}])
        desk.delete(stream)
        desk.host.release()
        desk.host.run()
        assert isinstance(answers[0], ResourceNotFound)

    def test_a_call_whose_stream_goes_between_its_slices_is_refused_as_a_whole(self, desk):
        stream = desk.create()
        before = desk.host.puts
        records = [{"Data": bytes(100_000), "PartitionKey": "k"} for _ in range(50)]
        answers = desk.start("PutRecords", StreamName="orders", Records=records)
        assert (desk.host.puts - before, answers) == (1, [])  # its first slice is stored
        desk.delete(stream)
        desk.host.run()
        assert isinstance(answers[0], ResourceNotFound)
        assert desk.host.notices == []


class TestDistribution:
    def make(self, desk, shards=4):
        stream = desk.create(shards=shards, mode=StreamMode.ON_DEMAND)
        desk.set(stream, distribution="AUTO")
        return stream

    def test_records_go_to_the_shards_in_turn_whatever_their_keys(self, desk):
        self.make(desk)
        records = [{"Data": b"%d" % index, "PartitionKey": "k"} for index in range(6)]
        answer = desk.call("PutRecords", StreamName="orders", Records=records)
        assert [record["ShardId"][-1] for record in answer["Records"]] == ["0", "1", "2", "3", "0", "1"]
        assert put(desk, key="k")["ShardId"] == "shardId-000000000002"
        assert put(desk, key="k", ExplicitHashKey="0")["ShardId"] == "shardId-000000000003"

    def test_a_key_is_returned_where_it_was_given(self, desk):
        self.make(desk, shards=1)
        records = [{"Data": b"1"}, {"Data": b"2", "PartitionKey": "k"}]
        assert desk.call("PutRecords", StreamName="orders", Records=records)["FailedRecordCount"] == 0
        desk.call("PutRecord", StreamName="orders", Data=b"3")
        found = get(desk, desk.iterator())["Records"]
        assert [(record["Data"], record.get("PartitionKey")) for record in found] == [
            (b"1", None),
            (b"2", "k"),
            (b"3", None),
        ]

    def test_a_number_for_ordering_is_refused(self, desk):
        self.make(desk)
        answer = put(desk)
        with pytest.raises(InvalidArgument, match="AUTO"):
            put(desk, SequenceNumberForOrdering=answer["SequenceNumber"])


class TestGetShardIterator:
    def refused(self, desk, kind, shard="0", stream="orders", **more):
        with pytest.raises((InvalidArgument, ResourceNotFound)) as found:
            desk.call("GetShardIterator", StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more)
        return type(found.value), str(found.value)

    def test_all_five_types(self, desk):
        desk.create()
        first = put(desk, b"1")["SequenceNumber"]
        desk.clock.advance(1000)
        second = put(desk, b"2")["SequenceNumber"]
        at = desk.clock.epoch_ms / 1000
        latest = desk.iterator("LATEST")
        put(desk, b"3")

        def read(kind, **more):
            return datas(get(desk, desk.iterator(kind, **more)))

        assert read("TRIM_HORIZON") == [b"1", b"2", b"3"]
        assert read("AT_SEQUENCE_NUMBER", StartingSequenceNumber=second) == [b"2", b"3"]
        assert read("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=first) == [b"2", b"3"]
        assert read("AT_TIMESTAMP", Timestamp=at) == [b"2", b"3"]
        assert read("AT_TIMESTAMP", Timestamp=at - 0.001) == [b"2", b"3"]
        assert read("AT_TIMESTAMP", Timestamp=1) == [b"1", b"2", b"3"]
        assert datas(get(desk, latest)) == [b"3"]
        assert read("LATEST") == []

    def test_the_shards_own_number_and_any_other_in_its_range_are_valid(self, desk):
        stream = desk.create()
        put_many(desk, b"1", b"2", b"3")
        shard = desk.call("ListShards", StreamName="orders")["Shards"][0]
        own = shard["SequenceNumberRange"]["StartingSequenceNumber"]
        sooner, later = (
            str(number(stream.map.created_s, 0, 2, desk.clock.epoch_ms + other)) for other in (-5000, 5000)
        )
        beyond = str(number(stream.map.created_s, 0, 2**62, desk.clock.epoch_ms))

        def read(kind, text):
            return datas(get(desk, desk.iterator(kind, StartingSequenceNumber=text)))

        for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            assert read(kind, own) == [b"1", b"2", b"3"]
            assert read(kind, beyond) == []
            assert read(kind, sooner) == [b"2", b"3"]
            assert read(kind, later) == [b"3"]

    def test_a_shard_that_does_not_exist_and_one_of_no_stream_have_the_same_text(self, desk):
        text = f"Shard shardId-000000000005 in stream orders under account {ACCOUNT} does not exist"
        assert self.refused(desk, "LATEST", "shardId-000000000005") == (ResourceNotFound, text)
        desk.create()
        assert self.refused(desk, "LATEST", "shard-5") == (ResourceNotFound, text)

    def test_a_stream_that_is_created_still_has_no_shards(self, desk):
        desk.set(desk.create(), active_ms=desk.clock.epoch_ms + 1)
        text = f"Shard shardId-000000000000 in stream orders under account {ACCOUNT} does not exist"
        assert self.refused(desk, "LATEST") == (ResourceNotFound, text)

    @pytest.mark.parametrize("given", ["2147483648", "2.14E4", "ABKLFD8", "shardId-"])
    def test_what_is_no_shard_id_is_said_before_the_stream_is_looked_for(self, desk, given):
        text = f"Could not find shard {given} in stream orders under account {ACCOUNT}."
        assert self.refused(desk, "LATEST", given) == (ResourceNotFound, text)

    @pytest.mark.parametrize("given", ["0", "-0", "x-0", "shardId-0", "shardId-000000000000"])
    def test_a_shard_id_may_be_short(self, desk, given):
        desk.create()
        assert desk.iterator(shard=given)

    @pytest.mark.parametrize("kind", ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"])
    def test_a_type_that_needs_a_number(self, desk, kind):
        desk.create()
        assert self.refused(desk, kind) == (
            InvalidArgument,
            (
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) "
                f"TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and no "
                "StartingSequenceNumber."
            ),
        )

    @pytest.mark.parametrize("kind", ["TRIM_HORIZON", "LATEST"])
    def test_a_type_that_takes_no_number(self, desk, kind):
        desk.create()
        assert self.refused(desk, kind, StartingSequenceNumber="5") == (
            InvalidArgument,
            (
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) "
                f"TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and also a "
                "StartingSequenceNumber."
            ),
        )

    def test_a_number_of_another_shard(self, desk):
        desk.create(shards=6)
        given = desk.call("PutRecord", StreamName="orders", Data=b"", PartitionKey="k", ExplicitHashKey=str(MAX))
        assert self.refused(desk, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=given["SequenceNumber"]) == (
            InvalidArgument,
            (
                "Invalid StartingSequenceNumber. It encodes shardId-000000000005, "
                "while it was used in a call to a shard with shardId-000000000000"
            ),
        )

    def test_a_number_that_is_none_and_one_of_another_stream(self, desk):
        desk.create()
        text = (
            "StartingSequenceNumber {} used in GetShardIterator on shard shardId-000000000000 in stream orders "
            f"under account {ACCOUNT} is invalid"
        )
        assert self.refused(desk, "AT_SEQUENCE_NUMBER", StartingSequenceNumber="5") == (
            InvalidArgument,
            text.format("5") + ".",
        )
        foreign = str(number(1_600_000_000, 0, 1, desk.clock.epoch_ms))
        assert self.refused(desk, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=foreign) == (
            InvalidArgument,
            text.format(foreign) + " because it did not come from this stream.",
        )

    def test_a_timestamp_is_needed_and_not_of_the_future(self, desk):
        desk.create()
        assert self.refused(desk, "AT_TIMESTAMP") == (
            InvalidArgument,
            (
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                "Current request has no timestamp parameter."
            ),
        )
        now_ms = desk.clock.epoch_ms
        assert self.refused(desk, "AT_TIMESTAMP", Timestamp=now_ms / 1000 + 1) == (
            InvalidArgument,
            (
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {now_ms + 1000}, currentTimestampInMillis: {now_ms}"
            ),
        )

    def test_a_dry_run(self, desk):
        desk.create()
        with pytest.raises(DryRunOperation):
            desk.iterator(DryRun=True)

    def test_latest_and_the_trim_horizon_of_an_open_reader_look_at_no_file(self, desk):
        desk.create()
        put(desk)
        get(desk, desk.iterator())
        before = desk.host.submitted
        desk.iterator("LATEST")
        desk.iterator("TRIM_HORIZON")
        assert desk.host.submitted == before


class TestGetRecords:
    def test_a_record_has_its_four_members(self, desk):
        desk.create()
        given = put(desk, b"data", key="key")
        (record,) = get(desk, desk.iterator())["Records"]
        assert record == {
            "SequenceNumber": given["SequenceNumber"],
            "ApproximateArrivalTimestamp": record["ApproximateArrivalTimestamp"],
            "Data": b"data",
            "PartitionKey": "key",
        }
        assert record["ApproximateArrivalTimestamp"].timestamp() == desk.clock.epoch_ms / 1000

    def test_every_answer_has_another_token_and_a_token_may_be_used_twice(self, desk):
        desk.create()
        token = desk.iterator()
        put_many(desk, b"1", b"2")
        first, again = get(desk, token), get(desk, token)
        assert datas(first) == datas(again) == [b"1", b"2"]
        assert len({token, first["NextShardIterator"], again["NextShardIterator"]}) == 3
        empty = get(desk, first["NextShardIterator"])
        assert empty["Records"] == []
        assert empty["NextShardIterator"] not in (token, first["NextShardIterator"])

    def test_quotes_around_a_token_are_tolerated(self, desk):
        desk.create()
        put(desk, b"1")
        assert datas(get(desk, f'"{desk.iterator()}"')) == [b"1"]

    @pytest.mark.parametrize("token", ["x", "AAAA", "AAAAAAAAAAE=" * 10, "ä"])
    def test_what_is_no_token_is_refused(self, desk, token):
        desk.create()
        with pytest.raises(InvalidArgument, match=r"^Invalid ShardIterator\.$"):
            get(desk, token)

    def test_a_token_lives_for_five_minutes(self, desk):
        desk.create()
        token = desk.iterator()
        desk.clock.advance(300_000)
        get(desk, token)
        desk.clock.advance(1)
        with pytest.raises(ExpiredIterator) as refused:
            get(desk, token)
        assert str(refused.value) == (
            "Iterator expired. The iterator was created at time Tue Nov 14 22:13:20 UTC 2023 while right now it is "
            "Tue Nov 14 22:18:20 UTC 2023 which is further in the future than the tolerated delay of 300000 "
            "milliseconds."
        )

    def test_a_token_survives_a_restart(self, desk, tmp_path):
        desk.create()
        put(desk, b"1")
        token = get(desk, desk.iterator())["NextShardIterator"]
        put(desk, b"2")
        desk.log.close()
        again = Desk(tmp_path / "data")
        assert datas(get(again, token)) == [b"2"]

    def test_a_token_of_another_folder_is_refused(self, desk, tmp_path):
        desk.create()
        other = Desk(tmp_path / "other")
        other.create()
        with pytest.raises(InvalidArgument, match="Invalid ShardIterator"):
            get(other, desk.iterator())

    def test_the_stream_of_a_token_may_be_gone_or_made_anew(self, desk):
        stream = desk.create()
        token = desk.iterator()
        desk.delete(stream)
        text = rf"^Shard shardId-000000000000 in stream orders under account {ACCOUNT} does not exist$"
        with pytest.raises(ResourceNotFound, match=text):
            get(desk, token)
        desk.create()
        with pytest.raises(ResourceNotFound, match=text):
            get(desk, token)

    def test_a_stream_arn_must_be_of_the_tokens_stream(self, desk):
        desk.create()
        desk.create("other")
        token = desk.iterator()
        get(desk, token, StreamARN=ARN)
        with pytest.raises(InvalidArgument, match="not of the stream"):
            get(desk, token, StreamARN=ARN.replace("orders", "other"))

    def test_a_limit_ends_a_page_and_says_how_far_behind_it_is(self, desk):
        desk.create()
        put_many(desk, b"1", b"2")
        desk.clock.advance(5000)
        put_many(desk, b"3")
        first = get(desk, desk.iterator(), Limit=1)
        assert (datas(first), first["MillisBehindLatest"]) == ([b"1"], 5000)
        second = get(desk, first["NextShardIterator"], Limit=2)
        assert (datas(second), second["MillisBehindLatest"]) == ([b"2", b"3"], 0)

    def test_ten_thousand_records_are_a_page(self, desk):
        desk.create()
        for _ in range(21):
            put_many(desk, *[b"x"] * 500)
        answer = get(desk, desk.iterator())
        assert len(answer["Records"]) == 10_000
        assert len(get(desk, answer["NextShardIterator"])["Records"]) == 500

    def test_ten_mebibytes_end_a_page_before_the_record_that_would_exceed_them(self, desk):
        desk.create(max_record_bytes=10 * MIB)
        for size in (4 * MIB, 4 * MIB, 2 * MIB - 3, 1, 10 * MIB - 1):
            put(desk, b"x" * size)
        first = get(desk, desk.iterator())
        assert [len(data) for data in datas(first)] == [4 * MIB, 4 * MIB, 2 * MIB - 3]
        second = get(desk, first["NextShardIterator"])
        assert [len(data) for data in datas(second)] == [1]
        third = get(desk, second["NextShardIterator"])
        assert [len(data) for data in datas(third)] == [10 * MIB - 1]
        assert third["MillisBehindLatest"] == 0

    def test_records_past_the_retention_are_not_returned(self, desk):
        desk.create()
        put(desk, b"old")
        desk.clock.advance(24 * 3_600_000 - 1000)
        put(desk, b"new")
        token = desk.iterator()
        assert datas(get(desk, token)) == [b"old", b"new"]
        desk.clock.advance(1001)
        assert datas(get(desk, desk.iterator())) == [b"new"]
        assert datas(get(desk, token)) == [b"new"]
        assert datas(get(desk, desk.iterator("AT_TIMESTAMP", Timestamp=1))) == [b"new"]

    def test_what_has_expired_stays_so_when_the_retention_grows_and_a_shorter_one_counts_at_once(self, desk, tmp_path):
        stream = desk.create()
        for hour in range(3):
            put(desk, b"%d" % hour)
            desk.clock.advance(12 * HOUR_MS)

        def left():
            return [each["Data"] for each in desk.drain(desk.iterator())]

        assert left() == [b"1", b"2"]
        desk.learn(desk.log.alter_stream(stream.map, retention_hours=48))
        assert left() == [b"1", b"2"]
        desk.clock.advance(6 * HOUR_MS)
        assert left() == [b"1", b"2"]
        desk.learn(desk.log.alter_stream(stream.map, retention_hours=24))
        assert left() == [b"2"]
        desk.learn(desk.log.alter_stream(stream.map, retention_hours=8760))
        assert left() == [b"2"]
        desk.log.close()
        desk = Desk(tmp_path / "data")
        assert left() == [b"2"]

    def test_a_shard_that_was_split_ends_with_its_children_and_no_token(self, desk):
        stream = desk.create()
        put(desk, b"1")
        token = desk.iterator()
        desk.learn(desk.split(stream))
        answer = get(desk, token)
        assert "NextShardIterator" not in answer
        assert datas(answer) == [b"1"]
        assert answer["ChildShards"] == [
            {
                "ShardId": "shardId-000000000001",
                "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2**127 - 1)},
            },
            {
                "ShardId": "shardId-000000000002",
                "ParentShards": ["shardId-000000000000"],
                "HashKeyRange": {"StartingHashKey": str(2**127), "EndingHashKey": str(MAX)},
            },
        ]
        ended = get(desk, desk.iterator("LATEST"))
        assert (ended["Records"], "NextShardIterator" in ended, len(ended["ChildShards"])) == ([], False, 2)

    def test_a_page_before_the_end_of_a_closed_shard_has_a_token_and_no_children(self, desk):
        stream = desk.create()
        put_many(desk, b"1", b"2")
        desk.learn(desk.split(stream))
        first = get(desk, desk.iterator(), Limit=1)
        assert "ChildShards" not in first
        second = get(desk, first["NextShardIterator"], Limit=1)
        assert (datas(second), "NextShardIterator" in second) == ([b"2"], False)

    def test_a_merged_shard_names_both_parents_of_its_child(self, desk):
        stream = desk.create(shards=2)
        desk.learn(desk.merge(stream, 0, 1))
        for shard in "01":
            (child,) = get(desk, desk.iterator(shard=shard))["ChildShards"]
            assert child["ParentShards"] == ["shardId-000000000000", "shardId-000000000001"]

    def test_a_dry_run(self, desk):
        desk.create()
        with pytest.raises(DryRunOperation):
            get(desk, desk.iterator(), DryRun=True)

    def test_five_calls_a_second_are_served_where_limits_are_enforced(self, tmp_path):
        desk = Desk(tmp_path / "data", enforce_limits=True)
        desk.create()
        token = desk.iterator()
        for _ in range(5):
            get(desk, token)
        with pytest.raises(ProvisionedThroughputExceeded) as refused:
            get(desk, token)
        assert str(refused.value) == f"Rate exceeded for Shard - {ACCOUNT}/orders/shardId-000000000000"
        desk.clock.advance(200)
        get(desk, token)

    def test_a_shard_whose_files_are_gone_is_an_error_of_ours(self, desk):
        desk.create()
        (path,) = (desk.folder.path / "streams").glob("orders.*")
        path.rename(desk.folder.path / "away")
        with pytest.raises((StorageError, InternalError)):
            get(desk, desk.iterator())

    def test_the_tip_is_answered_without_a_thread(self, desk):
        desk.create()
        put(desk)
        token = get(desk, desk.iterator())["NextShardIterator"]
        before = desk.host.submitted
        put(desk, b"2")
        answer = desk.start("GetRecords", ShardIterator=token)
        assert datas(answer[0]) == [b"2"]
        assert desk.host.submitted == before


class TestListShards:
    def ids(self, answer):
        return [int(shard["ShardId"][-12:]) for shard in answer["Shards"]]

    def listed(self, desk, **more):
        return self.ids(desk.call("ListShards", StreamName="orders", **more))

    def test_shards_have_ranges_parents_and_an_end_only_where_they_are_closed(self, desk):
        stream = desk.create()
        desk.learn(desk.split(stream))
        desk.clock.advance(2000)
        desk.learn(desk.merge(stream, 1, 2))
        shards = desk.call("ListShards", StreamName="orders")["Shards"]
        assert ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards] == [True, True, True, False]
        assert [shard.get("ParentShardId", "")[-1:] for shard in shards] == ["", "0", "0", "1"]
        assert [shard.get("AdjacentParentShardId", "")[-1:] for shard in shards] == ["", "", "", "2"]
        ending = int(shards[0]["SequenceNumberRange"]["EndingSequenceNumber"])
        assert parse(ending).counter == 0x7FFF_FFFF_FFFF_FFFF
        assert int(shards[1]["SequenceNumberRange"]["StartingSequenceNumber"]) > ending

    def test_pages_by_token_and_by_shard(self, desk):
        desk.create(shards=5)
        first = desk.call("ListShards", StreamName="orders", MaxResults=2)
        second = desk.call("ListShards", NextToken=first["NextToken"], MaxResults=2)
        third = desk.call("ListShards", NextToken=second["NextToken"])
        assert [self.ids(each) for each in (first, second, third)] == [[0, 1], [2, 3], [4]]
        assert "NextToken" not in third
        assert self.listed(desk, ExclusiveStartShardId="shardId-000000000002") == [3, 4]

    def test_a_page_has_a_thousand_shards_at_most(self, desk):
        desk.learn(desk.split(desk.create(shards=999)))
        for most in ({}, {"MaxResults": 10_000}):
            page = desk.call("ListShards", StreamName="orders", **most)
            assert len(page["Shards"]) == 1000
            assert self.ids(desk.call("ListShards", NextToken=page["NextToken"])) == [1000]

    def test_a_token_carries_the_filter(self, desk):
        stream = desk.create(shards=3)
        desk.clock.advance(10_000)
        desk.learn(desk.split(stream, 1))
        desk.clock.advance(10_000)
        moment = {"Type": "AT_TIMESTAMP", "Timestamp": stream.map.created_s + 5}
        for wanted, pages in (
            ({"Type": "AT_LATEST"}, ([0], [2, 3, 4])),
            ({"Type": "AT_TRIM_HORIZON"}, ([0], [1, 2])),
            (moment, ([0], [1, 2])),
            ({"Type": "AFTER_SHARD_ID", "ShardId": "1"}, ([2], [3, 4])),
        ):
            first = desk.call("ListShards", StreamName="orders", MaxResults=1, ShardFilter=wanted)
            second = desk.call("ListShards", NextToken=first["NextToken"])
            assert (self.ids(first), self.ids(second)) == pages

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({}, "Either NextToken or StreamName should be provided."),
            ({"StreamName": "orders"}, "NextToken and StreamName cannot be provided together."),
            ({"StreamARN": ARN}, "NextToken and StreamARN cannot be provided together."),
            ({"ExclusiveStartShardId": "0"}, "NextToken and ExclusiveStartShardId cannot be provided together."),
        ],
    )
    def test_a_token_stands_alone(self, desk, given, text):
        desk.create(shards=2)
        if given:
            given = {**given, "NextToken": desk.call("ListShards", StreamName="orders", MaxResults=1)["NextToken"]}
        with pytest.raises(InvalidArgument) as refused:
            desk.call("ListShards", **given)
        assert str(refused.value) == text

    def test_a_token_lives_for_five_minutes_and_cannot_be_made_up(self, desk):
        desk.create(shards=2)
        token = desk.call("ListShards", StreamName="orders", MaxResults=1)["NextToken"]
        desk.clock.advance(300_001)
        with pytest.raises(ExpiredNextToken):
            desk.call("ListShards", NextToken=token)
        with pytest.raises(InvalidArgument):
            desk.call("ListShards", NextToken=desk.iterator())

    def test_filters_of_a_young_stream_after_a_reshard(self, desk):
        stream = desk.create(shards=2)
        born_s = stream.map.created_s
        desk.clock.advance(10_000)
        desk.learn(desk.split(stream, 0))
        desk.learn(desk.split(stream, 1))
        desk.clock.advance(10_000)
        assert self.listed(desk) == [0, 1, 2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "FROM_TRIM_HORIZON"}) == [0, 1, 2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [0, 1]
        assert self.listed(desk, ShardFilter={"Type": "AT_LATEST"}) == [2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": born_s + 5}) == [0, 1]
        assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": born_s + 15}) == [2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": born_s - 5}) == []
        assert self.listed(desk, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": born_s + 15}) == [2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": 1}) == [0, 1, 2, 3, 4, 5]
        assert self.listed(desk, ShardFilter={"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000003"}) == [4, 5]

    def test_shards_are_listed_by_the_clock_however_far_ahead_of_it_their_numbers_are(self, desk):
        # Seconds of creation are never used twice in a folder: the tenth stream of a second has one that is to come.
        for other in range(9):
            desk.create(f"other-{other}")
        stream = desk.create()
        desk.set(stream, created_ms=desk.clock.epoch_ms)
        now_s = desk.clock.epoch_ms // 1000
        assert stream.map.created_s > now_s
        assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": now_s}) == [0]
        desk.clock.advance(2000)
        desk.learn(desk.split(stream))
        desk.clock.advance(2000)
        desk.learn(desk.merge(stream, 1, 2))
        desk.clock.advance(2000)
        assert self.listed(desk) == [0, 1, 2, 3]
        assert self.listed(desk, ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [0]
        for after_s, there in ((1, [0]), (3, [1, 2]), (5, [3]), (6, [3])):
            assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": now_s + after_s}) == there
        assert self.listed(desk, ShardFilter={"Type": "FROM_TIMESTAMP", "Timestamp": now_s + 3}) == [1, 2, 3]
        described = desk.call("DescribeStream", StreamName="orders")["StreamDescription"]
        assert self.ids(described) == [0, 1, 2, 3]

    def test_what_a_scaling_has_made_is_there_after_it_however_far_ahead_its_numbers_are(self, desk):
        for other in range(9):
            desk.create(f"other-{other}")
        stream = desk.create(shards=4)
        desk.set(stream, created_ms=desk.clock.epoch_ms)
        now_s = desk.clock.epoch_ms // 1000
        desk.clock.advance(2000)
        plan = reshardplan.scale(stream.map, 3, account=ACCOUNT, region=REGION)
        desk.learn(carry_out(desk.log, plan, clock=desk.clock))
        desk.clock.advance(2000)
        still_open = self.listed(desk, ShardFilter={"Type": "AT_LATEST"})
        there = self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": now_s + 4})
        assert [each for each in there if each in still_open] == still_open
        assert self.listed(desk, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": now_s + 1}) == [0, 1, 2, 3]
        assert self.listed(desk)[:4] == [0, 1, 2, 3]

    def test_a_closed_shard_is_listed_until_the_retention_has_passed_it(self, desk):
        stream = desk.create()
        desk.clock.advance(60_000)
        desk.learn(desk.split(stream))
        desk.clock.advance(24 * 3_600_000 - 2000)
        assert self.listed(desk) == [0, 1, 2]
        desk.clock.advance(4000)
        assert self.listed(desk) == [1, 2]
        shards = desk.call("ListShards", StreamName="orders")["Shards"]
        assert shards[0]["ParentShardId"] == "shardId-000000000000"

    @pytest.mark.parametrize("kind", ["AT_TIMESTAMP", "FROM_TIMESTAMP", "AFTER_SHARD_ID"])
    def test_a_filter_without_its_parameter_is_refused(self, desk, kind):
        desk.create()
        with pytest.raises(InvalidArgument, match=kind):
            self.listed(desk, ShardFilter={"Type": kind})

    def test_states(self, desk):
        stream = desk.create()
        desk.set(stream, active_ms=desk.clock.epoch_ms + 1)
        assert self.listed(desk) == []
        desk.set(stream, active_ms=0, pending=Pending(kind="delete", due_ms=1))
        with pytest.raises(ResourceInUse, match="not ACTIVE, instead in state DELETING"):
            self.listed(desk)

    def test_a_stream_that_was_made_anew_is_not_the_one_of_that_time(self, desk):
        stream = desk.create()
        born = stream.map.created_s
        assert self.listed(desk, StreamCreationTimestamp=born) == [0]
        with pytest.raises(ResourceNotFound):
            self.listed(desk, StreamCreationTimestamp=born - 1)
