"""Parameters as boto3 takes them, made plain: blobs are bytes, timestamps datetimes; checked by the model.

What fits is never shown to botocore. What does not is: its own validator says what is wrong, in its own words, or that
nothing is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from kflow.aws.shapes import ListOf, MapOf, Operation, Shape, Structure

_NUMBERS = {"integer": (int,), "long": (int,), "short": (int,), "float": (float, int), "double": (float, int)}


class _Unfit(Exception):  # never leaves this module
    """Botocore must look at it."""


def plain(operation: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a call.

    Raises:
        ParamValidationError: botocore's, with its text.
    """
    shape = operation.input
    if shape is None:
        if parameters:
            _have_validated(operation, parameters)
        return {}
    try:
        made: dict[str, Any] = _plain(shape, parameters)
    except _Unfit:
        _have_validated(operation, parameters)
        made = _loose(shape, parameters)
    return made


def _plain(shape: Shape, value: Any) -> Any:  # one for each kind
    kind = shape.kind
    if isinstance(shape, Structure):
        if type(value) is not dict:
            raise _Unfit
        members = shape.members
        if not members.keys() >= value.keys() or not value.keys() >= set(shape.required):
            raise _Unfit
        return {name: _plain(members[name].shape, part) for name, part in value.items()}
    if isinstance(shape, ListOf):
        if not isinstance(value, list | tuple) or len(value) < (shape.minimum or 0):
            raise _Unfit
        inner = shape.element.shape
        return [_plain(inner, part) for part in value]
    if isinstance(shape, MapOf):
        if type(value) is not dict:
            raise _Unfit
        key, inner = shape.key.shape, shape.value.shape
        return {_plain(key, name): _plain(inner, part) for name, part in value.items()}
    if kind == "string":
        if isinstance(value, str) and len(value) >= (shape.minimum or 0):
            return value
    elif kind == "blob":
        return _blob(value)
    elif kind == "timestamp":
        return _moment(value)
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif isinstance(value, _NUMBERS.get(kind, ())) and not isinstance(value, bool) and _is_enough(shape, value):
        return value
    raise _Unfit


def _is_enough(shape: Shape, value: float) -> bool:
    return shape.minimum is None or value >= shape.minimum


def _blob(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray):
        return bytes(value)
    if hasattr(value, "read"):
        return _blob(value.read())
    raise _Unfit


def _moment(value: Any) -> dt.datetime | float:
    """An aware datetime; numbers are seconds since the epoch."""
    if isinstance(value, dt.datetime):
        return value if value.tzinfo is not None else value.astimezone()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _Unfit


def _loose(shape: Shape, value: Any) -> Any:
    """What botocore's validator found nothing wrong with: as its serialiser would send it."""
    if isinstance(shape, Structure):
        return {name: _loose(shape.members[name].shape, part) for name, part in value.items()}
    if isinstance(shape, ListOf):
        return [_loose(shape.element.shape, part) for part in value]
    if isinstance(shape, MapOf):
        return {name: _loose(shape.value.shape, part) for name, part in value.items()}
    if shape.kind == "timestamp":
        from botocore.utils import parse_to_aware_datetime

        moment: dt.datetime = parse_to_aware_datetime(value)
        return moment
    return _blob(value) if shape.kind == "blob" else value


def _have_validated(operation: Operation, parameters: Mapping[str, Any]) -> None:
    from botocore.exceptions import ParamValidationError
    from botocore.validate import ParamValidator

    from kflow.client.sdk import service_model

    shape = service_model().operation_model(operation.name).input_shape
    report = ParamValidator().validate(dict(parameters), shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())
