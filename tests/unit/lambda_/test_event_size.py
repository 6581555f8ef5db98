from __future__ import annotations

import json

import pytest

from kflow import arn
from kflow.broker.sequence import number
from kflow.events.kinesis import event_records
from kflow.lambda_.event_size import escapes, event_sizes, record_bytes


@pytest.mark.parametrize(
    ("data", "key"),
    [(b"", "k"), (b"a", "k"), (b"abc" * 1000, "k" * 256), (bytes(range(256)), 'quote" back\\ \n é')],
)
def test_a_record_is_measured_to_the_byte_of_its_json_or_a_few_more(data: bytes, key: str) -> None:
    region = "ap-southeast-2"
    records = event_records(
        [data],
        [key],
        [number(1_600_000_000, 0, 77, 1_700_000_000_123)],
        shard_id="shardId-000000000000",
        arrival_ms=1_700_000_000_123,
        arn=arn.stream_arn(region, "123456789012", "orders"),
        region=region,
        role=arn.role_arn("123456789012", "bill"),
    )
    (event,) = records
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
    (measured,) = event_sizes([data], [key], record_bytes(stream="orders", function="bill"))
    assert len(text) <= measured <= len(text) + 4


@pytest.mark.parametrize("key", ["k", 'a "b" \\', "\x01\x1f\n\t", "é\u2028\x7f", "\U0001f600", ""])
def test_escapes_in_keys_are_counted_exactly_or_more(key: str) -> None:
    added = len(json.dumps(key, ensure_ascii=False).encode()) - 2 - len(key.encode())
    assert added <= escapes([key, "plain"])
    if key.isprintable():
        assert added == escapes([key, "plain"])
