"""What tests of the log share: a log on a manual clock, file calls that fail on request, reading everything back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kflow.broker.encode import Encoder
from kflow.broker.files import FILES, Files
from kflow.broker.folder import DataFolder
from kflow.broker.locks import FileLock
from kflow.broker.log import Log
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock


class FaultyFiles(Files):
    """File calls that fail when told to.

    Attributes:
        errors: by name of the call, the errno it fails with.
        only: the error is raised only for paths that end so; for descriptors, always.
        short: `pwritev` writes no more than this many bytes, once.
        free: what `statvfs` says is free, in bytes.
        calls: how often each failing call was asked for.
    """

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.only = ""
        self.short: int | None = None
        self.free: int | None = None
        self.calls: dict[str, int] = {}

    def _fail(self, call: str, path: Any = "") -> None:
        code = self.errors.get(call)
        if code is not None and (isinstance(path, int) or os.fspath(path).endswith(self.only)):
            self.calls[call] = self.calls.get(call, 0) + 1
            raise OSError(code, os.strerror(code))

    def open(self, path, flags, mode=0o777):
        self._fail("open", path)
        return os.open(path, flags, mode)

    def pread(self, fd, length, offset):
        self._fail("pread", fd)
        return os.pread(fd, length, offset)

    def pwrite(self, fd, data, offset):
        self._fail("pwrite", fd)
        return os.pwrite(fd, data, offset)

    def pwritev(self, fd, buffers, offset):
        self._fail("pwritev", fd)
        if self.short is not None:
            count, self.short = self.short, None
            return os.pwrite(fd, b"".join(buffers)[:count], offset)
        return os.pwritev(fd, buffers, offset)

    def ftruncate(self, fd, length):
        self._fail("ftruncate", fd)
        os.ftruncate(fd, length)

    def replace(self, source, target):
        self._fail("replace", target)
        os.replace(source, target)

    def rename(self, source, target):
        self._fail("rename", target)
        os.rename(source, target)

    def unlink(self, path):
        self._fail("unlink", path)
        os.unlink(path)

    def fsync(self, fd):
        self._fail("fsync", fd)
        os.fsync(fd)

    def fdatasync(self, fd):
        self._fail("fdatasync", fd)
        os.fdatasync(fd)

    def statvfs(self, path):
        found = os.statvfs(path)
        if self.free is None:
            return found
        values = list(found)
        values[4] = self.free // found.f_frsize  # f_bavail
        return os.statvfs_result(values)


class OneRefusal(Files):
    """File calls of which one is refused, whichever it is; nothing is really synced.

    Attributes:
        left: how many are made before it; negative: it was.
        code: the errno that it fails with.
        refused: what it was, for people.
    """

    def __init__(self) -> None:
        self.left = 1 << 60
        self.code = 0
        self.refused = ""

    def refuse(self, at: int, code: int) -> None:
        """Refuse the call that comes after so many others."""
        self.left, self.code, self.refused = at, code, ""

    def _meet(self, name: str, what: Any) -> None:
        self.left -= 1
        if self.left == -1:
            self.refused = f"{name} {what}"
            raise OSError(self.code, os.strerror(self.code))


def _met(name: str) -> Any:
    real = (lambda fd: None) if name in ("fsync", "fdatasync") else getattr(Files, name)

    def call(self: OneRefusal, what: Any, *rest: Any) -> Any:
        self._meet(name, what)
        return real(what, *rest)

    return call


for _name in (
    *("open", "pread", "pwrite", "pwritev", "stat", "lstat", "ftruncate", "rename", "replace", "link", "unlink"),
    *("mkdir", "rmdir", "listdir", "flock", "fsync", "fdatasync"),
):
    setattr(OneRefusal, _name, _met(_name))


class Store:
    """A data folder with one stream, its writer's log and a manual clock; nothing else uses the folder.

    Attributes:
        clock: what arrivals are taken from.
        folder: the data folder.
        log: the writer.
        stream: the stream's map.
    """

    def __init__(
        self, path: Path, *, shards: int = 1, files: Files = FILES, fsync: str = "none", retention_hours: int = 24
    ) -> None:
        self.clock = ManualClock()
        self.files = files
        self.folder = DataFolder.open(path, create=True, fsync=fsync, files=files)
        self.log = Log(self.folder, clock=self.clock)
        self.stream = self.log.create_stream("orders", shards, retention_hours=retention_hours)
        self.encoder = Encoder(self.stream)

    def put(self, *datas: bytes, key: str = "k") -> list[int]:
        """Append records in one call; their sequence numbers."""
        parts = self.encoder.encode_many([key] * len(datas), datas)
        answers = self.log.append(self.stream, parts)
        return [place.sequence_number for place in self.encoder.placed(len(datas), parts, answers)]

    def reader(self, shard: int = 0) -> ShardReader:
        """A new reader."""
        return ShardReader(self.folder, self.stream, shard)

    def datas(self, shard: int = 0) -> list[bytes]:
        """Every payload of a shard, by a new reader."""
        return everything(self.reader(shard))

    def reopen(self) -> None:
        """As another process would: nothing remembered but what lies on disk."""
        self.log.close()
        self.folder = DataFolder.open(self.folder.path, files=self.files)
        self.log = Log(self.folder, clock=self.clock)
        self.stream = self.folder.map("orders")
        self.encoder = Encoder(self.stream)

    @property
    def shard_path(self) -> Path:
        """Folder of shard 0."""
        return self.folder.shard_dir(self.stream, 0)

    def segments(self) -> list[str]:
        """Names of the segment files of shard 0, in order."""
        return sorted(found.name for found in self.shard_path.glob("*.seg"))


def everything(reader: ShardReader, offset: int = 0) -> list[bytes]:
    """All payloads from an offset on."""
    found: list[bytes] = []
    while blocks := reader.read(offset):
        for block in blocks:
            found += block.columns()[0]
        offset = blocks[-1].end
    return found


def read_all(folder: DataFolder, stream: StreamMap) -> list[tuple[str, bytes]]:
    """Key and payload of every record of a stream, shard by shard."""
    found: list[tuple[str, bytes]] = []
    for shard in stream.shards:
        reader, offset = ShardReader(folder, stream, shard.index), 0
        while blocks := reader.read(offset):
            for block in blocks:
                datas, keys = block.columns()
                found += zip(keys, datas, strict=True)
            offset = blocks[-1].end
    return found


def held(lock: FileLock) -> FileLock:
    """The lock, taken."""
    lock.acquire(0)
    return lock


def open_descriptors(below: Path, names: Sequence[str]) -> list[str]:
    """Which of this process's descriptors are files below a folder whose path ends in one of `names`."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        found += [target for name in names if target.startswith(f"{below}/") and target.endswith(name)]
    return found
