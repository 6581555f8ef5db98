"""`append`: committing a block, over writing bytes that are ready.

Judged is `Shard.append` with its commit, the writer lock taken and given back for each call. Told beside it: under a
lock that is held, as a node holds it for its life; and with the encoding of known keys as well, which is what a
producer without a node pays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from kflow.broker.encode import Encoder, Part
from kflow.broker.folder import DataFolder
from kflow.broker.locks import FileLock
from kflow.broker.log import Log
from kflow.broker.streammap import StreamMap
from kflow.broker.writing import writing
from tests.bench.figures import Figure, cpu_of_call_ns, interleave, median_pair
from tests.bench.running import Record, data_folder, record_sets

_HEADER_BYTES = 64
_LOCK_S = 10.0
_SIZES = (
    # records, bytes of each, calls a repetition, must, aim
    (500, 100, 200, 4.0, 3.0),
    (500, 1024, 40, 2.2, 1.7),
    (1, 100, 5000, 8.0, 6.0),
)


def append(quick: bool) -> Iterator[Figure]:
    """CPU of `Shard.append` with lock and commit, over os.write of the same ready bytes; also with less, and more."""
    with data_folder() as folder:
        for kind in ("", ", lock held", ", encode and lock"):
            for count, size, calls, must, aim in _SIZES:
                calls = max(1, calls // 20) if quick else calls  # noqa: PLW2901
                appender = _Appender(folder, record_sets(8, count, size), calls, kind)
                writer = _Writer(folder.path / "plain", appender.ready_bytes, calls)
                appender.cpu_ns()
                writer.cpu_ns()
                pair = median_pair(interleave(appender.cpu_ns, writer.cpu_ns, 1 if quick else 15))
                scale = 1e-3 / calls / count
                yield Figure(
                    bench=f"append {count} x {size} B{kind}",
                    value=pair.ours * scale,
                    limit=pair.limit * scale,
                    unit="us CPU/record",
                    must=None if kind else must,
                    aim=None if kind else aim,
                )


class _Appender:
    """Appends the same sets of records again and again, each repetition to a new stream."""

    def __init__(self, folder: DataFolder, sets: Sequence[Sequence[Record]], calls: int, kind: str) -> None:
        self._folder = folder
        self._name = f"s{len(sets[0])}-{len(sets[0][0][0])}"
        self._calls = calls
        self._kind = kind
        self._columns = [tuple(zip(*records, strict=True)) for records in sets]
        self._stream = self._make()
        self.ready_bytes = [bytes(_HEADER_BYTES) + part.body for part in self._encoded(Encoder(self._stream))]

    def cpu_ns(self) -> int:
        """CPU of one repetition, on a new stream."""
        self._stream = self._make()
        encoder = Encoder(self._stream)
        parts = self._encoded(encoder)
        lock = FileLock(self._folder.path / "writer.lock", self._folder.files)
        lock.acquire(_LOCK_S)
        log = Log(self._folder)
        shard = log.shard(self._stream, 0)
        shard.append(parts[0].body, parts[0].count, parts[0].crc)
        lock.release()
        columns, sets, calls = self._columns, len(self._columns), self._calls
        acquire, release, put = lock.acquire, lock.release, shard.append

        def many() -> None:
            encode = encoder.encode_many
            for number in range(calls):
                datas, keys = columns[number % sets]
                for part in encode(keys, datas):
                    acquire(_LOCK_S)
                    put(part.body, part.count, part.crc, part.flags)
                    release()

        def single() -> None:
            encode = encoder.encode_one
            for number in range(calls):
                (data,), (key,) = columns[number % sets]
                part = encode(data, key)
                acquire(_LOCK_S)
                put(part.body, part.count, part.crc, part.flags)
                release()

        def locked() -> None:
            for number in range(calls):
                part = parts[number % sets]
                acquire(_LOCK_S)
                put(part.body, part.count, part.crc, part.flags)
                release()

        def held() -> None:
            for number in range(calls):
                part = parts[number % sets]
                put(part.body, part.count, part.crc, part.flags)

        if not self._kind:
            spent = cpu_of_call_ns(locked)
        elif self._kind == ", lock held":
            acquire(_LOCK_S)
            spent = cpu_of_call_ns(held)
            release()
        else:
            spent = cpu_of_call_ns(many if len(columns[0][0]) > 1 else single)
        log.close()
        return spent

    def _encoded(self, encoder: Encoder) -> list[Part]:
        return [part for datas, keys in self._columns for part in encoder.encode_many(keys, datas)]

    def _make(self) -> StreamMap:
        """A new stream of this name, so that no repetition writes to an older one's pages."""
        with writing(self._folder) as log:
            if any(stream.name == self._name for stream in self._folder.maps()):
                log.delete_stream(self._name)
            return log.create_stream(self._name, 1)


class _Writer:
    """Writes bytes that are ready to a new file."""

    def __init__(self, path: Path, ready: Sequence[bytes], calls: int) -> None:
        self._path = path
        self._ready = ready
        self._calls = calls

    def cpu_ns(self) -> int:
        """CPU of one repetition."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        ready, sets = self._ready, len(self._ready)
        os.write(file, ready[0])

        def write() -> None:
            put = os.write
            for number in range(self._calls):
                put(file, ready[number % sets])

        try:
            return cpu_of_call_ns(write)
        finally:
            os.close(file)
