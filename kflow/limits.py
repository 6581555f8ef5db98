"""Quotas and defaults: one table with AWS's numbers, and the few numbers of our own that others must know.

A row is name, value, unit and source; the constants below it are what code uses.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Limit(NamedTuple):
    """One quota or default.

    Attributes:
        name: what it bounds, for people.
        value: the number.
        unit: of the value.
        source: `documented: <page>`, `recorded: <where>` or `chosen: <why>`.
    """

    name: str
    value: int
    unit: str
    source: str


KIB: Final = 1024
MIB: Final = 1024 * KIB

PARTITION_KEY_CHARACTERS: Final = 256
RECORD_BYTES: Final = 1 * MIB
RECORD_BYTES_MAX: Final = 10 * MIB
PUT_RECORDS_ENTRIES: Final = 500
PUT_RECORDS_BYTES: Final = 10 * MIB
GET_RECORDS_ENTRIES: Final = 10_000
GET_RECORDS_BYTES: Final = 10 * MIB
ITERATOR_SECONDS: Final = 300
RETENTION_HOURS: Final = 24
RETENTION_HOURS_MAX: Final = 8760
STREAM_NAME_CHARACTERS: Final = 128
SHARDS_PER_STREAM: Final = 1000
ON_DEMAND_SHARDS: Final = 4
ON_DEMAND_STREAMS: Final = 50
STREAMS_CREATING: Final = 5
CONSUMERS: Final = 20
CONSUMERS_ADVANTAGE: Final = 50
CONSUMERS_CREATING: Final = 5
TAGS: Final = 50
KEY_CHANGES: Final = 25
MODE_CHANGES: Final = 2
SCALINGS: Final = 10
WARM_MIBPS: Final = 10 * 1024
BLOCK_BYTES: Final = 1 * MIB
SEGMENT_BYTES: Final = 64 * MIB
FREE_BYTES: Final = 64 * MIB
QUEUE_IN_FLIGHT: Final = 120_000
QUEUES_MOVING: Final = 5
QUEUE_BATCH: Final = 10
FILTERS: Final = 5
FILTERS_MAX: Final = 10
FILTER_CHARACTERS: Final = 4096
FUNCTION_SECONDS: Final = 900
FUNCTION_MEMORY_MB: Final = 10_240
CONCURRENT_EXECUTIONS: Final = 1000
ENVIRONMENT_BYTES: Final = 4096

RESERVED_VARIABLES: Final = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_LAMBDA_METADATA_API",
        "AWS_LAMBDA_METADATA_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
"""Environment variables that a function cannot set: Lambda does. Source: documented: Lambda Developer Guide,
configuration-envvars, defined runtime environment variables."""

LIMITS: Final[tuple[Limit, ...]] = (
    Limit("partition key", PARTITION_KEY_CHARACTERS, "characters", "documented: PutRecord"),
    Limit("record size, default", RECORD_BYTES, "bytes of data and key", "documented: PutRecord"),
    Limit("record size, highest setting", RECORD_BYTES_MAX, "bytes of data and key", "documented: CreateStream"),
    Limit("entries in a PutRecords call", PUT_RECORDS_ENTRIES, "records", "documented: PutRecords"),
    Limit("size of a PutRecords call", PUT_RECORDS_BYTES, "bytes of data and keys", "documented: PutRecords"),
    Limit("entries in a GetRecords answer", GET_RECORDS_ENTRIES, "records", "documented: GetRecords"),
    Limit("size of a GetRecords answer", GET_RECORDS_BYTES, "bytes of data and keys", "documented: GetRecords"),
    Limit("life of a shard iterator", ITERATOR_SECONDS, "seconds", "documented: GetShardIterator"),
    Limit("retention, default and lowest", RETENTION_HOURS, "hours", "documented: IncreaseStreamRetentionPeriod"),
    Limit("retention, highest", RETENTION_HOURS_MAX, "hours", "documented: IncreaseStreamRetentionPeriod"),
    Limit("stream name", STREAM_NAME_CHARACTERS, "characters", "documented: CreateStream"),
    Limit("shards of one stream", SHARDS_PER_STREAM, "shards", "chosen: what one machine is tested with"),
    Limit("shards of a new on-demand stream", ON_DEMAND_SHARDS, "shards", "recorded: CreateStream"),
    Limit("on-demand streams", ON_DEMAND_STREAMS, "streams of an account and region", "documented: DescribeLimits"),
    Limit("streams being made or deleted", STREAMS_CREATING, "streams of an account and region", "recorded"),
    Limit("consumers and queues of a stream", CONSUMERS, "consumers", "documented: RegisterStreamConsumer"),
    Limit("the same with On-demand Advantage", CONSUMERS_ADVANTAGE, "consumers", "documented: RegisterStreamConsumer"),
    Limit("consumers being registered", CONSUMERS_CREATING, "consumers of a stream", "documented"),
    Limit("tags of a resource", TAGS, "tags", "documented: AddTagsToStream"),
    Limit("changes of encryption", KEY_CHANGES, "a day and stream", "documented: StartStreamEncryption"),
    Limit("changes of capacity mode", MODE_CHANGES, "a day and stream", "documented: UpdateStreamMode"),
    Limit("calls of UpdateShardCount", SCALINGS, "a day and stream", "documented: UpdateShardCount"),
    Limit("warm throughput", WARM_MIBPS, "MiB/s", "documented: UpdateStreamWarmThroughput"),
    Limit("body of a stored block", BLOCK_BYTES, "bytes, or one record", "chosen: one read serves one block"),
    Limit("segment file", SEGMENT_BYTES, "bytes", "chosen: retention deletes whole segments"),
    Limit("records of a queue in flight", QUEUE_IN_FLIGHT, "records", "documented: Kinesis queues, quotas"),
    Limit("queues being created or deleted", QUEUES_MOVING, "queues", "documented: Kinesis queues, quotas"),
    Limit("free space below which puts are refused", FREE_BYTES, "bytes", "chosen: checkpoints must go on"),
    Limit("messages an invocation gets of a FIFO queue, or without a window", QUEUE_BATCH, "messages", "recorded"),
    Limit("filters of an event source mapping", FILTERS, "filters", "documented: Lambda event filtering"),
    Limit("filters of a mapping, after a quota increase", FILTERS_MAX, "filters", "documented: Lambda event filtering"),
    Limit("filter pattern", FILTER_CHARACTERS, "characters", "documented: CreateEventSourceMapping"),
    Limit("time of an invocation", FUNCTION_SECONDS, "seconds", "documented: Lambda quotas"),
    Limit("memory of a function", FUNCTION_MEMORY_MB, "MB", "documented: Lambda quotas"),
    Limit("invocations at once, of all functions", CONCURRENT_EXECUTIONS, "invocations", "documented: Lambda quotas"),
    Limit("environment variables of a function", ENVIRONMENT_BYTES, "bytes in all", "documented: Lambda quotas"),
)
