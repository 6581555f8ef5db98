"""The page on Lambda, the service's model, the service, the scenarios and the tests go together."""

from __future__ import annotations

from tests import lambda_page


def test_page_model_service_and_tests_go_together() -> None:
    lambda_page.PAGE.check()


def test_the_table_of_scenarios_is_the_one_that_is_made() -> None:
    assert lambda_page.made() == lambda_page.PAGE.text, "run: python -m tests.lambda_page"


def test_the_page_states_what_it_knows_fact_by_fact() -> None:
    assert len(list(lambda_page.PAGE.behaviours())) > 100
