"""A small state that is kept in one self-checked file, which is written anew after each change.

Changes that come while it is being written go together with the next write. Where a write fails, who made the change is
told, the file stands as it was, and the change goes with the next write that succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kflow.broker import checked
from kflow.broker.files import Files, storage_error
from kflow.broker.folder import DataFolder
from kflow.broker.host import Host
from kflow.errors import Damaged, KflowError
from kflow.interfaces import Done


class StateFile:
    """Writes the file. Belongs to the loop's thread.

    Args:
        host: the node.
        name: of the file in the data folder.
        content: the state at this moment, as a JSON object with at least one member.
    """

    def __init__(self, host: Host, name: str, content: Callable[[], bytes]) -> None:
        self._host = host
        self._path = os.path.join(host.folder.path, name)
        self._content = content
        self._waiting: list[Done] = []
        self._is_writing = False

    def keep(self, told: Done) -> None:
        """Keep the state as it is now; `told` is told None when it is durable, else why it is not."""
        self._waiting.append(told)
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        text = checked.seal(self._content()) + b"\n"
        folder = self._host.folder
        self._is_writing = True

        def write() -> None:
            try:
                checked.write_twice(self._path, text, folder.files, sync=folder.syncs)
            except OSError as error:
                raise storage_error(error, f"write {self._path}") from error

        def written(failure: KflowError | None) -> None:
            self._is_writing = False
            if self._waiting:
                self._write()
            for told in waiting:
                told(failure)

        self._host.submit(write, written)


def load(folder: DataFolder, name: str) -> bytes | None:
    """What was kept; None: nothing was.

    Raises:
        StorageError: it cannot be read.
        Damaged: neither the file nor its twin is sound.
    """
    return read(os.path.join(folder.path, name), folder.files)


def read(path: str, files: Files) -> bytes | None:
    """What a file or its twin holds; None: neither is there.

    Raises:
        StorageError: it cannot be read.
        Damaged: neither is sound.
    """
    is_there = False
    for each in (path, checked.twin_path(path)):
        try:
            text = checked.read_optional(each, files)
        except OSError as error:
            raise storage_error(error, f"read {each}") from error
        if text is not None:
            is_there = True
            sound = checked.unseal(text.rstrip(b"\n"))
            if sound is not None:
                return sound
    if is_there:
        raise Damaged(f"{path} and its copy are damaged: what was in them is lost; remove both to begin anew")
    return None
