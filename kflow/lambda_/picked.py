"""What is kept in memory of a block: all of it (the block itself), or some of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kflow.broker.block import Block
from kflow.records import Record

STORED_BYTES: Final = 24
"""What a block's body holds of a record besides key and payload, at most."""


class Picked:
    """Some records of a block, by themselves: the rest of it is not kept in memory.

    Attributes:
        offset: of the block.
        end: logical offset past the block.
        first_counter: counter of the block's first record, picked or not.
        arrival_ms: arrival of all its records.
        count: how many are picked, at least 1.
        places: their indexes in the block, rising.
        whole: records in the block.
        built: the picked records in the handler's shape, where they are built already.
        bound: their bytes are no more than this; costs nothing, where measuring them costs 80 ns a record.
    """

    __slots__ = (
        "_datas",
        "_keys",
        "arrival_ms",
        "bound",
        "built",
        "count",
        "end",
        "first_counter",
        "offset",
        "places",
        "whole",
    )

    def __init__(
        self,
        block: Block,
        places: Sequence[int],
        datas: list[bytes] | None,
        keys: list[str] | None,
        built: list[Record[Any]] | None = None,
    ) -> None:
        """Keep them; `datas` and `keys` may be None where they are built already."""
        self.offset = block.offset
        self.end = block.end
        self.first_counter = block.first_counter
        self.arrival_ms = block.arrival_ms
        self.count = len(places)
        self.places = places
        self.whole = block.count
        self.bound = len(block.body)
        self.built = built
        self._datas = datas
        self._keys = keys

    @property
    def weight(self) -> int:
        """The bytes of its payloads and keys."""
        datas, keys = self.columns()
        return sum(map(len, datas)) + len("".join(keys).encode())

    def columns(self) -> tuple[list[bytes], list[str]]:
        """The picked payloads and partition keys, in order."""
        if self._datas is None or self._keys is None:
            records = self.built or ()
            self._datas = [record.data for record in records]
            self._keys = [record.partition_key for record in records]
        return self._datas, self._keys

    def data(self, index: int) -> bytes:
        """The payload of one picked record."""
        return self.columns()[0][index]

    def key(self, index: int) -> str:
        """The partition key of one picked record."""
        return self.columns()[1][index]


Part = Block | Picked
"""A block, or what is taken of it."""


def place(part: Part, index: int) -> int:
    """The index in the block of a part's record."""
    return part.places[index] if isinstance(part, Picked) else index


def bound(part: Part) -> int:
    """What the bytes of a part's payloads and keys do not exceed, at no cost."""
    return part.bound if isinstance(part, Picked) else len(part.body)


def weight(part: Part) -> int:
    """Bytes of a part's payloads and keys; in a whole block also what else its body holds of them."""
    return part.weight if isinstance(part, Picked) else len(part.body)
