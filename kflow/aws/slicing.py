"""Long answers are written in slices, so that the loop serves others between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kflow.aws.columns import Columns, Constant

ROWS: Final = 500
"""Rows of `Columns` that are written at once: 0.3 ms. A whole answer of GetRecords may have 10,000."""
STRUCTURES: Final = 100
"""Structures of a list, each of which is looked at by its members."""
BLOB_BYTES: Final = 256 * 1024
"""Base64, and copying it, take 0.2 ms. A blob that is larger is written at once."""


def is_long(value: Any) -> bool:
    """Whether a member is too long to be written in one slice."""
    if type(value) is Columns:
        return value.count > ROWS or sum(_sizes(value, 0, value.count)) > BLOB_BYTES
    return type(value) is list and len(value) > STRUCTURES and isinstance(value[0], Mapping)


def slices(value: Columns | Sequence[Mapping[str, Any]]) -> Iterator[Columns | Sequence[Mapping[str, Any]]]:
    """A long member in parts, in order."""
    if not isinstance(value, Columns):
        for at in range(0, len(value), STRUCTURES):
            yield value[at : at + STRUCTURES]
        return
    at = 0
    while at < value.count:
        end = min(at + ROWS, value.count)
        sizes = _sizes(value, at, end)
        if sum(sizes) > BLOB_BYTES:
            end, left = at + 1, BLOB_BYTES - sizes[0]
            while end - at < len(sizes) and (left := left - sizes[end - at]) >= 0:
                end += 1
        members = {
            name: column if isinstance(column, Constant) else column[at:end] for name, column in value.members.items()
        }
        yield Columns(end - at, members)
        at = end


def _sizes(value: Columns, begin: int, end: int) -> list[int]:
    """Bytes of the blobs of each row; empty where there are none."""
    for column in value.members.values():
        if not isinstance(column, Constant) and end > begin and type(column[begin]) is bytes:
            return list(map(len, column[begin:end]))
    return []
