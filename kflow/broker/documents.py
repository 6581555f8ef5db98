"""Documents, a file each, written in one step, with a checksum and a twin: functions, layers, mappings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from kflow.broker import checked, statefile
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.errors import Damaged, KflowError, StorageError

T = TypeVar("T")

_SUFFIX = ".json"


def file_name(name: str) -> str:
    """Names that differ in case alone have files that differ in more: some file systems do not see case."""
    if name == name.lower():
        return f"{name}{_SUFFIX}"
    return f"{name}.{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}{_SUFFIX}"


def load_all(root: str, kind: msgspec.json.Decoder[T], files: Files) -> Iterator[tuple[str, T | KflowError]]:
    """The documents in a folder, and in the folders in it, each with its path; or what is wrong with one.

    Raises:
        StorageError: a folder cannot be listed; one that is not there has none.
    """
    try:
        paths = _listed(root, files)
    except OSError as error:
        raise storage_error(error, f"list {root}") from error
    for path in paths:
        try:
            found: T | KflowError = load(path, kind, files)
        except KflowError as error:
            found = error
        yield path, found


def load(path: str, kind: msgspec.json.Decoder[T], files: Files) -> T:
    """Read one; from its twin where the file is damaged.

    Raises:
        Damaged: neither is sound, or another version wrote it.
        StorageError: it cannot be read.
    """
    sound = statefile.read(path, files)
    if sound is None:
        raise StorageError(f"{path} is gone: something else removed it just now")
    try:
        return kind.decode(sound)
    except msgspec.MsgspecError as error:
        raise Damaged(f"{path} is of another version of kflow: {error}") from error


def keep(path: str, document: msgspec.Struct | None, folder: DataFolder) -> None:
    """Write one, or remove it where there is none any more: in a thread.

    Raises:
        StorageError: what was there stands.
    """
    files, sync = folder.files, folder.syncs
    try:
        if document is None:
            files.discard(checked.twin_path(path))  # first: alone it would bring back what it holds
            files.discard(path)
            if sync and files.is_folder(os.path.dirname(path)):
                files.sync_folder(os.path.dirname(path))
        else:
            files.make_folder(os.path.dirname(path), sync=sync)
            checked.write_twice(path, checked.seal(msgspec.json.encode(document)) + b"\n", files, sync=sync)
    except OSError as error:
        raise storage_error(error, f"keep {path}") from error


def _listed(root: str, files: Files) -> list[str]:
    try:
        names = sorted(files.listdir(root))
    except FileNotFoundError:
        return []
    # A twin alone is a document too: a disk that failed in between has left it.
    own = {f"{root}/{name.removesuffix('.twin')}" for name in names if name.endswith((_SUFFIX, f"{_SUFFIX}.twin"))}
    folders = [f"{root}/{name}" for name in names if files.is_folder(f"{root}/{name}")]
    return sorted(own) + [path for folder in folders for path in _listed(folder, files)]
