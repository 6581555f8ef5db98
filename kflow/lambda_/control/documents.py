"""Documents of functions, layers and the like: a file each, written in one step, with a checksum and a twin."""

from __future__ import annotations

import hashlib
import os
from typing import TypeVar

import msgspec

from kflow.broker import checked
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.errors import Damaged

T = TypeVar("T")

_SUFFIX = ".json"


def file_name(name: str) -> str:
    """Names that differ in case alone have files that differ in more: some file systems do not see case."""
    if name == name.lower():
        return f"{name}{_SUFFIX}"
    return f"{name}.{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}{_SUFFIX}"


def listed(root: str, files: Files) -> list[str]:
    """Paths of the documents in a folder, and in the folders in it; none where it is not there.

    Raises:
        OSError: it cannot be listed.
    """
    try:
        names = sorted(files.listdir(root))
    except FileNotFoundError:
        return []
    # A twin alone is a document too: a disk that failed in between has left it.
    own = {f"{root}/{name.removesuffix('.twin')}" for name in names if name.endswith((_SUFFIX, f"{_SUFFIX}.twin"))}
    folders = [f"{root}/{name}" for name in names if files.is_folder(f"{root}/{name}")]
    return sorted(own) + [path for folder in folders for path in listed(folder, files)]


def load(path: str, kind: msgspec.json.Decoder[T], files: Files) -> T:
    """Read one; from its twin where the file is damaged.

    Raises:
        Damaged: neither is sound.
        StorageError: it cannot be read.
    """
    for each in (path, checked.twin_path(path)):
        try:
            text = checked.read_optional(each, files)
        except OSError as error:
            raise storage_error(error, f"read {each}") from error
        sound = None if text is None else checked.unseal(text.rstrip(b"\n"))
        if sound is not None:
            try:
                return kind.decode(sound)
            except msgspec.MsgspecError as error:
                raise Damaged(f"{each} is of another version of kflow: {error}") from error
    raise Damaged(f"{path} and its copy are damaged: remove both, and make anew what they were")


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
