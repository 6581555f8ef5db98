"""All metrics of a node: those that it makes itself, and those that are put.

What the node makes is summed up in memory, by the minute, and written by a thread of the node that runs anyway while
something happens; what is put is written before it is acknowledged. Any thread may use this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from kflow.broker.folder import DataFolder
from kflow.broker.metricpoints import (
    MINUTE_S,
    MINUTES_S,
    Dimensions,
    MetricPoints,
    Point,
    Row,
    Series,
    nothing,
)

_EXPIRE_S: Final = 600
"""What is too old is looked for this often, while something is written."""
_MOST: Final = 10_000
"""So many series wait in memory; what the node makes beyond is counted, and not kept."""


class Put(NamedTuple):
    """One that is put.

    Attributes:
        series: what it is of.
        at_s: when it was, seconds since the epoch.
        step_s: 1 or 60.
        point: the values.
    """

    series: Series
    at_s: int
    step_s: int
    point: Point


class Measures:
    """Of a data folder.

    Args:
        folder: the data folder.
        now_s: the clock.

    Attributes:
        changed: called, in any thread, when something is there to be written.
        sources: called, in the thread that writes, before it does: they note what they have counted.
        dropped: values that were not kept.
    """

    def __init__(self, folder: DataFolder, now_s: Callable[[], float] = time.time) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.sources: list[Callable[[], object]] = []
        self.dropped = 0
        self._folder = folder
        self._now_s = now_s
        self._pending: dict[tuple[Series, int], Point] = {}
        self._pending_lock = threading.Lock()
        self._is_late = False  # they could not be written
        self._store: MetricPoints | None = None
        self._lock = threading.Lock()
        self._expired_s = 0.0

    # ------------------------------------------------------------------ what the node makes

    def note(
        self,
        namespace: str,
        name: str,
        point: Point,
        dimensions: Dimensions,
        *,
        unit: str = "Count",
        place: tuple[str, str] | None = None,
    ) -> None:
        """Values of now: 2 us.

        Args:
            namespace: for example `AWS/Lambda`.
            name: of the metric.
            point: the values, at least one; copied.
            dimensions: names and values, in the order of names.
            unit: as CloudWatch calls it.
            place: account and region; None: those of the data folder.
        """
        if place is None:
            kept = self._folder.format
            place = (kept.account, kept.region)
        key = (Series(*place, namespace, name, dimensions, unit), int(self._now_s()) // MINUTE_S * MINUTE_S)
        with self._pending_lock:
            known = self._pending.get(key)
            if known is None:
                if len(self._pending) >= _MOST:
                    self.dropped += 1
                    return
                known = self._pending[key] = nothing()
            is_first = self._is_late or (len(self._pending) == 1 and not known.count)
            self._is_late = False
            known.add(point)
        if is_first:
            self.changed()

    def touch(self) -> None:
        """A source has something to note. From any thread."""
        self.changed()

    # ------------------------------------------------------------------ in a thread that may wait for the disk

    def flush(self) -> None:
        """Write what the node made.

        Raises:
            StorageError: it cannot be written; it is kept in memory.
        """
        for source in tuple(self.sources):
            source()
        with self._pending_lock:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            self.put([Put(series, at_s, MINUTE_S, point) for (series, at_s), point in pending.items()])
        except BaseException:
            with self._pending_lock:
                for key, point in self._pending.items():
                    pending.setdefault(key, nothing()).add(point)
                self._pending = pending
                self._is_late = True
            raise

    def put(self, points: Iterable[Put]) -> None:
        """Keep these, all or none of them.

        Raises:
            StorageError: they cannot be kept.
        """
        now_s = self._now_s()
        with self._lock:
            store = self._opened()
            with store.turn():
                for put in points:
                    store.add(put.series, put.at_s // put.step_s * put.step_s, put.step_s, put.point)
                if now_s - self._expired_s >= _EXPIRE_S:
                    store.expire(int(now_s))
            if now_s - self._expired_s >= _EXPIRE_S:
                self._expired_s = now_s

    def rows(self, wanted: Series, start_s: int, end_s: int) -> Sequence[Row]:
        """The rows of a metric; of all units where `unit` is empty."""
        self.flush()
        with self._lock:
            return list(self._opened().rows(wanted, start_s, end_s))

    def metrics(self, account: str, region: str, *, since_s: int | None = None) -> list[Series]:
        """The metrics of a place that have values since then; None: since they are kept."""
        self.flush()
        with self._lock:
            oldest_s = int(self._now_s()) - MINUTES_S if since_s is None else since_s
            return self._opened().metrics(account, region, since_s=oldest_s)

    def clear(self) -> None:
        """Forget all."""
        with self._pending_lock:
            self._pending = {}
        with self._lock:
            store = self._opened()
            with store.turn():
                store.clear()

    def close(self) -> None:
        """Write what is there, and close the file."""
        self.flush()
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _opened(self) -> MetricPoints:
        if self._store is None:
            self._store = MetricPoints(self._folder)
        return self._store
