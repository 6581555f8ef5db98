"""A data folder: its FORMAT, its streams' maps, and where everything lies.

    FORMAT  catalogue.db  writer.lock  runtime.lock  run/  streams/<name>.<id>/map.json  streams/<name>.<id>/<shard>/
    checkpoints/  parked/  s3/<bucket>/<key>  trash/  logs/  metrics.prom  .gitignore

FORMAT is written first of all and whole; a folder without one is not ours. Folders are made as they are needed.
"""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from kflow.broker import layout, streammap
from kflow.broker.files import FILES, Files, storage_error
from kflow.broker.layout import BLOCK, Format
from kflow.broker.locks import FileLock
from kflow.broker.probe import probe
from kflow.broker.streammap import StreamMap
from kflow.errors import ResourceNotFound, StorageError, UsageError

__all__ = ["BLOCK", "DataFolder", "Format", "probe", "socket_path"]

FSYNC: Final = ("none", "interval", "always")
_FOLDERS = ("run", "streams", "checkpoints", "parked", "trash", "logs")
_SOCKET_FOLDER = "socket-folder"
_SOCKET_BYTES = 103  # sun_path less its final zero, on macOS, where it is shorter than on Linux

_Stamp = tuple[int, int, int]


class DataFolder:
    """One opened data folder. Any thread may use it.

    Attributes:
        path: absolute.
        format: what FORMAT held when the folder was opened.
        files: file calls.
    """

    def __init__(self, path: Path, found: Format, files: Files) -> None:
        self.path = path
        self.format = found
        self.files = files
        self._streams = os.fspath(path / "streams")
        self._format_path = os.fspath(path / layout.FILE_NAME)
        self._format_stamp = _stamp(files.stat(self._format_path))
        self._maps: dict[str, tuple[_Stamp, str, StreamMap]] = {}  # by name of the stream's folder
        self._by_name: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        fsync: str | None = None,
        region: str | None = None,
        account: str | None = None,
        files: Files | None = None,
    ) -> DataFolder:
        """Open a data folder.

        Args:
            path: of the folder.
            create: make it if it is not there.
            fsync: `none`, `interval` or `always`; None keeps the policy that is stored with the data (`interval` for a
                new folder).
            region: None keeps what is stored.
            account: 12 digits; None keeps what is stored.
            files: file calls; tests inject errors.

        Raises:
            DataFolderBusy: something else is asked for than what is stored, and somebody writes (`configure`).
            StorageError: there is no data folder, it is of another layout, or it cannot be written.
            UsageError: a policy that is not known.
        """
        files = files or FILES
        if fsync is not None and fsync not in FSYNC:
            raise UsageError(f'fsync must be "none", "interval" or "always", not {fsync!r}')
        absolute = Path(os.path.abspath(path))
        try:
            found = layout.read(absolute, files)
            if found is None:
                if not create:
                    raise StorageError(
                        f"there is no kflow data folder at {absolute}; "
                        "`kflow run` and `kflow streams create NAME` make one"
                    )
                found = layout.create(absolute, files, fsync=fsync, region=region, account=account)
            for name in _FOLDERS:
                files.make_folder(absolute / name, sync=found.fsync != "none")
            folder = cls(absolute, found, files)
        except OSError as error:
            raise storage_error(error, f"use the data folder {absolute}") from error
        folder.configure(fsync=fsync, region=region, account=account)
        return folder

    def configure(
        self,
        *,
        fsync: str | None = None,
        region: str | None = None,
        account: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Store other settings with the data. Costs nothing where they are what is asked for.

        Args:
            fsync: as for `open`.
            region: as for `open`.
            account: as for `open`.
            timeout_s: how long to wait for `writer.lock`: whoever writes goes by what is stored.

        Raises:
            DataFolderBusy: a node or another process holds the lock.
            StorageError: the folder is gone, replaced, or cannot be written.
        """
        wanted = {"fsync": fsync, "region": region, "account": account}
        changes = {name: value for name, value in wanted.items() if value and value != getattr(self.format, name)}
        if not changes:
            return
        lock = self.writer_lock()
        lock.acquire(timeout_s)
        try:
            self.recheck()
            content = msgspec.structs.replace(self.format, **changes)
            layout.write(self.path, self.files, content)
            self._format_stamp = _stamp(self.files.stat(self._format_path))
            self.format = content
        except OSError as error:
            raise storage_error(error, f"use the data folder {self.path}") from error
        finally:
            lock.release()

    @property
    def id(self) -> str:
        """32 hexadecimal digits that no other data folder has."""
        return self.format.folder_id

    @property
    def fsync(self) -> str:
        """Durability policy: `none`, `interval` or `always`."""
        return self.format.fsync

    @property
    def syncs(self) -> bool:
        """Whether anything is synced at all."""
        return self.format.fsync != "none"

    @property
    def region(self) -> str:
        """AWS region that ARNs of this folder name."""
        return self.format.region

    @property
    def account(self) -> str:
        """AWS account that ARNs of this folder name."""
        return self.format.account

    @property
    def run_dir(self) -> Path:
        """Sockets and lock files of workers."""
        return self.path / "run"

    @property
    def trash_dir(self) -> Path:
        """What is on its way out, and torn bytes that were set aside."""
        return self.path / "trash"

    @property
    def socket_path(self) -> Path:
        """Where the node's socket lies, or would."""
        return socket_path(self.path, self.files)

    def make_socket_path(self) -> Path:
        """Where the node is to bind its socket; makes a short private folder where the path in `run/` is too long."""
        direct = self.run_dir / "node.sock"
        if len(os.fsencode(direct)) <= _SOCKET_BYTES:
            return direct
        found = socket_path(self.path, self.files)
        if found != direct and _is_private(found.parent):
            return found
        made = Path(tempfile.mkdtemp(prefix="kflow-", dir="/tmp"))  # short, and private by mkdtemp
        content = b"%b\n%b" % (os.fsencode(made), _identity(self.files.stat(self.run_dir)))
        self.files.write_replace(self.run_dir / _SOCKET_FOLDER, content, sync=False)
        return made / "node.sock"

    def writer_lock(self) -> FileLock:
        """The lock of whoever may append."""
        return FileLock(self.path / "writer.lock", self.files)

    def runtime_lock(self) -> FileLock:
        """The lock of the node."""
        return FileLock(self.path / "runtime.lock", self.files)

    def recheck(self) -> None:
        """See that this is still the folder that was opened: one `stat` where FORMAT has not changed.

        Raises:
            StorageError: it is gone, or another one lies in its place.
        """
        try:
            stamp = _stamp(self.files.stat(self._format_path))
            if stamp == self._format_stamp:
                return
            found = layout.read(self.path, self.files)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise storage_error(error, f"use the data folder {self.path}") from error
        if found is None:
            raise StorageError(f"the data folder {self.path} was removed")
        if found.folder_id != self.format.folder_id:
            raise StorageError(f"the data folder {self.path} was replaced by another one; start again")
        self.format = found
        self._format_stamp = stamp

    def upgrade(self) -> int | None:
        """Bring the folder to the layout of this version. The caller holds `writer.lock`; costs nothing where it is.

        Returns:
            The layout it was of; None where there was nothing to do.

        Raises:
            StorageError: it cannot be written, and is of the older layout still.
        """
        if self.format.layout == layout.LAYOUT:
            return None
        try:
            found, before = layout.upgrade(self.path, self.files)
            self._format_stamp = _stamp(self.files.stat(self._format_path))
        except OSError as error:
            raise storage_error(error, f"bring the data folder {self.path} to layout {layout.LAYOUT}") from error
        self.format = found
        return None if before == layout.LAYOUT else before

    def current(self, stream: StreamMap) -> StreamMap:
        """The map as it is now of a stream whose map was read before: one `stat` where it has not changed.

        Raises:
            ResourceNotFound: the stream is gone.
        """
        found = self._load(stream.folder_name)
        if found is None or found.deleted:
            account, _ = self.place_of(stream)
            raise ResourceNotFound(f"Stream {stream.name} under account {account} not found.")
        return found

    def maps(self) -> list[StreamMap]:
        """The maps of all home streams, by name: those of the folder's own account and region."""
        found = [each for each in self.live_maps() if each.is_home]
        self._by_name = {each.name: each.folder_name for each in found}
        return found

    def live_maps(self) -> list[StreamMap]:
        """The maps of all streams of all places, by name."""
        newest: dict[tuple[str, str, str], StreamMap] = {}
        for found in self.all_maps():
            key = (found.name, found.account, found.region)
            other = newest.get(key)
            # Two of a name: `reset` died between making the new one and marking the old one.
            if not found.deleted and (other is None or found.created_s > other.created_s):
                newest[key] = found
        return [newest[key] for key in sorted(newest)]

    def place_of(self, stream: StreamMap) -> tuple[str, str]:
        """Account and region that a stream belongs to."""
        return stream.account or self.account, stream.region or self.region

    def all_maps(self) -> list[StreamMap]:
        """Every valid map in the folder: also those marked deleted, and older ones of a name."""
        try:
            names = self.files.listdir(self._streams)
        except OSError as error:
            raise storage_error(error, f"list the streams in {self.path}") from error
        for gone in set(self._maps).difference(names):
            self._maps.pop(gone, None)
        return [found for name in names if (found := self._load(name)) is not None]

    def map(self, name: str) -> StreamMap:
        """The map of a home stream as it is now: one `stat` where it has not changed.

        Raises:
            ResourceNotFound: there is no such stream; names the nearest one and the line that creates it.
        """
        known = self._by_name.get(name)
        if known is not None:
            found = self._load(known)
            if found is not None and not found.deleted:
                return found
        return _named(self.maps(), name, self.account)

    def map_by_id(self, stream_id: int) -> StreamMap:
        """The map of the stream with this id.

        Raises:
            ResourceNotFound: it is gone.
        """
        for _, _, known in list(self._maps.values()):
            if known.id == stream_id:
                found = self._load(known.folder_name)
                if found is not None and not found.deleted:
                    return found
        for found in self.all_maps():
            if found.id == stream_id and not found.deleted:
                return found
        raise ResourceNotFound(f"The stream with id {stream_id:016x} does not exist any more.")

    def stream_dir(self, stream: StreamMap) -> Path:
        """Folder of a stream."""
        return Path(self._streams, stream.folder_name)

    def shard_dir(self, stream: StreamMap, index: int) -> Path:
        """Folder of a shard."""
        return Path(self._streams, stream.folder_name, str(index))

    def _load(self, folder_name: str) -> StreamMap | None:
        """The map in a stream's folder; None where there is none (not created yet, or gone)."""
        path = f"{self._streams}/{folder_name}/{streammap.FILE_NAME}"
        try:
            stamp = _stamp(self.files.stat(path))
            known = self._maps.get(folder_name)
            if known is not None and known[0] == stamp:
                return known[2]
            found = streammap.load(path, self.files)
        except (FileNotFoundError, NotADirectoryError):
            self._maps.pop(folder_name, None)
            return None
        except OSError as error:
            raise storage_error(error, f"read {path}") from error
        if found.folder_name != folder_name:
            raise StorageError(f"{path} is the map of {found.folder_name}: was the folder renamed?")
        self._maps[folder_name] = (stamp, path, found)
        return found


def socket_path(path: str | os.PathLike[str], files: Files | None = None) -> Path:
    """Where the node of the data folder at `path` has its socket, or would have it."""
    run = Path(os.path.abspath(path)) / "run"
    direct = run / "node.sock"
    if len(os.fsencode(direct)) <= _SOCKET_BYTES:
        return direct
    try:
        named, _, of = (files or FILES).read_bytes(run / _SOCKET_FOLDER).partition(b"\n")
        is_ours = of == _identity((files or FILES).stat(run))
    except FileNotFoundError:
        return direct
    # A copy of the folder names the socket of the one that it was copied from.
    return Path(os.fsdecode(named)) / "node.sock" if is_ours else direct


def _identity(found: os.stat_result) -> bytes:
    return b"%d:%d" % (found.st_dev, found.st_ino)


def _is_private(path: Path) -> bool:
    """Whether a folder is there, ours and closed to others; somebody else may have made one of that name since."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _stamp(found: os.stat_result) -> _Stamp:
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _named(maps: list[StreamMap], name: str, account: str) -> StreamMap:
    for found in maps:
        if found.name == name:
            return found
    near = difflib.get_close_matches(name, [found.name for found in maps], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ResourceNotFound(
        f"Stream {name} under account {account} not found.{hint} To create it: kflow streams create {name} --shards 1"
    )
