"""What `put` makes of what it is handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import msgspec
import pytest

from kflow.errors import UsageError
from kflow.producing.payload import all_as_bytes, as_bytes


@dataclass
class Order:
    id: int
    note: str


class Struct(msgspec.Struct):
    id: int


class Row(TypedDict):
    id: int


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("grün", b"gr\xc3\xbcn"),
        ({"id": 1, "qty": [1, 2.5, None, True]}, b'{"id":1,"qty":[1,2.5,null,true]}'),
        (Order(1, "ü"), '{"id":1,"note":"ü"}'.encode()),
        (Struct(7), b'{"id":7}'),
        (Row(id=3), b'{"id":3}'),
        ([1, 2], b"[1,2]"),
        (5, b"5"),
    ],
)
def test_bytes_stay_text_is_utf8_and_the_rest_is_compact_json(data: object, encoded: bytes) -> None:
    assert as_bytes(data) == encoded
    assert type(as_bytes(data)) is bytes


def test_what_json_cannot_hold_is_refused_with_its_type() -> None:
    with pytest.raises(UsageError, match=r"data of type Thing cannot be put: .*Thing"):
        as_bytes(type("Thing", (), {})())


def test_the_record_that_cannot_be_put_is_named() -> None:
    with pytest.raises(UsageError, match="record 1: data of type object cannot be put"):
        all_as_bytes(["fine", object()])
