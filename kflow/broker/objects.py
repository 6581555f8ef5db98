"""Buckets of objects, as plain files that any tool can read: `s3/<bucket>/<key>`.

What the file system does not take as it is lies escaped in the bucket's `.objects/` (`objectnames`); what the content
does not say of itself lies there, too (`objectabout`). Files that people put into a bucket's folder by hand are objects
as well; links and other special files are none, and nothing is read or written through a link.

One process writes; others may read. Any thread. An object appears whole or not at all, and so does what is known of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from kflow.broker import objectabout, objectlist
from kflow.broker.files import Files, storage_error, temporary_name
from kflow.broker.folder import DataFolder
from kflow.broker.objectabout import PLAIN, About, Described, Of, Sidecar
from kflow.broker.objecterrors import (
    BucketAlreadyOwnedByYou,
    BucketNotEmpty,
    InvalidRange,
    NoSuchBucket,
    NoSuchKey,
)
from kflow.broker.objectlist import Page
from kflow.broker.objectnames import OURS, check_bucket, check_key, escaped, is_bucket, is_plain

__all__ = ["About", "Bucket", "Object", "Objects", "Opened", "Page"]

FOLDER: Final = "s3"
"""Name of the folder in a data folder."""

_CREATED: Final = "created"
"""A file in `.objects/` whose time is when the bucket was made."""

_PIECE: Final = 1 << 20
_HASHED: Final = 1 << 14
_TRIES: Final = 100
_CLASHES: Final = {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.ELOOP,
}
_locks = tuple(threading.Lock() for _ in range(64))
"""Held while an object is put in place or removed, by its key: its content and its description change together."""


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """One object without its content.

    Attributes:
        key: its key.
        size: bytes.
        modified_ms: when it was put, milliseconds since the epoch.
        etag: without quotes: the MD5 of the content, 32 hexadecimal digits, unless whoever put it said otherwise.
        about: content type, headers and metadata.
    """

    key: str
    size: int
    modified_ms: int
    etag: str
    about: About = PLAIN


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


class _Written(NamedTuple):
    """Content that is written and not in place yet."""

    path: str
    size: int
    modified_ns: int
    inode: int
    md5: str


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
        self._folds: bool | None = None
        self._hashed: dict[tuple[int, int, int, int], str] = {}
        self._tidied: set[str] = set()

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
            try:
                self._files.mkdir(os.path.join(self._path, bucket))
            except FileExistsError:
                raise BucketAlreadyOwnedByYou from None
            ours = os.path.join(self._path, bucket, OURS)
            self._files.make_folder(ours)
            self._files.write_new(os.path.join(ours, _CREATED), b"", sync=False)
            if self._sync:
                self._files.sync_folder(self._path)

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
            gone = temporary_name(os.path.join(self._path, f".{bucket}"))
            self._files.rename(root, gone)
            self._files.remove_tree(gone)

    def clear(self) -> None:
        """Remove all buckets with all that is in them."""
        with _said(f"empty {self._path}"):
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
            StorageError: it could not be written; what was there before stands.
        """
        check_key(key)
        root = self._root(bucket)
        with _said(f"put {bucket}/{key}"):
            written = self._write(root, (content,) if isinstance(content, bytes) else content)
            try:
                with self._held(bucket, key):
                    self._place(root, key, written, about)
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
            fd, found = self._open_described(root, key)
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
        """Remove an object; whether there was one.

        Raises:
            NoSuchBucket: there is none of that name.
        """
        check_key(key)
        root = self._root(bucket)
        with _said(f"delete {bucket}/{key}"), self._held(bucket, key):
            is_gone = self._unlink(_data(root, key))
            if not is_gone and self._is_plain(key) and self._is_reached(root, key):
                is_gone = self._unlink(os.path.join(root, key))
                self._remove_empty(root, key)
            self._unlink(_about(root, key))
        return is_gone

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

    # ------------------------------------------------------------------ inside: putting

    def _write(self, root: str, pieces: Iterable[bytes]) -> _Written:
        """Write content aside."""
        folder = os.path.join(root, OURS, "tmp")
        self._files.make_folder(folder)
        self._tidy(folder)
        path = temporary_name(os.path.join(folder, "object"))
        hashed, size = hashlib.md5(usedforsecurity=False), 0
        fd = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            for piece in pieces:
                for start in range(0, len(piece), _PIECE):
                    part = piece[start : start + _PIECE]
                    self._files.write_all(fd, part, size)
                    size += len(part)
                hashed.update(piece)
            if self._sync:
                self._files.fsync(fd)
            found = self._files.fstat(fd)
        except BaseException:
            self._files.discard(path)
            raise
        finally:
            self._files.close(fd)
        md5 = hashed.hexdigest()
        self._remember(found, md5)
        return _Written(path, size, found.st_mtime_ns, found.st_ino, md5)

    def _place(self, root: str, key: str, written: _Written, about: About) -> None:
        """Put content in place with its description; the caller holds the key's lock."""
        aside = _data(root, key)
        if not self._files.exists(aside) and self._is_plain(key) and self._is_free(root, key):
            target = os.path.join(root, key)
            try:
                self._describe(root, key, written, about, is_needed=False)
                self._move(written.path, target)
            except OSError as error:
                if error.errno not in _CLASHES:
                    raise
            else:
                if about == PLAIN:
                    self._unlink(_about(root, key))
                return
        self._describe(root, key, written, about, is_needed=escaped(key).startswith("~"))
        self._move(written.path, aside)

    def _describe(self, root: str, key: str, written: _Written, about: About, *, is_needed: bool) -> None:
        """Keep what the content does not say, beside what is known of the content that is there still."""
        path = _about(root, key)
        known = objectabout.read(path, self._files)
        if known is None and about == PLAIN and not is_needed:
            return
        new = Described(Of(*written[1:]), about)
        before = None if known is None else self._present(root, key, known)
        versions = (new,) if before is None else (new, before)
        self._files.make_folder(os.path.dirname(path), sync=self._sync)
        objectabout.write(path, Sidecar(key, versions), self._files, sync=self._sync)

    def _present(self, root: str, key: str, known: Sidecar) -> Described | None:
        """Of what is known, that of the content that is there now."""
        try:
            fd = self._open(root, key)
        except NoSuchKey:
            return None
        try:
            found = self._files.fstat(fd)
            return known.find(found, lambda: self._md5(fd, found))
        finally:
            self._files.close(fd)

    def _move(self, source: str, target: str) -> None:
        folder = os.path.dirname(target)
        for tries in range(_TRIES):
            self._files.make_folder(folder, sync=self._sync)
            try:
                self._files.replace(source, target)
                break
            except FileNotFoundError:  # the last object of the folder was removed meanwhile, and the folder with it
                if tries == _TRIES - 1 or not self._files.exists(source):
                    raise
        if self._sync:
            self._files.sync_folder(folder)

    def _is_free(self, root: str, key: str) -> bool:
        """Whether nothing but a file is at the key's path, and nothing but folders on the way."""
        return self._is_reached(root, key) and not self._files.is_folder(os.path.join(root, key))

    def _is_reached(self, root: str, key: str) -> bool:
        """Whether what is there of the way to the key's path are folders, and no links to any."""
        path = root
        for part in key.split("/")[:-1]:
            path = os.path.join(path, part)
            try:
                if not stat.S_ISDIR(self._files.lstat(path).st_mode):
                    return False
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno in _CLASHES:
                    return False
                raise
        return True

    def _tidy(self, folder: str) -> None:
        """Once for each bucket: remove what an earlier process did not finish."""
        if folder in self._tidied:
            return
        self._tidied.add(folder)
        ours = f".{os.getpid():x}-"
        for name in self._files.listdir(folder):
            if ours not in name:
                self._files.discard(os.path.join(folder, name))

    # ------------------------------------------------------------------ inside: reading

    def _open_described(self, root: str, key: str) -> tuple[int, Object]:
        """Open an object and see what is known of it.

        What is known is always also of the content that is in place: so it is of this one if that was in place still
        when it was read.
        """
        for tries in range(_TRIES):
            fd = self._open(root, key)
            is_ours = False
            try:
                found = self._described(root, key, fd)
                is_ours = self._is_in_place(root, key, fd) or tries == _TRIES - 1
            finally:
                if not is_ours:
                    self._files.close(fd)
            if is_ours:
                return fd, found
        raise NoSuchKey

    def _is_in_place(self, root: str, key: str, fd: int) -> bool:
        try:
            now = self._open(root, key)
        except NoSuchKey:
            return False  # it was deleted meanwhile
        try:
            return _stamp(self._files.fstat(now)) == _stamp(self._files.fstat(fd))
        finally:
            self._files.close(now)

    def _open(self, root: str, key: str) -> int:
        """Open the file of an object."""
        fd = self._open_file(_data(root, key))
        if fd is None and self._is_plain(key) and self._is_reached(root, key):
            fd = self._open_file(os.path.join(root, key))
        if fd is None:
            raise NoSuchKey
        return fd

    def _open_file(self, path: str) -> int | None:
        """A file, no link and nothing special; None: there is none."""
        try:
            # Without O_NONBLOCK the opening of a pipe would wait for its writer.
            fd = self._files.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _CLASHES or error.errno == errno.ENXIO:
                return None
            raise
        if stat.S_ISREG(self._files.fstat(fd).st_mode):
            return fd
        self._files.close(fd)
        return None

    def _described(self, root: str, key: str, fd: int) -> Object:
        found = self._files.fstat(fd)

        def md5() -> str:
            return self._md5(fd, found)

        known = objectabout.read(_about(root, key), self._files)
        described = None if known is None else known.find(found, md5)
        about = PLAIN if described is None else described.about
        etag = about.etag or (md5() if described is None else described.of.md5)
        return Object(key=key, size=found.st_size, modified_ms=found.st_mtime_ns // 1_000_000, etag=etag, about=about)

    def _md5(self, fd: int, found: os.stat_result) -> str:
        """MD5 of a file's content, which is remembered for as long as the file looks the same."""
        known = self._hashed.get(_stamp(found))
        if known is not None:
            return known
        hashed, offset = hashlib.md5(usedforsecurity=False), 0
        while piece := self._files.pread(fd, _PIECE, offset):
            hashed.update(piece)
            offset += len(piece)
        md5 = hashed.hexdigest()
        self._remember(found, md5)
        return md5

    def _remember(self, found: os.stat_result, md5: str) -> None:
        if len(self._hashed) >= _HASHED:
            self._hashed.clear()
        self._hashed[_stamp(found)] = md5

    # ------------------------------------------------------------------ inside: the rest

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

    def _is_plain(self, key: str) -> bool:
        return is_plain(key, folds=self._does_fold())

    def _does_fold(self) -> bool:
        """Whether the file system takes `A` for `a`, or one way to write `é` for another."""
        if self._folds is None:
            probe = temporary_name(os.path.join(self._path, ".Probe-\u00e9"))
            self._files.write_new(probe, b"", sync=False)
            try:
                head, _, name = probe.rpartition("/")
                others = (name.lower(), name.replace("\u00e9", "e\u0301"))
                self._folds = any(self._files.exists(os.path.join(head, other)) for other in others)
            finally:
                self._files.discard(probe)
        return self._folds

    def _unlink(self, path: str) -> bool:
        """Remove a file; whether there was one."""
        try:
            if stat.S_ISDIR(self._files.lstat(path).st_mode):
                return False
            self._files.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _remove_empty(self, root: str, key: str) -> None:
        """Remove the folders that an object was the last one in."""
        path = os.path.dirname(os.path.join(root, key))
        while len(path) > len(root):
            try:
                self._files.rmdir(path)
            except OSError:  # it is not empty, or somebody was faster
                return
            path = os.path.dirname(path)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say what the system refuses in words that help."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def _data(root: str, key: str) -> str:
    return os.path.join(root, OURS, "data", escaped(key))


def _about(root: str, key: str) -> str:
    return os.path.join(root, OURS, "about", escaped(key))


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
