"""Calls from this process: inputs and outputs as boto3 has them, checked by the same model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import islice, repeat
from typing import Any

from kflow.aws.calls import Output
from kflow.aws.coerce import Coercion
from kflow.aws.columns import Columns, Constant
from kflow.aws.shapes import ListOf, MapOf, Operation, Shape, Structure
from kflow.aws.structs import Milliseconds


class Lenient(Coercion):
    """As boto3: a blob may be text, which is sent as UTF-8; a timestamp may be seconds."""

    def __init__(self) -> None:
        super().__init__(is_text=False, is_wire=False)

    def _blob(self, value: Any) -> bytes:
        return super()._blob(value.encode() if isinstance(value, str) else value)

    def _timestamp(self, value: Any) -> Milliseconds:
        if isinstance(value, int) and not isinstance(value, bool | Milliseconds):
            value = float(value)
        return super()._timestamp(value)

    def timestamp_hook(self, kind: type, value: Any) -> Any:
        """See `Coercion`."""
        return super().timestamp_hook(kind, float(value) if type(value) is int else value)


class LocalOutput:
    """Any operation's."""

    def read(self, operation: Operation, output: Output) -> dict[str, Any]:
        """Plain lists and dicts; blobs are bytes, timestamps are datetimes in UTC."""
        if operation.output is None or output is None:
            return {}
        read: dict[str, Any] = _read(operation.output, output)
        return read

    def event(self, operation: Operation, name: str, members: Mapping[str, Any]) -> dict[str, Any]:
        """The members of one event of an answer that goes on, likewise."""
        stream = operation.event_stream
        assert stream is not None
        assert isinstance(stream.shape, Structure)
        read: dict[str, Any] = _read(stream.shape.members[name].shape, members)
        return read


def _read(shape: Shape, value: Any) -> Any:
    if isinstance(shape, Structure):
        members = shape.members
        return {name: _read(members[name].shape, part) for name, part in value.items() if part is not None}
    if isinstance(shape, ListOf):
        inner = shape.element.shape
        if isinstance(value, Columns):
            assert isinstance(inner, Structure)
            return _rows(inner, value)
        return [_read(inner, part) for part in value]
    if isinstance(shape, MapOf):
        return {key: _read(shape.value.shape, part) for key, part in value.items()}
    return _time(value) if shape.kind == "timestamp" else value


def _rows(shape: Structure, columns: Columns) -> list[dict[str, Any]]:
    names = tuple(columns.members)
    values = [_column(shape.members[name].shape, columns.members[name]) for name in names]
    rows = islice(zip(*values, strict=False), columns.count)  # constants go on for ever
    if any(isinstance(column, list) and None in column for column in columns.members.values()):
        return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _column(shape: Shape, column: Sequence[Any] | Constant) -> Any:
    if isinstance(column, Constant):
        return repeat(_read(shape, column.value))
    return _times(column) if shape.kind == "timestamp" else column


def _times(column: Sequence[Any]) -> list[dt.datetime | None]:
    """The records of a block arrived at the same time."""
    known = {value: None if value is None else _time(value) for value in set(column)}
    return [known[value] for value in column]


def _time(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    seconds, rest = divmod(value, 1000)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=rest * 1000)
