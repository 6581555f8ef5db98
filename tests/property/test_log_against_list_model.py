"""The log against a list: whatever is done to it, reading gives what was acknowledged, in order."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kflow import limits
from kflow.broker import ctl
from kflow.broker.ctl import Ctl
from kflow.broker.writing import writing
from kflow.errors import StorageError
from kflow.records import BEGIN_COUNTER, Position
from tests.storing import FaultyFiles, Store, everything

HOUR_MS = 3_600_000
SEGMENT_BYTES = 4000
GAP = 1 << 40


class Log(RuleBasedStateMachine):
    """One shard with small segments, and a list of (counter, arrival, data) beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="kflow-property-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(limits, "SEGMENT_BYTES", SEGMENT_BYTES)
        self.patch.setattr("kflow.broker.shard.INDEX_BYTES", 500)
        self.files = FaultyFiles()
        self.store = Store(self.path / "data", files=self.files, fsync="interval", retention_hours=24)
        self.reader = self.store.reader()
        self.model: list[tuple[int, int, bytes]] = []
        self.expired = 0  # records of the model that may be gone
        self.is_doubted = False  # the page was not believed when somebody looked last
        self.counter = BEGIN_COUNTER
        self.serial = 0

    def teardown(self) -> None:
        self.store.log.close()
        self.patch.undo()
        shutil.rmtree(self.path)

    @initialize(fsync=st.sampled_from(["none", "interval"]))
    def choose_policy(self, fsync: str) -> None:
        self.store.folder = type(self.store.folder).open(self.path / "data", fsync=fsync, files=self.files)
        self.store.reopen()

    # ---------------------------------------------------------------- what may happen

    @rule(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=12))
    def append(self, sizes: list[int]) -> None:
        datas = self._datas(sizes)
        numbers = self.store.put(*datas)
        self._acknowledged(datas, numbers[0] >> 80 & (1 << 63) - 1)

    @rule(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4))
    def append_as_another_process(self, sizes: list[int]) -> None:
        datas = self._datas(sizes)
        parts = self.store.encoder.encode_many(["k"] * len(datas), datas)
        other = type(self.store.folder).open(self.path / "data")
        with writing(other) as log:
            log._clock = self.store.clock
            log._shards.clear()
            ((counter, _),) = log.append(self.store.stream, parts)
        self.store.log.close()
        self._acknowledged(datas, counter)

    @rule(milliseconds=st.integers(0, 2 * HOUR_MS))
    def time_passes(self, milliseconds: int) -> None:
        self.store.clock.advance(milliseconds)

    @rule(step=st.integers(-3 * HOUR_MS, 3 * HOUR_MS))
    def the_clock_is_stepped(self, step: int) -> None:
        self.store.clock.epoch_ms += step

    @rule()
    def reopen(self) -> None:
        self.store.reopen()

    @rule()
    def start_a_node(self) -> None:
        self.store.reopen()
        self.store.log.recover_all()
        # A scan finds the records that are there: of those that had expired in a file that was kept, too.
        self.expired = min(self.expired, self._reopened_position(self.reader.horizon))

    @rule()
    def a_new_reader(self) -> None:
        self.reader = self.store.reader()

    @rule(written=st.integers(0, 200))
    def a_short_write(self, written: int) -> None:
        self.files.short = written
        with pytest.raises(StorageError):
            self.store.put(bytes(300))
        self.files.short = None

    @rule(garbage=st.binary(max_size=300), rolling=st.booleans())
    def a_kill_in_mid_append(self, garbage: bytes, rolling: bool) -> None:
        """What a SIGKILL leaves: dirty, bytes past the tail, perhaps a new segment that nothing was committed to."""
        words = self._words()
        base, tail = words[ctl.SEGMENT], words[ctl.TAIL]
        words[ctl.DIRTY] = 1
        path = self.store.shard_path / f"{base:020d}.seg"
        if path.exists():
            with path.open("ab") as file:
                file.write(garbage)
        if rolling and tail > base:
            (self.store.shard_path / f"{tail:020d}.seg").write_bytes(garbage)
            words[ctl.SEGMENT] = tail
        self.store.reopen()

    @rule(torn=st.binary(max_size=100))
    def the_machine_restarts_after_a_sync(self, torn: bytes) -> None:
        """All that was acknowledged has reached the disk; the page may be of any age; torn bytes follow."""
        self.store.log.sync()
        words = self._words()
        path = self.store.shard_path / f"{words[ctl.SEGMENT]:020d}.seg"
        if path.exists():
            with path.open("ab") as file:
                file.write(torn)
        words[ctl.BOOT] ^= 1
        self.store.reopen()
        self.reader = self.store.reader()

    @precondition(lambda self: self.store.folder.syncs)
    @rule()
    def a_sync_fails(self) -> None:
        self.files.errors["fdatasync"] = 5
        try:
            self.store.log.sync()
        except StorageError:
            with pytest.raises(StorageError):
                self.store.put(b"refused")
        finally:
            self.files.errors.clear()
        self.store.reopen()

    @rule()
    def retention_looks(self) -> None:
        log, clock = self.store.log, self.store.clock
        log.retain(clock.now())
        horizon = self.reader.horizon
        oldest_ms = clock.epoch_ms - 24 * HOUR_MS
        position = self._reopened_position(horizon)
        assert all(arrival < oldest_ms for _, arrival, _ in self.model[self.expired : position])
        self.expired = max(self.expired, position)

    @rule()
    def two_days_pass_with_two_looks(self) -> None:
        for hours in (47, 2):
            self.store.clock.advance(hours * HOUR_MS)
            self.retention_looks()

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def reading_gives_what_was_acknowledged(self) -> None:
        self._know_of_scans()
        self._have_recovered()
        datas = [data for _, _, data in self.model[self.expired :]]
        assert everything(self.reader) == datas
        assert everything(self.store.reader()) == datas

    @invariant()
    def counters_and_arrivals_rise(self) -> None:
        self._know_of_scans()
        found = self._records()
        assert found == self.model[self.expired :]
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(found))

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        self._have_recovered()
        known = self.model[self.expired :]
        counters = [counter for counter, _, _ in known]
        target = data.draw(st.sampled_from([*counters, 0, 1, self.counter, self.counter + GAP]))
        expected = [entry for entry in known if entry[0] >= target]
        assert self._from(self.reader.seek_counter(target)) == expected
        arrivals = [arrival for _, arrival, _ in known]
        time_ms = data.draw(st.sampled_from([*arrivals, 0, self.store.clock.epoch_ms])) + data.draw(st.integers(-1, 1))
        assert self._from(self.reader.seek_time(time_ms)) == [entry for entry in known if entry[1] >= time_ms]

    # ---------------------------------------------------------------- helpers

    def _datas(self, sizes: list[int]) -> list[bytes]:
        datas = []
        for size in sizes:
            self.serial += 1
            datas.append(b"%08d" % self.serial + bytes(size))
        return datas

    def _acknowledged(self, datas: list[bytes], first_counter: int) -> None:
        assert first_counter >= self.counter
        arrival_ms = self.reader.last_arrival_ms
        self.model += [(first_counter + index, arrival_ms, data) for index, data in enumerate(datas)]
        self.counter = first_counter + len(datas)

    def _words(self) -> memoryview:
        return Ctl.open(os.fspath(self.store.shard_path), self.files, write=True).words

    def _know_of_scans(self) -> None:
        """A page that was not believed is again: somebody scanned, and found what expired in a file that was kept."""
        is_believed = Ctl.open(os.fspath(self.store.shard_path), self.files, write=False).is_current
        if self.is_doubted:
            self.expired = min(self.expired, len(self.model) - len(everything(self.store.reader())))
        self.is_doubted = not is_believed

    def _have_recovered(self) -> None:
        """A reader of a page that is not believed has it recovered; one that is open already cannot know."""
        if not Ctl.open(os.fspath(self.store.shard_path), self.files, write=False).is_current:
            self.reader = self.store.reader()

    def _records(self) -> list[tuple[int, int, bytes]]:
        return self._from(Position(0, 0))

    def _from(self, position: Position) -> list[tuple[int, int, bytes]]:
        found: list[tuple[int, int, bytes]] = []
        offset, skip = position
        while blocks := self.reader.read(offset):
            for block in blocks:
                datas = block.columns()[0]
                found += [
                    (block.first_counter + index, block.arrival_ms, datas[index]) for index in range(skip, block.count)
                ]
                skip = 0
            offset = blocks[-1].end
        return found

    def _reopened_position(self, horizon: int) -> int:
        """How many records of the model lie below the horizon."""
        left = len(self._from(Position(horizon, 0)))
        return len(self.model) - left


TestLog = Log.TestCase
TestLog.settings = settings(max_examples=60, stateful_step_count=40)
