"""The scenarios of `mappings/*.toml`: on the engine, on a runtime, and by clients of its API."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from kflow.declarations import MappingOptions
from tests.scenarios import api, form, live, stepped
from tests.scenarios.form import Scenario
from tests.served import served

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


def test_the_scenarios_of_all_files_by_the_api_with_a_function_as_a_zip(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with served(tmp_path, KFLOW_RETRY_BACKOFF_SCALE="0.01") as node:
        target = api.Local(node, tmp_path / "notes")
        results = api.compare(api.Runner(target, api.possible([each for _, each in SCENARIOS]), "s"))
    found = [f"{scenario.name}: {each}" for scenario, different in results for each in different]
    assert not found, "\n" + "\n".join(found)
    assert len(results) >= 135


def test_what_clients_cannot_have_is_named_with_its_reason() -> None:
    reasons = {scenario.no_api for _, scenario in SCENARIOS if scenario.no_api}
    assert reasons == {
        "its position is a moment between records of the past",
        "its records arrived in the past",
        "its windows lie in the past",
    }
    assert not [scenario.name for _, scenario in SCENARIOS if scenario.no_api and scenario.engine_only]


def test_a_report_names_what_differs_and_what_could_not_run() -> None:
    scenario = SCENARIOS[0][1]
    text = api.report([(scenario, ["settled:", "    expected 5"]), (SCENARIOS[1][1], [])], {"windows": "in the past"})
    assert text == (
        "# Scenarios on AWS\n\n2 scenarios ran, 1 differ from the table; 1 cannot be had by the API.\n\n"
        f"## {scenario.name}\n\nknown by: {scenario.source}\n\n```\nsettled:\n    expected 5\n```\n\n"
        "## Without a client\n\n- windows: in the past\n"
    )


def test_nothing_reaches_an_account_that_nobody_named() -> None:
    with pytest.raises(SystemExit):
        api.main(["--target", "aws"])


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
