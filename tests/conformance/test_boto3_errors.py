"""AWS's own error, code, status and message for every case that boto3 can send; the same in each life of the endpoint.

Where AWS's text is not known only the code is looked at (`ANY`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from tests.botoing import ACCOUNT, LIVES, Desk, desk, operations, refusal

ANY = None
SHARD = "shardId-000000000000"
PLACE = f"arn:aws:kinesis:us-east-1:{ACCOUNT}"
ORDERS = f"{PLACE}:stream/orders"
NONE = f"{PLACE}:stream/none"
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
TWO_TO_128 = str(1 << 128)
HALF = str(1 << 127)
V = "ValidationException"
IA = "InvalidArgumentException"
RNF = "ResourceNotFoundException"
RIU = "ResourceInUseException"
LE = "LimitExceededException"
DRY = "DryRunOperationException"
SER = "SerializationException"
NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
PAIR = "[Member must have length less than or equal to {}, Member must have length greater than or equal to {}]"


class World:
    """What errors need to be there; made once, and never changed by them.

    Attributes:
        desk: the endpoint.
        said: texts that are only known when things were made, by the word that stands for them in cases.
    """

    def __init__(self, it: Desk) -> None:
        self.desk = it
        client = it.client()
        it.stream(name="orders", Tags={f"key-{n}": "" for n in range(50)})
        number = client.put_record(StreamName="orders", Data=b"1", PartitionKey="k")["SequenceNumber"]
        it.stream(3, name="three")
        it.stream(name="cut")
        client.split_shard(StreamName="cut", ShardToSplit="0", NewStartingHashKey=HALF)
        it.stream(name="watched")
        consumer = it.consumer("watched")
        it.stream(name="crowded")
        for n in range(20):
            it.consumer("crowded", f"c{n}")
        it.on_demand(name="free")
        it.on_demand(name="auto", RecordDistributionStrategy="AUTO")
        it.stream(name="sealed")
        client.start_stream_encryption(StreamName="sealed", EncryptionType="KMS", KeyId="alias/mine")
        it.stream(name="long")
        client.increase_stream_retention_period(StreamName="long", RetentionPeriodHours=48)
        elsewhere = client.list_shards(StreamName="three")["Shards"][2]["SequenceNumberRange"]["StartingSequenceNumber"]
        it.stream(name="gone")
        gone = it.iterator("gone")
        client.delete_stream(StreamName="gone")
        it.stream(name="switched")
        for mode in ("ON_DEMAND", "PROVISIONED"):
            client.update_stream_mode(StreamARN=it.arn("switched"), StreamModeDetails={"StreamMode": mode})
        it.stream(2, name="scaled")
        for n in range(10):
            client.update_shard_count(
                StreamName="scaled", TargetShardCount=2 + (n + 1) % 2, ScalingType="UNIFORM_SCALING"
            )
        created = format(int(number), "047x")
        other_stream = int(created[0] + format(int(created[1:10], 16) - 1, "09x") + created[10:], 16)
        iterator = it.iterator("orders")
        self.said = {
            "NUMBER": number,
            "ELSEWHERE": elsewhere,
            "OTHER_STREAM": str(other_stream),
            "FUTURE_NUMBER": str(int(created[:29] + "1ffffffff" + created[38:], 16)),
            "CONSUMER": consumer,
            "QUEUE": it.queue("free", "jobs"),
            "ITERATOR": iterator,
            "FORGED": iterator[:-4] + ("AAA=" if not iterator.endswith("AAA=") else "BBB="),
            "GONE": gone,
        }

    def filled(self, given: Any) -> Any:
        """The input of a case."""
        if isinstance(given, dict):
            return {key: self.filled(value) for key, value in given.items()}
        if isinstance(given, list):
            return [self.filled(value) for value in given]
        return self.said.get(given[1:-1], given) if isinstance(given, str) and given[:1] == "<" else given

    def text(self, text: str) -> str:
        """The message of a case."""
        for word, said in self.said.items():
            text = text.replace(f"<{word}>", said)
        return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with desk(tmp_path_factory.mktemp("desk")) as it:
        yield World(it)


@pytest.fixture(scope="module", params=range(len(LIVES)), ids=LIVES)
def living(request: pytest.FixtureRequest, world: World) -> World:
    world.desk.reach(request.param)
    return world


def no_stream(name: str = "none") -> str:
    return f"Stream {name} under account {ACCOUNT} not found."


def constraint(path: str, value: str, *texts: str) -> str:
    said = "; ".join(f"Value {value}at '{path}' failed to satisfy constraint: {text}" for text in texts)
    return f"{len(texts)} validation error{'s'[: len(texts) > 1]} detected: {said}"


def null(path: str) -> str:
    return constraint(path, "null ", "Member must not be null")


def pattern(path: str, value: str, text: str) -> str:
    return constraint(path, f"'{value}' ", f"Member must satisfy regular expression pattern: {text}")


def enum(path: str, value: str, values: str) -> str:
    return constraint(path, f"'{value}' ", f"Member must satisfy enum value set: [{values}]")


def least(path: str, value: object, bound: int, what: str = "value") -> str:
    return constraint(path, f"'{value}' ", f"Member must have {what} greater than or equal to {bound}")


def most(path: str, value: object, bound: int, what: str = "value") -> str:
    return constraint(path, f"'{value}' ", f"Member must have {what} less than or equal to {bound}")


ON_DEMAND = {"StreamMode": "ON_DEMAND"}
PUT = {"StreamName": "orders", "Data": b"x", "PartitionKey": "k"}
ITERATE = {"StreamName": "orders", "ShardId": SHARD, "ShardIteratorType": "TRIM_HORIZON"}
SUBSCRIBE = {"ConsumerARN": "<CONSUMER>", "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}}
QUEUED = {"QueueName": "more", "StreamConfigurationList": [{"StreamARN": f"{PLACE}:stream/free"}]}
BASE = {
    "streamName": "[a-zA-Z0-9_.-]+",
    "hash": r"^(0|([1-9]\d{0,38}))$",
    "stream": r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
}

CONSTRAINTS: list[tuple[str, dict[str, Any], str]] = [
    ("PutRecord", {"StreamName": "orders", "PartitionKey": "k"}, null("data")),
    ("PutRecord", {"StreamName": "orders", "Data": b"x"}, null("partitionKey")),
    ("PutRecord", {**PUT, "PartitionKey": "k" * 257}, most("partitionKey", "k" * 257, 256, "length")),
    ("PutRecord", {**PUT, "PartitionKey": ""}, least("partitionKey", "", 1, "length")),
    ("PutRecord", {**PUT, "ExplicitHashKey": "01"}, pattern("explicitHashKey", "01", BASE["hash"])),
    (
        "PutRecord",
        {**PUT, "SequenceNumberForOrdering": "x"},
        pattern("sequenceNumberForOrdering", "x", r"^(0|([1-9]\d{0,128}))$"),
    ),
    (
        "PutRecord",
        {**PUT, "Data": b"x" * (1 << 20) + b"x"},
        constraint("data", "", "Member must have length less than or equal to 1048576"),
    ),
    ("PutRecords", {"StreamName": "orders"}, null("records")),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": []},
        constraint("records", "", "Member must have length greater than or equal to 1"),
    ),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"", "PartitionKey": "k"}] * 501},
        constraint("records", "", "Member must have length less than or equal to 500"),
    ),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"", "PartitionKey": "k"}, {"PartitionKey": "k"}]},
        null("records.2.member.data"),
    ),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"", "PartitionKey": "k"}, {"Data": b""}]},
        null("records.2.member.partitionKey"),
    ),
    (
        "PutRecords",
        {
            "StreamName": "orders",
            "Records": [{"Data": b"", "PartitionKey": "k"}, {"Data": b"x" * ((1 << 20) + 1), "PartitionKey": "k"}],
        },
        constraint("records.2.member.data", "", "Member must have length less than or equal to 1048576"),
    ),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"", "PartitionKey": "k", "ExplicitHashKey": "-1"}]},
        pattern("records.1.member.explicitHashKey", "-1", BASE["hash"]),
    ),
    (
        "CreateStream",
        {"StreamName": "", "ShardCount": 1},
        constraint(
            "streamName",
            "'' ",
            f"Member must satisfy regular expression pattern: {BASE['streamName']}",
            "Member must have length greater than or equal to 1",
        ),
    ),
    ("CreateStream", {"StreamName": "a/b", "ShardCount": 1}, pattern("streamName", "a/b", BASE["streamName"])),
    ("CreateStream", {"StreamName": "a" * 129, "ShardCount": 1}, most("streamName", "a" * 129, 128, "length")),
    ("CreateStream", {"ShardCount": 1}, null("streamName")),
    ("CreateStream", {"StreamName": "more"}, null("shardCount")),
    ("CreateStream", {"StreamName": "more", "ShardCount": 0}, least("shardCount", 0, 1)),
    (
        "CreateStream",
        {"StreamName": "more", "StreamModeDetails": {"StreamMode": "FAST"}},
        enum("streamModeDetails.streamMode", "FAST", "PROVISIONED, ON_DEMAND"),
    ),
    (
        "CreateStream",
        {"StreamName": "more", "ShardCount": 1, "MaxRecordSizeInKiB": 1023},
        least("maxRecordSizeInKiB", 1023, 1024),
    ),
    (
        "CreateStream",
        {"StreamName": "more", "ShardCount": 1, "MaxRecordSizeInKiB": 10241},
        most("maxRecordSizeInKiB", 10241, 10240),
    ),
    (
        "CreateStream",
        {"StreamName": "more", "ShardCount": 1, "Tags": {"": "x"}},
        constraint("tags", "'{=x}' ", f"Map keys must satisfy constraint: {PAIR.format(128, 1)}"),
    ),
    (
        "AddTagsToStream",
        {"StreamName": "orders", "Tags": {"k": "v" * 257}},
        constraint("tags", f"'{{k={'v' * 257}}}' ", f"Map value must satisfy constraint: {PAIR.format(256, 0)}"),
    ),
    ("ListStreams", {"Limit": 0}, least("limit", 0, 1)),
    ("ListStreams", {"Limit": 10001}, most("limit", 10001, 10000)),
    ("DescribeStream", {"StreamName": "orders", "Limit": 10001}, most("limit", 10001, 10000)),
    (
        "DescribeStream",
        {"StreamName": "orders", "ExclusiveStartShardId": "a b"},
        pattern("exclusiveStartShardId", "a b", BASE["streamName"]),
    ),
    ("DescribeStreamSummary", {"StreamARN": "arn:x"}, pattern("streamARN", "arn:x", BASE["stream"])),
    (
        "DescribeStreamSummary",
        {"StreamName": "orders", "StreamId": "x"},
        pattern("streamId", "x", "[a-z0-9]{20}-[a-z0-9]{3}"),
    ),
    ("ListShards", {"StreamName": "orders", "MaxResults": 0}, least("maxResults", 0, 1)),
    (
        "ListShards",
        {"StreamName": "orders", "ShardFilter": {"Type": "x"}},
        enum(
            "shardFilter.type",
            "x",
            "AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP",
        ),
    ),
    ("ListShards", {"StreamName": "orders", "ShardFilter": {}}, null("shardFilter.type")),
    (
        "GetShardIterator",
        {**ITERATE, "ShardIteratorType": "NEWEST"},
        enum(
            "shardIteratorType",
            "NEWEST",
            "AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP",
        ),
    ),
    ("GetRecords", {"ShardIterator": "<ITERATOR>", "Limit": 0}, least("limit", 0, 1)),
    ("GetRecords", {"ShardIterator": "<ITERATOR>", "Limit": 10001}, most("limit", 10001, 10000)),
    ("GetRecords", {"ShardIterator": "a" * 513}, most("shardIterator", "a" * 513, 512, "length")),
    (
        "SplitShard",
        {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": "x"},
        pattern("newStartingHashKey", "x", BASE["hash"]),
    ),
    (
        "UpdateShardCount",
        {"StreamName": "orders", "TargetShardCount": 2, "ScalingType": "x"},
        enum("scalingType", "x", "UNIFORM_SCALING"),
    ),
    (
        "UpdateShardCount",
        {"StreamName": "orders", "TargetShardCount": 0, "ScalingType": "UNIFORM_SCALING"},
        least("targetShardCount", 0, 1),
    ),
    (
        "EnableEnhancedMonitoring",
        {"StreamName": "orders", "ShardLevelMetrics": []},
        least("shardLevelMetrics", "[]", 1, "length"),
    ),
    (
        "StartStreamEncryption",
        {"StreamName": "orders", "EncryptionType": "AES", "KeyId": "alias/a"},
        enum("encryptionType", "AES", "NONE, KMS"),
    ),
    ("ListTagsForStream", {"StreamName": "orders", "Limit": 51}, most("limit", 51, 50)),
    (
        "RemoveTagsFromStream",
        {"StreamName": "orders", "TagKeys": ["k" * 129]},
        constraint("tagKeys", f"'[{'k' * 129}]' ", f"Member must satisfy constraint: {PAIR.format(128, 1)}"),
    ),
    (
        "RegisterStreamConsumer",
        {"StreamARN": ORDERS, "ConsumerName": "a b"},
        pattern("consumerName", "a b", BASE["streamName"]),
    ),
    ("RegisterStreamConsumer", {"ConsumerName": "a"}, null("streamARN")),
    ("UpdateMaxRecordSize", {"StreamARN": ORDERS, "MaxRecordSizeInKiB": 1}, least("maxRecordSizeInKiB", 1, 1024)),
    ("UpdateStreamWarmThroughput", {"StreamARN": ORDERS}, null("warmThroughputMiBps")),
    ("UpdateStreamMode", {"StreamARN": ORDERS, "StreamModeDetails": {}}, null("streamModeDetails.streamMode")),
    (
        "UpdateAccountSettings",
        {"MinimumThroughputBillingCommitment": {"Status": "ON"}},
        enum("minimumThroughputBillingCommitment.status", "ON", "ENABLED, DISABLED"),
    ),
    (
        "UpdateStreamRecordDistributionStrategy",
        {"StreamARN": ORDERS, "RecordDistributionStrategy": "x"},
        enum("recordDistributionStrategy", "x", "AUTO, USER_PARTITION_KEY"),
    ),
    ("ReceiveQueueRecords", {"QueueARN": "<QUEUE>", "Limit": 11}, most("limit", 11, 10)),
    ("ReceiveQueueRecords", {"QueueARN": "<QUEUE>", "WaitTimeSeconds": 21}, most("waitTimeSeconds", 21, 20)),
    (
        "UpdateQueue",
        {"QueueARN": "<QUEUE>", "QueueAttributes": {"VisibilityTimeoutSeconds": 43201}},
        most("queueAttributes.visibilityTimeoutSeconds", 43201, 43200),
    ),
    (
        "AcknowledgeQueueRecords",
        {"QueueARN": "<QUEUE>", "Entries": [{"ReceiptHandle": "x"}] * 11},
        constraint("entries", "", "Member must have length less than or equal to 10"),
    ),
]

COERCIONS: list[tuple[str, dict[str, Any], str]] = [
    ("DescribeStreamSummary", {"StreamName": True}, "class java.lang.Boolean can not be converted to an String"),
    ("DescribeStreamSummary", {"StreamName": 5}, f"{NUMBER} can not be converted to an String"),
    ("DescribeStreamSummary", {"StreamName": ["a"]}, "Start of list found where not expected"),
    ("DescribeStreamSummary", {"StreamName": {}}, "Start of structure or map found where not expected."),
    ("ListStreams", {"Limit": "5"}, "class java.lang.String can not be converted to an Integer"),
    ("ListStreams", {"Limit": False}, "class java.lang.Boolean can not be converted to an Integer"),
    ("DeleteStream", {"EnforceConsumerDeletion": 5}, f"{NUMBER} can not be converted to an Boolean"),
    ("DeleteStream", {"EnforceConsumerDeletion": "23"}, "'23' can not be converted to an Boolean"),
]

NUMBERED = {**ITERATE, "ShardIteratorType": "AT_SEQUENCE_NUMBER"}
MUST = (
    "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and "
    "StartingSequenceNumber or (2) TRIM_HORIZON "
    "or LATEST and no StartingSequenceNumber. Request specified {} and {} StartingSequenceNumber."
)
INVALID_NUMBER = (
    "StartingSequenceNumber {} used in GetShardIterator on shard shardId-000000000000 in stream orders under account "
    f"{ACCOUNT} is invalid"
)
ORDERING = f"ExclusiveMinimumSequenceNumber {{}} used in PutRecord on stream orders under account {ACCOUNT} is invalid."
CUT_AT = (
    "NewStartingHashKey {} used in SplitShard() on shard shardId-000000000000 in stream orders under account "
    f"{ACCOUNT} is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's "
    f"EndingHashKey {(1 << 128) - 1}."
)
SCALE = (
    "UpdateShardCount cannot scale {} your current open shard count. "
    "Current open shard count: {} Target shard count: {}"
)
HASH = f"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {TWO_TO_128}"
RETAIN = "Requested retention period ({} hours)"
UNIFORM = {"ScalingType": "UNIFORM_SCALING"}
KEY = {"EncryptionType": "KMS", "KeyId": "alias/mine"}
BY_NAME_OR_ARN: dict[str, dict[str, Any]] = {
    "AddTagsToStream": {"Tags": {"a": "b"}},
    "DecreaseStreamRetentionPeriod": {"RetentionPeriodHours": 24},
    "DeleteStream": {},
    "DescribeStream": {},
    "DescribeStreamSummary": {},
    "DisableEnhancedMonitoring": {"ShardLevelMetrics": ["ALL"]},
    "EnableEnhancedMonitoring": {"ShardLevelMetrics": ["ALL"]},
    "IncreaseStreamRetentionPeriod": {"RetentionPeriodHours": 25},
    "ListShards": {},
    "ListTagsForStream": {},
    "MergeShards": {"ShardToMerge": "0", "AdjacentShardToMerge": "1"},
    "PutRecord": {"Data": b"x", "PartitionKey": "k"},
    "PutRecords": {"Records": [{"Data": b"x", "PartitionKey": "k"}]},
    "RemoveTagsFromStream": {"TagKeys": ["a"]},
    "SplitShard": {"ShardToSplit": "0", "NewStartingHashKey": HALF},
    "StartStreamEncryption": KEY,
    "StopStreamEncryption": KEY,
    "UpdateShardCount": {"TargetShardCount": 2, **UNIFORM},
    "UpdateStreamWarmThroughput": {"WarmThroughputMiBps": 10},
}
BY_ARN: dict[str, dict[str, Any]] = {
    "ListStreamConsumers": {},
    "RegisterStreamConsumer": {"ConsumerName": "c"},
    "UpdateMaxRecordSize": {"MaxRecordSizeInKiB": 2048},
    "UpdateStreamMode": {"StreamModeDetails": ON_DEMAND},
    "UpdateStreamRecordDistributionStrategy": {"RecordDistributionStrategy": "USER_PARTITION_KEY"},
}
BY_RESOURCE: dict[str, dict[str, Any]] = {
    "TagResource": {"Tags": {"a": "b"}},
    "UntagResource": {"TagKeys": ["a"]},
    "ListTagsForResource": {},
    "PutResourcePolicy": {"Policy": "{}"},
    "GetResourcePolicy": {},
    "DeleteResourcePolicy": {},
}
BY_QUEUE: dict[str, dict[str, Any]] = {
    "DescribeQueue": {},
    "UpdateQueue": {"QueueAttributes": {"VisibilityTimeoutSeconds": 1}},
    "DeleteQueue": {},
    "ReceiveQueueRecords": {},
    "ReceiveDeadLetterQueueRecords": {},
    "AcknowledgeQueueRecords": {"Entries": [{"ReceiptHandle": "x"}]},
    "AcknowledgeDeadLetterQueueRecords": {"Entries": [{"ReceiptHandle": "x"}]},
    "UpdateQueueRecordsVisibility": {"Entries": [{"ReceiptHandle": "x", "VisibilityTimeoutSeconds": 1}]},
    "UpdateDeadLetterQueueRecordsVisibility": {"Entries": [{"ReceiptHandle": "x", "VisibilityTimeoutSeconds": 1}]},
    "RestoreDeadLetterQueueRecords": {"Entries": [{"ReceiptHandle": "x"}]},
}
NOBODY = f"{ORDERS}/consumer/nobody:1700000000"
NO_QUEUE = f"{PLACE}:queue/{'0' * 32}"

MEANINGS: list[tuple[str, dict[str, Any], str, str | None]] = [
    *((name, {"StreamName": "none", **given}, RNF, no_stream()) for name, given in BY_NAME_OR_ARN.items()),
    *((name, {"StreamARN": NONE, **given}, RNF, no_stream()) for name, given in (BY_NAME_OR_ARN | BY_ARN).items()),
    *((name, given, IA, ANY) for name, given in BY_NAME_OR_ARN.items()),
    *((name, {"StreamName": "three", "StreamARN": ORDERS, **given}, IA, ANY) for name, given in BY_NAME_OR_ARN.items()),
    *((name, {"ResourceARN": NONE, **given}, RNF, no_stream()) for name, given in BY_RESOURCE.items()),
    *((name, {"ResourceARN": NOBODY, **given}, RNF, ANY) for name, given in BY_RESOURCE.items()),
    *((name, {"ResourceARN": NO_QUEUE, **given}, RNF, ANY) for name, given in BY_RESOURCE.items()),
    *((name, {"ResourceARN": f"{PLACE}:channel/c", **given}, RNF, ANY) for name, given in BY_RESOURCE.items()),
    *((name, {"QueueARN": NO_QUEUE, **given}, RNF, ANY) for name, given in BY_QUEUE.items()),
    # streams
    (
        "CreateStream",
        {"StreamName": "orders", "ShardCount": 1},
        RIU,
        f"Stream orders under account {ACCOUNT} already exists.",
    ),
    (
        "CreateStream",
        {"StreamName": "more", "ShardCount": 20_000},
        LE,
        (
            f"This request would exceed the shard limit for the account {ACCOUNT} in us-east-1. Current "
            "shard count for the "
            "account: 21. Limit: 20000. Number of additional shards that would have resulted from this request: 20000. "
            "Refer to the AWS Service Limits page "
            "(http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) "
            "for current limits and how to request higher limits."
        ),
    ),
    ("CreateStream", {"StreamName": "more", "StreamModeDetails": ON_DEMAND, "ShardCount": 1}, IA, ANY),
    ("CreateStream", {"StreamName": "more", "ShardCount": 1, "WarmThroughputMiBps": 10}, IA, ANY),
    ("CreateStream", {"StreamName": "more", "StreamModeDetails": ON_DEMAND, "WarmThroughputMiBps": 10}, IA, ANY),
    ("CreateStream", {"StreamName": "more", "ShardCount": 1, "RecordDistributionStrategy": "AUTO"}, IA, ANY),
    (
        "CreateStream",
        {"StreamName": "more", "ShardCount": 1, "Tags": {f"{n}": "" for n in range(51)}},
        IA,
        (
            f"Failed to add tags to stream more under account {ACCOUNT} because a given stream cannot "
            "have more than 50 tags "
            "associated with it."
        ),
    ),
    ("DeleteStream", {"StreamName": "watched"}, RIU, ANY),
    ("DeleteStream", {"StreamName": "free", "EnforceConsumerDeletion": True}, RIU, ANY),
    ("DescribeStream", {"StreamARN": f"{ORDERS}/consumer/x:1"}, IA, ANY),
    (
        "DescribeStream",
        {"StreamName": "orders", "ExclusiveStartShardId": "shard"},
        RNF,
        f"Could not find shard shard in stream orders under account {ACCOUNT}.",
    ),
    ("ListStreams", {"NextToken": "x"}, IA, ANY),
    # records
    (
        "PutRecord",
        {**PUT, "ExplicitHashKey": TWO_TO_128},
        IA,
        HASH,
    ),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"", "PartitionKey": "k", "ExplicitHashKey": TWO_TO_128}]},
        IA,
        HASH,
    ),
    ("PutRecord", {**PUT, "SequenceNumberForOrdering": "5"}, IA, ORDERING.format("5")),
    ("PutRecord", {**PUT, "SequenceNumberForOrdering": "<FUTURE_NUMBER>"}, IA, ORDERING.format("<FUTURE_NUMBER>")),
    ("PutRecord", {**PUT, "Data": b"x" * (1 << 20)}, IA, ANY),
    (
        "PutRecord",
        {"StreamName": "auto", "Data": b"x", "SequenceNumberForOrdering": "<NUMBER>"},
        IA,
        ANY,
    ),
    ("PutRecord", {**PUT, "DryRun": True}, DRY, ANY),
    ("PutRecords", {"StreamName": "orders", "DryRun": True, "Records": [{"Data": b"", "PartitionKey": "k"}]}, DRY, ANY),
    (
        "PutRecords",
        {"StreamName": "orders", "Records": [{"Data": b"x" * 1_048_570, "PartitionKey": "k"}] * 11},
        IA,
        "Records size exceeds 10 MB limit",
    ),
    ("GetShardIterator", {**ITERATE, "DryRun": True}, DRY, ANY),
    (
        "GetShardIterator",
        {**ITERATE, "ShardId": "ABKLFD8"},
        RNF,
        f"Could not find shard ABKLFD8 in stream orders under account {ACCOUNT}.",
    ),
    (
        "GetShardIterator",
        {**ITERATE, "StreamName": "none", "ShardId": "2147483648"},
        RNF,
        f"Could not find shard 2147483648 in stream none under account {ACCOUNT}.",
    ),
    (
        "GetShardIterator",
        {**ITERATE, "StreamName": "none", "ShardId": "x-5"},
        RNF,
        f"Shard shardId-000000000005 in stream none under account {ACCOUNT} does not exist",
    ),
    (
        "GetShardIterator",
        {**ITERATE, "ShardId": "shardId-5"},
        RNF,
        f"Shard shardId-000000000005 in stream orders under account {ACCOUNT} does not exist",
    ),
    ("GetShardIterator", NUMBERED, IA, MUST.format("AT_SEQUENCE_NUMBER", "no")),
    (
        "GetShardIterator",
        {**ITERATE, "ShardIteratorType": "LATEST", "StartingSequenceNumber": "<NUMBER>"},
        IA,
        MUST.format("LATEST", "also a"),
    ),
    (
        "GetShardIterator",
        {**NUMBERED, "StartingSequenceNumber": "<ELSEWHERE>"},
        IA,
        (
            "Invalid StartingSequenceNumber. It encodes shardId-000000000002, while it was used in a "
            "call to a shard with "
            "shardId-000000000000"
        ),
    ),
    ("GetShardIterator", {**NUMBERED, "StartingSequenceNumber": "0"}, IA, INVALID_NUMBER.format("0") + "."),
    (
        "GetShardIterator",
        {**NUMBERED, "StartingSequenceNumber": "<OTHER_STREAM>"},
        IA,
        INVALID_NUMBER.format("<OTHER_STREAM>") + " because it did not come from this stream.",
    ),
    (
        "GetShardIterator",
        {**ITERATE, "ShardIteratorType": "AT_TIMESTAMP"},
        IA,
        (
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current "
            "request has no timestamp "
            "parameter."
        ),
    ),
    ("GetShardIterator", {**ITERATE, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": FUTURE}, IA, ANY),
    ("GetRecords", {"ShardIterator": "AAAA"}, IA, "Invalid ShardIterator."),
    ("GetRecords", {"ShardIterator": "<FORGED>"}, IA, "Invalid ShardIterator."),
    ("GetRecords", {"ShardIterator": "<ITERATOR>", "DryRun": True}, DRY, ANY),
    ("GetRecords", {"ShardIterator": "<ITERATOR>", "StreamARN": f"{PLACE}:stream/three"}, IA, ANY),
    (
        "GetRecords",
        {"ShardIterator": "<GONE>"},
        RNF,
        f"Shard shardId-000000000000 in stream gone under account {ACCOUNT} does not exist",
    ),
    ("ListShards", {}, IA, "Either NextToken or StreamName should be provided."),
    *(
        ("ListShards", {"NextToken": "x", **other}, IA, f"NextToken and {word} cannot be provided together.")
        for word, other in (
            ("StreamName", {"StreamName": "orders"}),
            ("StreamARN", {"StreamARN": ORDERS}),
            ("ExclusiveStartShardId", {"ExclusiveStartShardId": SHARD}),
        )
    ),
    ("ListShards", {"NextToken": "x"}, IA, ANY),
    ("ListShards", {"StreamName": "orders", "ShardFilter": {"Type": "AT_TIMESTAMP"}}, IA, ANY),
    ("ListShards", {"StreamName": "orders", "ShardFilter": {"Type": "AFTER_SHARD_ID"}}, IA, ANY),
    ("ListShards", {"StreamName": "orders", "StreamCreationTimestamp": 1}, RNF, no_stream("orders")),
    # shards
    *(
        ("SplitShard", {"StreamName": "orders", "ShardToSplit": SHARD, "NewStartingHashKey": at}, IA, CUT_AT.format(at))
        for at in ("0", "1", str((1 << 128) - 1))
    ),
    (
        "SplitShard",
        {"StreamName": "none", "ShardToSplit": "2.14E4", "NewStartingHashKey": "5"},
        RNF,
        f"Could not find shard 2.14E4 in stream none under account {ACCOUNT}.",
    ),
    (
        "SplitShard",
        {"StreamName": "orders", "ShardToSplit": "x-7", "NewStartingHashKey": "5"},
        RNF,
        f"Could not find shard shardId-000000000007 in stream orders under account {ACCOUNT}.",
    ),
    ("SplitShard", {"StreamName": "cut", "ShardToSplit": "0", "NewStartingHashKey": "5"}, IA, ANY),
    (
        "SplitShard",
        {"StreamName": "free", "ShardToSplit": "0", "NewStartingHashKey": "5"},
        V,
        f"Request is invalid. Stream free under account {ACCOUNT} is in On-Demand mode.",
    ),
    *(
        (
            "MergeShards",
            {"StreamName": "three", "ShardToMerge": first, "AdjacentShardToMerge": second},
            IA,
            (
                f"Shards shardId-00000000000{first} and shardId-00000000000{second} in stream three under "
                f"account {ACCOUNT} "
                "are not an adjacent pair of shards eligible for merging"
            ),
        )
        for first, second in (("1", "0"), ("0", "2"), ("0", "0"))
    ),
    (
        "MergeShards",
        {"StreamName": "three", "ShardToMerge": "0", "AdjacentShardToMerge": "8"},
        RNF,
        f"Could not find shard shardId-000000000008 in stream three under account {ACCOUNT}.",
    ),
    (
        "MergeShards",
        {"StreamName": "free", "ShardToMerge": "0", "AdjacentShardToMerge": "1"},
        V,
        f"Request is invalid. Stream free under account {ACCOUNT} is in On-Demand mode.",
    ),
    (
        "UpdateShardCount",
        {"StreamName": "three", "TargetShardCount": 7, **UNIFORM},
        LE,
        SCALE.format("up over double", 3, 7),
    ),
    (
        "UpdateShardCount",
        {"StreamName": "three", "TargetShardCount": 1, **UNIFORM},
        LE,
        SCALE.format("down below half", 3, 1),
    ),
    ("UpdateShardCount", {"StreamName": "three", "TargetShardCount": 3, **UNIFORM}, IA, ANY),
    ("UpdateShardCount", {"StreamName": "scaled", "TargetShardCount": 3, **UNIFORM}, LE, ANY),
    (
        "UpdateShardCount",
        {"StreamName": "free", "TargetShardCount": 5, **UNIFORM},
        V,
        f"Request is invalid. Stream free under account {ACCOUNT} is in On-Demand mode.",
    ),
    # settings
    *(
        (
            operation,
            {"StreamName": "long", "RetentionPeriodHours": hours},
            IA,
            f"{kind} allowed retention period is {bound} hours. {RETAIN.format(hours)} is too {how}.",
        )
        for operation in ("IncreaseStreamRetentionPeriod", "DecreaseStreamRetentionPeriod")
        for hours, kind, bound, how in ((23, "Minimum", 24, "short"), (8761, "Maximum", 8760, "long"))
    ),
    (
        "IncreaseStreamRetentionPeriod",
        {"StreamName": "long", "RetentionPeriodHours": 47},
        IA,
        (
            f"{RETAIN.format(47)} for stream long can not be shorter than existing retention period (48 hours). "
            "Use DecreaseRetentionPeriod API."
        ),
    ),
    (
        "DecreaseStreamRetentionPeriod",
        {"StreamName": "long", "RetentionPeriodHours": 49},
        IA,
        (
            f"{RETAIN.format(49)} for stream long can not be longer than existing retention period (48 hours). "
            "Use IncreaseRetentionPeriod API."
        ),
    ),
    ("UpdateStreamMode", {"StreamARN": ORDERS, "StreamModeDetails": {"StreamMode": "PROVISIONED"}}, V, ANY),
    ("UpdateStreamMode", {"StreamARN": f"{PLACE}:stream/switched", "StreamModeDetails": ON_DEMAND}, LE, ANY),
    (
        "UpdateStreamMode",
        {"StreamARN": f"{PLACE}:stream/free", "StreamModeDetails": {"StreamMode": "PROVISIONED"}},
        RIU,
        ANY,
    ),
    ("UpdateMaxRecordSize", {"MaxRecordSizeInKiB": 2048}, IA, ANY),
    ("UpdateStreamRecordDistributionStrategy", {"StreamARN": ORDERS, "RecordDistributionStrategy": "AUTO"}, IA, ANY),
    ("UpdateStreamWarmThroughput", {"StreamName": "orders", "WarmThroughputMiBps": 10}, IA, ANY),
    ("UpdateStreamWarmThroughput", {"StreamName": "free", "WarmThroughputMiBps": 10}, IA, ANY),
    ("StartStreamEncryption", {"StreamName": "orders", "EncryptionType": "NONE", "KeyId": "alias/a"}, IA, ANY),
    ("StartStreamEncryption", {"StreamName": "orders", "EncryptionType": "KMS", "KeyId": "no key"}, IA, ANY),
    ("StopStreamEncryption", {"StreamName": "sealed", "EncryptionType": "KMS", "KeyId": "alias/other"}, IA, ANY),
    # consumers
    (
        "RegisterStreamConsumer",
        {"StreamARN": f"{PLACE}:stream/watched", "ConsumerName": "fast"},
        RIU,
        f"Consumer fast under stream watched already exists for account {ACCOUNT}.",
    ),
    ("RegisterStreamConsumer", {"StreamARN": f"{PLACE}:stream/crowded", "ConsumerName": "more"}, LE, ANY),
    *(
        (operation, given, RNF, f"Consumer {said}, account {ACCOUNT} not found.")
        for operation in ("DescribeStreamConsumer", "DeregisterStreamConsumer")
        for given, said in (
            ({"ConsumerARN": NOBODY}, NOBODY),
            ({"StreamARN": ORDERS, "ConsumerName": "nobody"}, "nobody"),
        )
    ),
    *(
        (operation, given, IA, ANY)
        for operation in ("DescribeStreamConsumer", "DeregisterStreamConsumer")
        for given in (
            {},
            {"ConsumerName": "fast"},
            {"StreamARN": ORDERS},
            {"ConsumerARN": "<CONSUMER>", "StreamARN": ORDERS},
            {"ConsumerARN": "<CONSUMER>", "ConsumerName": "other"},
        )
    ),
    ("ListStreamConsumers", {"StreamARN": ORDERS, "NextToken": "x"}, IA, ANY),
    ("SubscribeToShard", {**SUBSCRIBE, "ConsumerARN": NOBODY}, RNF, f"Consumer {NOBODY}, account {ACCOUNT} not found."),
    (
        "SubscribeToShard",
        {**SUBSCRIBE, "ShardId": "9"},
        RNF,
        f"Shard shardId-000000000009 in stream watched under account {ACCOUNT} does not exist",
    ),
    ("SubscribeToShard", {**SUBSCRIBE, "StartingPosition": {"Type": "AT_SEQUENCE_NUMBER"}}, IA, ANY),
    ("SubscribeToShard", {**SUBSCRIBE, "StartingPosition": {"Type": "AT_TIMESTAMP"}}, IA, ANY),
    ("SubscribeToShard", {**SUBSCRIBE, "StartingPosition": {"Type": "AT_TIMESTAMP", "Timestamp": FUTURE}}, IA, ANY),
    ("SubscribeToShard", {**SUBSCRIBE, "DryRun": True}, DRY, ANY),
    # tags and policies
    *(
        (
            operation,
            {resource[0]: resource[1], "Tags": {"a": "b;c"}},
            IA,
            (
                "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, "
                "_ . / = + - % @."
            ),
        )
        for operation, resource in (
            ("AddTagsToStream", ("StreamName", "cut")),
            ("TagResource", ("ResourceARN", ORDERS)),
        )
    ),
    (
        "AddTagsToStream",
        {"StreamName": "cut", "Tags": {"a": "100%"}},
        IA,
        (
            f"Failed to add tags to stream cut under account {ACCOUNT} because some tags contained "
            "illegal characters. The "
            "allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
        ),
    ),
    (
        "AddTagsToStream",
        {"StreamName": "orders", "Tags": {"one more": ""}},
        IA,
        (
            f"Failed to add tags to stream orders under account {ACCOUNT} because a given stream cannot "
            "have more than 50 "
            "tags associated with it."
        ),
    ),
    ("TagResource", {"ResourceARN": ORDERS, "Tags": {"aws:x": "y"}}, IA, ANY),
    ("PutResourcePolicy", {"ResourceARN": ORDERS, "Policy": "no JSON"}, IA, ANY),
    ("DeleteResourcePolicy", {"ResourceARN": ORDERS}, RNF, ANY),
    # queues
    ("CreateQueue", {**QUEUED, "StreamConfigurationList": [{"StreamARN": ORDERS}]}, V, ANY),
    ("CreateQueue", {**QUEUED, "StreamConfigurationList": [{"StreamARN": NONE}]}, RNF, no_stream()),
    ("CreateQueue", {**QUEUED, "StreamConfigurationList": QUEUED["StreamConfigurationList"] * 2}, V, ANY),
    ("CreateQueue", {**QUEUED, "QueueName": "jobs"}, RIU, ANY),
    (
        "CreateQueue",
        {**QUEUED, "QueueAttributes": {"DeadLetterConfiguration": {"TargetType": "BUILT_IN"}}},
        V,
        ANY,
    ),
    (
        "CreateQueue",
        {
            **QUEUED,
            "StreamConfigurationList": [
                {"StreamARN": f"{PLACE}:stream/free", "StartingPosition": {"Type": "AT_TIMESTAMP", "Timestamp": FUTURE}}
            ],
        },
        IA,
        ANY,
    ),
    ("ListQueues", {"NextToken": "x"}, IA, ANY),
    ("ListChannels", {"NextToken": "x"}, IA, ANY),
]


def called(world: World, operation: str, given: dict[str, Any]) -> tuple[str, str, int]:
    """The error that an operation ends with."""
    from botocore import xform_name

    client = world.desk.client(checked=False)
    return refusal(getattr(client, xform_name(operation)), **world.filled(given))


def ids(cases: list[Any]) -> list[str]:
    """Names of cases: pytest numbers those that are alike."""
    return [case[0] for case in cases]


@pytest.mark.parametrize(("operation", "given", "text"), CONSTRAINTS, ids=ids(CONSTRAINTS))
def test_a_constraint_of_the_model_is_named(living: World, operation: str, given: dict[str, Any], text: str) -> None:
    assert called(living, operation, given) == (V, text, 400)


@pytest.mark.parametrize(("operation", "given", "text"), COERCIONS, ids=ids(COERCIONS))
def test_a_value_of_another_type_is_named(living: World, operation: str, given: dict[str, Any], text: str) -> None:
    assert called(living, operation, given) == (SER, text, 400)


@pytest.mark.parametrize(("operation", "given", "code", "text"), MEANINGS, ids=ids(MEANINGS))
def test_what_means_nothing_is_refused(
    living: World, operation: str, given: dict[str, Any], code: str, text: str | None
) -> None:
    found = called(living, operation, given)
    assert (found[0], found[2]) == (code, 400)
    if text is not None:
        assert found[1] == living.text(text)
    assert found[1]


def test_every_operation_that_can_be_refused_is_refused_here() -> None:
    tested = {case[0] for cases in (CONSTRAINTS, COERCIONS, MEANINGS) for case in cases}
    assert set(operations()) - tested == {
        "CreateChannel",
        "DeleteChannel",
        "DescribeChannel",
        "UpdateChannel",  # of these: test_boto3_operations
        "DescribeAccountSettings",
        "DescribeLimits",  # they take nothing, and fail only by their rates
    }
