"""What is known of an object besides its content: kept in a file beside it, only where the content does not tell.

Such a file holds one or two of them, the newer first, each with the content that it is of: it is written before the
content is put in place, so that whichever of the two contents a kill leaves, its own description is there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import msgspec

from kflow.broker import checked
from kflow.broker.files import Files

log = logging.getLogger(__name__)


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What whoever put an object said of it.

    Attributes:
        content_type: media type.
        headers: others of HTTP's that come back with it, by lower-case name, for example `cache-control`.
        metadata: the user's own, by name without `x-amz-meta-`.
        etag: 32 hexadecimal digits, or what else it is to be; empty: the MD5 of the content.
    """

    content_type: str = "binary/octet-stream"
    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    etag: str = ""


PLAIN = About()
"""What an object is that nobody said anything of."""


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


class Of(msgspec.Struct, frozen=True, array_like=True):
    """Which content a description is of: by its file, which is quickly seen, or by what survives a copy of the file.

    The time alone does not tell: file systems count it in milliseconds, some in seconds.
    """

    size: int
    modified_ns: int
    inode: int
    md5: str


class Described(msgspec.Struct, frozen=True):
    """A description and its content."""

    of: Of
    about: About = PLAIN


class Sidecar(msgspec.Struct, frozen=True):
    """What the file holds."""

    key: str
    versions: tuple[Described, ...] = ()

    def find(self, file: os.stat_result, md5: Callable[[], str]) -> Described | None:
        """The description of a content; None: it was not put here, or nothing is known of it.

        Args:
            file: that holds it.
            md5: computes that of the content; called only where the file was copied or touched.
        """
        for each in self.versions:
            if (each.of.size, each.of.modified_ns, each.of.inode) == (file.st_size, file.st_mtime_ns, file.st_ino):
                return each
        if not any(each.of.size == file.st_size for each in self.versions):
            return None
        found = md5()
        return next((each for each in self.versions if each.of.md5 == found), None)


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_decode = msgspec.json.Decoder(Sidecar).decode


def read(path: str, files: Files) -> Sidecar | None:
    """What is kept at a path; None: nothing. A damaged one is logged: then the content alone is known.

    Raises:
        OSError: it cannot be read.
    """
    text = checked.read_optional(path, files)
    if text is None:
        return None
    sound = checked.unseal(text)
    if sound is None:
        log.warning("description of an object is damaged, its content type and metadata are lost file=%s", path)
        return None
    return _decode(sound)


def write(path: str, sidecar: Sidecar, files: Files, *, sync: bool) -> None:
    """Keep it, in one step.

    Raises:
        OSError: it could not be written; what was kept stands.
    """
    files.write_replace(path, checked.seal(msgspec.json.encode(sidecar)), sync=sync)
