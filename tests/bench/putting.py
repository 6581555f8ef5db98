"""`put`, `put-node`, `producer`, `put-single`: producers, without a node and to a real one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from kflow import Producer, put_many
from kflow import put as put_one
from kflow.broker import wire
from kflow.broker.encode import Encoder
from kflow.broker.streammap import StreamMap
from tests.bench.figures import Figure, cpu_of_call_ns, interleave, median, median_pair, percentile
from tests.bench.hops import Hop, RoundTrip
from tests.bench.running import (
    RECORDS_PER_CALL,
    Node,
    Record,
    create_stream,
    data_folder,
    record_sets,
    records,
)

_SHARDS = 4
_STREAM = "bench"


def put(quick: bool) -> Iterator[Figure]:
    """`put_many` without a node, 500 x 100 B on 4 shards: records per CPU second, keys seen before and never seen."""
    calls, rounds = (2, 1) if quick else (60, 15)
    with data_folder() as folder:
        create_stream(folder, _STREAM, _SHARDS)
        seen = record_sets(8)
        for call in seen:
            put_many(_STREAM, call)
        unseen = (
            [records(RECORDS_PER_CALL, keys=f"new-{number}-{call}-") for call in range(calls)]
            for number in range(rounds)
        )
        found = interleave(
            lambda: _rate([seen[number % len(seen)] for number in range(calls)]), lambda: _rate(next(unseen)), rounds
        )
        for bench, rates, must, aim in (
            ("put 500 x 100 B, keys seen", [ours for ours, _ in found], 0.9, 1.3),
            ("put 500 x 100 B, keys never seen", [other for _, other in found], 0.45, 0.65),
        ):
            yield Figure(
                bench=bench, value=median(rates), unit="M records/CPU s", must=must, aim=aim, more_is_better=True
            )


def put_node(quick: bool) -> Iterator[Figure]:
    """`put_many` to a node, 500 x 100 B on 4 shards: CPU of both processes over a bare hop of the bytes + 4 pwritev."""
    calls = 10 if quick else 300
    with data_folder() as folder:
        stream = create_stream(folder, _STREAM, _SHARDS)
        sets = record_sets(8)
        frame, answer = _frame_bytes(stream, sets)
        with Hop(folder.path / "hop", frame, answer, _SHARDS) as hop, Node(folder) as node:

            def ours() -> float:
                return cpu_of_call_ns(lambda: _put_calls(sets, calls), [node.pid])

            _put_calls(sets, len(sets))
            hop.cpu_ns(len(sets))
            pair = median_pair(interleave(ours, lambda: float(hop.cpu_ns(calls)), 1 if quick else 9))
        scale = 1e-3 / calls / RECORDS_PER_CALL
        yield Figure(
            bench="put-node 500 x 100 B",
            value=pair.ours * scale,
            limit=pair.limit * scale,
            unit="us CPU/record, both",
            must=3.5,
            aim=2.0,
        )


def producer(quick: bool) -> Iterator[Figure]:
    """`Producer` to a node, up to 4 frames in flight: records per CPU second of both processes."""
    calls, rounds = (10, 1) if quick else (200, 9)
    with data_folder() as folder:
        create_stream(folder, _STREAM, _SHARDS)
        sets = record_sets(8)
        with Node(folder) as node, Producer(_STREAM) as line:

            def produce() -> None:
                add = line.put
                for number in range(calls):
                    for data, key in sets[number % len(sets)]:
                        add(data, key)
                line.flush()

            produce()
            rates = [calls * RECORDS_PER_CALL * 1e3 / cpu_of_call_ns(produce, [node.pid]) for _ in range(rounds)]
        yield Figure(
            bench="producer 100 B",
            value=median(rates),
            unit="M records/CPU s, both",
            must=0.45,
            aim=0.7,
            more_is_better=True,
        )


def put_single(quick: bool) -> Iterator[Figure]:
    """One `put` after the other to an idle node over a round trip of as many bytes on a unix socket pair, p50."""
    count = 100 if quick else 3000
    with data_folder() as folder:
        stream = create_stream(folder, _STREAM, _SHARDS)
        sets = [[record] for record in records(256)]
        with RoundTrip(*_frame_bytes(stream, sets)) as trip, Node(folder):

            def ours() -> float:
                return percentile(_put_times(sets, count), 0.5)

            _put_times(sets, len(sets))
            trip.times(len(sets))
            pair = median_pair(interleave(ours, lambda: percentile(trip.times(count), 0.5), 1 if quick else 9))
        yield Figure(
            bench="put-single 100 B p50", value=pair.ours / 1e3, limit=pair.limit / 1e3, unit="us", must=4.0, aim=2.0
        )


def _put_calls(sets: Sequence[Sequence[Record]], calls: int) -> None:
    for number in range(calls):
        put_many(_STREAM, sets[number % len(sets)])


def _put_times(sets: Sequence[Sequence[Record]], count: int) -> list[int]:
    clock = time.monotonic_ns
    found = []
    for number in range(count):
        ((data, key),) = sets[number % len(sets)]
        begin = clock()
        put_one(_STREAM, data, partition_key=key)
        found.append(clock() - begin)
    return found


def _rate(calls: Sequence[Sequence[Record]]) -> float:
    """Records per CPU microsecond, which is millions per CPU second."""

    def put_all() -> None:
        for call in calls:
            put_many(_STREAM, call)

    return len(calls) * RECORDS_PER_CALL * 1e3 / cpu_of_call_ns(put_all)


def _frame_bytes(stream: StreamMap, sets: Sequence[Sequence[Record]]) -> tuple[int, int]:
    """How many bytes one of these calls sends to a node, and how many come back, on average."""
    encoder = Encoder(stream)
    sent = answered = 0
    for call in sets:
        parts = encoder.encode_many([key for _, key in call], [data for data, _ in call])
        sent += wire.FRAME.size + wire.PUT_HEAD.size + sum(wire.BLOCK.size + len(part.body) for part in parts)
        answered += wire.FRAME.size + wire.ANSWER.size * len(parts)
    return sent // len(sets), answered // len(sets)
