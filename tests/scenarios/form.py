"""The form of a scenario: reading it, and comparing it with what was observed.

    name         what the scenario shows
    source       how it is known: documented, recorded or chosen
    options      of the mapping, by their names in `@on_stream`; `starting_position` may be a number: seconds
    put          what is stored before the mapping starts: "1-6" is one call with records 1, 2 ... 6, whose payloads are
                 these texts, with the partition key "k"; or a table:
                     names  as above
                     data   the payload, with $ for the name
                     keys   partition keys, used in turn ("a b")
                     at     seconds after the scenario's beginning; before it, where negative
                     bytes  size of each payload
    start        seconds at which the mapping starts (0); what is put later arrives while it runs
    then         as `put`, once all is settled and the runtime has been stopped; it is started again afterwards
    forget       how many of the first calls retention has removed before the mapping starts
    forget_then  how many more calls it has removed before the mapping starts again
    closes       whether the shard is closed when the mapping starts
    handler      rules of `tests.scenarios.script`
    timeout      of the function, seconds (30)
    until        seconds at which the (first) run ends; else when nothing is left to do, open tumbling windows apart
    engine_only  why the scenario is not for a real runtime
    no_api       why it cannot be had by clients alone (`tests.scenarios.api`)

What is expected:
    invocations  records of each, in order: "1-3 5", with "x4" at the end for four in a row; for tumbling windows a
                 table: records, window ([0, 60]: seconds), state, final, early
    lanes        instead of `invocations`: for a partition key, the invocations of its lane
    attempts     of each invocation, which attempt at its batch it is: "1 2 1x3"
    results      how each attempt ended, by `BatchResult`: "failed partial ok x2"
    waits        the waits between attempts, "reason milliseconds" each
    documents    failure documents, in order: condition, attempts (`approximateInvokeCount`), records, response
                 (`functionError`: "Unhandled", or "null"; "none" where there is no `responseContext`)
    settled      how many records, from the first put, the checkpoint has passed (all of them)
    succeeded, dropped, lost    totals, where they are to be looked at
    blocked      whether the mapping is still at a batch that fails
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenarios import script

FOLDER = Path(__file__).parents[1] / "behaviour" / "mappings"

BASE_S = 1_700_002_800
"""The beginning of a scenario in virtual time: a full hour, so that windows of many lengths begin there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """One call that stores records."""

    names: tuple[str, ...]
    datas: tuple[bytes, ...]
    keys: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One invocation: names of its records, and its tumbling window, in seconds after the scenario's beginning."""

    records: tuple[str, ...]
    window: tuple[int, int] | None = None
    state: Mapping[str, Any] | None = None
    final: bool = False
    early: bool = False

    def __str__(self) -> str:
        text = " ".join(self.records) or "(none)"
        if self.window is None:
            return text
        flags = f"{' final' if self.final else ''}{' early' if self.early else ''}"
        state = str(self.state) if len(str(self.state)) < 80 else f"{str(self.state)[:77]}..."
        return f"{text} [{self.window[0]}-{self.window[1]} {state}{flags}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a failure document says."""

    condition: str
    attempts: int
    records: tuple[str, ...]
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario; see the module for its parts."""

    name: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    put: tuple[Put, ...] = ()
    then: tuple[Put, ...] = ()
    forget: int = 0
    forget_then: int = 0
    closes: bool = False
    start_ms: int = 0
    handler: tuple[Mapping[str, Any], ...] = ()
    timeout: int = 30
    until_ms: int | None = None
    engine_only: str = ""
    no_api: str = ""
    invocations: tuple[Seen, ...] | None = None
    lanes: Mapping[str, tuple[Seen, ...]] | None = None
    attempts: tuple[int, ...] | None = None
    results: tuple[str, ...] | None = None
    waits: tuple[str, ...] | None = None
    documents: tuple[Document, ...] = ()
    settled: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    blocked: bool = False

    @property
    def puts(self) -> tuple[Put, ...]:
        """All that is stored."""
        return self.put + self.then

    @property
    def names(self) -> list[str]:
        """Names of all records, in the order they are stored."""
        return [name for put in self.puts for name in put.names]

    @property
    def factor(self) -> int:
        """Lanes of the shard."""
        return int(self.options.get("parallelization_factor", 1))


@dataclass(slots=True, kw_only=True)
class Observed:
    """What a backend saw; None for what it cannot see.

    Attributes:
        invocations: in the order they began; those of one lane for each lane where there are several.
        lanes: by lane.
        documents: in the order they were made.
        settled: records that the checkpoint has passed.
        totals: by name.
        blocked: whether a batch is still failing.
        is_timed: whether it ran in the scenario's own time: how often a blocked batch has been tried is then known.
    """

    invocations: list[Seen]
    lanes: dict[int, list[Seen]]
    documents: list[Document]
    settled: int
    totals: dict[str, int]
    blocked: bool
    is_timed: bool
    attempts: list[int] | None = None
    results: list[str] | None = None
    waits: list[str] | None = None


def load(path: Path) -> list[Scenario]:
    """The scenarios of a file."""
    return [_scenario(table) for table in tomllib.loads(path.read_text())["scenario"]]


def files() -> list[Path]:
    """All files of scenarios."""
    return sorted(FOLDER.glob("*.toml"))


def everything() -> list[tuple[str, Scenario]]:
    """All scenarios, each with the name of its file."""
    return [(path.stem, scenario) for path in files() for scenario in load(path)]


def differences(scenario: Scenario, observed: Observed, *, lane_of: Any) -> list[str]:
    """How what was observed differs from what is expected; empty where it does not.

    Args:
        scenario: what is expected.
        observed: what was seen.
        lane_of: from a partition key and a factor to the lane.
    """
    found: list[str] = []

    def compare(what: str, expected: Any, actual: Any) -> None:
        if expected is not None and actual is not None and expected != actual:
            found.append(f"{what}:\n    expected {_lines(expected)}\n    observed {_lines(actual)}")

    shorten = collapsed if scenario.blocked and not observed.is_timed else list
    if scenario.invocations is not None:
        compare("invocations", shorten(scenario.invocations), shorten(observed.invocations))
    if scenario.lanes is not None:
        expected = {lane_of(key, scenario.factor): shorten(seen) for key, seen in scenario.lanes.items()}
        compare("lanes", expected, {lane: shorten(seen) for lane, seen in observed.lanes.items() if seen})
    for what in ("attempts", "results", "waits"):
        expected = getattr(scenario, what)
        compare(what, None if expected is None else list(expected), getattr(observed, what))
    documents = list(scenario.documents)
    if scenario.factor > 1:  # lanes give up in no order
        documents.sort(key=str)
        observed.documents.sort(key=str)
    dropped = scenario.options.get("on_failure") == "drop"
    compare("documents", [] if dropped else documents, observed.documents)
    compare("settled", scenario.settled, observed.settled)
    compare("blocked", scenario.blocked, observed.blocked)
    given_up = sum(len(document.records) for document in scenario.documents)
    totals = {"dropped" if dropped else "parked": given_up, "parked" if dropped else "dropped": 0, **scenario.totals}
    for name, value in totals.items():
        compare(name, value, observed.totals.get(name))
    return found


def names_of(text: str) -> tuple[str, ...]:
    """The names that a text like `1-3 7 x` stands for."""
    found: list[str] = []
    for part in text.split():
        first, dash, last = part.partition("-")
        if dash and first.isdigit() and last.isdigit():
            found += [str(number) for number in range(int(first), int(last) + 1)]
        else:
            found.append(part)
    return tuple(found)


def collapsed(seen: Sequence[Seen]) -> list[Seen]:
    """Without repetitions: how often a blocked batch has been tried is a matter of time."""
    return [next(group) for _, group in itertools.groupby(seen)]


def _scenario(table: Mapping[str, Any]) -> Scenario:
    table = dict(table)
    name = table["name"]
    unknown = table.keys() - _KEYS
    if unknown:
        raise ValueError(f"{name}: a scenario has no {', '.join(sorted(unknown))}")
    put = tuple(_put(each) for each in table.pop("put", ()))
    then = tuple(_put(each) for each in table.pop("then", ()))
    names = [each for call in put + then for each in call.names]
    datas = [each for call in put + then for each in call.datas]
    if len(set(names)) != len(names) or len(set(datas)) != len(datas):
        raise ValueError(f"{name}: two records have one name, or one payload")
    windows = bool(table.get("options", {}).get("tumbling_window_in_seconds"))
    invocations = table.pop("invocations", None)
    lanes = table.pop("lanes", None)
    if (invocations is None) is (lanes is None):
        raise ValueError(f"{name}: expects either invocations or lanes")
    totals = {each: table.pop(each) for each in ("succeeded", "dropped", "lost") if each in table}
    start_ms = round(table.pop("start", 0) * 1000)
    until = table.pop("until", None)
    handler = tuple(table.pop("handler", ()))
    texts = dict(zip(names, (data.decode().rstrip(" ") for data in datas), strict=True))
    return Scenario(
        name=name,
        source=table.pop("source"),
        options=table.pop("options", {}),
        put=put,
        then=then,
        forget=table.pop("forget", 0),
        forget_then=table.pop("forget_then", 0),
        closes=table.pop("closes", False),
        start_ms=start_ms,
        handler=tuple(_rule(rule, texts) for rule in handler),
        timeout=table.pop("timeout", 30),
        until_ms=None if until is None else round(until * 1000),
        engine_only=table.pop("engine_only", ""),
        no_api=table.pop("no_api", ""),
        invocations=None if invocations is None else tuple(_seen(invocations, windows=windows)),
        lanes=None if lanes is None else {key: tuple(_seen(each, windows=windows)) for key, each in lanes.items()},
        attempts=_each(table, "attempts", int),
        results=_each(table, "results", str),
        waits=tuple(table["waits"]) if "waits" in table else None,
        documents=tuple(_document(each) for each in table.pop("documents", ())),
        settled=table.pop("settled", len(names)),
        totals=totals,
        blocked=table.pop("blocked", False),
    )


_KEYS = {
    "name", "source", "options", "put", "then", "forget", "forget_then", "closes", "start", "handler", "timeout",
    "until", "engine_only", "no_api", "invocations", "lanes", "attempts", "results", "waits", "documents", "settled",
    "succeeded", "dropped", "lost", "blocked",
}  # fmt: skip


def _put(item: str | Mapping[str, Any]) -> Put:
    table = {"names": item} if isinstance(item, str) else item
    names = names_of(table["names"])
    keys = table.get("keys", "k").split()
    texts = [table.get("data", "$").replace("$", name) for name in names]
    return Put(
        names=names,
        datas=tuple(text.encode().ljust(table.get("bytes", 0)) for text in texts),
        keys=tuple(itertools.islice(itertools.cycle(keys), len(names))),
        at_ms=round(table.get("at", 0) * 1000),
    )


def _rule(rule: Mapping[str, Any], texts: Mapping[str, str]) -> Mapping[str, Any]:
    """A rule with payloads in the place of records' names."""
    made = dict(rule)
    for part in ("on", "reports"):
        if part in made:
            wanted = made[part]
            names = names_of(wanted) if isinstance(wanted, str) else wanted
            made[part] = [texts[name] for name in names]
    return made


