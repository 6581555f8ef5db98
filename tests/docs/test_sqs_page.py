"""The page on SQS, the service's model, the service and the tests go together."""

from __future__ import annotations

from tests.sqs_page import PAGE


def test_page_model_service_and_tests_go_together() -> None:
    PAGE.check()


def test_the_page_states_what_it_knows_fact_by_fact() -> None:
    assert len(list(PAGE.behaviours())) >= 60
