"""Scenarios on a real runtime: each has its own stream and its own function, and all of a file run at once.

Records are stored as the scenario says, at times that lie in the past; then `kflow run --drain` works everything off.
"""

from __future__ import annotations

import inspect
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kflow.broker.encode import Encoder
from kflow.broker.folder import DataFolder
from kflow.broker.log import Log
from kflow.broker.parked import ParkedStore
from kflow.broker.streammap import StreamMap
from kflow.clock import ManualClock, utc_seconds
from kflow.records import BEGIN_COUNTER
from tests.project import Project
from tests.scenarios import script
from tests.scenarios.form import Observed, Put, Scenario, Seen, collapsed
from tests.scenarios.stepped import document_of, lane_of
from tests.storing import held

_HANDLERS = """
import json, os, time, zlib
from base64 import b64decode
from pathlib import Path
from script import Call, decide, text_of

HERE = Path(__file__).parent
SCENARIOS = json.loads((HERE / "scenarios.json").read_text())

def run(name, event):
    records = event["Records"]
    datas = [b64decode(record["kinesis"]["data"]) for record in records]
    numbers = [record["kinesis"]["sequenceNumber"] for record in records]
    window, state, final = event.get("window"), event.get("state"), event.get("isFinalInvokeForWindow", False)
    call = Call([text_of(data) for data in datas], numbers, state, final)
    seen = HERE / f"{name}.jsonl"
    before = [json.loads(line)["rule"] for line in seen.read_text().split("\\n")[:-1]] if seen.exists() else []
    index, act = decide(SCENARIOS[name], call, before.count, len(before))
    note = {"rule": index, "numbers": numbers, "checks": [zlib.crc32(data) for data in datas]}
    if window is not None:
        note |= {"window": window, "state": state, "final": final, "early": event["isWindowTerminatedEarly"]}
    fd = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, json.dumps(note).encode() + b"\\n")
    os.close(fd)
    if act.action == "raises":
        raise RuntimeError(act.value)
    if act.action == "exits":
        os._exit(act.value)
    if act.action == "sleeps":
        time.sleep(act.value)
    return act.value if act.action == "returns" else None
"""


def run(scenarios: Sequence[Scenario], folder: Path) -> Iterator[tuple[Scenario, Observed]]:
    """Run scenarios of one file, those that block apart from the others: a drain would wait for them."""
    for blocked in (False, True):
        chosen = [Case(f"s{index:03}", each) for index, each in enumerate(scenarios) if each.blocked is blocked]
        if not chosen:
            continue
        below = folder / ("blocked" if blocked else "settled")
        below.mkdir()
        # Some wait where a batch never succeeds: it would be tried all the time.
        project = Project(below, retry_backoff_scale=0.05 if blocked else 0)
        try:
            yield from Group(project, chosen, blocked=blocked).run()
        finally:
            project.close()


