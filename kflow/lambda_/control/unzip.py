"""A zip of code, checked and unpacked, whoever made it: nothing of it comes outside its folder, or fills the disk.

Names, sizes and flags are checked before anything is written, sizes again while it is: a zip's own list may lie.
Links are made last, so that no file is written through one, and each must stay inside.

Source: recorded: the texts; chosen: what of a zip is refused besides what cannot be read.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from kflow.lambda_.errors import InvalidParameterValue

UNPACKED_BYTES: Final = 262_144_000
"""Of a function with its layers. Source: documented: Lambda quotas."""
ENTRIES: Final = 200_000
"""Files and folders. chosen: more than any package has."""
NAME_BYTES: Final = 255
"""Of a part of a name: what file systems take."""
PATH_BYTES: Final = 3072
"""Of a name: what a path may have, less room for the folder that it comes to."""
DEPTH: Final = 200
"""Parts of a name. chosen."""
LINK_BYTES: Final = 4096

SYNCED: Final = 64
"""So many files are synced one by one; where there are more, the system is asked once to sync everything. chosen."""

_PIECE: Final = 1 << 18
_ENCRYPTED: Final = 0x1
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_NAMES: Final = {errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTDIR}
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""All that `zipfile` raises of what is damaged."""


class CannotUnzip(InvalidParameterValue):
    """It is no zip, or none that is safe to unpack.

    Attributes:
        why: for people; AWS does not say.
    """

    def __init__(self, why: str) -> None:
        super().__init__("Could not unzip uploaded file. Please check your file, then try to upload again.")
        self.why = why


class EmptyZip(InvalidParameterValue):
    """No bytes at all, or a zip without a file in it."""

    def __init__(self) -> None:
        super().__init__("Uploaded file must be a non-empty zip")


class TooLargeUnpacked(InvalidParameterValue):
    """It comes to more than Lambda has room for."""

    def __init__(self) -> None:
        super().__init__(f"Unzipped size must be smaller than {UNPACKED_BYTES} bytes")


class Entry(NamedTuple):
    """One thing to make.

    Attributes:
        path: relative, of parts between `/`.
        info: of the zip.
        mode: permissions.
    """

    path: str
    info: zipfile.ZipInfo
    mode: int


class Contents(NamedTuple):
    """What a zip is to become.

    Attributes:
        folders: paths, parents first.
        files: with their content.
        links: symbolic links.
        size: bytes that the list says it comes to.
    """

    folders: Sequence[str]
    files: Sequence[Entry]
    links: Sequence[Entry]
    size: int


def read(archive: zipfile.ZipFile, length: int) -> Contents:
    """The checked contents.

    Args:
        archive: opened.
        length: bytes of it.

    Raises:
        CannotUnzip, EmptyZip, TooLargeUnpacked: it is refused.
    """
    infos = archive.infolist()
    if len(infos) > ENTRIES:
        raise CannotUnzip(f"it has {len(infos)} entries: {ENTRIES} are taken")
    folders: set[str] = set()
    files: dict[str, Entry] = {}
    links: dict[str, Entry] = {}
    size = packed = 0
    for info in infos:
        path = _path(info)
        size += info.file_size
        packed += info.compress_size
        if size > UNPACKED_BYTES:
            raise TooLargeUnpacked
        if packed > length:
            raise CannotUnzip("its entries overlap: it would unpack to more than it holds")
        mode = info.external_attr >> 16
        if info.is_dir() or stat.S_ISDIR(mode):
            folders.add(path)
        elif stat.S_ISLNK(mode):
            if info.file_size > LINK_BYTES:
                raise CannotUnzip(f"the link {path} is too long")
            files.pop(path, None)
            links[path] = Entry(path, info, 0)
        elif stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
            raise CannotUnzip(f"{path} is neither a file nor a folder nor a link")
        else:
            links.pop(path, None)
            files[path] = Entry(path, info, _permissions(mode))
        folders.update(_parents(path))
    folders.discard("")
    clash = folders.intersection(files) or folders.intersection(links)
    if clash:
        raise CannotUnzip(f"{min(clash)} is a folder and something else too")
    if not files and not links:
        raise EmptyZip
    return Contents(sorted(folders), list(files.values()), list(links.values()), size)


