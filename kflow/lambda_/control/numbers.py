"""The last version number of functions that were deleted: one of the same name goes on behind it.

    lambda/numbers/<name>.json                       of the folder's own account and region
    lambda/numbers/<region>.<account>/<name>.json    of others

Source: documented: configuration-versions: Lambda does not use a version number again, not even for a function that was
deleted and created again. Chosen: so it is for the last `MOST` names that went; of what never had a version nothing is
kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import msgspec

from kflow.aws.calls import Place
from kflow.broker import documents
from kflow.broker.folder import DataFolder
from kflow.errors import KflowError
from kflow.lambda_.control.facts import Facts

FOLDER: Final = "lambda/numbers"
MOST: Final = 1000


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """Of a function that was deleted.

    Attributes:
        last: number of the newest version that it ever had, from 1.
        deleted_ms: when it went, milliseconds since the epoch.
    """

    name: str
    account: str
    region: str
    last: int
    deleted_ms: int


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_READER: Final = msgspec.json.Decoder(Number)


class Numbers:
    """All of them. Belongs to the loop's thread, but for `write`.

    Args:
        folder: the data folder.
        home: account and region of the data folder.
    """

    def __init__(self, folder: DataFolder, home: Place) -> None:
        self._folder = folder
        self._home = home
        self._numbers: dict[tuple[Place, str], Number] = {}  # in the order in which they went

    def load(self, tell: Callable[[KflowError], object]) -> None:
        """At the start; told what cannot be read: numbers of that name begin at 1 again."""
        root = os.path.join(self._folder.path, FOLDER)
        found = []
        for path, each in documents.load_all(root, _READER, self._folder.files):
            if isinstance(each, KflowError):
                tell(each)
                continue
            number = each
            if os.path.dirname(path) == root:  # of home, whatever that is called now
                number = msgspec.structs.replace(each, account=self._home.account, region=self._home.region)
            found.append(number)
        for number in sorted(found, key=lambda each: each.deleted_ms):
            self._numbers[Place(number.account, number.region), number.name] = number

    def last(self, place: Place, name: str) -> int:
        """Number of the newest version that a function of this name ever had; 0: none is known."""
        found = self._numbers.get((place, name))
        return 0 if found is None else found.last

    def leave(self, facts: Facts, now_ms: int) -> list[Facts]:
        """A function goes: its number stays.

        Returns:
            Those that went longest ago and are beyond `MOST`: forgotten here, their documents are to be written.
        """
        if not facts.last_version:
            return []
        key = Place(facts.account, facts.region), facts.name
        self._numbers.pop(key, None)
        self._numbers[key] = Number(
            name=facts.name, account=facts.account, region=facts.region, last=facts.last_version, deleted_ms=now_ms
        )
        gone = [self._numbers.pop(each) for each in list(self._numbers)[:-MOST]]
        return [_bare(each) for each in gone]

    def clear(self) -> list[Facts]:
        """Forget all; returns those whose documents are to be written."""
        gone = [_bare(each) for each in self._numbers.values()]
        self._numbers.clear()
        return gone

    def write(self, place: Place, name: str) -> None:
        """Write the document of a name, or remove it where nothing is kept: in a thread.

        Raises:
            StorageError: what was there stands.
        """
        number = self._numbers.get((place, name))
        folder = FOLDER if place == self._home else f"{FOLDER}/{place.region}.{place.account}"
        documents.keep(os.path.join(self._folder.path, folder, documents.file_name(name)), number, self._folder)


def _bare(number: Number) -> Facts:
    return Facts(name=number.name, account=number.account, region=number.region)
