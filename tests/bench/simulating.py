"""`simulate`: how many records the simulation of the core takes through in a second of CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kflow.testing.simulation import simulate
from tests.bench.figures import Figure

_SEEDS = 300


def simulation(quick: bool) -> Iterator[Figure]:
    """Records appended, delivered and checked, over the seeds that the suite runs first."""
    begin = time.process_time()
    records = sum(simulate(seed).appended for seed in range(3 if quick else _SEEDS))
    yield Figure(
        bench="simulate, records a CPU second",
        value=records / (time.process_time() - begin),
        unit="records/CPU s",
        must=20_000.0,
        aim=None,
        more_is_better=True,
    )
