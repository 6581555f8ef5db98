"""The disk of a simulated machine as an onlooker sees it: logs, control pages and slots, read by the real readers."""

from __future__ import annotations

from collections.abc import Iterator

from kflow.broker.checkpoints import Slot, SlotFile
from kflow.broker.ctl import Ctl
from kflow.broker.files import Files
from kflow.broker.folder import DataFolder
from kflow.broker.reader import ShardReader
from kflow.broker.streammap import StreamMap


class View:
    """Reads one stream of a data folder.

    Attributes:
        stream: the newest map; None before there is one.
    """

    def __init__(self, path: str, files: Files) -> None:
        self.stream: StreamMap | None = None
        self._path = path
        self._files = files
        self._folder: DataFolder | None = None
        self._readers: dict[int, ShardReader] = {}

    def look_anew(self, files: Files) -> None:
        """The machine was started anew: nothing that was opened before is what lies there now."""
        self._files = files
        self._folder = None
        self._readers.clear()

    def reader(self, index: int) -> ShardReader:
        """Of a shard."""
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = ShardReader(self._open_folder(), self._known_stream(), index)
        return reader

    def tail(self, index: int) -> int:
        """Where a shard ends."""
        return self.reader(index).tail

    def words(self, index: int) -> memoryview:
        """The control page of a shard."""
        path = self._open_folder().shard_dir(self._known_stream(), index)
        return Ctl.open(str(path), self._files, write=False).words

    def read(self, index: int, offset: int) -> list[tuple[int, int, list[bytes], list[str]]]:
        """The blocks of a shard from an offset on: (first counter, end, payloads, keys)."""
        reader = self.reader(index)
        found = []
        while blocks := reader.read(offset):
            found += [(block.first_counter, block.end, *block.columns()) for block in blocks if block.count]
            if blocks[-1].end <= offset:
                break
            offset = blocks[-1].end
        return found

    def slots(self, function: str) -> Iterator[tuple[int, int, Slot, Slot | None]]:
        """What lies in the slots of a function: (shard, lane, slot, the copy before it)."""
        slots = SlotFile.open(self._path, function, self._known_stream().id, files=self._files)
        try:
            for shard, lane in slots.keys():  # noqa: SIM118  # no mapping
                yield shard, lane, slots.load(shard, lane), slots.before(shard, lane)
        finally:
            slots.close()

    def _open_folder(self) -> DataFolder:
        if self._folder is None:
            self._folder = DataFolder.open(self._path, files=self._files)
        return self._folder

    def _known_stream(self) -> StreamMap:
        assert self.stream is not None
        return self.stream
