"""Small JSON files that carry their own checksum, and are kept twice.

    {"crc":"8 hexadecimal digits", ...}      the CRC32C of everything behind the comma

The file stays plain JSON. Its twin, beside it, is written after it: where the file is damaged, the twin is what it was,
or, after a crash between the two writes, what it was before.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from crc32c import crc32c

from kflow.broker.files import Files

log = logging.getLogger(__name__)

_HEAD: Final = re.compile(rb'\{"crc":"([0-9a-f]{8})",')


def seal(text: bytes) -> bytes:
    """A JSON object with at least one member, with its checksum as the first one."""
    rest = text[1:]
    return b'{"crc":"%08x",%b' % (crc32c(rest), rest)


def unseal(text: bytes) -> bytes | None:
    """What was sealed; None where the checksum is missing or wrong."""
    head = _HEAD.match(text)
    if head is None:
        return None
    rest = text[head.end() :]
    return b"{" + rest if crc32c(rest) == int(head[1], 16) else None


def twin_path(path: str) -> str:
    """Where the twin of a file lies."""
    return f"{path}.twin"


def write_twice(path: str, content: bytes, files: Files, *, sync: bool) -> None:
    """Replace a file in one step, then its twin; on return the file is durable if `sync`.

    A twin that cannot be written is removed: one that is older than its file would bring old times back.

    Raises:
        OSError: the file could not be written; the old one stands.
    """
    files.write_replace(path, content, sync=sync)
    twin = twin_path(path)
    try:
        files.write_replace(twin, content, sync=sync)
    except OSError as error:
        log.warning("copy not written file=%s error=%s", twin, error)
        discard_twin(path, files)


def discard_twin(path: str, files: Files) -> None:
    """Remove the twin of a file, where that is possible; where it is not, the next start writes it anew."""
    try:
        files.discard(twin_path(path))
    except OSError as error:
        log.warning("old copy not removed file=%s error=%s", twin_path(path), error)


def read_optional(path: str, files: Files) -> bytes | None:
    """The content of a file; None where there is none."""
    try:
        return files.read_bytes(path)
    except FileNotFoundError:
        return None


def trouble(path: str, files: Files) -> str:
    """What is wrong with a file and its twin: `` (nothing, or neither is there), `twin`, `file` or `both`.

    The file counts where both are sound: a crash between the two writes leaves the twin as it was before.

    Raises:
        OSError: one of them cannot be read.
    """
    own, twin = read_optional(path, files), read_optional(twin_path(path), files)
    if own is not None and unseal(own.rstrip(b"\n")) is not None:
        return "" if own == twin else "twin"
    if twin is not None and unseal(twin.rstrip(b"\n")) is not None:
        return "file"
    return "" if own is None and twin is None else "both"


def settle(path: str, files: Files, *, sync: bool) -> None:
    """Make a file and its twin whole, where one of them is sound. Costs two looks where both are.

    Raises:
        OSError: it cannot be read or written.
    """
    wrong = trouble(path, files)
    if wrong in ("file", "twin"):
        write_twice(path, files.read_bytes(path if wrong == "twin" else twin_path(path)), files, sync=sync)
