"""States of tumbling windows: a side file each, written whole and made durable before the slot names it.

    checkpoints/<function>/<stream id>.windows/<shard>/<number>

A slot holds the number, length and checksum of its state; a file that does not have them is not its. Numbers rise, so
that the file of an earlier state is there as long as one of the slot's two copies names it. Only the worker that holds
the lease of the shard writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from crc32c import crc32c

from kflow.broker.files import Files, storage_error
from kflow.broker.slots import Slot


class WindowStore:
    """The states of one data folder. Any process; not thread-safe."""

    def __init__(self, folder_path: str | os.PathLike[str], files: Files, fsync: str = "interval") -> None:
        """Use a data folder.

        Args:
            folder_path: the data folder.
            files: the file calls.
            fsync: the data folder's policy; with `none` nothing is synced here either.
        """
        self._path = os.fspath(folder_path)
        self._files = files
        self._sync = fsync != "none"

    def put(self, function: str, stream_id: int, shard: int, number: int, state: bytes) -> None:
        """Keep a state. On return it survives the death of any process, and with any policy but `none` power loss.

        Args:
            function: name of the function.
            stream_id: id of the stream.
            shard: index of the shard.
            number: of the state, higher than that of any other of this shard that a slot names.
            state: its JSON.

        Raises:
            StorageError: it could not be written.
        """
        folder = self._folder(function, stream_id, shard)
        try:
            try:
                self._files.write_replace(os.path.join(folder, str(number)), state, sync=self._sync)
            except FileNotFoundError:
                self._files.make_folder(folder, sync=self._sync)
                self._files.write_replace(os.path.join(folder, str(number)), state, sync=self._sync)
        except OSError as error:
            raise storage_error(error, f"write the window state of {function}, shard {shard}") from error

    def get(self, function: str, stream_id: int, shard: int, number: int) -> bytes | None:
        """A state; None where there is none of that number.

        Raises:
            StorageError: it cannot be read.
        """
        path = os.path.join(self._folder(function, stream_id, shard), str(number))
        try:
            return self._files.read_bytes(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, f"read the window state {path}") from error

    def prune(self, function: str, stream_id: int, shard: int, keep: Iterable[int]) -> None:
        """Remove all states of a shard but those of some numbers, and what half-written files there are.

        Raises:
            StorageError: the folder cannot be read, or a file not be removed.
        """
        folder = self._folder(function, stream_id, shard)
        kept = {str(number) for number in keep}
        try:
            for name in self._files.listdir(folder):
                if name not in kept:
                    self._files.discard(os.path.join(folder, name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, f"clear away window states of {function}, shard {shard}") from error

    def _folder(self, function: str, stream_id: int, shard: int) -> str:
        return os.path.join(windows_path(self._path, function, stream_id), str(shard))


def names(slot: Slot, state: bytes | None) -> bool:
    """Whether a slot's state is this one, whole; the fresh one, which has no file, is no bytes or None."""
    if not state:
        return not slot.state_bytes
    return slot.state_bytes == len(state) and slot.state_crc == crc32c(state)


def precedes(before: Slot, slot: Slot) -> bool:
    """Whether a slot has the state that the same window had just before that of `slot`."""
    return (before.window_start_s, before.state_number) == (slot.window_start_s, slot.state_number - 1)


def windows_path(folder_path: str | os.PathLike[str], function: str, stream_id: int) -> str:
    """The folder of a consumer's window states in the data folder."""
    return os.path.join(os.fspath(folder_path), "checkpoints", function, f"{stream_id:016x}.windows")
