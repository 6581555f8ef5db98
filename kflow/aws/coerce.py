"""From what a body holds to what the model says, as leniently as AWS, or refused in AWS's words.

The slow path: taken where the quick one (`kflow.aws.structs`) did not fit. Members that the model does not know are
dropped, null is the same as absent, fractions are floored, integers beyond the type's range become its end.

Source: recorded: kinesalite's test-suite against AWS (the texts for JSON); what CBOR adds is chosen in the same words.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import pybase64

from kflow.aws.errors import SerializationFailed
from kflow.aws.shapes import ListOf, MapOf, Scalar, Shape, Structure
from kflow.aws.structs import FLOATS, INTEGERS, Milliseconds, milliseconds

_LIST = "Start of list found where not expected"
_MAP = "Start of structure or map found where not expected."
_NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
_NO_DIGIT: Final = re.compile(r"[^A-Za-z0-9+/]")
_LAST: Final = {1: frozenset("AEIMQUYcgkosw048"), 2: frozenset("AQgw")}
"""By number of pads: the last characters before them that leave no bits over."""
_WORDS: Final = {"TRUE": True, "YES": True, "1": True, "FALSE": False, "NO": False, "0": False}
_INFINITIES: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SHOWN: Final = 65_536
"""Characters of a value that are shown at most (chosen: an answer is no amplifier)."""
SECONDS_BELOW: Final = 100_000_000_000
"""An untagged integer of CBOR below this means seconds (until 5138), else milliseconds (from 1973). Chosen."""


class Coercion:
    """Walks a value along its shape.

    Attributes:
        is_text: blobs are base64 text and timestamps seconds, as in JSON; else they are bytes and milliseconds.
        is_wire: members are called as on the wire; else as in the model.
    """

    def __init__(self, *, is_text: bool, is_wire: bool = True) -> None:
        self.is_text = is_text
        self.is_wire = is_wire

    def timestamp_hook(self, kind: type, value: Any) -> Any:
        """For `msgspec`: a timestamp of the usual kinds; `ValueError` sends anything else down the slow path."""
        is_number = type(value) in {int, float} and -9e15 < value < 9e15
        if kind is Milliseconds and (is_number or isinstance(value, Milliseconds | dt.datetime)):
            return self._timestamp(value)
        raise ValueError

    def structure(self, shape: Structure, value: Any) -> dict[str, Any]:
        """Members by name.

        Raises:
            SerializationFailed: something is of a type that AWS does not convert.
        """
        if isinstance(value, list | tuple):
            raise SerializationFailed(_LIST)
        if not isinstance(value, Mapping):
            raise SerializationFailed("Expected null")
        found: dict[str, Any] = {}
        for member in shape.members.values():
            given = value.get(member.wire_name if self.is_wire else member.name)
            if given is not None:
                found[member.name] = self.value(member.shape, given)
        return found

    def value(self, shape: Shape, value: Any) -> Any:
        """Any value but null."""
        if isinstance(shape, Structure):
            return value if shape.is_document else self.structure(shape, value)
        if isinstance(shape, ListOf):
            if isinstance(value, Mapping):
                raise SerializationFailed(_MAP)
            if not isinstance(value, list | tuple):
                raise SerializationFailed("Expected list or null")
            inner = shape.element.shape
            return [None if part is None else self.value(inner, part) for part in islice(value, _enough(shape))]
        if isinstance(shape, MapOf):
            if isinstance(value, list | tuple):
                raise SerializationFailed(_LIST)
            if not isinstance(value, Mapping):
                raise SerializationFailed("Expected map or null")
            inner = shape.value.shape
            entries = islice(value.items(), _enough(shape))
            return {str(key): None if part is None else self.value(inner, part) for key, part in entries}
        assert isinstance(shape, Scalar)
        if isinstance(value, list | tuple):
            raise SerializationFailed(_LIST)
        if isinstance(value, Mapping):
            raise SerializationFailed(_MAP)
        return self._scalar(shape.kind, value)

    def _scalar(self, kind: str, value: Any) -> Any:
        if kind in INTEGERS or kind == "biginteger":
            return _integer(kind, value)
        if kind in FLOATS:
            if isinstance(value, str) and value in _INFINITIES:
                return _INFINITIES[value]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SerializationFailed(f"{_class(value)} can not be converted to an Double")
            return float(value)
        match kind:
            case "boolean":
                return _boolean(value)
            case "blob":
                return self._blob(value)
            case "timestamp":
                return self._timestamp(value)
        if not isinstance(value, str):
            raise SerializationFailed(f"{_class(value)} can not be converted to an String")
        return value

    def _blob(self, value: Any) -> bytes:
        if self.is_text and isinstance(value, str):
            return _from_base64(value)
        if not self.is_text and isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise SerializationFailed(f"{_class(value)} can not be converted to a Blob")

    def _timestamp(self, value: Any) -> Milliseconds:
        if isinstance(value, Milliseconds):
            return value
        if isinstance(value, dt.datetime):
            return milliseconds(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SerializationFailed(f"{_class(value)} can not be converted to milliseconds since epoch")
        is_seconds = self.is_text or isinstance(value, float) or abs(value) < SECONDS_BELOW
        least, greatest = INTEGERS["long"]
        if is_seconds and abs(value) >= greatest // 1000:
            return Milliseconds(greatest if value > 0 else least)
        return milliseconds(value) if is_seconds else Milliseconds(max(least, min(greatest, value)))


def _enough(shape: Shape) -> int | None:
    """How many parts are looked at: with one too many it is refused, a million more only take time (chosen)."""
    return None if shape.maximum is None else shape.maximum + 1


def _integer(kind: str, value: Any) -> int:
    if type(value) is not int and type(value) is not float:
        raise SerializationFailed(
            f"{_class(value)} can not be converted to an {'Long' if kind == 'long' else 'Integer'}"
        )
    if isinstance(value, float) and math.isnan(value):
        return 0
    if kind == "biginteger" and isinstance(value, int):
        return value
    least, greatest = INTEGERS.get(kind, INTEGERS["long"])
    if value >= greatest:
        return greatest
    return least if value <= least else math.floor(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.upper()
        if word in _WORDS:
            return _WORDS[word]
        raise SerializationFailed(f"'{word[:_SHOWN]}' can not be converted to an Boolean")
    raise SerializationFailed(f"{_class(value)} can not be converted to an Boolean")


def _from_base64(text: str) -> bytes:
    shown = text[:_SHOWN]
    if len(text) % 4:
        raise SerializationFailed(
            f"'{shown}' can not be converted to a Blob: "
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(text)}"
        )
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        bad = _NO_DIGIT.search(text[:-2] + text[-2:].rstrip("="))
        char = "=" if bad is None else bad[0]
        raise SerializationFailed(
            f"'{shown}' can not be converted to a Blob: Invalid Base64 character: '{char}'"
        ) from error
    pads = text[-2:].count("=")
    if pads and text[-1 - pads] not in _LAST[pads]:
        raise SerializationFailed(
            f"'{shown}' can not be converted to a Blob: Invalid last non-pad Base64 character dectected"
        )
    return data


def _class(value: Any) -> str:
    match value:
        case bool():
            return "class java.lang.Boolean"
        case int() | float():
            return _NUMBER
        case str():
            return "class java.lang.String"
        case bytes() | bytearray():
            return "class java.nio.HeapByteBuffer"
    return "class java.lang.Object"
