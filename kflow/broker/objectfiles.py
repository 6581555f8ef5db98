"""The files of objects in the folders of their buckets: content and description, put in place and found as one.

A key is a plain file where the file system takes it, else an escaped one (`objectnames`). Whoever changes a key's files
holds its lock; whoever reads them holds none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from kflow.broker import objectabout
from kflow.broker.files import Files, temporary_name
from kflow.broker.objectabout import PLAIN, About, Described, Object, Of, Sidecar
from kflow.broker.objectdigests import Digests, stamp
from kflow.broker.objecterrors import NoSuchBucket, NoSuchKey
from kflow.broker.objectnames import OURS, escaped, is_plain

_PIECE: Final = 1 << 20
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


class Written(NamedTuple):
    """Content that is written and not in place yet."""

    path: str
    size: int
    modified_ns: int
    inode: int
    md5: str


class ObjectFiles:
    """Those of all buckets. Any thread. Whatever it raises of the system's, its caller puts in words.

    Args:
        files: the file calls.
        path: the folder that holds one folder a bucket: the `root` of its methods.
        sync: whether what is put survives a loss of power.
    """

    def __init__(self, files: Files, path: str, *, sync: bool) -> None:
        self._files = files
        self._path = path
        self._sync = sync
        self._folds: bool | None = None
        self._digests = Digests(files)
        self._tidied: set[str] = set()

    def write(self, root: str, pieces: Iterable[bytes]) -> Written:
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
        self._digests.remember(found, md5)
        return Written(path, size, found.st_mtime_ns, found.st_ino, md5)

    def place(self, root: str, key: str, written: Written, about: About) -> None:
        """Put content in place with its description; the caller holds the key's lock.

        Raises:
            NoSuchBucket: it was removed while the content was written; making folders must not bring it back.
        """
        if not self._files.is_folder(root):
            raise NoSuchBucket
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

    def remove(self, root: str, key: str) -> bool:
        """Remove an object; whether there was one. The caller holds the key's lock."""
        is_gone = self._remove_content(_data(root, key))
        if not is_gone and self._is_plain(key) and self._is_reached(root, key):
            is_gone = self._remove_content(os.path.join(root, key))
            self._remove_empty(root, key)
        self._unlink(_about(root, key))
        return is_gone

    def _describe(self, root: str, key: str, written: Written, about: About, *, is_needed: bool) -> None:
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
            fd = self._find(root, key)
        except NoSuchKey:
            return None
        try:
            found = self._files.fstat(fd)
            return known.find(found, lambda: self._digests.of(fd, found))
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
        """Once for each bucket: see that its name lasts, and remove what an earlier process did not finish."""
        if folder in self._tidied:
            return
        if self._sync:  # who made it may have died before
            self._files.sync_folder(self._path)
        self._tidied.add(folder)
        ours = f".{os.getpid():x}-"
        for name in self._files.listdir(folder):
            if ours not in name:
                self._files.discard(os.path.join(folder, name))

    def open(self, root: str, key: str) -> tuple[int, Object]:
        """Open an object and see what is known of it.

        What is known is always also of the content that is in place: so it is of this one if that was in place still
        when it was read.
        """
        for tries in range(_TRIES):
            fd = self._find(root, key)
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
            now = self._find(root, key)
        except NoSuchKey:
            return False  # it was deleted meanwhile
        try:
            return stamp(self._files.fstat(now)) == stamp(self._files.fstat(fd))
        finally:
            self._files.close(now)

    def _find(self, root: str, key: str) -> int:
        """The file of an object, open for reading."""
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
        is_file = False
        try:
            is_file = stat.S_ISREG(self._files.fstat(fd).st_mode)
        finally:
            if not is_file:
                self._files.close(fd)
        return fd if is_file else None

    def _described(self, root: str, key: str, fd: int) -> Object:
        found = self._files.fstat(fd)

        def md5() -> str:
            return self._digests.of(fd, found)

        known = objectabout.read(_about(root, key), self._files)
        described = None if known is None else known.find(found, md5)
        about = PLAIN if described is None else described.about
        etag = about.etag or (md5() if described is None else described.of.md5)
        return Object(key=key, size=found.st_size, modified_ms=found.st_mtime_ns // 1_000_000, etag=etag, about=about)

    def _is_plain(self, key: str) -> bool:
        return is_plain(key, folds=self._does_fold())

    def _does_fold(self) -> bool:
        """Whether the file system takes `A` for `a`, or one way to write `é` for another."""
        if self._folds is None:
            probe = temporary_name(os.path.join(self._path, ".Probe-\u00e9"))
            try:
                self._files.write_new(probe, b"", sync=False)
            except OSError:  # full, or read-only: objects can be read nevertheless
                return self._seems_to_fold()
            try:
                head, _, name = probe.rpartition("/")
                others = (name.lower(), name.replace("\u00e9", "e\u0301"))
                self._folds = any(self._files.exists(os.path.join(head, other)) for other in others)
            finally:
                self._files.discard(probe)
        return self._folds

    def _seems_to_fold(self) -> bool:
        """The same, by the folder of the buckets itself."""
        head, name = os.path.split(self._path)
        try:
            return name != name.upper() and os.path.samestat(
                self._files.stat(self._path), self._files.stat(os.path.join(head, name.upper()))
            )
        except OSError:
            return False

    def _remove_content(self, path: str) -> bool:
        """Remove a file of an object for good; whether there was one."""
        is_gone = self._unlink(path)
        if is_gone and self._sync:
            self._files.sync_folder(os.path.dirname(path))
        return is_gone

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


def _data(root: str, key: str) -> str:
    return os.path.join(root, OURS, "data", escaped(key))


def _about(root: str, key: str) -> str:
    return os.path.join(root, OURS, "about", escaped(key))
