"""`recovery`: the scan after power loss, over a bare CRC32C of the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from crc32c import crc32c

from kflow import put_many
from kflow.broker import recovery
from kflow.broker import segment as segments
from kflow.broker.ctl import BOOT, DURABLE, Ctl
from kflow.broker.folder import DataFolder
from kflow.broker.streammap import StreamMap
from tests.bench.figures import Figure, cpu_of_call_ns, interleave, median_pair
from tests.bench.running import create_stream, data_folder, record_sets

_CHUNK_BYTES = 1 << 20


def recover(quick: bool) -> Iterator[Figure]:
    """CPU of scanning a shard none of which is known to be durable, over a CRC32C of its bytes, read in chunks."""
    calls = 20 if quick else 800
    with data_folder() as folder:
        stream = create_stream(folder, "bench", 1)
        sets = record_sets(8)
        for number in range(calls):
            put_many("bench", sets[number % len(sets)])
        path = os.fspath(folder.shard_dir(stream, 0))
        files = [segments.segment_path(path, base) for base in segments.bases(path, folder.files)]
        size = sum(os.stat(file).st_size for file in files)

        def ours() -> float:
            _forget(folder, path)
            return cpu_of_call_ns(lambda: _scan(folder, stream, path))

        pairs = interleave(ours, lambda: float(cpu_of_call_ns(lambda: _checksum(files))), 1 if quick else 15)
        pair = median_pair(pairs)
        yield Figure(
            bench="recovery scan, 500 x 100 B",
            value=size / pair.ours * 1e3,
            limit=size / pair.limit * 1e3,
            unit="MB/CPU s",
            must=0.5,
            aim=0.8,
            more_is_better=True,
        )


def _forget(folder: DataFolder, path: str) -> None:
    """As after a start of the machine, with nothing known to be durable."""
    words = Ctl.open(path, folder.files, write=True).words
    words[BOOT] = 1
    words[DURABLE] = 0


def _scan(folder: DataFolder, stream: StreamMap, path: str) -> None:
    recovery.open_ctl(
        path,
        folder.files,
        name="the bench's shard",
        stream_id=stream.id,
        shard=0,
        closed=False,
        aside=os.fspath(folder.trash_dir / "torn.bench"),
    )


def _checksum(files: list[str]) -> None:
    for path in files:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        crc = 0
        while chunk := os.read(fd, _CHUNK_BYTES):
            crc = crc32c(chunk, crc)
        os.close(fd)
