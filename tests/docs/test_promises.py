"""The table of promises in `tests/README.md` names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_promise_names_tests_that_exist() -> None:
    text = (TESTS / "README.md").read_text().partition("## The core's promises")[2]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    existing = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def test_(\w+)\(|^(Test\w+) = ", path.read_text(), re.MULTILINE)
        for name in name
    }

    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`(\w+)`", row.split("|")[2])
        assert named, f"no test for: {row}"
        assert set(named) <= existing, f"no such test: {sorted(set(named) - existing)}"
