"""What a mapping takes of a block: all of it, or the records of its lane that pass its filters.

A selection is made once a block. What it leaves out is settled with what lies around it, and costs nothing more; the
payloads that it takes are the bytes that were put.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kflow.broker.block import Block
from kflow.declarations import MappingOptions
from kflow.lambda_.lanes import built, picked, taken
from kflow.lambda_.picked import Part, Picked
from kflow.lambda_.shapes import Shape

if TYPE_CHECKING:
    from kflow.events.patterns import Filters


class Selection:
    """Takes of each block what belongs to a lane and passes the filters.

    Attributes:
        members: how many records of the last block are of the lane, whether they pass the filters or not.
    """

    def __init__(self, shape: Shape, *, factor: int = 1, lane: int = 0, filters: tuple[str, ...] = ()) -> None:
        """Make it.

        Args:
            shape: knows the numbers of records, for filters that ask for them.
            factor: lanes of the shard.
            lane: the one whose records are taken.
            filters: patterns as JSON text; none take all.
        """
        self._shape = shape
        self._factor = factor
        self._lane = lane
        self._filter = _compiled(filters) if filters else None
        self.members = 0

    def of(self, block: Block) -> Part | None:
        """What is taken of a block; None for nothing."""
        if self._factor > 1:
            if self._filter is None and (ready := built(block, self._shape, self._factor, self._lane)) is not None:
                self.members = len(ready[0])
                return Picked(block, ready[0], None, None, ready[1]) if ready[0] else None
            places, datas, keys = taken(block, self._factor, self._lane)
            self.members = len(places)
            if not places:
                return None
        elif self._filter is None:
            self.members = block.count
            return block
        else:
            self.members = block.count
            places, (datas, keys) = range(block.count), block.columns()
        if self._filter is None:
            return block if len(places) == block.count else Picked(block, places, datas, keys)
        passed = self._filter.select(datas, lambda index: self._metadata(block, places[index], keys[index]))
        if passed is None:
            return block if len(places) == block.count else Picked(block, places, datas, keys)
        if not passed:
            return None
        return Picked(block, [places[index] for index in passed], *picked((datas, keys), passed))

    def _metadata(self, block: Block, place: int, key: str) -> Mapping[str, Any]:
        """What stands beside `data` in the event record."""
        (record,) = self._shape.build(block, place, place + 1)
        return {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": str(self._shape.sequence_number(record)),
            "approximateArrivalTimestamp": block.arrival_ms / 1000,
        }


def selection_for(options: MappingOptions, lane: int, shape: Shape) -> Selection | None:
    """The selection of a lane; None where all is taken."""
    if options.parallelization_factor == 1 and not options.filters:
        return None
    return Selection(shape, factor=options.parallelization_factor, lane=lane, filters=options.filters)


@functools.lru_cache(maxsize=256)
def _compiled(filters: tuple[str, ...]) -> Filters:
    """Compiled once a process: the engines of all shards share it."""
    # Only for mappings that filter.
    from kflow.events.patterns import compile_filters

    return compile_filters(filters)
