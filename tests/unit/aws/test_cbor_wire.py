"""CBOR as the door sees it."""

import pytest

from kflow.aws.cbor_wire import CborWire
from kflow.aws.dispatch import Bound
from kflow.aws.errors import SerializationFailed
from kflow.aws.json_input import Nothing
from kflow.aws.shapes import Model
from kflow.errors import ValidationFailed
from tests.unit.aws.fakes import operation

CIRCLE = {
    "metadata": {"protocol": "json", "endpointPrefix": "t"},
    "operations": {"Tree": {"input": {"shape": "Tree"}}, "Go": {}},
    "shapes": {"Tree": {"type": "structure", "members": {"Left": {"shape": "Tree"}}}},
}


def bound(name, model=None):
    return Bound("t", model.operation(name) if model else operation(name), None)


def test_what_is_no_map_is_no_input():
    wire = CborWire()
    assert wire.quick(bound("PutRecord"), b"\xff") is None
    assert wire.quick(bound("PutRecord"), b"\x80") is None
    for content in (b"\xff", b"\x80"):
        with pytest.raises(SerializationFailed):
            wire.plain(content)


def test_what_breaks_a_constraint_is_said():
    with pytest.raises(ValidationFailed, match="'data'"):
        CborWire().exact(bound("PutRecord"), {})


def test_shapes_that_hold_themselves_and_operations_without_input_are_read():
    wire = CborWire()
    tree, nothing = bound("Tree", Model("t", CIRCLE)), bound("Go", Model("t", CIRCLE))
    assert wire.quick(tree, b"\xa0") is None
    assert wire.exact(tree, {"Left": {"Left": {}}}).Left.Left.Left is None
    deep = {}
    for _ in range(5000):
        deep = {"Left": deep}
    with pytest.raises(SerializationFailed):
        wire.exact(tree, deep)
    assert wire.quick(nothing, b"\xa1\x61a\x01") == Nothing()
    assert wire.exact(nothing, {"a": 1}) == Nothing()
    assert nothing.local_input.checked({}) == Nothing()
