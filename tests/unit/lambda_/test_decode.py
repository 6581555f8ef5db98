"""From bytes to the `T` of `Record[T]`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import msgspec
import pytest

from kflow.errors import UsageError
from kflow.lambda_.decode import decoder


@dataclass
class Line:
    sku: str
    qty: int = 1


@dataclass
class Order:
    id: int
    lines: list[Line] = field(default_factory=list)


def test_json_is_decoded_to_nested_dataclasses_and_unknown_fields_are_ignored():
    assert decoder(Order)(b'{"id": 1, "lines": [{"sku": "a"}], "more": 0}') == Order(1, [Line("a", 1)])


@pytest.mark.parametrize(
    ("value_type", "data", "value"),
    [
        (dict, b'{"a": [1, null]}', {"a": [1, None]}),
        (Any, b"[1.5]", [1.5]),
        (int | None, b"null", None),
        (bytes, b"\x00", b"\x00"),
        (str, b"text, not JSON", "text, not JSON"),
    ],
)
def test_builtin_types_are_decoded(value_type, data, value):
    assert decoder(value_type)(data) == value


@pytest.mark.parametrize(("value_type", "data"), [(int, b'"1"'), (float, b'"1.0"'), (bool, b"1"), (str, b"\xff")])
def test_nothing_is_converted_that_is_not_the_type(value_type, data):
    with pytest.raises((msgspec.ValidationError, UnicodeDecodeError)):
        decoder(value_type)(data)


class Custom:
    """Nobody knows how to decode it."""


@pytest.mark.parametrize("value_type", [Custom, list[Custom], dict[str, Custom], tuple[int, Custom], Custom | None])
def test_a_type_that_nothing_decodes_is_refused_when_the_decoder_is_made(value_type):
    with pytest.raises(UsageError, match="msgspec does not know `Custom`"):
        decoder(value_type)


def test_a_type_that_names_what_does_not_exist_is_a_name_error():
    @dataclass
    class Later:
        other: Nowhere  # noqa: F821

    with pytest.raises(NameError, match="Nowhere"):
        decoder(Later)


def test_pydantic_models_are_decoded_by_pydantic(monkeypatch):
    class Model:
        __pydantic_validator__ = object()

    class TypeAdapter:
        def __init__(self, value_type):
            self.value_type = value_type

        def validate_json(self, data):
            return self.value_type, data

    stand_in = ModuleType("pydantic")
    stand_in.TypeAdapter = TypeAdapter  # type: ignore[attr-defined]  # kflow does not depend on the real one
    monkeypatch.setitem(sys.modules, "pydantic", stand_in)
    assert decoder(Model)(b"{}") == (Model, b"{}")
    assert decoder(list[Model])(b"[]") == (list[Model], b"[]")