def unpack(content: bytes, folder: str, *, sync: bool = False) -> int:
    """Unpack a zip into a new folder, which is left as it is where that fails.

    Args:
        content: of the zip.
        folder: made here; nobody looks into it yet.
        sync: whether all of it is made durable.

    Returns:
        Bytes that it came to.

    Raises:
        CannotUnzip, EmptyZip, TooLargeUnpacked: it is refused.
        OSError: the disk refused it.
    """
    with _opened(content) as (archive, found):
        _write(archive, found, folder, sync=sync)
        return found.size


def size(content: bytes) -> int:
    """Bytes that a zip comes to, which was unpacked before."""
    with _opened(content) as (_, found):
        return found.size


@contextmanager
def _opened(content: bytes) -> Iterator[tuple[zipfile.ZipFile, Contents]]:
    if not content:
        raise EmptyZip
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive, read(archive, len(content))
    except _BROKEN as error:
        raise CannotUnzip(str(error)) from error
    except OSError as error:
        if error.errno in _NAMES:  # as where a file system does not see case
            raise CannotUnzip(f"this file system cannot hold its names: {error}") from error
        raise


def _write(archive: zipfile.ZipFile, found: Contents, folder: str, *, sync: bool) -> None:
    os.mkdir(folder, 0o755)
    for path in found.folders:
        os.mkdir(f"{folder}/{path}", 0o755)
    left = UNPACKED_BYTES
    each_by_itself = sync and len(found.files) <= SYNCED
    for entry in found.files:
        left -= _write_file(archive, entry, f"{folder}/{entry.path}", left, sync=each_by_itself)
    for entry in found.links:
        target = archive.read(entry.info)
        if not target or b"\0" in target:
            raise CannotUnzip(f"the link {entry.path} leads nowhere")
        os.symlink(target, os.fsencode(f"{folder}/{entry.path}"))
    root = os.path.realpath(folder)
    for entry in found.links:
        # Not by the letters: a link may lead through another one.
        if os.path.commonpath([root, os.path.realpath(f"{root}/{entry.path}")]) != root:
            raise CannotUnzip(f"the link {entry.path} leads outside")
    if each_by_itself:
        for path in ("", *found.folders):
            _sync_folder(f"{folder}/{path}")
    elif sync:
        os.sync()


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_file(archive: zipfile.ZipFile, entry: Entry, path: str, left: int, *, sync: bool) -> int:
    written = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with archive.open(entry.info) as source:
            while piece := source.read(_PIECE):
                written += len(piece)
                if written > left:
                    raise TooLargeUnpacked
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
        os.fchmod(fd, entry.mode)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    return written


def _path(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise CannotUnzip(f"{name!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise CannotUnzip(f"{name!r} is packed in a way that only some programs know")
    if name.startswith("/") or "\\" in name or "\0" in name or (len(name) > 1 and name[1] == ":"):
        raise CannotUnzip(f"{name!r} is no relative name")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise CannotUnzip(f"{name!r} leads outside")
    encoded = [len(os.fsencode(part)) for part in parts]
    if max(encoded, default=0) > NAME_BYTES or sum(encoded) + len(encoded) > PATH_BYTES or len(parts) > DEPTH:
        raise CannotUnzip(f"{name[:100]!r} is too long")
    if not parts and not info.is_dir():
        raise CannotUnzip(f"{name!r} is no name")
    return "/".join(parts)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _permissions(mode: int) -> int:
    """Those of the zip, readable by us, without setuid; of a zip that has none, those of a plain file."""
    return (mode & 0o777) | 0o400 if mode else 0o644
