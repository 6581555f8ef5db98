"""Whatever several workers write to a function's log, in whatever order: each event is read once, as it was written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.aws.calls import Place
from kflow.broker.functionlogs import FILES, Index, log_path
from kflow.monitoring.functionevents import FunctionEvents, Part
from kflow.monitoring.logged import NO_ID, Bounds, Logged
from kflow.runtime.worker.logfiles import LogFile

HOME = Place("123456789012", "us-east-1")
EVER = Bounds(NO_ID, 0, 10**13)
TEXTS = st.lists(st.text("ab é", max_size=6), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), TEXTS, st.booleans(), st.integers(0, 120), st.booleans()), min_size=1, max_size=25
)


class Worker:
    """One that writes."""

    def __init__(self, path: Path, stream: str, file_bytes: int, now_s: Callable[[], float]) -> None:
        self.stream = stream
        self.file = LogFile(path, file_bytes=file_bytes, files=FILES * 100)
        self.index = Index(path, self.file.fd, stream, now_s)

    def write(self, data: bytes, *, is_event: bool) -> None:
        length = os.write(self.file.fd, data)
        (self.index.wrote_event if is_event else self.index.wrote)(length)


@given(steps=STEPS, file_bytes=st.sampled_from([1000, 60]))
@settings(max_examples=60, deadline=None)
def test_events_are_read_as_they_were_written(
    steps: list[tuple[int, list[str], bool, int, bool]], file_bytes: int
) -> None:
    now_ms = 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = log_path(Path(folder), "bill")
        workers = [Worker(path, f"stream-{number}", file_bytes, lambda: now_ms / 1000) for number in range(3)]
        expected: list[tuple[str, str, int]] = []
        rotations = 0
        for number, lines, is_event, later_ms, looks in steps:
            now_ms += later_ms
            worker = workers[number]
            if looks and rotations < FILES - 1 and worker.file.look():
                worker.index.follow()
                rotations += 1
            text = "".join(f"{line}\n" for line in lines)
            worker.write(text.encode(), is_event=is_event)
            events = [text] if is_event else [f"{line}\n" for line in lines]
            expected += [(worker.stream, each, now_ms) for each in events]
        logs = FunctionEvents(Path(folder), HOME, lambda: now_ms)
        found = list(logs.events(Part("bill"), EVER))
        for worker in workers:
            worker.file.close()
            worker.index.close()

        assert sorted((each.stream, each.text) for each in found) == sorted(
            (stream, text) for stream, text, _ in expected
        )
        ids = [each.id for each in found]
        assert ids == sorted(set(ids))
        for stream in {each.stream for each in found}:
            own = [(text, ms) for whose, text, ms in expected if whose == stream]
            read = [each for each in found if each.stream == stream]
            if not rotations:  # over several files, events of one moment stand by file
                assert [each.text for each in read] == [text for text, _ in own]
                assert all(0 <= ms - each.ms <= 50 for each, (_, ms) in zip(read, own, strict=True))
        assert pages(logs, len(found)) == found


def pages(logs: FunctionEvents, count: int) -> list[Logged]:
    """The same, each behind the id of the one before."""
    found: list[Logged] = []
    while len(found) < count:
        after = found[-1].id if found else NO_ID
        found.append(next(logs.events(Part("bill"), Bounds(after, 0, 10**13))))
    return found
