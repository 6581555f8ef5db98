"""How tests are dealt to several workers: all are busy to the end, and none does what another one has done."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SLOW = ("behaviour", "docs", "e2e", "faults", "property")
"""Folders whose tests take seconds."""
LONGEST = (
    "behaviour/test_mappings.py",
    "docs/test_readme.py",
    "e2e/test_demo.py",
    "e2e/test_wheel.py",
    "faults/test_kill_nine.py",
    "faults/test_log_faults.py",
    "faults/test_memory.py",
    "faults/test_scenarios_die.py",
    "faults/test_workers_die.py",
)
"""Files with the longest tests: they come first."""


def rank(path: str) -> int:
    """Of a file, in the order in which files are dealt."""
    if path.removeprefix("tests/") in LONGEST:
        return 0
    return 1 if path.removeprefix("tests/").startswith(SLOW) else 2


def dealt(items: Sequence[T], workers: int, path_of: Any) -> list[T]:
    """The items in such an order that each worker's part begins with slow ones and ends with many quick ones.

    xdist gives each worker the same number of items, one part behind the other, and who has done its own takes over
    half of what lies at the end of the longest rest.
    """
    files = sorted((list(each) for _, each in groupby(items, path_of)), key=lambda file: rank(path_of(file[0])))
    slow = [file for file in files if rank(path_of(file[0])) < 2]
    hands: list[list[T]] = [[each for file in slow[at::workers] for each in file] for at in range(workers)]
    quick: Iterable[T] = iter([each for file in files[len(slow) :] for each in file])
    for at, hand in enumerate(hands):
        size = (len(items) - sum(map(len, hands[:at]))) // (workers - at)
        hand.extend(islice(quick, max(0, size - len(hand))))
    hands[-1].extend(quick)
    return [each for hand in hands for each in hand]


def import_share(root: Path, number: int, workers: int) -> None:
    """Import every so-manieth file of tests.

    pytest compiles each with its `assert`s rewritten, and all workers would compile the same file at the same time.
    """
    for path in sorted(root.glob("tests/**/test_*.py"))[number::workers]:
        with suppress(BaseException):  # pytest imports it again, and says what is wrong
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
