"""Bodies of JSON into inputs: quickly, exactly, and the same either way."""

import base64
import json

import pytest

from kflow.aws.errors import SerializationFailed
from kflow.aws.json_input import LONG, JsonInput, Nothing, plain
from kflow.aws.shapes import Model
from kflow.errors import ValidationFailed
from tests.unit.aws.fakes import operation


def body(**members):
    return json.dumps(members).encode()


def b64(data):
    return base64.b64encode(data).decode()


def read(name, content):
    reader = JsonInput(operation(name))
    quick, exact = reader.quick(content), reader.exact(plain(content))
    return quick, exact


def test_members_become_attributes_and_absent_ones_are_none():
    for given in read("ListShards", body(StreamName="orders", ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": 1.5})):
        assert (given.StreamName, given.MaxResults, given.ShardFilter.Type) == ("orders", None, "AT_TIMESTAMP")
        assert (given.ShardFilter.Timestamp, given.ShardFilter.ShardId) == (1500, None)


def test_lists_and_maps_are_lists_and_dicts():
    for given in read("AddTagsToStream", body(StreamName="a", Tags={"k": "v"})):
        assert given.Tags == {"k": "v"}
    for given in read("RemoveTagsFromStream", body(StreamName="a", TagKeys=["k"])):
        assert given.TagKeys == ["k"]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1000, LONG, 5000, 100_000])
def test_blobs_are_bytes_whatever_their_size(size):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    for given in read("PutRecord", body(StreamName="a", Data=b64(data), PartitionKey="k")):
        assert given.Data == data
    for given in read("PutRecords", body(StreamName="a", Records=[{"Data": b64(data), "PartitionKey": "k"}] * 3)):
        assert [record.Data for record in given.Records] == [data] * 3


def test_null_is_the_same_as_absent_and_what_is_unknown_is_dropped():
    for given in read("DescribeStream", body(StreamName="a", Limit=None, Nonsense={"a": [1]})):
        assert given.Limit is None
        assert not hasattr(given, "Nonsense")


def test_an_operation_without_input_takes_any_object():
    reader = JsonInput(Model("t", RAW).operation("Go"))
    assert reader.quick(b'{"a": 1}') == Nothing()
    assert reader.exact({"a": 1}) == Nothing()
    assert reader.quick(b"[]") is None


RAW = {
    "metadata": {"protocol": "json", "endpointPrefix": "t"},
    "operations": {
        "Go": {},
        "Tree": {"input": {"shape": "Tree"}},
        "Two": {"input": {"shape": "Two"}},
        "Odd": {"input": {"shape": "Odd"}},
    },
    "shapes": {
        "Tree": {"type": "structure", "members": {"Left": {"shape": "Tree"}, "Name": {"shape": "Name"}}},
        "Name": {"type": "string", "max": 3},
        "Blob": {"type": "blob", "max": 2000},
        "Two": {"type": "structure", "members": {"A": {"shape": "Blob"}, "B": {"shape": "Blob"}}},
        "Odd": {
            "type": "structure",
            "members": {
                "from": {"shape": "Name", "locationName": "From"},
                "any": {"shape": "Any"},
                "trees": {"shape": "Trees"},
                "counts": {"shape": "Counts"},
            },
        },
        "Any": {"type": "structure", "members": {}, "document": True},
        "Trees": {"type": "list", "member": {"shape": "Tree"}},
        "Counts": {"type": "map", "key": {"shape": "Name"}, "value": {"shape": "Tree"}},
    },
}


def test_a_shape_that_holds_itself_is_read_slowly():
    reader = JsonInput(Model("t", RAW).operation("Tree"))
    content = body(Left={"Left": {"Name": "abc"}})
    assert reader.quick(content) is None
    assert reader.exact(plain(content)).Left.Left.Name == "abc"
    with pytest.raises(ValidationFailed, match=r"'left\.left\.name'"):
        reader.exact({"Left": {"Left": {"Name": "abcd"}}})


def test_a_shape_that_holds_itself_too_deep_cannot_be_read():
    reader = JsonInput(Model("t", RAW).operation("Tree"))
    deep = {}
    for _ in range(5000):
        deep = {"Left": deep}
    with pytest.raises(SerializationFailed):
        reader.exact(deep)


def test_two_blobs_are_both_decoded():
    reader = JsonInput(Model("t", RAW).operation("Two"))
    given = reader.quick(body(A=b64(b"a" * 1900), B=b64(b"b")))
    assert (given.A, given.B) == (b"a" * 1900, b"b")


