"""Outputs as CBOR."""

import datetime as dt

import cbor2
import pytest

from kflow.aws import cbor
from kflow.aws.cbor_output import CborOutput
from kflow.aws.columns import Columns, Constant
from kflow.aws.shapes import Model
from tests.unit.aws.fakes import operation


def read(name, output):
    return cbor.decode(CborOutput().bytes_of(operation(name).output, output))


def test_members_are_written_and_absent_ones_left_out():
    output = {"ShardId": "shard", "SequenceNumber": "1" * 56, "EncryptionType": None}
    assert CborOutput().bytes_of(operation("PutRecord").output, output) == cbor2.dumps(
        {"ShardId": "shard", "SequenceNumber": "1" * 56}
    )


def test_columns_are_the_same_as_rows():
    columns = {
        "SequenceNumber": ["1" * 56, "2" * 56, "3" * 56],
        "ApproximateArrivalTimestamp": [1000, 1_700_000_000_000, 2000],
        "Data": [b"a", b"b" * 300, b"c" * 70_000],
        "PartitionKey": ["k", "é" * 200, "q"],
        "EncryptionType": Constant("KMS"),
    }
    rows = [
        {name: column.value if isinstance(column, Constant) else column[row] for name, column in columns.items()}
        for row in range(3)
    ]
    by_column = read("GetRecords", {"Records": Columns(3, columns), "MillisBehindLatest": 5})
    assert by_column == read("GetRecords", {"Records": rows, "MillisBehindLatest": 5})
    assert by_column == {"Records": rows, "MillisBehindLatest": 5}


def test_what_is_absent_in_a_column_is_left_out():
    columns = {"SequenceNumber": ["1", "2"], "PartitionKey": [None, "k"], "ApproximateArrivalTimestamp": [None, 1]}
    assert read("GetRecords", {"Records": Columns(2, columns)})["Records"] == [
        {"SequenceNumber": "1"},
        {"SequenceNumber": "2", "PartitionKey": "k", "ApproximateArrivalTimestamp": 1},
    ]


def test_numbers_empty_columns_and_datetimes_are_written():
    moment = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    times = {"Records": Columns(1, {"ApproximateArrivalTimestamp": [moment]})}
    assert read("GetRecords", times) == {"Records": [{"ApproximateArrivalTimestamp": 1_700_000_000_000}]}
    assert read("GetRecords", {"Records": Columns(0, {"Data": [], "PartitionKey": []})}) == {"Records": []}
    assert read("DescribeLimits", {"ShardLimit": 20_000, "OpenShardCount": 0}) == {
        "ShardLimit": 20_000,
        "OpenShardCount": 0,
    }


def test_columns_of_different_length_are_a_mistake():
    with pytest.raises(ValueError, match="columns differ"):
        read("GetRecords", {"Records": Columns(2, {"SequenceNumber": ["1", "2"], "PartitionKey": ["k"]})})


def test_all_kinds_are_written():
    shapes = {
        "Out": {
            "type": "structure",
            "members": {name: {"shape": name} for name in ("Map", "Any", "Flag", "Double", "Long", "Out", "Longs")},
        },
        "Map": {"type": "map", "key": {"shape": "Name"}, "value": {"shape": "Long"}},
        "Any": {"type": "structure", "members": {}, "document": True},
        "Name": {"type": "string"},
        "Flag": {"type": "boolean"},
        "Double": {"type": "double"},
        "Long": {"type": "long"},
        "Row": {"type": "structure", "members": {"Long": {"shape": "Long"}}},
        "Longs": {"type": "list", "member": {"shape": "Row"}},
    }
    model = Model("t", {"metadata": {"protocol": "json", "endpointPrefix": "t"}, "operations": {}, "shapes": shapes})
    output = {
        "Out": {"Map": {"a": -1, "b": None}, "Any": {"x": [None, 1.5]}, "Flag": True, "Double": 2.5, "Long": 2**40},
        "Flag": False,
        "Double": 1,
        "Longs": Columns(2, {"Long": [1, 2000]}),
    }
    assert cbor.decode(CborOutput().bytes_of(model.structure("Out"), output)) == {
        "Out": {"Map": {"a": -1}, "Any": {"x": [None, 1.5]}, "Flag": True, "Double": 2.5, "Long": 2**40},
        "Flag": False,
        "Double": 1,
        "Longs": [{"Long": 1}, {"Long": 2000}],
    }
