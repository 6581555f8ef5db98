"""What a caller hands to `put`, as bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from kflow.errors import UsageError

_encode = msgspec.json.Encoder().encode


def as_bytes(data: Any) -> bytes:
    """The payload: bytes as they are, text in UTF-8, anything else as compact JSON.

    Models that msgspec knows (dataclasses, `TypedDict`s, structs, attrs classes) and Pydantic's are JSON objects.

    Raises:
        UsageError: JSON cannot hold it.
    """
    if isinstance(data, bytes):
        return data if type(data) is bytes else bytes(data)
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    pydantic = sys.modules.get("pydantic")  # without it imported nothing can be one of its models
    if pydantic is not None and isinstance(data, pydantic.BaseModel):
        text: str = data.model_dump_json()
        return text.encode()
    try:
        return _encode(data)
    except (TypeError, OverflowError, RecursionError) as error:
        raise UsageError(
            f"data of type {type(data).__name__} cannot be put: {error}; pass bytes, str or JSON"
        ) from error


def all_as_bytes(datas: Iterable[Any]) -> list[bytes]:
    """The payloads of a call.

    Raises:
        UsageError: JSON cannot hold one; names its place in the call.
    """
    encoded = []
    for index, data in enumerate(datas):
        try:
            encoded.append(as_bytes(data))
        except UsageError as error:
            raise UsageError(f"record {index}: {error}") from error
    return encoded
