"""What is kept in memory of a block: all of it (the block itself), or some of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kflow.broker.block import Block

STORED_BYTES: Final = 24
"""What a block's body holds of a record besides key and payload, at most."""


_CHARACTER_BYTES: Final = 4
"""Of a partition key in UTF-8, at most; encoding the keys to measure them would cost 20 ns a record."""


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
        weight: their bytes, or a few more.
    """

    __slots__ = (
        "_datas",
        "_keys",
        "arrival_ms",
        "count",
        "end",
        "first_counter",
        "offset",
        "places",
        "weight",
        "whole",
    )

    def __init__(self, block: Block, places: Sequence[int], datas: list[bytes], keys: list[str]) -> None:
        self.offset = block.offset
        self.end = block.end
        self.first_counter = block.first_counter
        self.arrival_ms = block.arrival_ms
        self.count = len(places)
        self.places = places
        self.whole = block.count
        self.weight = sum(map(len, datas)) + _CHARACTER_BYTES * sum(map(len, keys))
        self._datas = datas
        self._keys = keys

    def columns(self) -> tuple[list[bytes], list[str]]:
        """The picked payloads and partition keys, in order."""
        return self._datas, self._keys

    def data(self, index: int) -> bytes:
        """The payload of one picked record."""
        return self._datas[index]

    def key(self, index: int) -> str:
        """The partition key of one picked record."""
        return self._keys[index]


Part = Block | Picked
"""A block, or what is taken of it."""


def place(part: Part, index: int) -> int:
    """The index in the block of a part's record."""
    return part.places[index] if isinstance(part, Picked) else index


def weight(part: Part) -> int:
    """Bytes of a part's payloads and keys; in a whole block also what else its body holds of them."""
    return part.weight if isinstance(part, Picked) else len(part.body)
