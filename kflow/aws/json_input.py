"""From a JSON body to an operation's input: quickly where it is right, exactly where it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import pybase64

from kflow.aws.coerce import Coercion
from kflow.aws.errors import SerializationFailed
from kflow.aws.shapes import ListOf, MapOf, Operation, Scalar, Shape, Structure
from kflow.aws.structs import Milliseconds, Structs, attribute, settled
from kflow.aws.validate import validate

LONG: Final = 1500
"""Characters of JSON between two blobs from which on they are cut out before msgspec reads the rest.

Measured: msgspec reads 0.7 GB/s, and its base64 is slower still; a blob that is cut out costs a search for the quote
behind it, and pybase64 at 5 GB/s. A call of 9 records of 1 MiB took 22 ms, and takes 3.
"""
MOST: Final = 200_000
"""Commas in a body (chosen; what the models allow has fewer): five million empty lists must not take seconds to refuse.

Counting them takes 1.3 ms a MiB, so it is done only for bodies that are long enough, and have more than a few.
"""
_FEW: Final = 5000
"""More than records that are put at once have."""
_BITS_LEFT = re.compile(rb'="(?<![AQgw]==")(?<![AEIMQUYcgkosw048]=")')
"""The end of base64 whose last digit says more than its bytes take. msgspec does not mind, AWS does."""
_LAST: Final = (b"AEIMQUYcgkosw048", b"AQgw")
_TEXT: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"')
"""Between a member's name and its value, where that is a text."""
_ROWS: Final = 500
"""Records that are put at once, at most."""
_COERCION = Coercion(is_text=True)
_FARTHEST: Final = 9e15
"""Seconds; a timestamp beyond is for the slow path to bound."""


class Nothing(msgspec.Struct, gc=False):
    """The input of an operation that takes none."""


def plain(body: bytes) -> dict[str, Any]:
    """The body as JSON.

    Raises:
        SerializationFailed: it is no JSON object.
    """
    if _is_crowded(body):
        raise SerializationFailed
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationFailed from error
    if not isinstance(value, dict):
        raise SerializationFailed
    return value


def _is_crowded(body: bytes) -> bool:
    if len(body) <= MOST:
        return False
    at = -1
    for _ in range(_FEW):
        at = body.find(b",", at + 1)
        if at < 0:
            return False
    return body.count(b",") > MOST


class JsonInput:
    """One operation's. Compiled when it is first called."""

    def __init__(self, operation: Operation) -> None:
        self._shape = operation.input
        self._structs = Structs()
        self._decode: Callable[[bytes], Any] | None = None
        self._decode_long: Callable[[bytes], Any] | None = None
        self._blobs: _Blobs | None = None
        self._settle: Callable[[Any], Any] | None = None
        if self._shape is None:
            self._decode = msgspec.json.Decoder(Nothing).decode
        elif self._structs.is_exact(self._shape):
            self._decode = msgspec.json.Decoder(self._structs.of(self._shape), dec_hook=_hook).decode
            self._settle = settled(self._shape)
            self._blobs = _Blobs.of(self._shape)
            if self._blobs is not None:
                texts = Structs(blobs=str).of(self._shape)
                self._decode_long = msgspec.json.Decoder(texts, dec_hook=_hook).decode

    def quick(self, body: bytes) -> Any:
        """The input as a struct; None: it takes `exact` to say what it is, or what is wrong with it."""
        blobs = self._blobs
        if self._decode is None or (len(body) > MOST and _is_crowded(body)):
            return None
        try:
            if not body.isascii():
                body.decode()  # msgspec does not look at what it skips
            if blobs is None:
                given = self._decode(body)
                return given if self._settle is None else self._settle(given)
            if len(body) > LONG and blobs.are_long(body):
                assert self._decode_long is not None
                rest, texts = blobs.cut_out(body)
                given = self._decode_long(rest)
                blobs.put_back(given, texts)
            else:
                given = self._decode(body)
                if b'="' in body and _BITS_LEFT.search(body):
                    return None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return None
        return given if self._settle is None else self._settle(given)

    def exact(self, value: Mapping[str, Any]) -> Any:
        """The input as a struct, of what `plain` gave.

        Raises:
            SerializationFailed: something is of a wrong type.
            ValidationFailed: something breaks a constraint.
        """
        if self._shape is None:
            return Nothing()
        try:
            values = _COERCION.structure(self._shape, value)
            validate(self._shape, values)
            return self._structs.made(self._shape, values)
        except RecursionError as error:  # a shape that holds itself
            raise SerializationFailed from error


