"""Hash keys: MD5 of partition keys, the ranges of shards, and lanes.

A hash key is a 128-bit integer. Routing compares 16-byte big-endian texts instead, which sort alike and cost half.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from typing import Any, Final

try:  # CPython's own MD5 costs 290 ns a key, OpenSSL's 720; some builds lack it
    md5: Callable[[bytes], Any] = importlib.import_module("_md5").md5
except ImportError:  # pragma: no cover
    md5 = functools.partial(hashlib.md5, usedforsecurity=False)


LANES: Final = 2520
"""MD5 modulo this is stored with each record: it divides by 1 to 10, so a lane of any factor needs no hashing."""

HASH_KEY_END: Final = (1 << 128) - 1


def digest(key: str) -> bytes:
    """MD5 of the key's UTF-8 bytes: 16 bytes, the hash key in big-endian order."""
    hashed: bytes = md5(key.encode()).digest()
    return hashed


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Cut the hash keys into `count` ranges as CreateStream does: first and last hash key of each, both included.

    Source: recorded: each range is floor(2**128 / count) wide; the last takes the rest.
    """
    width = (1 << 128) // count
    return [(i * width, (i + 1) * width - 1 if i < count - 1 else HASH_KEY_END) for i in range(count)]


def middle(start: int, end: int) -> int:
    """The first hash key of the upper half of a range whose first and last hash key are given."""
    return start + (end - start + 1) // 2
