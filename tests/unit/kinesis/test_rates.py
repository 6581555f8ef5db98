"""Rates of the control plane: a second's calls at once, and then one as each becomes due."""

from __future__ import annotations

import pytest

from kflow.aws import models
from kflow.aws.calls import Place
from kflow.errors import LimitExceeded
from kflow.kinesis.rates import CALLS_PER_SECOND, Rates

PLACE = Place("123456789012", "us-east-1")


def calls(rates: Rates, operation: str, now_ms: int, name: str = "orders", place: Place = PLACE) -> int:
    """How many calls are admitted at a moment."""
    admitted = 0
    try:
        while admitted < 5000:
            rates.check(place, operation, name, now_ms)
            admitted += 1
    except LimitExceeded:
        pass
    return admitted


def test_a_second_has_its_number_of_calls_and_no_more() -> None:
    rates = Rates()
    assert calls(rates, "DescribeStream", 0) == 10
    assert calls(rates, "DescribeStream", 99) == 0
    assert calls(rates, "DescribeStream", 100) == 1
    assert calls(rates, "DescribeStream", 10_000) == 10


def test_places_and_operations_do_not_share_and_list_shards_counts_by_stream() -> None:
    rates = Rates()
    assert calls(rates, "CreateStream", 0) == 5
    assert calls(rates, "CreateStream", 0, "other") == 0
    assert calls(rates, "DeleteStream", 0) == 5
    assert calls(rates, "CreateStream", 0, place=Place("123456789012", "eu-west-1")) == 5
    assert calls(rates, "ListShards", 0) == 1000
    assert calls(rates, "ListShards", 0, "other") == 1000


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    rates = Rates()
    assert calls(rates, "DescribeLimits", 10_000) == 1
    assert calls(rates, "DescribeLimits", 0) == 0
    assert calls(rates, "DescribeLimits", 999) == 0
    assert calls(rates, "DescribeLimits", 1000) == 1


def test_records_are_not_limited_so() -> None:
    assert calls(Rates(), "PutRecord", 0) == 5000


@pytest.mark.parametrize("operation", sorted(CALLS_PER_SECOND))
def test_every_name_is_an_operation(operation: str) -> None:
    assert operation in models.load("kinesis").operation_names
