"""CBOR as AWS has it (`application/x-amz-cbor-1.1`): RFC 8949, but timestamps are tag 1 around whole milliseconds.

Where the RFC's own are meant, in seconds, `decode` is told so.

Pure Python: 1.3 us a record of PutRecords, of which the bytes are taken as they are. Reading trusts nothing: lengths
are checked against what is there, nesting is bounded, and what is left over is an error.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kflow.aws.structs import Milliseconds

DEEPEST: Final = 64
"""Levels of nesting (chosen; the models of AWS's services stay below ten)."""
MOST: Final = 50_000
"""Elements and entries in a request (chosen; the models allow 30,001): a body of empty lists must not take seconds."""
MILLISECONDS: Final = 1
SECONDS: Final = 1000
"""What a timestamp counts that is a whole number."""
_EPOCH: Final = 1
_FARTHEST: Final = 1 << 53
_BIG: Final = {2: 0, 3: -1}
_BREAK: Final = object()
_U16 = struct.Struct(">H").unpack_from
_U32 = struct.Struct(">I").unpack_from
_U64 = struct.Struct(">Q").unpack_from
_F16 = struct.Struct(">e").unpack_from
_F32 = struct.Struct(">f").unpack_from
_F64 = struct.Struct(">d").unpack_from
_SIMPLE: Final = {20: False, 21: True, 22: None, 23: None}
_KEYS_KEPT: Final = 512


class CborError(ValueError):
    """What was given is no CBOR; the text says where."""


_keys: dict[bytes, str] = {}
"""Names of members met before, by their coded form: cheaper than to decode them again."""


def decode(data: bytes, *, most: int = MOST, timestamps: int = MILLISECONDS) -> Any:
    """One item: dict, list, str, bytes, int, float, bool, None; a timestamp is `Milliseconds`.

    Args:
        data: all of it.
        most: elements and entries in all.
        timestamps: what those count that are whole numbers: `MILLISECONDS` or `SECONDS`.

    Raises:
        CborError: it is none, or not only one, or has too many parts.
    """
    try:
        value, at = _item(data, 0, [0, most, timestamps])
    except (IndexError, struct.error) as error:
        raise CborError("ends in the middle of an item") from error
    except UnicodeDecodeError as error:
        raise CborError("a text is no UTF-8") from error
    if value is _BREAK or at != len(data):
        raise CborError(f"something follows at byte {at}")
    return value


def _item(data: bytes, at: int, state: list[int]) -> tuple[Any, int]:
    """One item, and where the next begins.

    `state`: levels above it, how many more items there may be, and what timestamps count.
    """
    first = data[at]
    at += 1
    major, info = first >> 5, first & 31
    if info < 24:
        number = info
    elif info == 24:
        number = data[at]
        at += 1
    elif info == 25:
        number = _U16(data, at)[0]
        at += 2
    elif info == 26:
        number = _U32(data, at)[0]
        at += 4
    elif info == 27:
        number = _U64(data, at)[0]
        at += 8
    elif info == 31:
        return _indefinite(data, at, major, state)
    else:
        raise CborError(f"byte {at - 1} begins no item")
    if major == 5:
        return _map(data, at, number, state)
    if major == 3:
        return _cut(data, at, number).decode(), at + number
    if major == 2:
        return _cut(data, at, number), at + number
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major == 4:
        return _array(data, at, number, state)
    if major == 6:
        _enter(state, 1)
        value, at = _item(data, at, state)
        state[0] -= 1
        return _tagged(number, value, state[2]), at
    return _simple(data, at, info, number), at


def _cut(data: bytes, at: int, length: int) -> bytes:
    cut = data[at : at + length]
    if len(cut) != length:
        raise CborError("ends in the middle of an item")
    return cut


def _enter(state: list[int], count: int) -> None:
    """Begin a container of so many items; a negative number is not known yet, and `_leave` tells."""
    if state[0] >= DEEPEST:
        raise CborError(f"nested more than {DEEPEST} levels deep")
    state[0] += 1
    state[1] -= max(count, 1)
    if state[1] < 0:
        raise CborError("too many items")


def _leave(state: list[int], count: int) -> None:
    """End one whose number of items was not known: it is known now."""
    state[0] -= 1
    state[1] -= count


def _map(data: bytes, at: int, count: int, state: list[int]) -> tuple[dict[str, Any], int]:
    """`count` < 0: until a break. Keys, and values of the usual kinds, are read in line: 0.2 us an entry."""
    _enter(state, count)
    found: dict[str, Any] = {}
    end = len(data)
    limit = -1 - state[1]
    while count:
        if count < limit:
            raise CborError("too many items")
        first = data[at]
        if 0x60 <= first < 0x78:
            stop = at + first - 0x5F
            raw = data[at:stop]
            key = _keys.get(raw)
            if key is None:
                if stop > end:
                    raise CborError("ends in the middle of an item")
                key = raw[1:].decode()
                if len(_keys) < _KEYS_KEPT:
                    _keys[raw] = key
            at = stop
        elif first == 0xFF and count < 0:
            _leave(state, -1 - count)
            return found, at + 1
        else:
            key, at = _item(data, at, state)
            if not isinstance(key, str):
                raise CborError(f"a name before byte {at} is no text")
        first = data[at]
        if 0x60 <= first < 0x78:
            stop = at + first - 0x5F
            if stop > end:
                raise CborError("ends in the middle of an item")
            found[key] = data[at + 1 : stop].decode()
            at = stop
        elif first == 0x58:
            stop = at + 2 + data[at + 1]
            if stop > end:
                raise CborError("ends in the middle of an item")
            found[key] = data[at + 2 : stop]
            at = stop
        else:
            value, at = _item(data, at, state)
            if value is _BREAK:
                raise CborError(f"a value is missing before byte {at}")
            found[key] = value
        count -= 1
    state[0] -= 1
    return found, at


def _array(data: bytes, at: int, count: int, state: list[int]) -> tuple[list[Any], int]:
    _enter(state, count)
    found: list[Any] = []
    add = found.append
    limit = -1 - state[1]
    while count:
        if count < limit:
            raise CborError("too many items")
        first = data[at]
        if 0xA0 <= first < 0xB8:
            value, at = _map(data, at + 1, first - 0xA0, state)
        else:
            value, at = _item(data, at, state)
        if value is _BREAK:
            if count > 0:
                raise CborError(f"an element is missing before byte {at}")
            _leave(state, -1 - count)
            return found, at
        add(value)
        count -= 1
    state[0] -= 1
    return found, at


def _indefinite(data: bytes, at: int, major: int, state: list[int]) -> tuple[Any, int]:
    if major == 5:
        return _map(data, at, -1, state)
    if major == 4:
        return _array(data, at, -1, state)
    if major == 7:
        return _BREAK, at
    if major not in {2, 3}:
        raise CborError(f"byte {at - 1} begins no item")
    parts: list[Any] = []
    while data[at] != 0xFF:
        if data[at] >> 5 != major or data[at] & 31 == 31:
            raise CborError(f"byte {at} begins no piece of a string")
        part, at = _item(data, at, state)
        parts.append(part)
        _enter(state, 1)
        state[0] -= 1
    return ("".join(parts) if major == 3 else b"".join(parts)), at + 1


def _tagged(tag: int, value: Any, unit: int) -> Any:
    if value is _BREAK:
        raise CborError("a tag has nothing to tag")
    if tag == _EPOCH:
        if isinstance(value, float) and math.isfinite(value) and abs(value) < 9e15:
            return Milliseconds(round(value * 1000))
        if type(value) is int and -_FARTHEST < value < _FARTHEST:
            return Milliseconds(value * unit)
        raise CborError("a timestamp is no number")
    if tag in _BIG:
        if not isinstance(value, bytes) or len(value) > 1024:
            raise CborError("a big number has no bytes, or too many")
        number = int.from_bytes(value, "big")
        return number if tag == 2 else -1 - number
    return value


def _simple(data: bytes, at: int, info: int, number: int) -> Any:
    if info == 27:
        return _F64(data, at - 8)[0]
    if info == 26:
        return _F32(data, at - 4)[0]
    if info == 25:
        return _F16(data, at - 2)[0]
    if number in _SIMPLE and info < 24:
        return _SIMPLE[number]
    raise CborError(f"a simple value before byte {at} has no meaning")


def head(major: int, number: int) -> bytes:
    """The beginning of an item: its kind, and its value or length."""
    kind = major << 5
    if number < 24:
        return bytes((kind | number,))
    if number < 0x100:
        return bytes((kind | 24, number))
    if number < 0x1_0000:
        return struct.pack(">BH", kind | 25, number)
    if number < 0x1_0000_0000:
        return struct.pack(">BI", kind | 26, number)
    return struct.pack(">BQ", kind | 27, number)


def _table(major: int) -> tuple[bytes, ...]:
    return tuple(head(major, number) for number in range(1024))


_TEXTS = _table(3)
_BYTES = _table(2)
_UINTS = _table(0)


def text(value: str) -> bytes:
    """A text."""
    coded = value.encode()
    return (_TEXTS[len(coded)] if len(coded) < 1024 else head(3, len(coded))) + coded


def blob(value: bytes) -> bytes:
    """A byte string."""
    return (_BYTES[len(value)] if len(value) < 1024 else head(2, len(value))) + value


def integer(value: int) -> bytes:
    """A whole number that takes at most 64 bits."""
    if value < 0:
        return head(1, -1 - value)
    return _UINTS[value] if value < 1024 else head(0, value)


def timestamp(value: int) -> bytes:
    """Milliseconds since the epoch."""
    return b"\xc1" + integer(value)


def number(value: float) -> bytes:
    """A float of 64 bits, or a whole number."""
    return integer(value) if type(value) is int else struct.pack(">Bd", 0xFB, value)


def boolean(value: bool) -> bytes:
    """True or false."""
    return b"\xf5" if value else b"\xf4"


def array(items: Iterable[bytes], count: int) -> bytes:
    """Coded items."""
    return head(4, count) + b"".join(items)


def mapping(items: Mapping[str, Any]) -> bytes:
    """Plain values by name: str, bytes, int, float, bool, lists and mappings of them; None is left out."""
    given = [(name, value) for name, value in items.items() if value is not None]
    return head(5, len(given)) + b"".join(text(name) + encode(value) for name, value in given)


def encode(value: Any) -> bytes:
    """A plain value.

    Raises:
        TypeError: it is none.
    """
    if value is None:
        return b"\xf6"
    if isinstance(value, Milliseconds):
        return timestamp(value)
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, Mapping):
        return mapping(value)
    if isinstance(value, list | tuple):
        return array(map(encode, value), len(value))
    raise TypeError(f"{type(value).__name__} is no plain value")


_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: text,
    bytes: blob,
    int: integer,
    float: number,
    bool: boolean,
}
