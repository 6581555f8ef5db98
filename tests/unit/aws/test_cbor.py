"""CBOR against another implementation of it, and against what is none."""

import math

import cbor2
import pytest

from kflow.aws import cbor
from kflow.aws.structs import Milliseconds

VALUES = [
    0, 1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -256, -(2**64),
    "", "a", "é" * 20, "k" * 23, "k" * 24, "k" * 300, "k" * 70_000,
    b"", b"a", b"x" * 23, b"x" * 24, b"x" * 255, b"x" * 256, b"x" * 70_000,
    1.5, -0.1, 1e300, True, False, None,
    [], [1, [2, ["3"]]], {}, {"a": {"b": [b"c", None]}}, {"k" * 30: 1}, list(range(300)),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}")
def test_values_are_read_and_written_as_others_do(value):
    assert cbor.decode(cbor2.dumps(value)) == value
    assert cbor2.loads(cbor.encode(value)) == value


def test_absent_members_are_left_out():
    assert cbor2.loads(cbor.mapping({"a": 1, "b": None, "c": {"d": None}})) == {"a": 1, "c": {}}


def test_timestamps_are_whole_milliseconds_under_tag_1():
    assert cbor.encode(Milliseconds(1_700_000_000_123)) == b"\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b"
    read = cbor.decode(b"\xc1\x1b\x00\x00\x01\x8b\xcf\xe5\x68\x7b")
    assert (read, type(read)) == (1_700_000_000_123, Milliseconds)


def test_a_float_under_tag_1_is_seconds():
    assert cbor.decode(cbor2.dumps(cbor2.CBORTag(1, 1_700_000_000.5))) == 1_700_000_000_500


def test_other_tags_are_looked_through_and_big_numbers_are_numbers():
    assert cbor.decode(cbor2.dumps(cbor2.CBORTag(55799, "a"))) == "a"
    assert cbor.decode(cbor2.dumps(2**80)) == 2**80
    assert cbor.decode(cbor2.dumps(-(2**80))) == -(2**80)


def test_floats_of_all_sizes_are_read():
    assert cbor.decode(b"\xf9\x3e\x00") == 1.5
    assert cbor.decode(b"\xfa\x3f\xc0\x00\x00") == 1.5
    assert math.isnan(cbor.decode(b"\xf9\x7e\x00"))


def test_items_without_a_length_are_read_up_to_their_break():
    """As Java's SDK writes them."""
    content = b"\xbf\x64Data\x5f\x41a\x42bc\xff\x64Name\x7f\x61d\xff\x64List\x9f\x01\xbf\xff\xff\xff"
    assert cbor.decode(content) == {"Data": b"abc", "Name": "d", "List": [1, {}]}


def test_undefined_is_null():
    assert cbor.decode(b"\xf7") is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x18", b"\x19\x00", b"\x62a", b"\x42a", b"\xa1\x61a", b"\xa1\x62a", b"\x82\x01", b"\x01\x01", b"\xff",
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", b"\x1c", b"\x1f", b"\x3f", b"\xdf", b"\xf8\x14", b"\xe0", b"\xf8\xff",
        b"\x61\xff", b"\xa1\x61\xff\x01", b"\xa1\x01\x01", b"\xa1\x61a\xff", b"\x81\xff", b"\xa1\x61a\x61\xff",
        b"\x5f\x61a\xff", b"\x5f\x5f\xff\xff", b"\x7f\x61a", b"\xc1\xff", b"\xc1\x61a", b"\xc1\xf5",
        b"\xc1\xf9\x7e\x00",
        b"\xc2\x01", b"\xc2\x59\x04\x01" + bytes(1025), b"\xc1" * 100 + b"\x01", b"\x81" * 100 + b"\x01",
        b"\xa1\x61a" * 100 + b"\x01", b"\xbf\x61a\xff", b"\xa1\x61a\x58\x05abc",
        b"\xa1\x62\xffa\x01", b"\xa1\x61a\x63ab", b"\xa1\x41a\x01",
    ],
)  # fmt: skip
def test_what_is_no_cbor_is_refused(content):
    with pytest.raises(cbor.CborError):
        cbor.decode(content)


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(TypeError, match="object is no plain value"):
        cbor.encode({"a": object()})


def test_names_that_are_remembered_are_bounded():
    for number in range(600):
        assert cbor.decode(cbor2.dumps({f"n{number}": b"x" * 30})) == {f"n{number}": b"x" * 30}
    assert len(cbor._keys) <= 512


@pytest.mark.parametrize(
    "content",
    [
        b"\x9a\x00\x01\x00\x00" + bytes(65_536),
        b"\x9f" + bytes(65_536) + b"\xff",
        b"\x82" + (b"\x99\x80\x00" + bytes(32_768)) * 2,
        b"\x9f" + (b"\x9f" + bytes(100) + b"\xff") * 600 + b"\xff",
        b"\xbf" + b"\x61a\x01" * 65_536 + b"\xff",
        b"\x5f" + b"\x40" * 65_536 + b"\xff",
    ],
    ids=["array", "open array", "arrays", "open arrays", "open map", "pieces"],
)
def test_more_parts_than_any_request_has_are_refused(content):
    with pytest.raises(cbor.CborError, match="too many items"):
        cbor.decode(content)
    cbor.decode(content, most=100_000)
