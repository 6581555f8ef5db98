"""A figure and its verdict; measuring in turn with a limit; CPU clocks of this process and of others."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a bench.

    Where there is a limit, `must` and `aim` are about the ratio `value / limit`, else about the value.

    Attributes:
        bench: what was measured.
        value: ours.
        unit: of the value and the limit.
        limit: what the machine needs at least (or can do at most) for the same work, measured in the same run; None for
            a figure that is judged by itself.
        must: what has to be reached; None for a figure that is told and not judged.
        aim: what is hoped for; None where there is no more to hope for than `must`.
        more_is_better: whether a larger figure is a better one.
    """

    bench: str
    value: float
    unit: str
    limit: float | None = None
    must: float | None
    aim: float | None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """`value / limit`."""
        return None if self.limit is None else self.value / self.limit

    @property
    def ok(self) -> bool:
        """Whether the must is reached."""
        return self.must is None or self._reaches(self.must)

    def _reaches(self, bound: float) -> bool:
        judged = self.value if self.ratio is None else self.ratio
        return judged >= bound if self.more_is_better else judged <= bound

    def as_json(self) -> str:
        """The figure as one line of JSON."""
        return json.dumps(
            {
                "bench": self.bench,
                "value": _rounded(self.value),
                "unit": self.unit,
                "limit": _rounded(self.limit),
                "ratio": _rounded(self.ratio),
                "must": self.must,
                "aim": self.aim,
                "ok": self.ok,
            }
        )

    def as_row(self, *, judged: bool = True) -> str:
        """The figure as a row of the table that `HEADING` begins; not `judged` where it was measured too briefly."""
        sign = ">=" if self.more_is_better else "<="
        reached = self.aim is not None and self._reaches(self.aim)
        if not judged or self.must is None:
            verdict = "not judged"
        elif not self.ok:
            verdict = "MISSED"
        else:
            verdict = "aim" if reached else "ok"
        return _ROW.format(
            self.bench,
            _short(self.value),
            _short(self.limit),
            self.unit,
            _short(self.ratio),
            "-" if self.must is None else f"{sign} {self.must:g}",
            "-" if self.aim is None else f"{sign} {self.aim:g}",
            verdict,
        )


_ROW = "{:<42}{:>10}{:>10}  {:<22}{:>8}{:>9}{:>9}  {}"
HEADING = _ROW.format("bench", "value", "limit", "unit", "ratio", "must", "aim", "verdict")


class Pair(NamedTuple):
    """Ours and the limit, measured one right after the other, in one unit."""

    ours: float
    limit: float


def interleave(ours: Callable[[], T], limit: Callable[[], T], pairs: int) -> list[tuple[T, T]]:
    """Measure both, again and again: what else the machine does meets both alike.

    Which of them is first changes from pair to pair, so that neither always finds the caches as the other left them.
    """
    found: list[tuple[T, T]] = []
    for number in range(pairs):
        if number % 2:
            reached = limit()
            found.append((ours(), reached))
        else:
            value = ours()
            found.append((value, limit()))
    return found


def median_pair(pairs: Sequence[tuple[float, float]]) -> Pair:
    """The pair whose ratio is the median one: of the pairs that were measured, none that is made up of two of them."""
    ranked = sorted(pairs, key=lambda pair: pair[0] / pair[1])
    return Pair(*ranked[(len(ranked) - 1) // 2])


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def own_cpu_ns() -> int:
    """CPU time of this process, all its threads, user and system."""
    return time.process_time_ns()


def cpu_ns(pid: int) -> int:
    """CPU time of any process, as exact as it reads its own: all threads, also those that have ended.

    The id of a process's CPU clock is made of its pid, as clock_getcpuclockid(3) makes it on Linux.
    """
    return time.clock_gettime_ns(~pid << 3 | 2)


def cpu_of_call_ns(call: Callable[[], object], pids: Sequence[int] = ()) -> int:
    """CPU that this process and `pids` spend together while `call` runs."""
    before = own_cpu_ns() + sum(map(cpu_ns, pids))
    call()
    return own_cpu_ns() + sum(map(cpu_ns, pids)) - before


def process_tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.5g}")


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"
