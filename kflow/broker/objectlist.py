"""The keys of a bucket in the order of their UTF-8 bytes, a page at a time.

The order of a folder's entries is that of their names with `/` behind those of folders: so `a.txt` comes before what is
in `a`. Text sorts as its UTF-8 bytes do. Folders in which no key can be wanted are not looked into.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from kflow.broker import objectabout
from kflow.broker.files import Files
from kflow.broker.objectnames import OURS, unescaped

_LAST = "\U0010ffff"


class Page(NamedTuple):
    """A page of a listing.

    Attributes:
        keys: of objects, in their order.
        prefixes: common beginnings of others, up to the delimiter, in their order.
        last: what to continue after; empty: this was the last page.
    """

    keys: list[str]
    prefixes: list[str]
    last: str


def page(files: Files, root: str, *, prefix: str, after: str, limit: int, delimiter: str) -> Page:
    """One page of the bucket whose folder is `root`; see `Objects.list`.

    Raises:
        OSError: a folder cannot be read.
    """
    keys: list[str] = []
    prefixes: list[str] = []
    last = ""
    if delimiter and after.startswith(prefix) and _common(after, prefix, delimiter) == after:
        after = _behind(after)  # the page before ended with this common prefix
    while True:
        start = after
        for key in _walk(files, root, prefix, after):
            if len(keys) + len(prefixes) >= limit:
                return Page(keys, prefixes, last)
            common = _common(key, prefix, delimiter) if delimiter else ""
            if common:  # what else begins so need not be looked at: begin anew behind it
                prefixes.append(common)
                last, after = common, _behind(common)
                break
            keys.append(key)
            last = key
        if after == start:
            return Page(keys, prefixes, "")


def _common(key: str, prefix: str, delimiter: str) -> str:
    found = key.find(delimiter, len(prefix))
    return "" if found < 0 else key[: found + len(delimiter)]


def _behind(prefix: str) -> str:
    """What sorts behind every key that begins so."""
    return prefix and prefix + _LAST * 256  # a key has 1,024 bytes at most


def _walk(files: Files, root: str, prefix: str, after: str) -> Iterator[str]:
    """Keys that begin with `prefix`, behind `after`, in their order."""
    return heapq.merge(_plain(files, root, "", prefix, after), _escaped(files, root, prefix, after))


def _plain(files: Files, folder: str, above: str, prefix: str, after: str) -> Iterator[str]:
    """Those of a folder, whose keys all begin with `above`."""
    names = []
    try:
        found = files.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return  # removed meanwhile
    for name in found:
        if (not above and name == OURS) or not _is_text(name):
            continue
        key = above + name
        if not (key.startswith(prefix) or prefix.startswith(key + "/")):
            continue
        if key <= after and not after.startswith(key) and key + "/" <= after:
            continue
        try:
            mode = files.lstat(os.path.join(folder, name)).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            names.append(name + "/")
        elif stat.S_ISREG(mode):
            names.append(name)
    for name in sorted(names):
        key = above + name
        if name.endswith("/"):
            is_wanted = key.startswith(prefix) or prefix.startswith(key)
            if is_wanted and (key > after or after.startswith(key)):
                yield from _plain(files, os.path.join(folder, name[:-1]), key, prefix, after)
        elif key.startswith(prefix) and key > after:
            yield key


def _escaped(files: Files, root: str, prefix: str, after: str) -> list[str]:
    """Those that lie in `.objects`."""
    ours = os.path.join(root, OURS)
    try:
        names = files.listdir(os.path.join(ours, "data"))
    except FileNotFoundError:
        return []
    keys = []
    for name in names:
        key = unescaped(name)
        if key is None:
            about = objectabout.read(os.path.join(ours, "about", name), files)
            key = None if about is None else about.key
        if key is not None and key.startswith(prefix) and key > after:
            keys.append(key)
    return sorted(keys)


def _is_text(name: str) -> bool:
    """Whether a file's name can be (a part of) a key: people may put files of any name there."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
