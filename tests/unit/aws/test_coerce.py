"""What AWS converts, and the words in which it refuses the rest."""

import datetime as dt
import math

import pytest

from kflow.aws.coerce import Coercion
from kflow.aws.errors import SerializationFailed
from kflow.aws.shapes import Model
from kflow.aws.structs import Milliseconds

JSON, CBOR = Coercion(is_text=True), Coercion(is_text=False)
NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
LIST, MAP = "Start of list found where not expected", "Start of structure or map found where not expected."
SHAPES = {
    "String": {"type": "string"},
    "Integer": {"type": "integer"},
    "Long": {"type": "long"},
    "Double": {"type": "double"},
    "Big": {"type": "biginteger"},
    "Boolean": {"type": "boolean"},
    "Blob": {"type": "blob"},
    "Timestamp": {"type": "timestamp"},
    "Strings": {"type": "list", "member": {"shape": "String"}},
    "Map": {"type": "map", "key": {"shape": "String"}, "value": {"shape": "Integer"}},
    "Inner": {"type": "structure", "members": {"A": {"shape": "String"}}},
    "Any": {"type": "structure", "members": {}, "document": True},
    "Input": {
        "type": "structure",
        "members": {
            name: {"shape": name}
            for name in (
                "String", "Integer", "Long", "Double", "Big", "Boolean", "Blob", "Timestamp", "Strings", "Map", "Inner",
                "Any",
            )
        },
    },
}  # fmt: skip
MODEL = Model("test", {"metadata": {"protocol": "json", "endpointPrefix": "test"}, "operations": {}, "shapes": SHAPES})


def coerced(name, value, coercion=JSON):
    return coercion.structure(MODEL.structure("Input"), {name: value}).get(name)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("String", True, "class java.lang.Boolean can not be converted to an String"),
        ("String", 1, f"{NUMBER} can not be converted to an String"),
        ("String", 1.5, f"{NUMBER} can not be converted to an String"),
        ("Integer", "1", "class java.lang.String can not be converted to an Integer"),
        ("Integer", True, "class java.lang.Boolean can not be converted to an Integer"),
        ("Long", "1", "class java.lang.String can not be converted to an Long"),
        ("Boolean", 1, f"{NUMBER} can not be converted to an Boolean"),
        ("Boolean", "abc", "'ABC' can not be converted to an Boolean"),
        ("Boolean", "23", "'23' can not be converted to an Boolean"),
        ("Double", "1", "class java.lang.String can not be converted to an Double"),
        ("Blob", True, "class java.lang.Boolean can not be converted to a Blob"),
        ("Blob", 1, f"{NUMBER} can not be converted to a Blob"),
        (
            "Blob",
            "23456",
            (
                "'23456' can not be converted to a Blob: "
                "Base64 encoded length is expected a multiple of 4 bytes but found: 5"
            ),
        ),
        ("Blob", "=+/=", "'=+/=' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("Blob", "A===", "'A===' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("Blob", "====", "'====' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("Blob", "QQ==QQ==", "'QQ==QQ==' can not be converted to a Blob: Invalid Base64 character: '='"),
        ("Blob", "AB_-", "'AB_-' can not be converted to a Blob: Invalid Base64 character: '_'"),
        ("Blob", "+/+=", "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"),
        ("Blob", "QR==", "'QR==' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"),
        ("Timestamp", "1", "class java.lang.String can not be converted to milliseconds since epoch"),
        ("Timestamp", False, "class java.lang.Boolean can not be converted to milliseconds since epoch"),
        *((name, [], LIST) for name in ("String", "Integer", "Boolean", "Blob", "Timestamp", "Map", "Inner")),
        *((name, {}, MAP) for name in ("String", "Integer", "Boolean", "Blob", "Timestamp", "Strings")),
        ("Strings", "a", "Expected list or null"),
        ("Strings", ["a", 1], f"{NUMBER} can not be converted to an String"),
        ("Map", 1, "Expected map or null"),
        ("Map", {"a": "1"}, "class java.lang.String can not be converted to an Integer"),
        ("Inner", "a", "Expected null"),
        ("Inner", {"A": 1}, f"{NUMBER} can not be converted to an String"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_the_words_of_aws(name, value, message):
    with pytest.raises(SerializationFailed) as caught:
        coerced(name, value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Integer", 3.99, 3),
        ("Integer", -3.01, -4),
        ("Integer", 2147483648, 2147483647),
        ("Integer", -(2**40), -2147483648),
        ("Integer", 1e300, 2147483647),
        ("Integer", math.inf, 2147483647),
        ("Integer", math.nan, 0),
        ("Long", 2**70, 2**63 - 1),
        ("Big", 2**70, 2**70),
        ("Double", 1, 1.0),
        ("Double", "Infinity", math.inf),
        ("Boolean", "yEs", True),
        ("Boolean", "1", True),
        ("Boolean", "no", False),
        ("Boolean", "FALSE", False),
        ("Blob", "aGVsbG8=", b"hello"),
        ("Blob", "", b""),
        ("Timestamp", 1459799926.48, 1459799926480),
        ("Timestamp", 0, 0),
        ("Timestamp", 1e300, 2**63 - 1),
        ("Timestamp", -1e300, -(2**63)),
        ("Strings", ["a", None], ["a", None]),
        ("Map", {"a": 1, "b": None}, {"a": 1, "b": None}),
        ("Inner", {"A": None, "B": 1}, {}),
        ("Any", [1, {"a": None}], [1, {"a": None}]),
        ("String", None, None),
    ],
)
def test_what_aws_converts_is_converted(name, value, expected):
    assert coerced(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Milliseconds(1_700_000_000_123), 1_700_000_000_123),
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.5, 1_700_000_000_500),
        (2**80, 2**63 - 1),
        (dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC), 1_700_000_000_000),
    ],
)
def test_cbor_has_timestamps_in_milliseconds_and_bare_numbers_mean_what_is_likely(value, expected):
    assert coerced("Timestamp", value, CBOR) == expected


def test_cbor_has_blobs_as_bytes():
    assert coerced("Blob", b"hello", CBOR) == b"hello"
    for value, kind in (("aGVsbG8=", "java.lang.String"), (object(), "java.lang.Object")):
        with pytest.raises(SerializationFailed, match=rf"class {kind} can not be converted to a Blob"):
            coerced("Blob", value, CBOR)
    with pytest.raises(SerializationFailed, match=r"class java\.nio\.HeapByteBuffer can not be converted to an String"):
        coerced("String", b"a", CBOR)


def test_an_input_that_is_no_structure_is_refused():
    for value, message in (([], LIST), ("a", "Expected null")):
        with pytest.raises(SerializationFailed, match=message):
            JSON.structure(MODEL.structure("Input"), value)


@pytest.mark.parametrize("value", ["now", True, None, 1e300, [1]])
def test_the_hook_leaves_unusual_timestamps_to_the_slow_path(value):
    for coercion in (JSON, CBOR):
        with pytest.raises(ValueError, match=r"^$"):
            coercion.timestamp_hook(Milliseconds, value)
    assert CBOR.timestamp_hook(Milliseconds, 1_700_000_000_123) == 1_700_000_000_123
