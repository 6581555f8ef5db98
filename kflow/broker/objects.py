"""Buckets of objects, as plain files that any tool can read: `s3/<bucket>/<key>`.

What the file system does not take as it is lies escaped in the bucket's `.objects/` (`objectnames`); what the content
does not say of itself lies there, too (`objectabout`). Files that people put into a bucket's folder by hand are objects
as well; links and other special files are none, and nothing is read or written through a link.

One process writes; others may read. Any thread. An object appears whole or not at all, and so does what is known of it.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple
from zlib import crc32

from kflow.broker import objectlist
from kflow.broker.files import Files, storage_error, temporary_name
from kflow.broker.folder import DataFolder
from kflow.broker.objectabout import PLAIN, About, Object
from kflow.broker.objecterrors import (
    BucketAlreadyOwnedByYou,
    BucketNotEmpty,
    InvalidRange,
    NoSuchBucket,
)
from kflow.broker.objectfiles import ObjectFiles
from kflow.broker.objectlist import Page
from kflow.broker.objectnames import OURS, check_bucket, check_key, is_bucket

__all__ = ["About", "Bucket", "Object", "Objects", "Opened", "Page"]

log = logging.getLogger(__name__)

FOLDER: Final = "s3"
"""Name of the folder in a data folder."""

_CREATED: Final = "created"
"""A file in `.objects/` whose time is when the bucket was made."""

_PIECE: Final = 1 << 20
_TEMPORARY: Final = r"\.[0-9a-f]+-[0-9a-f]+\.tmp"
"""How `temporary_name` ends."""
_tidied: set[str] = set()
_tidying = threading.Lock()
_locks = tuple(threading.Lock() for _ in range(64))
"""Held while an object is put in place or removed, by its key: its content and its description change together."""


class Bucket(NamedTuple):
    """One bucket.

    Attributes:
        name: its name.
        created_ms: when it was made, milliseconds since the epoch.
    """

    name: str
    created_ms: int


class Opened:
    """An object that is open for reading: it stays what it was, whatever is put under its key meanwhile.

    Attributes:
        object: what it is.
    """

    def __init__(self, found: Object, fd: int, files: Files) -> None:
        self.object = found
        self._fd = fd
        self._files = files

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there; fewer at the end."""
        pieces = []
        while length > 0 and (piece := self._files.pread(self._fd, min(length, _PIECE), offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)


class Objects:
    """The buckets of one data folder.

    Errors are S3's (`objecterrors`) for names, buckets and keys, and `StorageError` for what the disk refuses.
    """

    def __init__(self, files: Files, path: str | os.PathLike[str], *, sync: bool = True) -> None:
        """Use a folder, which is made when the first bucket is.

        Args:
            files: the file calls.
            path: the folder that holds one folder a bucket.
            sync: whether what is put survives a loss of power.
        """
        self._files = files
        self._path = os.fspath(path)
        self._sync = sync
        self._contents = ObjectFiles(files, self._path, sync=sync)

    @classmethod
    def of(cls, folder: DataFolder) -> Objects:
        """Those of a data folder."""
        return cls(folder.files, os.path.join(folder.path, FOLDER), sync=folder.syncs)

    # ------------------------------------------------------------------ buckets

    def create_bucket(self, bucket: str) -> None:
        """Make a bucket.

        Raises:
            InvalidBucketName: no bucket may have this name.
            BucketAlreadyOwnedByYou: it is there.
        """
        check_bucket(bucket)
        with _said(f"make the bucket {bucket}"):
            self._files.make_folder(self._path, sync=self._sync)
            self._tidy()
            root = os.path.join(self._path, bucket)
            try:
                self._files.mkdir(root)
            except FileExistsError:
                raise BucketAlreadyOwnedByYou from None
            try:
                ours = os.path.join(root, OURS)
                self._files.make_folder(ours)
                self._files.write_new(os.path.join(ours, _CREATED), b"", sync=False)
                if self._sync:
                    self._files.sync_folder(self._path)
            except OSError:
                self._files.remove_tree(root)
                raise

    def ensure_bucket(self, bucket: str) -> bool:
        """Make a bucket that may be there; whether it was made.

        Raises:
            InvalidBucketName: no bucket may have this name.
        """
        try:
            self.create_bucket(bucket)
        except BucketAlreadyOwnedByYou:
            return False
        return True

    def has_bucket(self, bucket: str) -> bool:
        """Whether there is a bucket of that name."""
        return is_bucket(bucket) and self._files.is_folder(os.path.join(self._path, bucket))

    def buckets(self) -> list[Bucket]:
        """All buckets, by name."""
        with _said(f"list {self._path}"):
            try:
                names = self._files.listdir(self._path)
            except FileNotFoundError:
                return []
            return [
                Bucket(name, self._created_ms(os.path.join(self._path, name)))
                for name in sorted(names)
                if self.has_bucket(name)
            ]

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket that has no objects.

        Raises:
            NoSuchBucket: there is none of that name.
            BucketNotEmpty: it has objects.
        """
        root = self._root(bucket)
        if self.list(bucket, limit=1).keys:
            raise BucketNotEmpty
        with _said(f"remove the bucket {bucket}"):
            self._tidy()
            gone = temporary_name(os.path.join(self._path, f".{bucket}"))
            self._files.rename(root, gone)
            self._files.remove_tree(gone)

    def clear(self) -> None:
        """Remove all buckets with all that is in them."""
        with _said(f"empty {self._path}"):
            self._tidy()
            if self._files.is_link(self._path):  # to another disk, perhaps: that it leads there stays
                for name in self._files.listdir(self._path):
                    self._files.remove_tree(os.path.join(self._path, name))
                return
            gone = temporary_name(self._path)
            try:
                self._files.rename(self._path, gone)
            except FileNotFoundError:
                return
            self._files.remove_tree(gone)

    # ------------------------------------------------------------------ objects

    def put(self, bucket: str, key: str, content: bytes | Iterable[bytes], about: About = PLAIN) -> Object:
        """Put an object in place of what was under its key. On return it is there for good.

        Args:
            bucket: its bucket.
            key: 1 to 1,024 bytes of UTF-8.
            content: the bytes, or pieces of them.
            about: content type, headers and metadata.

        Raises:
            NoSuchBucket: there is none of that name.
            InvalidKey, KeyTooLong: the key cannot be one.
            StorageError: it could not be written; what was there before stands, unless the new one is in place and its
                folder could not be synced.
        """
        check_key(key)
        root = self._root(bucket)
        with _said(f"put {bucket}/{key}"):
            written = self._contents.write(root, (content,) if isinstance(content, bytes) else content)
            try:
                with self._held(bucket, key):
                    self._contents.place(root, key, written, about)
            except BaseException:
                self._files.discard(written.path)
                raise
        return Object(
            key=key,
            size=written.size,
            modified_ms=written.modified_ns // 1_000_000,
            etag=about.etag or written.md5,
            about=about,
        )

    @contextmanager
    def open(self, bucket: str, key: str) -> Iterator[Opened]:
        """Open an object to be read piece by piece.

        Raises:
            NoSuchBucket, NoSuchKey: it is not there.
        """
        check_key(key)
        root = self._root(bucket)
        with _said(f"read {bucket}/{key}"):
            fd, found = self._contents.open(root, key)
            try:
                yield Opened(found, fd, self._files)
            finally:
                self._files.close(fd)

    def get(self, bucket: str, key: str, offset: int = 0, length: int | None = None) -> tuple[Object, bytes]:
        """An object and its content, or a part of it.

        Args:
            bucket: its bucket.
            key: its key.
            offset: of the first byte; negative: so many bytes before the end, or all where there are fewer.
            length: bytes at most; None: to the end.

        Raises:
            NoSuchBucket, NoSuchKey: it is not there.
            InvalidRange: the offset is not before the end.
        """
        with self.open(bucket, key) as opened:
            size = opened.object.size
            first = offset if offset >= 0 else max(0, size + offset)
            if first and first >= size:
                raise InvalidRange
            return opened.object, opened.read(first, size - first if length is None else min(length, size - first))

    def head(self, bucket: str, key: str) -> Object:
        """An object without its content.

        Raises:
            NoSuchBucket, NoSuchKey: it is not there.
        """
        with self.open(bucket, key) as opened:
            return opened.object

    def delete(self, bucket: str, key: str) -> bool:
        """Remove an object; whether there was one. On return it is gone for good.

        Raises:
            NoSuchBucket: there is none of that name.
        """
        check_key(key)
        root = self._root(bucket)
        with _said(f"delete {bucket}/{key}"), self._held(bucket, key):
            return self._contents.remove(root, key)

    def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000, delimiter: str = "") -> Page:
        """Keys in the order of their UTF-8 bytes, a page of them.

        Args:
            bucket: which.
            prefix: only keys that begin so.
            after: only keys behind this one; of the page before: `Page.last`.
            limit: how many keys and common prefixes at most.
            delimiter: keys that have it behind the prefix are summed up as their beginning up to it.

        Raises:
            NoSuchBucket: there is none of that name.
        """
        root = self._root(bucket)
        with _said(f"list {bucket}"):
            return objectlist.page(self._files, root, prefix=prefix, after=after, limit=limit, delimiter=delimiter)

    # ------------------------------------------------------------------ inside

    def _tidy(self) -> None:
        """Once in a process: remove what an earlier one was removing when it died."""
        with _tidying:
            if self._path in _tidied:
                return
            _tidied.add(self._path)
            above, own = os.path.split(self._path)
            self._remove_leftovers(above, rf"{re.escape(own)}{_TEMPORARY}")
            self._remove_leftovers(self._path, rf"\.[a-z0-9.-]+{_TEMPORARY}")

    def _remove_leftovers(self, folder: str, pattern: str) -> None:
        """Remove what has such a name. It takes room, and nothing else depends on it."""
        try:
            for name in self._files.listdir(folder) if self._files.exists(folder) else ():
                if re.fullmatch(pattern, name):
                    self._files.remove_tree(os.path.join(folder, name))
        except OSError as error:
            log.warning("half-removed buckets not removed folder=%s error=%s", folder, error)

    def _root(self, bucket: str) -> str:
        if not self.has_bucket(bucket):
            raise NoSuchBucket
        return os.path.join(self._path, bucket)

    def _created_ms(self, root: str) -> int:
        try:
            found = self._files.lstat(os.path.join(root, OURS, _CREATED))
        except FileNotFoundError:
            found = self._files.lstat(root)
        return found.st_mtime_ns // 1_000_000

    def _held(self, bucket: str, key: str) -> threading.Lock:
        return _locks[crc32(f"{self._path}/{bucket}/{key}".encode()) % len(_locks)]


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say what the system refuses in words that help."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error