def _seen(items: Sequence[str | Mapping[str, Any]], *, windows: bool) -> Iterator[Seen]:
    for item in items:
        table = {"records": item} if isinstance(item, str) else item
        records, _, times = table.get("records", "").partition(" x")
        seen = Seen(records=names_of(records))
        if windows:
            first, last = table["window"]
            seen = Seen(
                records=seen.records,
                window=(first, last),
                state=script.filled(table.get("state", {})),
                final=table.get("final", False),
                early=table.get("early", False),
            )
        yield from itertools.repeat(seen, int(times or 1))


def _each(table: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...] | None:
    if key not in table:
        return None
    found: list[Any] = []
    for part in table[key].split():
        if part[0] == "x" and part[1:].isdigit():
            found += [found[-1]] * (int(part[1:]) - 1)
        else:
            found.append(kind(part))
    return tuple(found)


def _document(table: Mapping[str, Any]) -> Document:
    condition = table["condition"]
    return Document(
        condition=condition,
        attempts=table["attempts"],
        records=names_of(table["records"]),
        response=table.get("response", "none" if condition == "RecordAgeExceeded" else "Unhandled"),
    )


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "\n             ".join(map(str, value)) or "(none)"
    if isinstance(value, dict):
        return "\n             ".join(f"{key}: {', '.join(map(str, each))}" for key, each in value.items())
    return str(value)
