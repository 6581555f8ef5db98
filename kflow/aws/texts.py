"""Scalars as text: in XML, forms, queries, paths and headers.

Timestamps inside are milliseconds; on the wire they are one of three texts, which the model names: `iso8601`,
`unixTimestamp`, `rfc822`. Read is any of them, as AWS does. Source: documented: Smithy, timestampFormat trait.
"""

from __future__ import annotations

import binascii
import datetime as dt
import math
import re
from typing import Any, Final

import pybase64

from kflow.aws.errors import SerializationFailed
from kflow.aws.shapes import Member, Shape
from kflow.aws.structs import FLOATS, INTEGERS, Milliseconds, milliseconds

ISO: Final = "iso8601"
UNIX: Final = "unixTimestamp"
HTTP: Final = "rfc822"

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FARTHEST_S: Final = 9e15
"""Seconds; what is beyond is no timestamp."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS: Final = dt.timedelta(milliseconds=1)


def read(shape: Shape, text: str) -> Any:
    """The value that a text stands for.

    Raises:
        SerializationFailed: it stands for none.
    """
    kind = shape.kind
    if kind in ("string", "character"):
        return text
    text = text.strip()
    if kind in INTEGERS or kind == "biginteger":
        if not _INTEGER.fullmatch(text):
            raise _not(text, "an Integer" if kind != "long" else "a Long")
        least, greatest = INTEGERS.get(kind, (-math.inf, math.inf))
        return min(max(int(text), least), greatest)  # as in JSON: beyond the end is the end
    if kind == "boolean":
        found = _BOOLEANS.get(text.lower())
        if found is None:
            raise _not(text, "a Boolean")
        return found
    if kind in FLOATS:
        if text in _SPECIAL:
            return _SPECIAL[text]
        if not _FLOAT.fullmatch(text):
            raise _not(text, "a Double")
        return float(text)
    if kind == "blob":
        try:
            return pybase64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _not(text[:100], "a Blob") from error
    return read_time(text)


def read_time(text: str) -> Milliseconds:
    """A timestamp in any of the three forms.

    Raises:
        SerializationFailed: it is in none.
    """
    try:
        if _FLOAT.fullmatch(text):
            seconds = float(text)
            if abs(seconds) > _FARTHEST_S:
                raise ValueError
            return milliseconds(seconds)
        if text[:1].isdigit():
            return Milliseconds(_whole(dt.datetime.fromisoformat(text)))
        from email.utils import parsedate_to_datetime  # of headers, which come seldom

        return Milliseconds(_whole(parsedate_to_datetime(text)))
    except (ValueError, OverflowError) as error:
        raise _not(text[:100], "a Timestamp") from error


def write(shape: Shape, value: Any, form: str = ISO) -> str:
    """The text of a value.

    Args:
        shape: of the value.
        value: as in an output.
        form: of a timestamp whose shape names none.
    """
    kind = shape.kind
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        return write_time(value, shape.traits.get("timestampFormat", form))
    if kind == "blob":
        return pybase64.b64encode_as_string(value)
    if kind in FLOATS:
        return write_float(value)
    return str(value)


def write_time(value: Any, form: str) -> str:
    """A timestamp: milliseconds since the epoch, or a datetime."""
    ms = value if isinstance(value, int) else milliseconds(value)
    if form == UNIX:
        return str(ms // 1000) if ms % 1000 == 0 else f"{ms / 1000:.3f}"
    when = _EPOCH + ms * _MS
    if form == HTTP:
        day, month = _DAYS[when.weekday()], _MONTHS[when.month - 1]
        return f"{day}, {when.day:02d} {month} {when.year:04d} {when:%H:%M:%S} GMT"
    rest = f".{ms % 1000:03d}" if ms % 1000 else ""
    return f"{when.year:04d}-{when:%m-%dT%H:%M:%S}{rest}Z"


def write_float(value: float) -> str:
    """A number, or the word for one that has no digits."""
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def form_of(member: Member, default: str) -> str:
    """How a timestamp is written at this place."""
    form: str = member.trait("timestampFormat", default)
    return form


def _whole(when: dt.datetime) -> int:
    """Milliseconds since the epoch; without a zone it is UTC."""
    aware = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return round((aware - _EPOCH) / _MS)


def _not(text: str, what: str) -> SerializationFailed:
    return SerializationFailed(f"'{text}' can not be converted to {what}")
