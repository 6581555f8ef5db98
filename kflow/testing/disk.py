"""A disk in memory that remembers what of it would survive a loss of power.

Every file has two contents: what its readers see, and what has been synced, with the list of writes between the two.
Names are kept likewise: a new name, a rename or a removal is only sure once a folder it touches was synced. A crash
image is what a machine might find after a loss of power: all that was synced, and any subset of the rest; a write of
several sectors may have reached the disk in part.

Mapped pages are written back whenever the kernel likes, so an image holds any state of them that was seen when a file
beside them was written or synced, or their last one, or none. One page is taken as whole: what is kept there lies
within its first sector.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from random import Random
from typing import Final

SECTOR_BYTES: Final = 512
_LARGE_BYTES: Final = 1 << 16
"""Writes from here on are torn at pages instead of sectors, which makes fewer pieces."""
_PAGE_BYTES: Final = 4096
_STATES: Final = 16
"""States of a mapped page that are remembered: older ones are thinned out."""
ROOT_INODE: Final = 2
CAPACITY_BYTES: Final = 1 << 40
"""Of a disk that is never full."""

_devices = itertools.count(0xFE00)


class Inode:
    """A file or a folder.

    Attributes:
        number: of the inode.
        data: content of a file, as its readers see it.
        synced: content of a file that is sure to be found again.
        pending: writes since then, as (offset, bytes); as (length, None) where the file was cut or lengthened.
        names: what a folder holds, None for a file.
        kept: what a folder is sure to hold.
        unsure: numbers of the renames that touch this folder and may be lost, oldest first.
        folder: where the file was last given a name.
        links: how many names it has.
        changed: a number that grows with every change on the disk, of the last change to this.
        pages: mapped files that were named in this folder.
        states: of a mapped file, as they were seen, oldest first.
        locks: who locked it, and whether exclusively.
        users: how many descriptors it has.
    """

    __slots__ = (
        "changed",
        "data",
        "folder",
        "kept",
        "links",
        "locks",
        "names",
        "number",
        "pages",
        "pending",
        "states",
        "synced",
        "unsure",
        "users",
    )

    def __init__(self, number: int, *, is_folder: bool) -> None:
        self.number = number
        self.data = bytearray()
        self.synced = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []
        self.names: dict[str, Inode] | None = {} if is_folder else None
        self.kept: dict[str, Inode] = {}
        self.unsure: list[int] = []
        self.folder: Inode | None = None
        self.links = 0
        self.changed = 0
        self.pages: list[Inode] = []
        self.states: list[bytes] | None = None
        self.locks: dict[object, bool] = {}
        self.users = 0

    def look(self) -> None:
        """Remember the state of a mapped file, for it may be written back now."""
        states = self.states
        if states is None:
            return
        state = bytes(self.data)
        if not states or states[-1] != state:
            states.append(state)
            if len(states) > _STATES:
                del states[1::2]


_Change = tuple[Inode, str, Inode | None]
"""A folder, a name in it, and what it means from now on."""


class Disk:
    """Files and folders, and what of them is sure. Any thread may use it, under `lock`.

    Attributes:
        device: number of the file system; an image has another one than the disk it was taken from.
        root: the folder at the top.
        lock: held for every change.
        unlocked: notified when somebody gives back a lock on a file; goes with `lock`.
        patience_s: how long a call waits for a lock on a file before it counts as blocked for ever.
        capacity_bytes: how many bytes of files fit.
        used_bytes: how many there are.
    """

    def __init__(self) -> None:
        self.device = next(_devices)
        self.lock = threading.RLock()
        self.unlocked = threading.Condition(self.lock)
        self.patience_s = 10.0
        self.capacity_bytes = CAPACITY_BYTES
        self.used_bytes = 0
        self._changes = itertools.count(1)
        self._numbers = itertools.count(ROOT_INODE)
        self._renames: dict[int, tuple[_Change, ...]] = {}  # those that may be lost, by a rising number
        self.root = self.make(is_folder=True)
        self.root.links = 1

    def make(self, *, is_folder: bool) -> Inode:
        """A file or folder without a name."""
        return self.touch(Inode(next(self._numbers), is_folder=is_folder))

    def touch(self, inode: Inode) -> Inode:
        """Note a change."""
        inode.changed = next(self._changes)
        return inode

    def write(self, inode: Inode, offset: int, content: bytes) -> int:
        """Write as much of `content` as there is room for; how many bytes that was."""
        data = inode.data
        end = offset + len(content)
        growth = end - len(data)
        if growth > 0:
            lacking = self.used_bytes + growth - self.capacity_bytes
            if lacking > 0:
                content = content[: max(0, len(content) - lacking)]
                if not content:
                    return 0
                end = offset + len(content)
                growth = max(0, end - len(data))
            self.used_bytes += growth
            if offset > len(data):
                data += bytes(offset - len(data))
        data[offset:end] = content
        inode.pending.append((offset, content))
        self._look_beside(inode)
        self.touch(inode)
        return len(content)

    def cut(self, inode: Inode, length: int) -> None:
        """Make a file `length` bytes long."""
        self.used_bytes += length - len(inode.data)
        _cut(inode.data, length)
        inode.pending.append((length, None))
        self._look_beside(inode)
        self.touch(inode)

    def rename(self, *changes: _Change) -> None:
        """Change names in folders, in one step."""
        for folder, name, inode in changes:
            names = folder.names
            assert names is not None
            old = names.pop(name, None)
            if inode is not None:
                names[name] = inode
                inode.folder = folder
                inode.links += 1
            if old is not None:
                old.links -= 1
            self.touch(folder)
        for _, _, inode in changes:
            if inode is not None and inode.states is not None:
                self.watch(inode)
        number = next(self._changes)
        self._renames[number] = changes
        for folder in {id(change[0]): change[0] for change in changes}.values():
            folder.unsure.append(number)

    def release(self, inode: Inode) -> None:
        """Free the room of a file if it has neither a name nor a descriptor."""
        if not inode.links and not inode.users:
            self.used_bytes -= len(inode.data)
            inode.data = bytearray()  # not emptied in place: it may be mapped

    def watch(self, inode: Inode) -> None:
        """From now on remember the states of this file: it is mapped."""
        if inode.states is None:
            inode.states = []
        if inode.folder is not None and inode not in inode.folder.pages:
            inode.folder.pages = [page for page in inode.folder.pages if page.links and page.folder is inode.folder]
            inode.folder.pages.append(inode)

    def sync(self, inode: Inode) -> None:
        """Make a file's content, or a folder's names, sure to be found again."""
        if inode.names is not None:
            self._sync_names(inode)
            return
        self._look_beside(inode)
        if inode.states is None:
            for offset, content in inode.pending:
                _apply(inode.synced, offset, content)
        else:
            inode.synced = bytearray(inode.data)
            inode.states.clear()
        inode.pending.clear()

    def image(self, random: Random, *, survives: float | None = None) -> Disk:
        """What might be found after a loss of power at this moment.

        Args:
            random: decides what survives.
            survives: 0: nothing that was not synced; 1: everything; None: any subset.
        """
        chance = survives if survives is not None else random.choice((0.1, 0.5, 0.9))
        image = Disk()
        image.capacity_bytes = self.capacity_bytes
        names = {self.root.number: dict(self.root.kept)}

        def named(folder: Inode) -> dict[str, Inode]:
            return names.setdefault(folder.number, dict(folder.kept))

        # File systems with a journal keep the order of such changes, others do not: either may be met.
        count = len(self._renames)
        ordered = survives is None and random.random() < 0.5
        until = random.randint(0, count) if ordered else count
        for changes in list(self._renames.values())[:until]:
            if ordered or random.random() < chance:
                for folder, name, inode in changes:
                    if inode is None:
                        named(folder).pop(name, None)
                    else:
                        named(folder)[name] = inode
        copies: dict[int, Inode] = {self.root.number: image.root}
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            target = copies[folder.number]
            for name, inode in named(folder).items():
                copy = copies.get(inode.number)
                if copy is None:
                    copy = copies[inode.number] = Inode(inode.number, is_folder=inode.names is not None)
                    copy.changed = inode.changed
                    if inode.names is None:
                        copy.data = _content(inode, random, chance, whole=survives is not None)
                        copy.synced = bytearray(copy.data)
                        image.used_bytes += len(copy.data)
                    else:
                        waiting.append(inode)
                copy.links += 1
                copy.folder = target
                assert target.names is not None
                target.names[name] = target.kept[name] = copy
        image._numbers = itertools.count(next(self._numbers) + 1)
        image._changes = itertools.count(next(self._changes) + 1)
        return image

    def _look_beside(self, inode: Inode) -> None:
        if inode.folder is not None:
            for page in inode.folder.pages:
                page.look()

    def _sync_names(self, folder: Inode) -> None:
        settled: dict[tuple[int, str], int] = {}
        elsewhere: set[int] = set()
        for number in folder.unsure:
            changes = self._renames.pop(number, None)
            if changes is None:  # a sync of the other folder has made it sure
                continue
            for where, name, inode in changes:
                if inode is None:
                    where.kept.pop(name, None)
                else:
                    where.kept[name] = inode
                settled[where.number, name] = number
                if where is not folder:
                    elsewhere.add(where.number)
        folder.unsure.clear()
        if elsewhere:
            self._void(settled)

    def _void(self, settled: dict[tuple[int, str], int]) -> None:
        """Of what may be lost, forget the changes of names that a later and sure change has overtaken."""
        for number, changes in list(self._renames.items()):
            left = tuple(each for each in changes if settled.get((each[0].number, each[1]), 0) < number)
            if left:
                self._renames[number] = left
            else:
                del self._renames[number]


def _content(inode: Inode, random: Random, chance: float, *, whole: bool) -> bytearray:
    states = inode.states
    if states is not None:
        if whole and chance == 1:
            return bytearray(inode.data)
        if not whole:
            chosen = random.randint(-2, len(states) - 1)
            if chosen == -1:
                return bytearray(inode.data)
            if chosen >= 0:
                return bytearray(states[chosen])
    content = bytearray(inode.synced)
    for offset, written in inode.pending:
        if not whole and written is not None and len(written) > SECTOR_BYTES and random.random() < 0.2:
            for start, piece in _pieces(offset, written):
                if random.random() < chance:
                    _apply(content, start, piece)
        elif random.random() < chance:
            _apply(content, offset, written)
    return content


def _pieces(offset: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """A write, cut at the sectors of the disk."""
    size = SECTOR_BYTES if len(content) < _LARGE_BYTES else _PAGE_BYTES
    start = 0
    while start < len(content):
        end = min(len(content), (offset + start) // size * size + size - offset)
        yield offset + start, content[start:end]
        start = end


def _apply(content: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        _cut(content, offset)
        return
    if offset > len(content):
        content += bytes(offset - len(content))
    content[offset : offset + len(written)] = written


def _cut(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content += bytes(length - len(content))
