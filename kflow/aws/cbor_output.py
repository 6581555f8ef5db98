"""From an output to CBOR: a writer a shape, and `Columns` a column at a time."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from kflow.aws import cbor
from kflow.aws.columns import Columns, Constant
from kflow.aws.shapes import ListOf, MapOf, Shape, Structure
from kflow.aws.slicing import is_long, slices
from kflow.aws.structs import milliseconds

Write = Callable[[Any], bytes]


class CborOutput:
    """Writes structures of one model. What it has compiled is kept by the shape's name.

    Args:
        scalars: how values of some kinds are written; others as AWS's own CBOR has them.
    """

    def __init__(self, scalars: Mapping[str, Write] | None = None) -> None:
        self._structures: dict[str, Write] = {}
        self._scalars = _SCALARS if scalars is None else {**_SCALARS, **scalars}

    def bytes_of(self, shape: Structure, value: Mapping[str, Any]) -> bytes:
        """A structure as CBOR.

        Raises:
            LookupError, TypeError, ValueError: it is none; a bug of whoever made it.
        """
        return self._structure(shape)(value)

    def sliced(self, shape: Structure, value: Mapping[str, Any]) -> Generator[None, None, list[bytes]]:
        """The same in pieces, a slice a step. Raises as `bytes_of`."""
        given = [(shape.members[name], part) for name, part in value.items() if part is not None]
        pieces = [cbor.head(5, len(given))]
        for member, part in given:
            pieces.append(cbor.text(member.wire_name))
            write = self._writer(member.shape)
            if is_long(part):
                pieces.append(cbor.head(4, part.count if isinstance(part, Columns) else len(part)))
                for some in slices(part):
                    count = some.count if isinstance(some, Columns) else len(some)
                    pieces.append(write(some)[len(cbor.head(4, count)) :])
                    yield
            else:
                pieces.append(write(part))
        return pieces

    def _writer(self, shape: Shape) -> Write:
        if isinstance(shape, Structure):
            return cbor.encode if shape.is_document else self._structure(shape)
        if isinstance(shape, ListOf):
            return self._list(shape)
        if isinstance(shape, MapOf):
            return _map(self._writer(shape.value.shape))
        return self._scalars[shape.kind]

    def _structure(self, shape: Structure) -> Write:
        made = self._structures.get(shape.name)
        if made is None:
            members: dict[str, tuple[bytes, Write]] = {}

            def write(value: Mapping[str, Any]) -> bytes:
                pieces = [b""]
                for name, part in value.items():
                    if part is not None:
                        key, write = members[name]
                        pieces += (key, write(part))
                pieces[0] = cbor.head(5, len(pieces) // 2)
                return b"".join(pieces)

            made = self._structures[shape.name] = write  # before its members: a shape may hold itself
            for member in shape.members.values():
                members[member.name] = (cbor.text(member.wire_name), self._writer(member.shape))
        return made

    def _list(self, shape: ListOf) -> Write:
        inner = shape.element.shape
        write = self._writer(inner)

        def written(value: Any) -> bytes:
            if type(value) is Columns:
                assert isinstance(inner, Structure)
                return self._columns(inner, value)
            return cbor.array(map(write, value), len(value))

        return written

    def _columns(self, shape: Structure, columns: Columns) -> bytes:
        coded: list[list[bytes]] = []
        for name, column in columns.members.items():
            member = shape.members[name]
            key = cbor.text(member.wire_name)
            coded.append(_column(key, self._writer(member.shape), member.shape.kind, column, columns.count))
        if not all(len(column) == columns.count for column in coded):
            raise ValueError("columns differ in length")
        if all(map(all, coded)):
            heads = [cbor.head(5, len(coded))] * columns.count
        else:
            heads = [cbor.head(5, sum(map(bool, row))) for row in zip(*coded, strict=True)]
        return cbor.array(chain.from_iterable(zip(heads, *coded, strict=True)), columns.count)


def _column(key: bytes, write: Write, kind: str, column: Sequence[Any] | Constant, count: int) -> list[bytes]:
    """A column's entries of the rows' maps, with their key; empty where a row has none."""
    if isinstance(column, Constant):
        return [key + write(column.value)] * count
    if None in column:
        return [b"" if value is None else key + write(value) for value in column]
    if write is _timestamp and set(map(type, column)) == {int} and min(column) >= 0:
        packed = struct.pack(f">{count}q", *column)
        start = key + b"\xc1\x1b"
        return [start + packed[at : at + 8] for at in range(0, 8 * count, 8)]
    if kind in {"string", "blob"}:
        coded = list(map(str.encode, column)) if kind == "string" else column
        major = 3 if kind == "string" else 2
        starts = {length: key + cbor.head(major, length) for length in set(map(len, coded))}
        return [starts[len(value)] + value for value in coded]
    return [key + value for value in map(write, column)]


def _map(write: Write) -> Write:
    def written(value: Mapping[str, Any]) -> bytes:
        entries = [(key, part) for key, part in value.items() if part is not None]
        return cbor.head(5, len(entries)) + b"".join(cbor.text(key) + write(part) for key, part in entries)

    return written


def _timestamp(value: Any) -> bytes:
    return cbor.timestamp(milliseconds(value) if isinstance(value, dt.datetime) else value)


_SCALARS: Final[Mapping[str, Write]] = {
    "string": cbor.text,
    "character": cbor.text,
    "blob": cbor.blob,
    "boolean": cbor.boolean,
    "timestamp": _timestamp,
    "integer": cbor.integer,
    "long": cbor.integer,
    "short": cbor.integer,
    "byte": cbor.integer,
    "biginteger": cbor.integer,
    "float": cbor.number,
    "double": cbor.number,
    "bigdecimal": cbor.number,
}
