"""Pages on services in `kflow/services/*.md`: their tables of operations are made here, from the services' models.

A test of each page fails where page, model, service and tests do not go together: when an operation is new, when a test
is renamed, when the table was edited by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from kflow.aws import models
from kflow.aws.shapes import snake_case

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "kflow" / "services"
KNOWN: Final = frozenset({"documented", "recorded", "chosen"})
_TEST: Final = re.compile(r"^ *def test_(\w+)\(|^(Test\w+) = ", re.MULTILINE)


class Row(NamedTuple):
    """A row of a table of behaviours.

    Attributes:
        fact: what happens.
        known: how we know it.
        tests: names of the tests that show it.
    """

    fact: str
    known: list[str]
    tests: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The page on one service.

    Attributes:
        service: its name.
        performer: the class that has its methods.
        module: which makes the page, as `tests.kinesis_page`.
        missing: what is missing of an operation; what is not here is complete.
        absent: operations that are not performed, and why: callers get a clear refusal.
        tests: names of the tests that show an operation best.
    """

    service: str
    performer: type
    module: str
    missing: Mapping[str, str]
    absent: Mapping[str, str]
    tests: Mapping[str, tuple[str, ...]]

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.service}.md"

    @property
    def text(self) -> str:
        """What is on it."""
        return self.path.read_text(encoding="utf-8")

    def operations(self) -> list[str]:
        """The operations of the newest model that is installed."""
        return sorted(models.load(self.service).operation_names)

    def performed(self) -> set[str]:
        """Those of them that the service has a method for."""
        return {name for name in self.operations() if hasattr(self.performer, snake_case(name))}

    def table(self) -> str:
        """The table of operations."""
        lines = ["| operation | state | shown by |", "|---|---|---|"]
        for name in self.operations():
            if name in self.absent:
                lines.append(f"| `{name}` | none: {self.absent[name]} | |")
                continue
            missing = self.missing.get(name)
            state = "full" if missing is None else f"partial: {missing}"
            tests = ", ".join(f"`{test}`" for test in self.tests[name])
            lines.append(f"| `{name}` | {state} | {tests} |")
        return "\n".join(lines) + "\n"

    def made(self) -> str:
        """The page with its table as it should be."""
        return replaced(self.text, "operations", self.table())

    def behaviours(self) -> Iterator[Row]:
        """The rows of all tables of behaviours: those that begin with `fact`."""
        is_one = False
        for line in self.text.splitlines():
            if not line.startswith("|"):
                is_one = False
            elif line.startswith("| fact "):
                is_one = True
            elif is_one and line.startswith("| "):
                _, fact, known, tests, _ = re.split(r"(?<!\\)\|", line)
                yield Row(fact.strip(), re.findall(r"\w+", known), re.findall(r"`(\w+)`", tests))

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Model, service, tests and page go together."""
        names = set(self.operations())
        there = self.performed()
        assert names - there == set(self.absent), "write the method, or say in `absent` why there is none"
        assert there == set(self.tests), f"name the tests of these operations in {self.module}"
        assert set(self.missing) <= there, "these have no method"
        assert self.made() == self.text, f"run: python -m {self.module}"
        self._check_tests()
        self._check_facts()
        self._check_prose()

    def _check_tests(self) -> None:
        for operation, tests in self.tests.items():
            assert tests, operation
            for test in tests:
                assert test in existing(), f"{operation}: there is no test {test}"
                words = (operation, snake_case(operation))
                assert any(word in existing()[test] for word in words), f"{test} has nothing to do with {operation}"

    def _check_facts(self) -> None:
        for row in self.behaviours():
            assert row.known, row.fact
            assert set(row.known) <= KNOWN, row
            assert row.tests, f"no test shows: {row.fact}"
            assert set(row.tests) <= set(existing()), f"no such test: {sorted(set(row.tests) - set(existing()))}"

    def _check_prose(self) -> None:
        prose = "".join(line for line in self.text.splitlines(keepends=True) if not line.startswith("|"))
        named = {name for name in re.findall(r"`([a-z0-9_]+)`", prose) if name.count("_") > 3}
        assert named <= set(existing()), "no such test"


def replaced(text: str, name: str, part: str) -> str:
    """A page with the part of a name made anew.

    Raises:
        ValueError: the page has no place for it.
    """
    opening, closing = f"<!-- made: {name} -->\n", f"<!-- end: {name} -->\n"
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"the page lacks the lines {opening!r} and {closing!r}, between which the table goes")
    return f"{before}{begin}{part}{end}{after}"


@cache
def existing() -> dict[str, str]:
    """Texts of the files that have a test, by its name; those of several files together."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        text = path.read_text(encoding="utf-8")
        for names in _TEST.findall(text):
            name = "".join(names)
            found[name] = found.get(name, "") + text
    return found
