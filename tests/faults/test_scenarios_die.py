"""The scenarios of `tests/behaviour/mappings` on a runtime whose processes are killed again and again.

What is expected of each changes with the kills, for the death of a worker is an attempt. What may not change: every
record that a function is to get it gets, or it is parked; it comes anew only in the order of its key; and in the end
everything is settled.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.figures import process_tree
from tests.project import Project
from tests.scenarios import form
from tests.scenarios.live import Case, Group

KILLS = 4
FULL_KILLS = 20
TURNS = 3
"""The scenarios run in so many turns, of every class some in each."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tree of processes is read from /proc")


class Dying(Group):
    """A runtime whose node, zygote and workers are killed while scenarios run."""

    def __init__(self, project: Project, cases: Sequence[Case], seed: int, kills: int) -> None:
        super().__init__(project, cases, blocked=False)
        self.kills = 0
        self._wanted = kills
        self._chance = random.Random(seed)

    def _run(self) -> None:
        node = self.project.start()
        for _ in range(self._wanted):
            self._work(self._chance.choice((1, 2, 10)))
            if self._chance.random() < 0.5:
                node.kill()
                node.wait()
                node = self.project.start()
            else:
                self._kill_a_child(node.pid)
            self.kills += 1
        self.project.stop(node)
        super()._run()

    def _work(self, calls: int) -> None:
        """Until there were so many calls more, or there seem to be none any more."""
        wanted, until = self._calls() + calls, time.monotonic() + 0.5
        while self._calls() < wanted and time.monotonic() < until:
            time.sleep(0.005)

    def _calls(self) -> int:
        return sum(len(self._notes(case)) for case in self.cases)

    def _kill_a_child(self, node: int) -> None:
        children = process_tree(node)[1:]
        if children:
            try:
                os.kill(self._chance.choice(children), signal.SIGKILL)
            except ProcessLookupError:
                return  # it has ended by itself just now


@pytest.mark.parametrize("turn", range(TURNS))
def test_no_kill_loses_a_record_or_the_order_of_a_key(
    turn: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills = FULL_KILLS if request.config.getoption("--full") else KILLS
    possible = [each for _, each in form.everything() if not (each.engine_only or each.blocked)]
    chosen = possible[turn::TURNS]
    cases = [Case(f"s{index:03}", each) for index, each in enumerate(chosen)]
    project = Project(tmp_path, retry_backoff_scale=0)
    group = Dying(project, cases, turn, kills)
    try:
        observed = list(group.run())
    finally:
        project.close()

    assert group.kills >= kills
    for case, (scenario, found) in zip(cases, observed, strict=True):
        lanes = [lane for lanes in (scenario.lanes or {}).values() for lane in lanes]
        wanted = {name for seen in (*(scenario.invocations or ()), *lanes) for name in seen.records}
        got = {name for seen in found.invocations for name in seen.records}
        parked = {name for document in found.documents for name in document.records}
        assert wanted <= got | parked, f"{scenario.name}: never came: {sorted(wanted - got - parked)}"
        assert found.settled == scenario.settled, scenario.name
        highest: dict[str, int] = {}
        order = {name: place for place, name in enumerate(scenario.names)}
        known: set[str] = set()
        for seen in found.invocations:
            for name in seen.records:
                key = case.keys[name]
                assert name in known or order[name] > highest.get(key, -1), f"{scenario.name}: {name} came late"
                known.add(name)
                highest[key] = max(highest.get(key, -1), order[name])
