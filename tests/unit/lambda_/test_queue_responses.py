"""What a response means for the messages of a queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kflow.interfaces import FunctionError
from kflow.lambda_.fleet import Reply
from kflow.lambda_.queue_responses import judge

IDS = ["m-1", "m-2", "m-3"]
ALL = frozenset({0, 1, 2})


def left(response: Any, *, reports: bool = True) -> frozenset[int]:
    return judge(Reply(payload=json.dumps(response).encode()), IDS, report_batch_item_failures=reports).left


def named(*ids: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": each} for each in ids]}


@pytest.mark.parametrize(
    "response", [None, "", [], {}, {"batchItemFailures": []}, {"batchItemFailures": None}, {"ok": 1}]
)
def test_these_are_success(response):
    assert left(response) == frozenset()


def test_an_empty_payload_is_success():
    assert judge(Reply(payload=b""), IDS, report_batch_item_failures=True).left == frozenset()


def test_the_named_ones_failed_and_no_others():
    assert left(named("m-2")) == {1}
    assert left(named("m-3", "m-1", "m-3")) == {0, 2}


@pytest.mark.parametrize(
    "response",
    [
        named(""),
        named(None),
        named("m-9"),
        named("m-1", "m-9"),
        named(1),
        {"batchItemFailures": [{"foo": "m-1"}]},
        {"batchItemFailures": ["m-1"]},
        {"batchItemFailures": "m-1"},
        {"batchItemFailures": {}},
        "m-1",
        1,
        True,
        ["m-1"],
    ],
)
def test_these_are_complete_failures(response):
    assert left(response) == ALL


def test_without_the_option_any_value_is_success():
    assert left(named("m-1"), reports=False) == frozenset()
    assert left("rubbish", reports=False) == frozenset()


def test_what_is_not_json_is_a_complete_failure():
    verdict = judge(Reply(payload=b"{"), IDS, report_batch_item_failures=True)
    assert (verdict.left, verdict.error.type) == (ALL, "InvalidBatchItemFailures")


def test_an_error_of_the_function_is_a_complete_failure():
    error = FunctionError(type="ValueError", message="no")
    verdict = judge(Reply(payload=b'{"batchItemFailures": []}', error=error), IDS, report_batch_item_failures=True)
    assert verdict == (ALL, error)


def test_people_are_told_how_many_failed():
    verdict = judge(Reply(payload=json.dumps(named("m-1")).encode()), IDS, report_batch_item_failures=True)
    assert (verdict.error.type, verdict.error.message, verdict.error.reported) == (
        "BatchItemFailure",
        "the response reports 1 message as failed",
        True,
    )
