"""`lanes`: what ten lanes a shard cost, over one."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.delivering import Deliveries
from tests.bench.figures import Figure, interleave, median_pair
from tests.bench.running import data_folder

_HANDLER = """
from kflow import Batch, on_stream


@on_stream("{{stream}}", batch_size={{batch}}, parallelization_factor={factor})
def touch(batch: Batch):
    stamp(len(batch))
"""


def lanes(quick: bool) -> Iterator[Figure]:
    """CPU of the worker a record, no-op handler, 4 shards with parallelization factor 10, over the same with 1."""
    with data_folder() as folder:
        deliveries = Deliveries(folder, _HANDLER.format(factor=1), 5_000 if quick else 300_000)

        def by_factor(factor: int) -> float:
            deliveries.handler(_HANDLER.format(factor=factor))
            return 1 / deliveries.by_runtime()

        pair = median_pair(interleave(lambda: by_factor(10), lambda: by_factor(1), 1 if quick else 7))
        yield Figure(
            bench="lanes, factor 10 against 1",
            value=pair.ours,
            limit=pair.limit,
            unit="us CPU/record",
            must=2.0,
            aim=1.4,
        )
