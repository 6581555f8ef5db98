"""`filter`: trying a filter with one `data` clause on records."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kflow.events.patterns import compile_filters
from tests.bench.figures import Figure, cpu_of_call_ns, median
from tests.bench.running import RECORDS_PER_CALL

_CALLS = 40


def filters(quick: bool) -> Iterator[Figure]:
    """CPU of `Filters.select` a record: JSON objects of about 100 bytes, a block at a time, half of which pass."""
    datas = [
        json.dumps({"carrier": "AA" if number % 2 else "UA", "flight": number, "tail": f"N{number:05}", "delay": 1.5,
                    "origin": "JFK", "destination": "LAX"}).encode()
        for number in range(RECORDS_PER_CALL)
    ]  # fmt: skip
    chosen = compile_filters(['{"data": {"carrier": ["AA"]}}'])

    def select() -> None:
        for _ in range(_CALLS):
            found = chosen.select(datas, lambda index: {"partitionKey": str(index)})
            if found is None or len(found) != RECORDS_PER_CALL // 2:
                raise RuntimeError("half of the records pass this filter")

    spent = median([cpu_of_call_ns(select) for _ in range(1 if quick else 15)])
    yield Figure(
        bench="filter, one data clause",
        value=spent / 1e3 / _CALLS / RECORDS_PER_CALL,
        unit="us CPU/record",
        must=3.0,
        aim=1.5,
    )
