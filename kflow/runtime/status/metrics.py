"""Metrics of a running node, as Prometheus text in `metrics.prom` in the data folder.

Written from a thread of its own when something has changed, at most every 5 s, and at the stop. Numbers of records come
from the files (slots, control pages), so counters go on over restarts and no lost line is missing in them. What has
changed is read, and nothing else: a round costs by what happened, not by how many shards there are.

The same thread sees to it that no function's log grows past all bounds while something runs.
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from kflow.broker.checkpoints import SlotFile, slots_path
from kflow.broker.folder import DataFolder
from kflow.broker.metricpoints import of
from kflow.broker.streammap import StreamMap
from kflow.errors import KflowError, ResourceNotFound
from kflow.interfaces import BatchOutcome
from kflow.monitoring.measures import Measures
from kflow.runtime.feed import Listener, ReadyInfo, Summary
from kflow.runtime.measures.kinesis import KinesisMeasures
from kflow.runtime.measures.lambda_ import MILLISECONDS, LambdaMeasures
from kflow.runtime.plan.leases import Lease, LeaseState, Place, PlaceState
from kflow.runtime.status import survey
from kflow.runtime.status.behind import Budget
from kflow.runtime.status.prometheus import Family, Labels, lines
from kflow.runtime.status.report import waits_for
from kflow.runtime.worker.logfiles import cut_overlong, functions, log_path

log = logging.getLogger(__name__)

FILE_NAME: Final = "metrics.prom"
INTERVAL_S: Final = 5.0
"""No file is written sooner than this after the one before it."""
SHARE: Final = 25
"""And not before this many times the CPU time that it took: a thousand busy shards must not cost more than 4 %."""
_FIRST_S: Final = 1.0
"""The first one comes this long after the start: until then the node has other things to do."""
_LINES: Final = 500
"""So many lines are made before other threads get a turn."""

_SHARD: Final = (
    (Family("kflow_records_total", "counter", "Records ever put."), "stored"),
    (Family("kflow_stored_records", "gauge", "Records that can be read."), "records"),
    (Family("kflow_stored_bytes", "gauge", "Bytes of the log that they take."), "bytes"),
)
_CONSUMER: Final = (
    (Family("kflow_succeeded_records_total", "counter", "Records settled by success."), "succeeded"),
    (Family("kflow_delivered_records_total", "counter", "Records handed to attempts, repeats included."), "delivered"),
    (Family("kflow_parked_records_total", "counter", "Records given up and parked."), "parked"),
    (Family("kflow_dropped_records_total", "counter", "Records given up and kept nowhere."), "dropped"),
    (Family("kflow_lost_records_total", "counter", "Records that retention or damage took unread."), "lost"),
    (Family("kflow_invocations_total", "counter", "Attempts begun."), "invocations"),
    (Family("kflow_failed_invocations_total", "counter", "Attempts that failed."), "failures"),
    (Family("kflow_behind_records", "gauge", "Records not settled; with several lanes an estimate."), "behind"),
    (Family("kflow_blocked_lanes", "gauge", "Lanes whose batch has failed, and is tried again."), "is_blocked"),
    (Family("kflow_suspect_lanes", "gauge", "Lanes whose batch is suspected of bringing runtimes down."), "suspect"),
)
_DAMAGED: Final = Family("kflow_damaged_records_total", "counter", "Records that power loss or damage took.")
_AGE: Final = Family("kflow_iterator_age_seconds", "gauge", "Age of the oldest record not settled, when written.")
_OLDEST: Final = Family("kflow_oldest_record_timestamp_seconds", "gauge", "Arrival of the oldest record not settled.")
_UP: Final = Family("kflow_up", "gauge", "1 while the runtime runs, 0 once it has stopped.")
_INFO: Final = Family("kflow_info", "gauge", "Always 1; what runs.")
_STARTED: Final = Family("kflow_start_time_seconds", "gauge", "When the runtime started.")
_WRITTEN: Final = Family("kflow_written_timestamp_seconds", "gauge", "When this was written.")
_FREE: Final = Family("kflow_free_bytes", "gauge", "Free space below the data folder.")
_WORKERS: Final = Family("kflow_workers", "gauge", "Worker processes.")
_LANES: Final = Family("kflow_lanes", "gauge", "Lanes, by whether they run or what they wait for.")
_FUNCTION: Final = (
    (Family("kflow_function_invocations_total", "counter", "Invocations since the runtime's start."), "invocations"),
    (Family("kflow_function_errors_total", "counter", "Those of them that failed."), "errors"),
    (Family("kflow_function_throttles_total", "counter", "Invocations that had no room, likewise."), "throttles"),
)
_DURATION: Final = Family("kflow_function_duration_seconds_total", "counter", "How long they ran in all.")
_HIDDEN: Final = Family("kflow_dropped_lines_total", "counter", "Lines for people that came faster than they went.")

_Shard = tuple[str, int]


class Table(Protocol):
    """The node's leases and places. `kflow.runtime.plan.leases.LeaseTable` is one."""

    leases: dict[int, Lease]
    places: dict[int, Place]


