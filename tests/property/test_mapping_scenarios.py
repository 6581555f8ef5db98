"""Random scenarios on the engine, against the state machine as Lambda's documentation and recordings have it.

The model knows nothing of slots, blocks, grants or steps: it is the loop in which a batch is sent, cut, halved, retried
and given up, for one lane after the other. Scenarios bring options together as nobody would write them down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios import form, script, stepped
from tests.scenarios.form import Document, Put, Scenario, Seen

FIRST_WAITS_MS = (1_000, 2_000, 4_000, 8_000)
LAST_WAIT_MS = 10_000


@dataclass(frozen=True)
class _Record:
    name: str
    data: str
    at_ms: int


@dataclass
class _Lane:
    """One lane of a scenario, from its first record to its last."""

    scenario: Scenario
    records: Sequence[_Record]
    fired: dict[int, int]
    now_ms: int
    seen: list[Seen] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    succeeded: int = 0
    window: tuple[int, int] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    response: str = "none"

    def run(self) -> None:
        left = list(self.records)
        while left:
            batch = left[: self._options("batch_size", 100)]
            if self._window_s:
                end_ms = (self.window or self._window_of(left[0]))[1] * 1000
                batch = batch[: next((i for i, each in enumerate(batch) if each.at_ms >= end_ms), len(batch))]
                if not batch:
                    self._end_window()
                    continue
            self._send(batch)
            left = left[len(batch) :]
        if self.window:
            self._end_window()

    def _send(self, batch: Sequence[_Record]) -> None:
        """A batch, and the halves of it."""
        bisects = self._options("bisect_batch_on_function_error", False)
        waiting = [batch]
        while waiting:
            piece, attempts = waiting.pop(), 0
            while piece:
                age_ms = self._options("maximum_record_age_in_seconds", -1) * 1000
                expired = next((i for i, each in enumerate(piece) if self.now_ms - each.at_ms <= age_ms), len(piece))
                if age_ms > 0 and expired:
                    self._give_up("RecordAgeExceeded", max(1, attempts), piece[:expired], "none")
                    piece = piece[expired:]
                    continue
                attempts += 1
                done, failed_at = self._call(piece, attempts)
                if done:
                    self.succeeded += len(piece)
                    break
                if failed_at:
                    self.succeeded += failed_at
                    piece, attempts = piece[failed_at:], 0
                elif bisects and len(piece) > 1 and failed_at is None:
                    half = len(piece) // 2
                    waiting.append(piece[half:])
                    piece, attempts = piece[:half], 0
                elif self._is_spent(attempts):
                    self._give_up("RetryAttemptsExhausted", attempts, piece, self.response)
                    break
                else:
                    self._wait(attempts)

    def _end_window(self) -> None:
        """The last call of a window: tried as others are, without a document where it is given up.

        Its age, where there is a limit, counts from the window's end, and it is tried at least once.
        """
        end_ms = (self.window or (0, 0))[1] * 1000
        age_ms = self._options("maximum_record_age_in_seconds", -1) * 1000
        attempts = 1
        while not self._call((), attempts)[0] and not self._is_spent(attempts):
            self._wait(attempts)
            attempts += 1
            if 0 < age_ms < self.now_ms - end_ms:
                break
        self.window, self.state = None, {}

    def _call(self, piece: Sequence[_Record], attempt: int) -> tuple[bool, int | None]:
        """One invocation: whether all is done, and the index of the first record that was reported, if one was."""
        final = not piece
        if self._window_s and self.window is None:
            self.window = self._window_of(piece[0])
        state = self.state if self._window_s else None
        self.seen.append(Seen(records=tuple(r.name for r in piece), window=self.window, state=state, final=final))
        self.attempts.append(attempt)
        call = script.Call([r.data for r in piece], [r.name for r in piece], state, final)
        index, act = script.decide(self.scenario.handler, call, lambda rule: self.fired.get(rule, 0), 0)
        self.fired[index] = self.fired.get(index, 0) + 1
        if act.action == "raises":
            self.response = "Unhandled"
            return False, None
        self.response = "null"
        answer = act.value or {}
        if self._window_s and not isinstance(answer.get("state"), dict):
            return False, None
        failures = answer.get("batchItemFailures") or []
        if final or not self._options("report_batch_item_failures", False) or not failures:
            self.state = answer.get("state", {})
            return True, None
        places = {record.name: place for place, record in enumerate(piece)}
        reported = [places.get(item.get("itemIdentifier")) for item in failures]
        if None in reported:
            return False, None
        first = min(place for place in reported if place is not None)
        if first:
            self.state = answer.get("state", {})
        return False, first

    def _give_up(self, condition: str, attempts: int, piece: Sequence[_Record], response: str) -> None:
        names = tuple(record.name for record in piece)
        self.documents.append(Document(condition=condition, attempts=attempts, records=names, response=response))

    def _is_spent(self, attempts: int) -> bool:
        return 0 <= self._options("maximum_retry_attempts", -1) < attempts

    def _wait(self, attempts: int) -> None:
        self.now_ms += FIRST_WAITS_MS[attempts - 1] if attempts <= len(FIRST_WAITS_MS) else LAST_WAIT_MS

    def _window_of(self, record: _Record) -> tuple[int, int]:
        start = record.at_ms // 1000 // self._window_s * self._window_s
        return start, start + self._window_s

    @property
    def _window_s(self) -> int:
        return int(self._options("tumbling_window_in_seconds", 0))

    def _options(self, name: str, default: Any) -> Any:
        return self.scenario.options.get(name, default)


def expected(scenario: Scenario, passing: frozenset[str]) -> Scenario:
    """The scenario with what the model expects of it."""
    fired: dict[int, int] = {}
    lanes: dict[int, _Lane] = {}
    keys: dict[int, str] = {}
    for lane in range(scenario.factor):
        records = [
            _Record(name, data.decode(), put.at_ms)
            for put in scenario.put
            for name, data, key in zip(put.names, put.datas, put.keys, strict=True)
            if stepped.lane_of(key, scenario.factor) == lane and name in passing
        ]
        lanes[lane] = _Lane(scenario, records, fired, scenario.start_ms)
        lanes[lane].run()
    for put in scenario.put:
        keys |= {stepped.lane_of(key, scenario.factor): key for key in put.keys}
    several = scenario.factor > 1
    return replace(
        scenario,
        invocations=None if several else tuple(lanes[0].seen),
        lanes={keys[lane]: tuple(each.seen) for lane, each in lanes.items() if each.seen} if several else None,
        attempts=None if several else tuple(lanes[0].attempts),
        documents=tuple(document for lane in lanes.values() for document in lane.documents),
        settled=len(scenario.names),
        totals={"succeeded": sum(lane.succeeded for lane in lanes.values()), "lost": 0},
    )


def _rules(names: list[str], retries: int) -> st.SearchStrategy[dict[str, Any]]:
    """Rules about one record, so that lanes do not disturb each other; they end where retries do not."""
    reported = st.lists(st.sampled_from(names), min_size=1, max_size=3)
    what = st.one_of(
        st.just({"raises": "no"}),
        reported.map(lambda chosen: {"reports": [_data(name) for name in chosen]}),
        st.just({"returns": {}}),
        st.just({"returns": {"state": "{state}", "batchItemFailures": [{"itemIdentifier": "0"}]}}),
        st.just({"returns": {"state": {"x": 1}}}),
    )
    first = st.integers(1, 3) if retries < 0 else st.none() | st.integers(1, 3)
    limits = first.map(lambda count: {} if count is None else {"first": count})
    place = st.sampled_from(names).map(lambda name: {"on": [_data(name)]})
    return st.tuples(place, limits, what).map(lambda parts: {**parts[0], **parts[1], **parts[2]})


def _data(name: str) -> str:
    return f'{{"n": {name}}}'


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Scenario, frozenset[str]]:
    """A scenario without expectations, and the names of the records that pass its filters."""
    names = [str(number) for number in range(1, draw(st.integers(1, 14)) + 1)]
    options: dict[str, Any] = {}

    def maybe(name: str, values: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            options[name] = draw(values)

    maybe("batch_size", st.integers(1, 6))
    maybe("maximum_retry_attempts", st.integers(0, 3))
    maybe("bisect_batch_on_function_error", st.just(True))
    maybe("report_batch_item_failures", st.just(True))
    maybe("maximum_record_age_in_seconds", st.just(300))
    maybe("on_failure", st.just("drop"))
    if draw(st.booleans()):
        options["tumbling_window_in_seconds"] = draw(st.sampled_from([20, 60]))
    else:
        maybe("parallelization_factor", st.sampled_from([2, 3, 10]))
    passing = frozenset(names)
    if draw(st.booleans()):
        passing = frozenset(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
        options["filters"] = ['{"data": {"n": [' + ", ".join(sorted(passing)) + "]}}"]
    rules = list(draw(st.lists(_rules(names, options.get("maximum_retry_attempts", -1)), max_size=4)))
    if options.get("tumbling_window_in_seconds") and draw(st.booleans()):
        rules.append({"final": True, "raises": "not yet", "first": draw(st.integers(1, 3))})
    scenario = Scenario(
        name="drawn",
        source="chosen: drawn",
        options=options,
        put=tuple(_puts(draw, names)),
        # With an age of 300 s some of them are too old now, and others will be while they are retried.
        start_ms=draw(st.sampled_from([270_000, 299_000, 310_000, 420_000])),
        handler=tuple(rules),
    )
    return scenario, passing


def _puts(draw: st.DrawFn, names: list[str]) -> Iterator[Put]:
    at_ms = 0
    while names:
        count = draw(st.integers(1, len(names)))
        chosen, names = names[:count], names[count:]
        keys = draw(st.lists(st.sampled_from("abeou"), min_size=count, max_size=count))
        datas = tuple(_data(name).encode() for name in chosen)
        yield Put(names=tuple(chosen), datas=datas, keys=tuple(keys), at_ms=at_ms)
        at_ms += draw(st.sampled_from([0, 1_000, 19_999, 20_500, 40_000]))


@given(drawn=scenarios())
@settings(max_examples=200)
def test_the_engine_does_what_the_model_says(drawn: tuple[Scenario, frozenset[str]]) -> None:
    scenario = expected(*drawn)
    for dropping in (False, True):
        observed = stepped.run(scenario, dropping=dropping)
        found = form.differences(scenario, observed, lane_of=stepped.lane_of)
        assert not found, f"{scenario}\n" + "\n".join(found)
