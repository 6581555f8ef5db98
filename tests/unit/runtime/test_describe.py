"""A trigger's options in words: what `kflow run` and `kflow check` say of it."""

from __future__ import annotations

from typing import Any

import pytest

from kflow.declarations import MappingOptions, StartingPosition, StreamTrigger
from kflow.runtime.starting import describe

OTHER: dict[str, tuple[Any, str]] = {
    "batch_size": (7, "batch 7"),
    "maximum_batching_window_in_seconds": (5, "window 5 s"),
    "starting_position": (StartingPosition.LATEST, "LATEST"),
    "maximum_retry_attempts": (1, "1 retry"),
    "maximum_record_age_in_seconds": (60, "age 60 s"),
    "bisect_batch_on_function_error": (True, "bisect"),
    "report_batch_item_failures": (True, "reports item failures"),
    "parallelization_factor": (4, "4 lanes"),
    "tumbling_window_in_seconds": (60, "tumbling 60 s"),
    "filters": (('{"data": {"a": ["b"]}}', '{"data": {"a": ["c"]}}'), "2 filters"),
    "on_failure": ("drop", "on failure drop"),
}


def described(*, enabled: bool = True, **options: Any) -> list[str]:
    trigger = StreamTrigger(stream="orders", options=MappingOptions(**options), enabled=enabled)
    return describe(trigger).split(", ")


def test_defaults_are_not_told() -> None:
    assert described() == ["batch 100"]


@pytest.mark.parametrize("option", MappingOptions.__struct_fields__)
def test_every_option_that_is_not_the_default_is_told(option: str) -> None:
    if option == "starting_position_ms":
        at = described(starting_position=StartingPosition.AT_TIMESTAMP, starting_position_ms=1_704_164_645_678)
        assert at == ["batch 100", "from 2024-01-02T03:04:05.678Z"]
        return
    value, text = OTHER[option]
    assert text in described(**{option: value})


def test_no_retries_one_filter_and_disabled() -> None:
    assert described(enabled=False, maximum_retry_attempts=0, filters=('{"data": {"a": ["b"]}}',)) == [
        "batch 100",
        "0 retries",
        "1 filter",
        "disabled",
    ]


def test_a_registered_consumer_is_told() -> None:
    trigger = StreamTrigger(stream="orders", options=MappingOptions(), consumer="fast")
    assert describe(trigger) == "batch 100, consumer fast"
