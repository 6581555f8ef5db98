"""What cannot be read: put to the writer once, in a thread of its own; then whoever waits for it goes on."""

from __future__ import annotations

from collections.abc import Callable

from kflow.broker.damage import LostRange
from kflow.broker.log import Log
from kflow.broker.quarantine import quarantine
from kflow.broker.sequence import shard_id
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError
from kflow.runtime.upkeep import Upkeep

Told = Callable[[KflowError | None], None]


class DamageWatch:
    """Only the writer says that records are lost. Belongs to the node's loop, and never waits.

    Args:
        store: the log, with its writer lock held.
        upkeep: whose threads do the work.
        notice: tells people, as (level, text).
        looked: called with (stream id, shard) once the writer has looked: readers may try again.
    """

    def __init__(
        self,
        store: Log,
        upkeep: Upkeep,
        notice: Callable[[str, str], None],
        looked: Callable[[int, int], None],
    ) -> None:
        self._log = store
        self._upkeep = upkeep
        self._notice = notice
        self._looked = looked
        self._under_way: dict[tuple[int, int, int], list[Told]] = {}
        self._failed: dict[tuple[int, int, int], str] = {}

    def found(self, stream: StreamMap, shard: int, offset: int, told: Told | None = None) -> None:
        """Somebody cannot read the block at a logical offset. A worker tries again when its lease is due.

        Args:
            stream: map of the stream.
            shard: index of the shard.
            offset: `Damaged.offset`.
            told: called once the writer has looked, with why it could not; None where reading can go on.
        """
        key = (stream.id, shard, offset)
        waiting = self._under_way.get(key)
        if told is not None and waiting is not None:
            waiting.append(told)
        if waiting is not None:
            return
        self._under_way[key] = [] if told is None else [told]
        self._upkeep.submit(
            lambda: quarantine(self._log, stream, shard, offset), lambda result: self._done(key, stream, result)
        )

    def _done(self, key: tuple[int, int, int], stream: StreamMap, result: LostRange | KflowError | None) -> None:
        failure = result if isinstance(result, KflowError) else None
        for told in self._under_way.pop(key):
            told(failure)
        where = f"{stream.name}/{key[1]}"
        if isinstance(result, KflowError):
            if self._failed.get(key) != str(result):  # the worker comes again, with the same
                self._failed[key] = str(result)
                self._notice("error", f"{where} cannot be read at byte {key[2]}, nor put aside: {result}")
            return
        self._failed.pop(key, None)
        if result is not None:
            self._notice(
                "error",
                f"{where}: {result.records:,} records of {shard_id(key[1])} are damaged on the disk and lost "
                f"(bytes {result.start} to {result.end}); consumers go on behind them",
            )
        self._looked(key[0], key[1])
