"""The order in which tests are dealt to workers."""

from __future__ import annotations

from pathlib import Path

from tests.dealing import LONGEST, SLOW, dealt, rank

ROOT = Path(__file__).parents[1]


def path_of(item: str) -> str:
    return item.partition("::")[0]


def items(**counts: int) -> list[str]:
    """So many tests of each file; `__` stands for a slash."""
    return [f"tests/{name.replace('__', '/')}.py::{n}" for name, count in counts.items() for n in range(count)]


def test_each_part_begins_with_slow_files_and_ends_with_quick_ones() -> None:
    given = items(behaviour__test_a=1, faults__test_b=2, faults__test_kill_nine=1, unit__test_c=9, unit__test_d=3)
    found = dealt(given, 2, path_of)
    assert found[:8] == [
        "tests/faults/test_kill_nine.py::0",
        "tests/faults/test_b.py::0",
        "tests/faults/test_b.py::1",
        *(f"tests/unit/test_c.py::{n}" for n in range(5)),
    ]
    assert found[8:] == [
        "tests/behaviour/test_a.py::0",
        *(f"tests/unit/test_c.py::{n}" for n in range(5, 9)),
        *(f"tests/unit/test_d.py::{n}" for n in range(3)),
    ]


def test_no_test_is_lost_or_dealt_twice_whatever_there_is() -> None:
    for slow in range(12):
        for quick in range(12):
            for workers in range(1, 6):
                given = items(faults__test_a=slow, docs__test_b=slow // 2, unit__test_c=quick)
                assert sorted(dealt(given, workers, path_of)) == sorted(given)


def test_the_longest_files_come_first_and_are_there() -> None:
    assert [rank(f"tests/{name}") for name in ("faults/test_kill_nine.py", "faults/test_a.py", "unit/test_a.py")] == [
        0,
        1,
        2,
    ]
    assert [name for name in LONGEST if not (ROOT / name).exists()] == []
    assert [name for name in SLOW if not (ROOT / name).is_dir()] == []
