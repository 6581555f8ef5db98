"""Outputs as JSON."""

import datetime as dt
import json

import pytest

from kflow.aws.columns import Columns, Constant
from kflow.aws.json_output import LONG, JsonOutput
from kflow.aws.shapes import Model
from tests.unit.aws.fakes import operation


def written(name, output, writer=None):
    return (writer or JsonOutput()).bytes_of(operation(name).output, output)


def test_absent_members_are_left_out_and_order_is_kept():
    output = {"SequenceNumber": "1", "EncryptionType": None, "ShardId": "s"}
    assert written("PutRecord", output) == b'{"SequenceNumber":"1","ShardId":"s"}'


@pytest.mark.parametrize("time", [1459799926480, dt.datetime(2016, 4, 4, 19, 58, 46, 480_000, dt.UTC)])
def test_timestamps_are_seconds(time):
    record = {"SequenceNumber": "1", "Data": b"hello", "ApproximateArrivalTimestamp": time}
    assert written("GetRecords", {"Records": [record]}) == (
        b'{"Records":[{"SequenceNumber":"1","Data":"aGVsbG8=","ApproximateArrivalTimestamp":1459799926.48}]}'
    )


@pytest.mark.parametrize("size", [0, 1, 100, LONG - 1, LONG, 5000])
def test_blobs_are_base64_of_any_size_as_values_and_as_columns(size):
    data = bytes(size)
    one = json.loads(written("GetRecords", {"Records": [{"Data": data}]}))
    many = json.loads(written("GetRecords", {"Records": Columns(2, {"Data": [data, data]})}))
    assert one["Records"] * 2 == many["Records"]


def test_columns_are_rows_without_what_is_absent():
    columns = Columns(
        3,
        {
            "SequenceNumber": ["1", "2", "3"],
            "ApproximateArrivalTimestamp": [1000, 1500, 2000],
            "Data": [b"a", None, b"c"],
            "PartitionKey": ["k", None, 'q"'],
            "EncryptionType": Constant("KMS"),
        },
    )
    rows = json.loads(written("GetRecords", {"Records": columns, "MillisBehindLatest": 0}))["Records"]
    assert rows == [
        {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.0, "Data": "YQ==", "PartitionKey": "k",
         "EncryptionType": "KMS"},
        {"SequenceNumber": "2", "ApproximateArrivalTimestamp": 1.5, "EncryptionType": "KMS"},
        {"SequenceNumber": "3", "ApproximateArrivalTimestamp": 2.0, "Data": "Yw==", "PartitionKey": 'q"',
         "EncryptionType": "KMS"},
    ]  # fmt: skip


def test_columns_may_be_constant_or_empty():
    output = {"Records": Columns(2, {"ShardId": Constant("s")}), "FailedRecordCount": 0}
    writer = JsonOutput()
    assert written("PutRecords", output, writer) == written("PutRecords", output, writer)
    assert written("PutRecords", output) == b'{"Records":[{"ShardId":"s"},{"ShardId":"s"}],"FailedRecordCount":0}'
    times = Columns(1, {"ApproximateArrivalTimestamp": Constant(1500)})
    assert written("GetRecords", {"Records": times}) == b'{"Records":[{"ApproximateArrivalTimestamp":1.5}]}'
    assert written("GetRecords", {"Records": Columns(0, {"Data": [], "PartitionKey": []})}) == b'{"Records":[]}'


def test_columns_of_different_length_are_a_mistake():
    with pytest.raises(ValueError, match="columns differ"):
        written("GetRecords", {"Records": Columns(2, {"SequenceNumber": ["1", "2"], "PartitionKey": ["k"]})})


def test_members_that_the_model_does_not_have_are_a_mistake():
    writer = JsonOutput()
    for output in ({"Nonsense": 1}, {"Records": Columns(1, {"Nonsense": ["1"]})}):
        with pytest.raises(KeyError):
            written("GetRecords", output, writer)


def test_maps_documents_and_circles_are_written():
    shapes = {
        "Out": {
            "type": "structure",
            "members": {
                "Times": {"shape": "Times", "locationName": "times"},
                "Names": {"shape": "Names"},
                "Any": {"shape": "Any"},
                "Self": {"shape": "Out"},
            },
        },
        "Times": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "T"}},
        "Names": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "S"}},
        "Any": {"type": "structure", "members": {}, "document": True},
        "S": {"type": "string"},
        "T": {"type": "timestamp"},
    }
    model = Model("t", {"metadata": {"protocol": "json", "endpointPrefix": "t"}, "operations": {}, "shapes": shapes})
    output = {"Self": {"Times": {"a": 1500}, "Names": {"b": "c"}, "Any": {"x": [None]}}}
    assert JsonOutput().bytes_of(model.structure("Out"), output) == (
        b'{"Self":{"times":{"a":1.5},"Names":{"b":"c"},"Any":{"x":[null]}}}'
    )
