"""`read`: from the log to records, over slicing bytes that are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from kflow import put_many
from kflow.broker.block import WIDE_KEYS, Block, words_u32
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.lambda_.shapes import RecordShape
from tests.bench.figures import Figure, cpu_of_call_ns, interleave, median_pair
from tests.bench.running import RECORDS_PER_CALL, create_stream, data_folder, record_sets


def read(quick: bool) -> Iterator[Figure]:
    """CPU of reading, verifying and building native records, over raw slices of the same blocks held in memory."""
    calls = 20 if quick else 400
    with data_folder() as folder:
        stream = create_stream(folder, "bench", 1)
        sets = record_sets(8)
        for number in range(calls):
            put_many("bench", sets[number % len(sets)])
        blocks = all_blocks(folder, stream, 0)
        shape = RecordShape(stream.shards[0].created_s, 0)

        def ours() -> None:
            reader = ShardReader(folder, stream, 0)
            offset = 0
            while found := reader.read(offset):
                for block in found:
                    shape.build(block, 0, block.count)
                offset = found[-1].end
            reader.close()

        def limit() -> None:
            for block in blocks:
                _slices(block)

        pairs = interleave(lambda: cpu_of_call_ns(ours), lambda: cpu_of_call_ns(limit), 1 if quick else 15)
        pair = median_pair(pairs)
        scale = 1e-3 / calls / RECORDS_PER_CALL
        yield Figure(
            bench="read 500 x 100 B",
            value=pair.ours * scale,
            limit=pair.limit * scale,
            unit="us CPU/record",
            must=4.0,
            aim=2.5,
        )


def all_blocks(folder: DataFolder, stream: StreamMap, shard: int) -> list[Block]:
    """Every block of a shard."""
    reader = ShardReader(folder, stream, shard)
    blocks: list[Block] = []
    while found := reader.read(blocks[-1].end if blocks else 0):
        blocks += found
    reader.close()
    return blocks


def _slices(block: Block) -> list[bytes]:
    """The payloads of a block, and nothing else: the least that anybody who hands out records must make."""
    body, count = block.body, block.count
    if block.flags & WIDE_KEYS:
        raise ValueError("the bench's keys are short")
    lens = words_u32(count).unpack_from(body)
    start = 7 * count + sum(body[4 * count : 5 * count])
    return [body[a:b] for a, b in pairwise(accumulate(lens, initial=start))]
