"""Bytes flipped in files, in place: the file stays the same one, as on a disk that forgets."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path


def flip(path: Path, at: int, mask: int = 0x41) -> None:
    """Change one byte."""
    fd = os.open(path, os.O_RDWR)
    try:
        (old,) = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([old ^ mask]), at)
    finally:
        os.close(fd)


def overwrite(path: Path, content: bytes) -> None:
    """Put back what a file held, in place."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
    finally:
        os.close(fd)


def flips(path: Path, *, seed: int, count: int | None = None) -> Iterator[int]:
    """Flip one byte after the other, each put back before the next: all of them, or `count` at random."""
    sound = path.read_bytes()
    rng = random.Random(seed)
    places = range(len(sound)) if count is None else sorted(rng.sample(range(len(sound)), min(count, len(sound))))
    for at in places:
        flip(path, at, rng.randrange(1, 256))
        yield at
        overwrite(path, sound)
