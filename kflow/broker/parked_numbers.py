"""The numbers of parked batches: the last one that was given, and what the latest of them hold.

    parked/last_number    17
                          17 bill/000000000000002a.0.00000000000000000101-00000000000000000200
                          16 ship/000000000000002b.3.00000000000000000001-00000000000000000001

Who parks learns from it what others have parked since, and needs not list thousands of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from kflow.broker.files import Files

_LATEST: Final = 64
T = TypeVar("T")


class Noted(NamedTuple):
    """What the file says.

    Attributes:
        last: the last number that was given; 0: none was.
        recent: the latest numbers and what they hold, the last one first.
    """

    last: int
    recent: Sequence[tuple[int, str]]


class Numbers:
    """The file. Whoever writes it holds the lock of the store.

    Args:
        path: of the file.
        files: the file calls.
    """

    def __init__(self, path: str, files: Files) -> None:
        self._path = path
        self._files = files
        self._is_sure = False

    def noted(self, greatest: Callable[[], int]) -> Noted:
        """What is noted.

        Args:
            greatest: the greatest number that there is: a loss of power may have taken what was noted, and with it the
                process that noted it.
        """
        noted = self._read()
        if noted.last and self._is_sure:
            return noted
        self._is_sure = True
        last = max(noted.last, greatest())
        return noted if last == noted.last else Noted(last, ())

    def take(self, noted: Noted, key: str) -> None:
        """Note the next number before it is used, so that none is given twice."""
        number = noted.last + 1
        recent = [(number, key), *noted.recent[: _LATEST - 1]]
        lines = "".join(f"{number} {key}\n" for number, key in recent)
        self._files.write_replace(self._path, f"{number}\n{lines}".encode(), sync=False)

    def recent(self, number: int, made: Callable[[str, int], T]) -> T | None:
        """What one of the latest numbers holds, of its key; None: it is none of these, or that cannot be read."""
        try:
            noted = self._read()
        except OSError:  # the names of the files tell the same, later
            return None
        return next((made(key, number) for each, key in noted.recent if each == number), None)

    def _read(self) -> Noted:
        """Lines that cannot be read say nothing."""
        try:
            first, *lines = self._files.read_bytes(self._path).decode("utf-8", "replace").splitlines()
        except (FileNotFoundError, ValueError):
            return Noted(0, ())
        recent: list[tuple[int, str]] = []
        for line in lines:
            number, _, key = line.partition(" ")
            if number.isdecimal() and key:
                recent.append((int(number), key))
        return Noted(int(first) if first.isdecimal() else 0, recent)