def test_names_are_those_of_the_wire_and_words_of_python_get_a_line():
    reader = JsonInput(Model("t", RAW).operation("Odd"))
    content = body(From="me", any={"x": [1, None]}, trees=[{"Name": "a"}], counts={"k": {"Name": "b"}})
    given = reader.exact(plain(content))
    assert (given.from_, given.any, given.trees[0].Name, given.counts["k"].Name) == ("me", {"x": [1, None]}, "a", "b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PutRecord", body(StreamName="a", Data="+/+=", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="QR==", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "QR==", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "QUF=", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "=", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="=" + "A" * 2000, PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "QQ==QQ==", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "QQ==\n\n\n\n", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data="A" * 2000 + "-_-_", PartitionKey="k")),
        ("PutRecord", body(StreamName=1, Data="", PartitionKey="k")),
        ("DescribeStream", body(Limit="1")),
        ("ListShards", body(StreamName="a", ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": "now"})),
    ],
)
def test_what_aws_cannot_convert_is_refused(name, content):
    reader = JsonInput(operation(name))
    assert reader.quick(content) is None
    with pytest.raises(SerializationFailed):
        reader.exact(plain(content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PutRecord", body(StreamName="a b", Data="", PartitionKey="k")),
        ("PutRecord", body(StreamName="a\n", Data="", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data=None, PartitionKey="k")),
        ("PutRecord", body(StreamName="a", Data=b64(bytes(10_485_761)), PartitionKey="k")),
        ("PutRecords", body(Records=[])),
        ("PutRecords", body(Records=[{"Data": ""}] * 501)),
        ("PutRecords", body(Records=[None])),
        ("DescribeStream", body(Limit=0)),
        ("DescribeStream", body(Limit=10**12)),
        ("UpdateShardCount", body(TargetShardCount=1, ScalingType="OTHER")),
        ("AddTagsToStream", body(Tags={"": "v"})),
    ],
)
def test_what_breaks_a_constraint_is_refused(name, content):
    reader = JsonInput(operation(name))
    assert reader.quick(content) is None
    with pytest.raises(ValidationFailed):
        reader.exact(plain(content))


@pytest.mark.parametrize(
    ("name", "content", "attribute", "expected"),
    [
        ("DescribeStream", b'{"Limit":5.9}', "Limit", 5),
        ("DescribeStream", b'{"Limit":5.0}', "Limit", 5),
        ("IncreaseStreamRetentionPeriod", b'{"RetentionPeriodHours":99999999999}', "RetentionPeriodHours", 2147483647),
        ("DeleteStream", b'{"EnforceConsumerDeletion":"yes"}', "EnforceConsumerDeletion", True),
        ("ListShards", b'{"StreamCreationTimestamp":1e18}', "StreamCreationTimestamp", 2**63 - 1),
        ("PutRecord", b'{"Data":"AAA\\u003d","PartitionKey":"Q=\\"="}', "Data", b"\x00\x00"),
        ("PutRecord", b'{"Data":"","PartitionKey":"B="}', "PartitionKey", "B="),
    ],
)  # fmt: skip
def test_what_aws_takes_although_it_is_odd_is_taken(name, content, attribute, expected):
    reader = JsonInput(operation(name))
    assert getattr(reader.quick(content) or reader.exact(plain(content)), attribute) == expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1" * 5000, b"[" * 5000, b'{"a":"\xff"}', b"nul"])
def test_what_is_no_object_has_no_members(content):
    with pytest.raises(SerializationFailed) as caught:
        plain(content)
    assert str(caught.value) == ""


def test_a_row_without_its_long_blob_and_a_map_beside_it_are_read():
    shapes = {
        "In": {"type": "structure", "members": {"Rows": {"shape": "Rows"}, "Map": {"shape": "Map"}}},
        "Rows": {"type": "list", "member": {"shape": "Row"}},
        "Row": {"type": "structure", "members": {"Data": {"shape": "Blob"}, "When": {"shape": "When"}}},
        "Map": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "S"}},
        "Blob": {"type": "blob"},
        "S": {"type": "string"},
        "When": {"type": "timestamp"},
    }
    operations = {"Go": {"input": {"shape": "In"}}}
    reader = JsonInput(Model("t", RAW | {"operations": operations, "shapes": shapes}).operation("Go"))
    given = reader.quick(body(Rows=[{"Data": "QUJD" * 1000}, {"When": 1.5}], Map={"a": "b"}))
    assert [(row.Data, row.When) for row in given.Rows] == [(b"ABC" * 1000, None), (None, 1500)]
    assert given.Map == {"a": "b"}
    assert reader.quick(body(Rows=[{"When": "x"}])) is None


def test_a_blob_elsewhere_is_decoded_as_well():
    shapes = {
        "In": {"type": "structure", "members": {"Inner": {"shape": "Inner"}}},
        "Inner": {"type": "structure", "members": {"Blobs": {"shape": "Blobs"}}},
        "Blobs": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "Blob"}},
        "Blob": {"type": "blob"},
        "S": {"type": "string"},
    }
    operations = {"Go": {"input": {"shape": "In"}}}
    reader = JsonInput(Model("t", RAW | {"operations": operations, "shapes": shapes}).operation("Go"))
    assert reader.quick(body(Inner={"Blobs": {"a": "QUJD" * 1000}})).Inner.Blobs == {"a": b"ABC" * 1000}


