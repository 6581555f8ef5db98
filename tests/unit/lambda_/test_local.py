"""One call in this process: what comes back, and what every failure is told as."""

from __future__ import annotations

import decimal
import math
import sys
from typing import NamedTuple

import pytest

from kflow.declarations import Handler, HandlerForm
from kflow.interfaces import Invocation
from kflow.lambda_ import local, payloads
from kflow.lambda_.context import LambdaContext

HANDLER = Handler(
    name="bill", file=__file__, line=1, root="", module="test_local", qualname="bill", form=HandlerForm.EVENT
)
INVOCATION = Invocation(request_id=bytes(16), records=[{}], stream="orders", shard_id="shardId-000000000000")
CONTEXT = LambdaContext(
    aws_request_id="id",
    function_name="bill",
    memory_limit_in_mb="128",
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:bill",
    deadline=0.0,
)
PI = "π" if sys.version_info >= (3, 12) else "\\u03c0"
"""As the version's runtime writes it."""


class Point(NamedTuple):
    x: object
    y: object


def outcome(function):
    return local.run_call(lambda invocation, context: function(), HANDLER, INVOCATION, CONTEXT)


@pytest.mark.parametrize(
    ("returned", "response"),
    [
        (None, None),
        ("", ""),
        ([], []),
        ({}, {}),
        ({"batchItemFailures": [{"itemIdentifier": "1"}]}, {"batchItemFailures": [{"itemIdentifier": "1"}]}),
        ((1, 2), [1, 2]),
        ({1: True}, {"1": True}),
        ({"price": decimal.Decimal("1.5")}, {"price": 1.5}),
        ({"count": decimal.Decimal(5)}, {"count": 5}),
        ([Point(1, Point(2, 3))], [{"x": 1, "y": {"x": 2, "y": 3}}]),
        (b'{"batchItemFailures": []}', {"batchItemFailures": []}),
        (b"no json", "no json"),
        ({"city": "Zürich"}, {"city": "Zürich"}),
    ],
)
def test_a_response_is_what_json_makes_of_it(returned, response):
    result = outcome(lambda: returned)
    assert (result.response, result.error, result.fresh) == (response, None, False)


def test_nan_is_passed_as_pythons_runtime_passes_it():
    assert math.isnan(outcome(lambda: {"x": float("nan")}).response["x"])


class Strange:
    """Json cannot hold it."""


def cycle() -> list:
    made: list = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"ids": {1, 2}}, "Unable to marshal response: Object of type set is not JSON serializable"),
        (
            {"raw": b"\xff"},
            "Unable to marshal response: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (Strange(), "Unable to marshal response: Object of type Strange is not JSON serializable"),
        (cycle(), "Unable to marshal response: Circular reference detected"),
        (
            {(1, 2): 3},
            "Unable to marshal response: keys must be str, int, float, bool or None, not tuple",
        ),
    ],
)
def test_what_json_cannot_hold_is_a_marshal_error(returned, message):
    error = outcome(lambda: returned).error
    assert error is not None
    assert (error.type, error.message, error.request_id) == ("Runtime.MarshalError", message, "id")


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, b"null"),
        ({"n": decimal.Decimal("1.10"), "m": decimal.Decimal(7)}, b'{"n": 1.10, "m": 7}'),
        (decimal.Decimal("12345678901234567890.123"), b"12345678901234567890.123"),
        ([decimal.Decimal("NaN"), decimal.Decimal("-Infinity")], b"[NaN, -Infinity]"),
        (
            {"at": Point(decimal.Decimal("0.10"), "\N{GREEK SMALL LETTER PI}")},
            f'{{"at": {{"x": 0.10, "y": "{PI}"}}}}'.encode(),
        ),
        (b"\x00raw", b"\x00raw"),
        ({"text": b"raw"}, b'{"text": "raw"}'),
    ],
)
def test_a_response_is_written_as_lambdas_runtime_writes_it(returned, text):
    assert local.run_event(lambda event, context: returned, HANDLER, b"{}", CONTEXT)[0] == text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="escaped, it is ASCII")
def test_text_that_utf_8_cannot_hold_is_a_marshal_error():
    error = outcome(lambda: "\ud800").error
    assert error is not None
    assert error.type == "Runtime.MarshalError"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="not escaped, UTF-8 cannot hold it")
def test_half_a_pair_of_surrogates_is_escaped_up_to_python_3_11():
    assert local.run_event(lambda event, context: "\ud800", HANDLER, b"{}", CONTEXT)[0] == b'"\\ud800"'


def test_a_response_of_the_largest_size_passes_and_one_byte_more_does_not():
    largest = payloads.RESPONSE_BYTES - 2
    assert outcome(lambda: "x" * largest).error is None
    error = outcome(lambda: "x" * (largest + 1)).error
    assert error is not None
    assert error.type == "Function.ResponseSizeTooLarge"


def test_an_exception_is_an_outcome():
    def fail():
        raise ValueError("no such order")

    result = outcome(fail)
    assert result.error is not None
    assert (result.error.type, result.error.message, result.error.request_id) == ("ValueError", "no such order", "id")
    assert result.response is None
    assert result.duration_us >= 0


@pytest.mark.parametrize("ends", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_process_passes_through(ends):
    def leave():
        raise ends

    with pytest.raises(ends):
        outcome(leave)
