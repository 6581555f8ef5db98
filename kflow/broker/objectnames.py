"""Names of buckets, and where the object of a key lies in the folder of its bucket.

    <bucket>/<key>                   a plain file, wherever the file system takes the key as it is
    <bucket>/.objects/data/<name>    all others: `a/` and `..`, `a` beside `a/b`, names of 256 bytes
    <bucket>/.objects/about/<name>   what the content alone does not say of an object of either kind
    <bucket>/.objects/tmp/           what is being written

`name` is `=` and the key with all but small letters, digits, `-`, `_` and `.` as `%XX`; where that is too long for a
file's name, `~` and the key's SHA-256. Neither knows capital letters, so that a file system that does not tell them
from small ones keeps two keys apart.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import unquote

from kflow.broker.objecterrors import InvalidBucketName, InvalidKey, KeyTooLong

OURS: Final = ".objects"
"""The folder of a bucket that is not part of its keys."""

_KEY_BYTES: Final = 1024
_COMPONENT_BYTES: Final = 255
_NAME_CHARACTERS: Final = 200
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_FOLDED = re.compile(r"[^A-Z\x80-\U0010ffff]*")


def is_bucket(name: str) -> bool:
    """Whether a bucket may have this name. Source: documented: Amazon S3 User Guide, bucket naming rules."""
    return (
        _BUCKET.fullmatch(name) is not None
        and _ADDRESS.fullmatch(name) is None
        and not name.startswith(_RESERVED_STARTS)
        and not name.endswith(_RESERVED_ENDS)
    )


def check_bucket(name: str) -> None:
    """Refuse what is no name of a bucket.

    Raises:
        InvalidBucketName: it is none.
    """
    if not is_bucket(name):
        raise InvalidBucketName


def check_key(key: str) -> None:
    """Refuse what is no key.

    Raises:
        InvalidKey: it is empty, or has half of a surrogate pair.
        KeyTooLong: it has more than 1,024 bytes.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidKey from None
    if not size:
        raise InvalidKey
    if size > _KEY_BYTES:
        raise KeyTooLong


def is_plain(key: str, *, folds: bool) -> bool:
    """Whether a key can be the path of a file, if nothing else is in the way.

    Args:
        key: a valid one.
        folds: whether the file system takes some different names for the same one: then only small ASCII is safe.
    """
    if "\0" in key or (folds and _FOLDED.fullmatch(key) is None):
        return False
    parts = key.split("/")
    if parts[0].lower() == OURS:
        return False
    return not any(part in ("", ".", "..") or len(part.encode()) > _COMPONENT_BYTES for part in parts)


def escaped(key: str) -> str:
    """The name of a key's files in `.objects/`."""
    name = "=" + "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in key.encode())
    return name if len(name) <= _NAME_CHARACTERS else "~" + hashlib.sha256(key.encode()).hexdigest()


def unescaped(name: str) -> str | None:
    """The key of such a name; None where the name does not tell."""
    if not name.startswith("="):
        return None
    try:
        return unquote(name[1:], errors="strict")
    except UnicodeDecodeError:
        return None