def test_a_body_with_more_parts_than_any_request_has_is_refused():
    reader = JsonInput(operation("PutRecords"))
    content = b'{"Records":[' + b'{"Data":""},' * 200_001 + b'{"Data":""}]}'
    assert reader.quick(content) is None
    with pytest.raises(SerializationFailed):
        plain(content)


def test_of_a_list_that_is_too_long_only_the_length_is_told():
    with pytest.raises(ValidationFailed) as caught:
        JsonInput(operation("PutRecords")).exact({"Records": [{"Data": ""}] * 501 + [1] * 1000})
    assert str(caught.value) == (
        "1 validation error detected: Value at 'records' failed to satisfy constraint: "
        "Member must have length less than or equal to 500"
    )
    with pytest.raises(ValidationFailed, match="'tags'"):
        JsonInput(operation("AddTagsToStream")).exact({"Tags": {str(i): "v" if i < 300 else 1 for i in range(1000)}})


def test_a_value_that_cannot_be_converted_is_shown_in_part():
    with pytest.raises(SerializationFailed) as caught:
        JsonInput(operation("PutRecord")).exact({"Data": "A" * 1_000_000 + "A-A=", "PartitionKey": "k"})
    assert len(str(caught.value)) < 66_000
    assert str(caught.value).endswith("can not be converted to a Blob: Invalid Base64 character: '-'")


LONG_TEXT = b64(bytes(range(256)) * 8)


@pytest.mark.parametrize(
    "content",
    [
        b'{"StreamName":"a","PartitionKey":"k","Data" \r\n:\t "%b"}',
        b'{"StreamName":"a","PartitionKey":"Data","Data":"%b"}',
        b'{"StreamName":"a","PartitionKey":"\\"Data\\":\\"QUJD\\"","Data":"%b"}',
        b'{"StreamName":"a","PartitionKey":"#0","Data":"%b"}',
        b'{"StreamName":"a","PartitionKey":"k","Data":"QUJD","Data":"%b"}',
        b'{"StreamName":"a","PartitionKey":"k","Data":"%b","Other":{"Data":"QUJD"},"Else":["Data",{"Data":null}]}',
    ],
)
def test_a_long_blob_is_found_wherever_it_stands(content):
    for given in read("PutRecord", content % LONG_TEXT.encode()):
        assert given.Data == bytes(range(256)) * 8


@pytest.mark.parametrize(
    ("content", "means"),
    [
        (b'{"StreamName":"a","PartitionKey":"\\u00e9","Data":"%b"}', b"%b"),
        (b'{"StreamName":"a","PartitionKey":"k","Data":"%b","\\u0044ata":"QUJD"}', b"QUJD"),
        (b'{"StreamName":"a","PartitionKey":"k","Data":"%b","Data":null}', None),
    ],
)
def test_what_is_spelled_otherwise_means_the_same(content, means):
    reader = JsonInput(operation("PutRecord"))
    content = content.replace(b"%b", LONG_TEXT.encode())
    quick = reader.quick(content)
    if means is None:
        assert quick is None
        return
    wanted = base64.b64decode(means.replace(b"%b", LONG_TEXT.encode()))
    assert reader.exact(plain(content)).Data == wanted
    assert quick is None or quick.Data == wanted


@pytest.mark.parametrize(
    "text",
    [
        LONG_TEXT[:-1],  # a length that is no multiple of 4
        "=" + LONG_TEXT[1:],
        LONG_TEXT + "QUJ=",  # a last digit that says more than its bytes take
        LONG_TEXT + "QR==",
        LONG_TEXT[:40] + "\\n" + LONG_TEXT[42:],
        LONG_TEXT[:40] + "\\/" + LONG_TEXT[42:],
        LONG_TEXT[:40] + "#0" + LONG_TEXT[42:],
        LONG_TEXT[:40] + "\n\n" + LONG_TEXT[42:],
    ],
)
def test_a_long_text_that_is_no_base64_is_not_taken_quickly(text):
    reader = JsonInput(operation("PutRecord"))
    assert reader.quick(b'{"StreamName":"a","PartitionKey":"k","Data":"%b"}' % text.encode()) is None


def test_no_body_of_names_alone_takes_long():
    reader = JsonInput(operation("PutRecords"))
    assert reader.quick(b'{"StreamName":"a","Records":[' + b'{"Data":"A"}' * 1_000_000) is None
    assert reader.quick(b'{"StreamName":"a","Records":[' + b'{"Data":5}' * 1_000_000) is None
    assert reader.quick(b'{"StreamName":"a","Records":[' + b"[],") is None


def test_many_records_of_which_the_first_is_small_are_read():
    datas = [b"small", *[b"x" * 100_000] * 20]
    records = [{"Data": b64(data), "PartitionKey": "k"} for data in datas]
    for given in read("PutRecords", body(StreamName="a", Records=records)):
        assert [record.Data for record in given.Records] == datas
