"""Reads shards for whoever answers with records on the loop, which never waits for a disk.

    Reading.read ── in memory ─────────────────────────> page, at once
                └── the disk, or anything unusual ──> a thread ──> then(page), on the loop

Readers are kept open in an LRU, one a shard. A block that was cut by a page's limit is remembered, so that small pages
of a large block do not read it again each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from kflow import limits
from kflow.broker.asking import around_damage
from kflow.broker.reader import READ_BYTES, ShardReader
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.kinesis.host import Host
from kflow.kinesis.iterators import Start
from kflow.kinesis.page import Cut, Page, Rows, Span, read_page, trim_ms
from kflow.records import Position

__all__ = ["Page", "Reading", "Rows", "Span", "read_page", "trim_ms"]

READERS: Final = 128
"""Readers kept open: each holds a segment's descriptor and, before Python 3.13, its page's."""
_CUT_BLOCKS: Final = 4

Then = Callable[[Page | KflowError], object]


class Reading:
    """Reads shards for the loop. Its methods belong to the loop's thread, and never wait for a disk.

    Args:
        host: whose folder and threads it uses.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._readers: OrderedDict[tuple[int, int], ShardReader] = OrderedDict()
        self._cuts: OrderedDict[tuple[int, int, int], Cut] = OrderedDict()
        self._buffer = memoryview(b"")

    def read(
        self,
        stream: StreamMap,
        shard: int,
        position: Position,
        then: Then,
        *,
        limit: int = limits.GET_RECORDS_ENTRIES,
        max_bytes: int = limits.GET_RECORDS_BYTES,
        first_bytes: int | None = None,
        oldest_ms: int = 0,
    ) -> Page | None:
        """Read a page: see `read_page`. A page of 1,000 records or 512 KiB takes about half a millisecond.

        Returns:
            The page, if all of it was in memory: `then` is not called. None: it will be, on the loop, with the page or
            the error.
        """
        info = stream.shards[shard]
        key = (stream.id, shard)
        cut = self._cuts.get((stream.id, shard, position.offset))
        reader = self._readers.get(key)
        if reader is not None:
            buffer = self._buffer or self._made_buffer()
            page = read_page(
                reader,
                info,
                position,
                limit=limit,
                max_bytes=max_bytes,
                first_bytes=first_bytes,
                oldest_ms=oldest_ms,
                buffer=buffer,
                cut=cut,
            )
            if page is not None:
                self._readers.move_to_end(key)
                if page.cut is not None:
                    self._remember(stream.id, page.cut, shard)
                return page

        def work(reader: ShardReader) -> Page:
            page = read_page(
                reader,
                info,
                position,
                limit=limit,
                max_bytes=max_bytes,
                first_bytes=first_bytes,
                oldest_ms=oldest_ms,
                cut=cut,
            )
            assert page is not None  # without a buffer it waits
            return page

        def told(found: Page | KflowError) -> None:
            if isinstance(found, Page) and found.cut is not None:
                self._remember(stream.id, found.cut, shard)
            then(found)

        self._in_thread(stream, shard, work, told)
        return None

    def seek(
        self, stream: StreamMap, shard: int, start: Start, then: Callable[[Position | KflowError], object]
    ) -> Position | None:
        """Where to begin.

        Returns:
            The position, if no file need be looked at for it: `then` is not called. None: it will be, on the loop.
        """
        known = start.glance(self._readers.get((stream.id, shard)))
        if known is None:
            self.find(stream, shard, start.look, then)
        return known

    def find(
        self,
        stream: StreamMap,
        shard: int,
        look: Callable[[ShardReader], Position],
        then: Callable[[Position | KflowError], object],
    ) -> None:
        """Look a position up in a thread; `look` may be called again where it meets damage."""
        self._in_thread(stream, shard, look, then)

    def forget(self, stream_id: int) -> None:
        """A stream is gone: let go of its files."""
        for key in [key for key in self._readers if key[0] == stream_id]:
            self._readers.pop(key).close()
        for cut in [key for key in self._cuts if key[0] == stream_id]:
            del self._cuts[cut]

    def close(self) -> None:
        """Close all readers."""
        while self._readers:
            self._readers.popitem()[1].close()
        self._cuts.clear()

    def _in_thread(
        self,
        stream: StreamMap,
        shard: int,
        look: Callable[[ShardReader], Any],
        then: Callable[[Any], object],
    ) -> None:
        """Do something with a reader that nobody else has meanwhile."""
        key = (stream.id, shard)
        folder = self._host.folder
        taken = self._readers.pop(key, None)

        def work() -> tuple[ShardReader, Any]:
            reader = taken or ShardReader(folder, stream, shard)
            try:
                return reader, around_damage(folder, stream, shard, lambda: look(reader))
            except BaseException:
                reader.close()
                raise

        def told(result: tuple[ShardReader, Any] | KflowError) -> None:
            if isinstance(result, KflowError):
                then(result)
                return
            reader, found = result
            self._give_back(key, reader)
            then(found)

        self._host.submit(work, told)

    def _give_back(self, key: tuple[int, int], reader: ShardReader) -> None:
        if key in self._readers or self._host.stream_by_id(key[0]) is None:  # another thread was quicker, or it is gone
            reader.close()
            return
        self._readers[key] = reader
        while len(self._readers) > READERS:
            self._readers.popitem(last=False)[1].close()

    def _remember(self, stream_id: int, cut: Cut, shard: int) -> None:
        key = (stream_id, shard, cut.block.offset)
        self._cuts[key] = cut
        self._cuts.move_to_end(key)
        while len(self._cuts) > _CUT_BLOCKS:
            self._cuts.popitem(last=False)

    def _made_buffer(self) -> memoryview:
        self._buffer = memoryview(bytearray(READ_BYTES))
        return self._buffer