class Feed(Protocol):
    """What people are told. `kflow.runtime.feed.Feed` is one."""

    dropped: int


class Metrics:
    """Collects, and writes. `appended` and `outcome` may be called from any thread, and cost next to nothing."""

    def __init__(
        self, folder: DataFolder, *, interval_s: float = INTERVAL_S, first_s: float = _FIRST_S, share: int = SHARE
    ) -> None:
        self.path = folder.path / FILE_NAME
        self._folder = folder
        self._interval_s = interval_s
        self._first_s = first_s
        self._share = share
        self._started_s = time.time()
        self._table: Table | None = None
        self._feed: Feed | None = None
        self._measures: Measures | None = None
        self._lambda: LambdaMeasures | None = None
        self._kinesis: KinesisMeasures | None = None
        self._has_looked = False
        self._lock = threading.Lock()
        """Whoever collects holds it."""
        self._changes: set[_Shard] = set()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kflow-metrics", daemon=True)
        self._samples: dict[Family, dict[Labels, float]] = {}
        self._known: set[_Shard] = set()
        self._hidden = 0
        self._trouble = ""
        self._version = importlib.metadata.version("kflow-streams")

    # ------------------------------------------------------------------ what happens

    def appended(self, stream: StreamMap, shard: int) -> None:
        """Something was appended to a shard."""
        self._changes.add((stream.name, shard))
        if not self._changed.is_set():
            self._changed.set()

    def outcome(self, outcome: BatchOutcome) -> None:
        """A batch has an outcome."""
        if self._lambda is not None:
            self._lambda.outcome(outcome)
        if not outcome.shard_id:  # of a queue
            return
        self._changes.add((outcome.stream, int(outcome.shard_id.rpartition("-")[2])))
        if not self._changed.is_set():
            self._changed.set()

    # ------------------------------------------------------------------ life

    def start(self, table: Table, feed: Feed, invoked: LambdaMeasures | None = None) -> None:
        """Start the thread. It looks at the node's table and feed, and changes neither.

        Args:
            table: the node's.
            feed: the node's.
            invoked: CloudWatch's metrics of functions; all of CloudWatch's are written by this thread.
        """
        self._table, self._feed = table, feed
        if invoked is not None:
            self._measures, self._lambda = invoked.measures, invoked
            self._kinesis = KinesisMeasures(invoked.measures)
            invoked.measures.changed = self._changed.set
        self._changed.set()
        self._thread.start()

    def close(self) -> None:
        """End the thread, and write the last state: the runtime has stopped, no slot is written any more."""
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._table is not None:
            self._round(up=False)
        if self._measures is not None:
            try:
                self._measures.close()
            except KflowError as error:
                log.warning("the last metrics are lost: %s", error)

    def exposition(self) -> bytes:
        """The text as of now; in any thread.

        Raises:
            KflowError: what it is made of cannot be read.
        """
        with self._lock:
            self._collect()
            self._about_the_node(up=True)
            return self._text()

    def _run(self) -> None:
        pause_s = self._first_s
        while not self._closing.wait(pause_s):
            begin = time.thread_time()
            if self._changed.wait(self._interval_s if self._is_busy() else None) and not self._closing.is_set():
                self._changed.clear()
                self._round(up=True)
            self._cut_logs()
            pause_s = max(self._interval_s, self._share * (time.thread_time() - begin))

    def _is_busy(self) -> bool:
        """Whether anything runs, or will by itself."""
        asleep = (LeaseState.NEWS, LeaseState.PARENTS, LeaseState.DRAINED)
        return any(lease.state not in asleep for lease in self._leases()) or any(
            place.state is PlaceState.BUSY for place in self._places()
        )

    def _leases(self) -> list[Lease]:
        """As they are now: `list` of a dictionary's values is one step for the node's loop, which changes it."""
        return [] if self._table is None else list(self._table.leases.values())

    def _places(self) -> list[Place]:
        return [] if self._table is None else list(self._table.places.values())

    # ------------------------------------------------------------------ a round

    def _round(self, *, up: bool) -> None:
        """Read what has changed, and write the file. What cannot be done is said, and done in the next round."""
        try:
            with self._lock:
                self._collect()
                self._about_the_node(up=up)
                text = self._text()
            self._folder.files.write_replace(self.path, text, sync=False)
            if self._measures is not None:
                self._measures.flush()
        except (KflowError, OSError) as error:
            if str(error) != self._trouble:
                log.warning("metrics cannot be written path=%s: %s", self.path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _collect(self) -> None:
        changed = self._taken()
        maps = {each.name: each for each in self._folder.maps()}
        shards = {(each.name, shard.index) for each in maps.values() for shard in each.shards}
        if self._feed is not None and self._feed.dropped != self._hidden:
            self._hidden = self._feed.dropped
            changed |= shards  # some outcomes were never told
        gone = self._known - shards
        if gone:
            self._forget(gone)
        changed = (changed | (shards - self._known)) & shards
        self._known = shards
        try:
            for name in sorted({each for each, _ in changed}):
                self._read_stream(maps[name], {shard for each, shard in changed if each == name})
            self._has_looked = True
        except (KflowError, OSError):
            self._changes |= changed  # in the next round, then
            raise

    def _taken(self) -> set[_Shard]:
        """What has changed since the last round. One by one: other threads add to the set meanwhile."""
        taken: set[_Shard] = set()
        while True:
            try:
                taken.add(self._changes.pop())
            except KeyError:
                return taken

    def _read_stream(self, stream: StreamMap, shards: set[int]) -> None:
        for info in stream.shards:
            if info.index in shards:
                try:
                    found = survey.shard(self._folder, stream, info)
                    self._set_shard(stream.name, info.index, found)
                    if self._kinesis is not None:
                        is_older = not self._has_looked and stream.created_s < int(self._started_s)
                        self._kinesis.shard(stream.name, info.index, found.stored, found.bytes, is_first=is_older)
                except ResourceNotFound:  # deleted meanwhile
                    return
                time.sleep(0)  # other threads first
        for function in self._consumers(stream):
            self._read_consumer(function, stream, shards)

    def _consumers(self, stream: StreamMap) -> list[str]:
        checkpoints = self._folder.path / "checkpoints"
        return sorted(
            each.name
            for each in checkpoints.iterdir()
            if Path(slots_path(self._folder.path, each.name, stream.id)).exists()
        )

    def _read_consumer(self, function: str, stream: StreamMap, shards: set[int]) -> None:
        slots = SlotFile.open(self._folder.path, function, stream.id, files=self._folder.files)
        try:
            for shard in sorted({shard for shard, _ in slots.keys()} & shards):  # noqa: SIM118  # a method of its own
                lanes = survey.lanes(self._folder, stream, slots, shard, Budget(0))
                self._set_consumer(function, stream.name, shard, lanes)
                time.sleep(0)
        finally:
            slots.close()

    def _cut_logs(self) -> None:
        """Where one invocation writes without end, its function's log is cut."""
        for function in functions(self._folder.path):
            try:
                gone = cut_overlong(log_path(self._folder.path, function))
            except OSError as error:
                log.warning("function=%s its log cannot be cut: %s", function, error)
            else:
                if gone:
                    log.warning("function=%s one invocation has written %d bytes: they were cut off", function, gone)

    # ------------------------------------------------------------------ samples

    def _set(self, family: Family, labels: Labels, value: float | None) -> None:
        samples = self._samples.setdefault(family, {})
        if value is None:
            samples.pop(labels, None)
        else:
            samples[labels] = value

    def _set_shard(self, stream: str, shard: int, found: survey.ShardSurvey) -> None:
        labels: Labels = (("stream", stream), ("shard", str(shard)))
        for family, name in _SHARD:
            self._set(family, labels, int(getattr(found, name)))
        lost = Counter[str]()
        for each in found.lost:
            lost[each.reason] += each.records
        for reason, records in lost.items():
            self._set(_DAMAGED, (*labels, ("reason", reason)), records)

    def _set_consumer(self, function: str, stream: str, shard: int, lanes: Iterable[survey.LaneSurvey]) -> None:
        lanes = list(lanes)
        labels: Labels = (("function", function), ("stream", stream), ("shard", str(shard)))
        for family, name in _CONSUMER:
            self._set(family, labels, sum(int(getattr(lane, name)) for lane in lanes))
        age_ms = max((lane.iterator_age_ms for lane in lanes), default=0)
        self._set(_AGE, labels, age_ms / 1000)
        if self._lambda is not None and self._kinesis is not None:
            self._lambda.note(function, "IteratorAge", of(age_ms), MILLISECONDS)
            self._kinesis.age(stream, age_ms)
        self._set(_OLDEST, labels, time.time() - age_ms / 1000 if age_ms else None)

    def _about_the_node(self, *, up: bool) -> None:
        space = self._folder.files.statvfs(self._folder.path)
        workers, states = Counter[Labels](), Counter[Labels]()
        if up:
            busy = Counter(place.function for place in self._places() if place.state is PlaceState.BUSY)
            if self._lambda is not None:
                for function, count in busy.items():
                    self._lambda.note(function, "ConcurrentExecutions", of(count))
            for place in self._places():
                workers[("function", place.function), ("state", place.state.value)] += 1
            for lease in self._leases():
                states[("function", lease.function), ("state", waits_for(lease))] += 1
        own: Mapping[Family, Mapping[Labels, float]] = {
            _UP: {(): int(up)},
            _INFO: {(("version", self._version), ("layout", str(self._folder.format.layout))): 1},
            _STARTED: {(): self._started_s},
            _WRITTEN: {(): time.time()},
            _FREE: {(): space.f_bavail * space.f_frsize},
            _WORKERS: workers,
            _LANES: states,
            _HIDDEN: {(): self._hidden},
        }
        for function, totals in sorted(self._lambda.totals.items()) if self._lambda is not None else ():
            labels: Labels = (("function", function),)
            for family, name in _FUNCTION:
                self._set(family, labels, int(getattr(totals, name)))
            self._set(_DURATION, labels, totals.duration_us / 1_000_000)
        self._samples.update({family: dict(samples) for family, samples in own.items()})

    def _forget(self, gone: set[_Shard]) -> None:
        """Drop the samples of shards that are no more."""
        names = {(stream, str(shard)) for stream, shard in gone}
        if self._kinesis is not None:
            for stream, shard in gone:
                self._kinesis.forget(stream, shard)
        for samples in self._samples.values():
            for labels in list(samples):
                found = dict(labels)
                if (found.get("stream"), found.get("shard")) in names:
                    del samples[labels]

    def _text(self) -> bytes:
        order = [_UP, _INFO, _STARTED, _WRITTEN, _FREE, _WORKERS, _LANES, _HIDDEN]
        order += [*(family for family, _ in _FUNCTION), _DURATION]
        order += [family for family, _ in _SHARD] + [_DAMAGED] + [family for family, _ in _CONSUMER] + [_AGE, _OLDEST]
        made: list[str] = []
        for line in lines((family, self._samples.get(family, {})) for family in order):
            made.append(line)
            if len(made) % _LINES == 0:
                time.sleep(0)
        return "".join(made).encode()


class Measured:
    """A listener before another one: outcomes are noted for the metrics, and passed on."""

    def __init__(self, listener: Listener, metrics: Metrics) -> None:
        self._listener = listener
        self._metrics = metrics

    def ready(self, info: ReadyInfo) -> None:
        """Pass it on."""
        self._listener.ready(info)

    def outcome(self, outcome: BatchOutcome) -> None:
        """Note it, and pass it on."""
        if outcome.shard_id:  # of a queue, nothing is kept by shard
            self._metrics.outcome(outcome)
        self._listener.outcome(outcome)

    def notice(self, level: str, text: str) -> None:
        """Pass it on."""
        self._listener.notice(level, text)

    def stopped(self, summary: Summary) -> None:
        """Pass it on."""
        self._listener.stopped(summary)
