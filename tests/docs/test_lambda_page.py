"""The page on Lambda, the service's model, the service, the scenarios and the tests go together."""

from __future__ import annotations

from tests import lambda_page
from tests.scenarios import form
from tests.service_page import existing


def test_page_model_service_and_tests_go_together() -> None:
    lambda_page.PAGE.check()


def test_the_table_of_scenarios_is_the_one_that_is_made() -> None:
    assert lambda_page.made() == lambda_page.PAGE.text, "run: python -m tests.lambda_page"


def test_the_page_states_what_it_knows_fact_by_fact() -> None:
    assert len(list(lambda_page.PAGE.behaviours())) > 100


def test_scenarios_that_are_named_are_in_the_table() -> None:
    named = set(lambda_page.named(lambda_page.PAGE.text))
    assert len(named) > 10
    assert named <= {each.name for path in form.files() for each in form.load(path)}


def test_each_open_point_has_its_choice_held_by_a_test_or_a_scenario() -> None:
    points = lambda_page.open_points()
    assert len(points) >= 19
    for point, tests, scenarios in points:
        assert tests or scenarios, point
        assert set(tests) <= set(existing()), point
