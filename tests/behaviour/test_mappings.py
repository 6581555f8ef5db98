"""The scenarios of `mappings/*.toml`, on the engine and on a runtime."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from kflow.declarations import MappingOptions
from tests.scenarios import form, live, stepped
from tests.scenarios.form import Scenario

SCENARIOS = form.everything()


@pytest.mark.parametrize("scenario", [pytest.param(each, id=f"{file}: {each.name}") for file, each in SCENARIOS])
@pytest.mark.parametrize("dropping", [False, True], ids=["kept", "dropped"])
def test_a_scenario_on_the_engine(scenario: Scenario, dropping: bool) -> None:
    observed = stepped.run(scenario, dropping=dropping)
    assert not (found := form.differences(scenario, observed, lane_of=stepped.lane_of)), "\n" + "\n".join(found)


@pytest.mark.parametrize("path", form.files(), ids=lambda path: path.stem)
def test_the_scenarios_of_a_file_on_a_runtime(path: Path, tmp_path: Path) -> None:
    chosen = [scenario for scenario in form.load(path) if not scenario.engine_only]
    found = []
    for scenario, observed in live.run(chosen, tmp_path):
        different = form.differences(scenario, observed, lane_of=stepped.lane_of)
        found += [f"{scenario.name}: {each}" for each in different]
    assert not found, "\n" + "\n".join(found)


def test_there_are_120_scenarios_with_different_names() -> None:
    names = [scenario.name for _, scenario in SCENARIOS]
    assert len(names) >= 120
    assert len(set(names)) == len(names)


def test_every_scenario_says_how_it_is_known() -> None:
    marks = {scenario.source.partition(":")[0] for _, scenario in SCENARIOS}
    assert marks == {"documented", "recorded", "chosen"}


def test_all_options_and_all_their_pairs_are_covered() -> None:
    options = set(MappingOptions.__struct_fields__) - {"starting_position_ms"}
    pairs = {frozenset(pair) for pair in combinations(options, 2)}
    excluded = {frozenset(("tumbling_window_in_seconds", "parallelization_factor"))}
    seen = {frozenset(pair) for _, scenario in SCENARIOS for pair in combinations(scenario.options, 2)}
    missing = sorted(" and ".join(sorted(pair)) for pair in pairs - excluded - seen)
    assert missing == []
    assert seen & excluded == set()


def test_most_scenarios_run_on_a_runtime() -> None:
    reasons = [scenario.engine_only for _, scenario in SCENARIOS if scenario.engine_only]
    assert len(reasons) < len(SCENARIOS) / 4


def test_what_differs_from_a_scenario_is_said() -> None:
    (scenario,) = (each for _, each in SCENARIOS if each.name == "five records are halved into two and three")
    observed = stepped.run(scenario)
    observed.invocations.pop()
    observed.documents.clear()
    observed.settled = 4
    observed.totals["parked"] = 0

    found = form.differences(scenario, observed, lane_of=stepped.lane_of)

    assert [text.partition(":")[0] for text in found] == ["invocations", "documents", "settled", "parked"]
    assert found[2] == "settled:\n    expected 5\n    observed 4"


def test_a_scenario_with_an_unknown_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('[[scenario]]\nname = "x"\nsource = "chosen: x"\ninvocation = []\n')
    with pytest.raises(ValueError, match="x: a scenario has no invocation"):
        form.load(path)
