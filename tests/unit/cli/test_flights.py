"""The demo's records, and how an interrupted producer goes on."""

from __future__ import annotations

import itertools
import json

import pytest

from kflow.broker.hashkeys import digest, even_ranges
from kflow.broker.streammap import ShardInfo, StreamMap
from kflow.cli import packaged
from kflow.cli.demo_producer import without_stored
from kflow.cli.flights import BROKEN_AFTER, FLIGHTS, RECORDS, records


@pytest.fixture(scope="module")
def all_records() -> list[tuple[bytes, str]]:
    return list(records(packaged.functions() / packaged.FLIGHTS))


def test_every_flight_is_a_record_and_one_record_is_broken(all_records: list[tuple[bytes, str]]) -> None:
    assert len(all_records) == RECORDS == FLIGHTS + 1 == 27_005
    broken = [index for index, (data, _) in enumerate(all_records) if b'"dep_delay":"two minutes"' in data]
    assert broken == [BROKEN_AFTER]


def test_a_flight_is_json_with_numbers_and_null_and_its_aircraft_as_the_key(
    all_records: list[tuple[bytes, str]],
) -> None:
    data, key = all_records[0]
    assert key == "N14228"
    assert json.loads(data) == {
        "year": 2013,
        "month": 1,
        "day": 1,
        "dep_time": 517,
        "sched_dep_time": 515,
        "dep_delay": 2,
        "arr_time": 830,
        "sched_arr_time": 819,
        "arr_delay": 11,
        "carrier": "UA",
        "flight": 1545,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "air_time": 227,
        "distance": 1400,
        "hour": 5,
        "minute": 15,
        "time_hour": "2013-01-01T10:00:00Z",
    }
    unknown = [json.loads(data)["tailnum"] for data, key in all_records if key == "NA"]
    assert unknown == [None] * 155


def flights_map() -> StreamMap:
    ranges = even_ranges(4)
    shards = tuple(ShardInfo(index=i, start=a, end=b, created_s=0) for i, (a, b) in enumerate(ranges))
    return StreamMap(name="flights", id=1, created_s=0, shards=shards)


def by_shard(some: list[tuple[bytes, str]]) -> list[list[tuple[bytes, str]]]:
    found: list[list[tuple[bytes, str]]] = [[], [], [], []]
    for record in some:
        hash_key = int.from_bytes(digest(record[1]), "big")
        found[min(3, hash_key // (1 << 126))].append(record)
    return found


@pytest.mark.parametrize("stored", [[0, 0, 0, 0], [5, 0, 17, 1], [500, 400, 300, 200]])
def test_a_producer_goes_on_exactly_where_each_shard_stopped(
    all_records: list[tuple[bytes, str]], stored: list[int]
) -> None:
    some = all_records[:3000]
    whole = by_shard(some)
    missing = by_shard(list(without_stored(iter(some), flights_map(), stored)))
    for shard, count in enumerate(stored):
        assert missing[shard] == whole[shard][count:]


def test_a_producer_whose_records_are_all_stored_puts_nothing(all_records: list[tuple[bytes, str]]) -> None:
    stored = [len(shard) for shard in by_shard(all_records)]
    assert sum(stored) == RECORDS
    assert all(count > 5000 for count in stored)
    assert list(itertools.islice(without_stored(iter(all_records), flights_map(), stored), 1)) == []