class _Blobs:
    """Where an input has its only blob member: in itself (`Data`), or in each of a list (`Records`)."""

    def __init__(self, rows: str, name: str, wire_name: str, blob: Scalar) -> None:
        self._rows = rows
        self._name = name
        self._key = f'"{wire_name}"'.encode()
        self._least = blob.minimum or 0
        self._greatest = blob.maximum if blob.maximum is not None else 1 << 62

    @classmethod
    def of(cls, shape: Structure) -> _Blobs | None:
        """None where there is none, or more than one, or one that is elsewhere."""
        found: list[_Blobs] = []
        for member in shape.members.values():
            if isinstance(member.shape, Scalar) and member.shape.kind == "blob":
                found.append(cls("", attribute(member.name), member.wire_name, member.shape))
            elif isinstance(member.shape, ListOf) and isinstance(row := member.shape.element.shape, Structure):
                found += [
                    cls(attribute(member.name), attribute(part.name), part.wire_name, part.shape)
                    for part in row.members.values()
                    if isinstance(part.shape, Scalar) and part.shape.kind == "blob"
                ]
        return found[0] if len(found) == 1 and _blob_count(shape) == 1 else None

    def are_long(self, body: bytes) -> bool:
        """Whether the first one seems to be, or some must be."""
        if len(body) > LONG * _ROWS:
            return True
        first = body.find(self._key)
        if first < 0:
            return False
        if not self._rows:
            return True
        second = body.find(self._key, first + 1, first + LONG)
        return second < 0

    def cut_out(self, body: bytes) -> tuple[bytes, list[memoryview]]:
        """The body with `"#0"`, `"#1"`, ... for its blobs, and what stood there.

        In JSON a name between quotes with a colon behind it is a member's, wherever it stands: in a text, its quotes
        would have a backslash before them. Base64 has no quotes, so the next one ends it; what is no base64 is found
        out by `put_back`.

        Raises:
            ValueError: whether what is left means the same is not certain.
        """
        key, view = self._key, memoryview(body)
        pieces: list[bytes | memoryview] = []
        texts: list[memoryview] = []
        at = 0
        for _ in range(2 * _ROWS):
            found = body.find(key, at)
            if found < 0:
                break
            found += len(key)
            value = _TEXT.match(body, found)
            if value is None:
                pieces.append(view[at:found])
                at = found
                continue
            begin = value.end()
            end = body.find(b'"', begin)
            if end < 0:
                raise ValueError
            pieces += (view[at:begin], b"#%d" % len(texts))
            texts.append(view[begin:end])
            at = end
        else:
            raise ValueError
        rest = b"".join((*pieces, view[at:]))
        if b"\\u00" in rest:  # may spell the member's name, or a `#`
            raise ValueError
        return rest, texts

    def put_back(self, given: Any, texts: list[memoryview]) -> None:
        """Set the blobs that were cut out.

        Raises:
            ValueError: one is no base64, or too long.
        """
        name = self._name
        for row in getattr(given, self._rows) if self._rows else (given,):
            place = getattr(row, name)
            if place is None:
                continue
            text = texts[int(place[1:])]
            data = pybase64.b64decode(text, validate=True)
            tail = bytes(text[-3:])
            if tail.endswith(b"=") and tail[-2 - tail.endswith(b"==")] not in _LAST[tail.endswith(b"==")]:
                raise ValueError
            if not self._least <= len(data) <= self._greatest:
                raise ValueError
            setattr(row, name, data)


def _blob_count(shape: Shape) -> int:
    """Places where an input may hold a blob, at any depth."""
    if isinstance(shape, Structure):
        return sum(_blob_count(member.shape) for member in shape.members.values())
    if isinstance(shape, ListOf):
        return _blob_count(shape.element.shape)
    if isinstance(shape, MapOf):
        return _blob_count(shape.value.shape)
    return shape.kind == "blob"


def _hook(kind: type, value: Any) -> Any:
    """Of a timestamp; `ValueError` sends the body down the slow path."""
    if kind is Milliseconds and type(value) in {int, float} and -_FARTHEST < value < _FARTHEST:
        return Milliseconds(round(value * 1000))
    raise ValueError
