"""The page on Kinesis, the service's model, the service and the tests go together."""

from __future__ import annotations

import re

from kflow.aws.shapes import snake_case
from tests import kinesis_page

TEXT = kinesis_page.PAGE.read_text(encoding="utf-8")


def test_every_operation_of_the_model_is_performed_and_named_with_its_tests() -> None:
    names = set(kinesis_page.operations())
    assert names - kinesis_page.performed() == set(), "write the method, or say in MISSING what is missing"
    assert names - set(kinesis_page.TESTS) == set(), "name the tests of these operations in tests/kinesis_page.py"


def test_no_operation_is_named_that_the_model_does_not_have() -> None:
    known = set(kinesis_page.TESTS) | set(kinesis_page.MISSING)
    assert known - set(kinesis_page.operations()) == set()


def test_the_table_of_operations_is_the_one_that_is_made() -> None:
    assert kinesis_page.with_table(TEXT) == TEXT, "run: python -m tests.kinesis_page"


def test_the_tests_of_an_operation_speak_of_it() -> None:
    existing = kinesis_page.existing()
    for operation, tests in kinesis_page.TESTS.items():
        assert tests, operation
        for test in tests:
            assert test in existing, f"{operation}: there is no test {test}"
            words = {operation, snake_case(operation)}
            assert any(word in existing[test] for word in words), f"{test} has nothing to do with {operation}"


def test_every_fact_says_how_it_is_known_and_which_tests_show_it() -> None:
    existing = kinesis_page.existing()
    rows = list(kinesis_page.behaviours(TEXT))
    assert len(rows) > 100
    for row in rows:
        assert row.known, row.fact
        assert set(row.known) <= kinesis_page.KNOWN, row
        assert row.tests, f"no test shows: {row.fact}"
        assert set(row.tests) <= set(existing), f"no such test: {sorted(set(row.tests) - set(existing))}"


def test_every_test_that_the_text_names_exists() -> None:
    prose = "".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith("|"))
    named = {name for name in re.findall(r"`([a-z0-9_]+)`", prose) if name.count("_") > 3}
    assert named
    assert named <= set(kinesis_page.existing())
