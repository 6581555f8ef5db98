"""Long lists of structures by column: serialised without a dictionary a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Columns:
    """Stands for a list of structures in an output.

    Attributes:
        count: rows.
        members: by member name, in the order in which they are written; a column has one value a row, None where the
            row has no such member. A column may be a list of str, int (numbers; timestamps in milliseconds), bytes
            (blobs), or a `Constant`.
    """

    count: int
    members: Mapping[str, Sequence[Any] | Constant]


@dataclass(frozen=True, slots=True)
class Constant:
    """A column that has the same value in all rows."""

    value: str | int
