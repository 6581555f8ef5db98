"""`wake`: from `put` in this process to the first line of a handler in a worker."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kflow import put
from tests.bench.figures import Figure, interleave, median_pair, percentile
from tests.bench.hops import RoundTrip
from tests.bench.running import RECORD_BYTES, Node, create_stream, data_folder, wait_for

_SHARDS = 4
_KEYS = 64
_PAUSE_S = 0.001
_STREAM = "bench"
_PAIR = struct.Struct("<qq")

_HANDLER = """\
import os, struct, time
from kflow import Batch, on_stream

_out = os.open("{out}", os.O_WRONLY | os.O_APPEND)


@on_stream("{stream}")
def pinged(batch: Batch):
    now = time.monotonic_ns()
    for record in batch:
        os.write(_out, record.data[:8] + struct.pack("<q", now))
"""


def wake(quick: bool) -> Iterator[Figure]:
    """`put` called -> handler's first line, `Batch` form, pings 1 ms apart, over a round trip on a unix socket pair."""
    pings, runs = (100, 1) if quick else (2000, 5)
    with data_folder() as folder:
        out = folder.path.parent / "pings"
        out.touch()
        module = folder.path.parent / "handlers" / "pinged.py"
        module.parent.mkdir()
        module.write_text(_HANDLER.format(out=out, stream=_STREAM))
        create_stream(folder, _STREAM, _SHARDS)
        with RoundTrip(RECORD_BYTES, RECORD_BYTES) as trip, Node(folder, module):
            _ping(out, 2 * _KEYS)
            found = interleave(lambda: _ping(out, pings), lambda: trip.times(pings, _PAUSE_S), runs)
        for name, share, must in (("p50", 0.5, 8.0), ("p99", 0.99, 15.0)):
            pair = median_pair([(percentile(ours, share), percentile(limit, share)) for ours, limit in found])
            yield Figure(
                bench=f"wake {name}", value=pair.ours / 1e3, limit=pair.limit / 1e3, unit="us", must=must, aim=5.0
            )


def _ping(out: Path, count: int) -> Sequence[int]:
    """Put records that say when `put` was called, 1 ms apart; how long after that each met the handler, nanoseconds."""
    begin = out.stat().st_size
    padding = bytes(RECORD_BYTES - 8)
    for number in range(count):
        time.sleep(_PAUSE_S)
        now = time.monotonic_ns()
        put(_STREAM, now.to_bytes(8, "little") + padding, partition_key=f"user-{number % _KEYS}")
    end = begin + count * _PAIR.size
    wait_for(lambda: out.stat().st_size >= end, "the handler to see every ping")
    return [seen - sent for sent, seen in _PAIR.iter_unpack(out.read_bytes()[begin:end])]