@dataclass
class Case:
    """One scenario, with the name of its stream and its function."""

    name: str
    scenario: Scenario
    base_ms: int = 0
    names: dict[int, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    checks: dict[str, int] = field(default_factory=dict)


class Group:
    """Scenarios of one project."""

    def __init__(self, project: Project, cases: Sequence[Case], *, blocked: bool) -> None:
        self.project = project
        self.cases = cases
        self.blocked = blocked
        self.clock = ManualClock()

    def run(self) -> Iterator[tuple[Scenario, Observed]]:
        now_ms = time.time_ns() // 1_000_000
        for case in self.cases:
            window_ms = case.scenario.options.get("tumbling_window_in_seconds", 0) * 1000
            base_ms = now_ms - case.scenario.start_ms
            case.base_ms = base_ms // window_ms * window_ms if window_ms else base_ms
        self._write_handlers()
        self._store(lambda scenario: scenario.put, create=True)
        self._run()
        if any(case.scenario.then for case in self.cases):
            self._store(lambda scenario: scenario.then)
            self._run()
        yield from self._observed()

    def _run(self) -> None:
        """Until all is settled; where something blocks, until all has happened that is expected.

        A drain is over when the records are settled: it need not wait for the calls that end windows.
        """
        windows = [case for case in self.cases if case.scenario.options.get("tumbling_window_in_seconds")]
        if self.blocked:
            self._run_until(lambda: all(self._is_blocked(case) for case in self.cases), "scenarios to block")
        elif windows:
            self._run_until(lambda: all(self._has_ended(case) for case in windows), "windows to end")
        if not self.blocked:
            self.project.run("run", "--drain", "--timeout", "120", seconds=180)

    def _run_until(self, condition: Callable[[], bool], what: str) -> None:
        process = self.project.start()
        self.project.wait_for(condition, what, 120)
        self.project.stop(process)

    def _has_ended(self, case: Case) -> bool:
        return len(self._notes(case)) >= len(case.scenario.invocations or ())

    def _is_blocked(self, case: Case) -> bool:
        lanes = case.scenario.lanes
        wanted = lanes.values() if lanes is not None else (case.scenario.invocations or (),)
        found = self._by_lane(case)
        least = sum(len(collapsed(seen)) for seen in wanted)
        return sum(len(collapsed(seen)) for seen in found.values()) >= least and len(self._notes(case)) > least

    # ------------------------------------------------------------------ before

    def _write_handlers(self) -> None:
        functions = self.project.folder / "functions"
        (functions / "script.py").write_text(inspect.getsource(script))
        (functions / "scripted.py").write_text(_HANDLERS)
        rules = {case.name: case.scenario.handler for case in self.cases}
        (functions / "scenarios.json").write_text(json.dumps(rules))
        code = ["import datetime", "from kflow import on_stream", "import scripted"]
        for case in self.cases:
            options = {**case.scenario.options, "function_name": case.name, "timeout": case.scenario.timeout}
            position = options.get("starting_position")
            if isinstance(position, (int, float)):
                moment_ms = case.base_ms + round(position * 1000)
                options["starting_position"] = datetime.fromtimestamp(moment_ms / 1000, UTC)
            arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
            code += [
                f"@on_stream({case.name!r}, {arguments})",
                f"def {case.name}(event, context):",
                f"    return scripted.run({case.name!r}, event)",
            ]
        (functions / "app.py").write_text("\n".join(code) + "\n")

    def _store(self, puts_of: Any, *, create: bool = False) -> None:
        folder = DataFolder.open(self.project.data_dir, create=create, fsync="none")
        log = Log(folder, clock=self.clock)
        lock = held(folder.writer_lock())
        try:
            for case in self.cases:
                puts: tuple[Put, ...] = puts_of(case.scenario)
                first_ms = min((put.at_ms for put in puts), default=0)
                self.clock.epoch_ms = case.base_ms + first_ms
                if create:
                    log.create_stream(case.name, 1, max_record_bytes=10 << 20)
                stream = folder.map(case.name)
                for put in puts:
                    self.clock.epoch_ms = case.base_ms + put.at_ms
                    self._put(case, log, stream, put)
        finally:
            log.close()
            lock.release()

    def _put(self, case: Case, log: Log, stream: StreamMap, put: Put) -> None:
        encoder = Encoder(stream)
        parts = encoder.encode_many(list(put.keys), list(put.datas))
        placed = encoder.placed(len(put.datas), parts, log.append(stream, parts))
        for name, key, data, place in zip(put.names, put.keys, put.datas, placed, strict=True):
            case.names[place.sequence_number] = name
            case.keys[name] = key
            case.checks[name] = zlib.crc32(data)

    # ------------------------------------------------------------------ after

    def _observed(self) -> Iterator[tuple[Scenario, Observed]]:
        folder = DataFolder.open(self.project.data_dir)
        parked = ParkedStore(folder.path, folder.files, folder.fsync)
        entries = [parked.show(entry.number) for entry in parked.list()]
        handlers = {handler["function"]: handler for handler in self.project.json("status")["handlers"]}
        for case in self.cases:
            seen = [self._seen(case, note) for note in self._notes(case)]
            handler = handlers[case.name]
            own = handler["lanes"]
            yield (
                case.scenario,
                Observed(
                    invocations=seen,
                    lanes=self._by_lane(case),
                    documents=[
                        document_of(entry, tuple(case.names[record.sequence_number] for record in entry.records))
                        for entry in sorted(entries, key=lambda entry: entry.number)
                        if entry.function == case.name
                    ],
                    settled=min(lane["checkpoint_counter"] for lane in own) - BEGIN_COUNTER,
                    totals={
                        name: sum(lane[name] for lane in own) for name in ("succeeded", "parked", "dropped", "lost")
                    },
                    blocked=handler["blocked"] > 0,
                    is_timed=False,
                ),
            )

    def _by_lane(self, case: Case) -> dict[int, list[Seen]]:
        lanes: dict[int, list[Seen]] = {}
        for note in self._notes(case):
            seen = self._seen(case, note)
            key = case.keys[seen.records[0]] if seen.records else ""
            lanes.setdefault(lane_of(key, case.scenario.factor), []).append(seen)
        return lanes

    def _notes(self, case: Case) -> list[dict[str, Any]]:
        path = self.project.folder / "functions" / f"{case.name}.jsonl"
        # A line may be read while it is written: the last part is empty, or not complete.
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def _seen(self, case: Case, note: dict[str, Any]) -> Seen:
        names = tuple(case.names[int(number)] for number in note["numbers"])
        assert note["checks"] == [case.checks[name] for name in names], "payloads have changed"
        if "window" not in note:
            return Seen(records=names)
        first, last = (utc_seconds(note["window"][end]) - case.base_ms // 1000 for end in ("start", "end"))
        return Seen(records=names, window=(first, last), state=note["state"], final=note["final"], early=note["early"])
