"""Connections to the node, lent to one call each; and whether it lets clients go around its services."""

from __future__ import annotations

import os
import weakref
from collections import deque
from pathlib import Path

from kflow.broker import handshake, linking, wirecalls
from kflow.broker.folder import DataFolder
from kflow.broker.linking import Link
from kflow.errors import NoNode

PATIENCE_S = 60.0
"""How long a call may take. Source: botocore's read_timeout."""

_Identity = tuple[int, int, int]


class Links:
    """Of one client. Any thread may use it."""

    def __init__(self) -> None:
        self._idle: deque[tuple[Link, Path]] = deque()
        self._known: tuple[_Identity, bool] | None = None
        self._path: str | None = None
        self._folder: DataFolder | None = None
        _ALL.add(self)

    def call(self, folder: DataFolder, call: wirecalls.Call) -> wirecalls.CallAnswer:
        """Have the node perform a call.

        Raises:
            NoNode: none runs.
            KflowError: it is too old for this, or of another version.
            OSError: the connection was lost: perhaps it was performed, perhaps not.
        """
        path = folder.socket_path
        link = self._take(path) or self.connect(folder)
        try:
            answer = link.call(1, call)
        except BaseException:
            link.close()
            raise
        self._idle.append((link, path))
        return answer

    def connect(self, folder: DataFolder) -> Link:
        """A new connection.

        Raises:
            NoNode: none runs.
            UsageError: it is of another version.
            OSError: the connection was lost.
        """
        return linking.connect(folder.socket_path, handshake.own_hello(folder.id), timeout_s=PATIENCE_S)

    def is_guarded(self, folder: DataFolder) -> bool:
        """Whether a node runs that limits, delays or refuses calls on purpose. Costs one look at its socket."""
        path = self._path
        if path is None or self._folder is not folder:
            where = folder.socket_path
            path = str(where)
            # Elsewhere than in `run/` the next node may have it in another place.
            self._path, self._folder = path if where.parent.name == "run" else None, folder
        try:
            found = os.stat(path)  # noqa: PTH116  # before each put: a `Path` costs as much again
        except OSError:
            return False
        identity = (found.st_dev, found.st_ino, found.st_mtime_ns)
        known = self._known
        if known is None or known[0] != identity:
            try:
                link = self.connect(folder)
            except (NoNode, OSError):
                return False
            assert link.hello is not None
            known = self._known = (identity, link.hello.is_guarded)
            self._idle.append((link, folder.socket_path))
        return known[1]

    def close(self) -> None:
        """Close those that are idle."""
        while True:
            try:
                self._idle.popleft()[0].close()
            except IndexError:
                return

    def forget(self) -> None:
        """In a forked child: the parent's connections are not ours."""
        self.close()
        self._known = None

    def _take(self, path: Path) -> Link | None:
        while True:
            try:
                link, where = self._idle.pop()
            except IndexError:
                return None
            if where == path and link.is_intact() and link.is_alive():
                return link
            link.close()


_ALL: weakref.WeakSet[Links] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for links in list(_ALL):
        links.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
