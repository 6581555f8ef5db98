"""A handler's result, written as Lambda's Python runtime writes it.

JSON; decimals are numbers with all their digits, named tuples are objects, bytes are text in UTF-8, NaN and infinities
stand as they are. A result that is bytes is the response itself. Letters beyond ASCII are escaped up to Python 3.11,
as in the runtimes of these versions.

Source: recorded: awslambdaric 4.2.
"""

from __future__ import annotations

import decimal
import json
import os
import re
import sys
from typing import Any, Final

_MARK: Final = os.urandom(12).hex()
"""Nobody's text has it: what stands between two of them is a decimal."""
_DECIMALS: Final = re.compile(f'"{_MARK}([^"]*){_MARK}"')


def encode(value: Any) -> bytes:
    """A result as it is sent.

    Raises:
        Exception: JSON cannot hold it, or one of its own methods failed.
    """
    if isinstance(value, bytes):
        return value
    text = _ENCODER.encode(value)  # first of all: it refuses what refers to itself
    if _has_names(value):
        text = _ENCODER.encode(_plain(value))
    return (_DECIMALS.sub(r"\1", text) if _MARK in text else text).encode()


def _default(value: Any) -> str:
    if isinstance(value, decimal.Decimal):
        return f"{_MARK}{'NaN' if value.is_nan() else value}{_MARK}"
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_ENCODER: Final = json.JSONEncoder(ensure_ascii=sys.version_info < (3, 12), default=_default)


def _has_names(value: Any) -> bool:
    """Whether there is a named tuple in it."""
    if isinstance(value, dict):
        return any(map(_has_names, value.values()))
    return isinstance(value, list | tuple) and (hasattr(value, "_asdict") or any(map(_has_names, value)))


def _plain(value: Any) -> Any:
    """It, with its named tuples as dictionaries."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
