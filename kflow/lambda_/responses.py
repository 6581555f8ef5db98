"""What a handler's return value means for its batch: `ReportBatchItemFailures`.

Source: recorded: answers of real mappings to `None`, `""`, `[]`, `{}`, an empty and a null list (success), to empty,
null and foreign identifiers and to items without one (complete failure); chosen: a mix of known and unknown
identifiers, and values of other types, are complete failures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from kflow.interfaces import FunctionError, Outcome

INVALID_RESPONSE = "InvalidBatchItemFailures"
ITEM_FAILED = "BatchItemFailure"
NO_STATE = "InvalidWindowState"

_NUMBER_DIGITS = 64
"""More than any sequence number has, and few enough to be read as a number at once."""


class Verdict(NamedTuple):
    """What an invocation came to for its records.

    Attributes:
        done: how many records at the front it settled.
        error: why the others failed; None where all are done.
        is_partial: whether the response named the first failed record: such a batch is cut there, never halved.
        state: of the tumbling window after the settled records, as JSON; None without windows.
    """

    done: int
    error: FunctionError | None = None
    is_partial: bool = False
    state: bytes | None = None


def judge(
    outcome: Outcome,
    count: int,
    numbers: Callable[[], Sequence[int]],
    *,
    report_batch_item_failures: bool,
    windowed: bool = False,
) -> Verdict:
    """Say which records of a batch an invocation settled.

    Args:
        outcome: what the invocation came to.
        count: how many records it was given.
        numbers: gives their sequence numbers as they are stored; asked only where the response names some.
        report_batch_item_failures: whether the mapping lists it; without it any value returned is success.
        windowed: whether the mapping has tumbling windows: a response must then hold a state.
    """
    if outcome.error is not None:
        return Verdict(0, outcome.error)
    response = outcome.response
    state: bytes | None = None
    if windowed:
        # documented: a response without a state is a failed invocation; chosen: so is a state that is no object.
        returned = response.get("state") if isinstance(response, Mapping) else None
        if not isinstance(returned, Mapping):
            where = "the response" if isinstance(response, Mapping) else f"the response is {_said(response)}:"
            return _invalid(f"{where} has no state, which must be an object in a tumbling window", NO_STATE)
        try:
            state = json.dumps(returned, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as error:
            # chosen: what JSON does not have (NaN, infinity) would come back as something else.
            return _invalid(f"the state of the tumbling window is not JSON: {error}", NO_STATE)
    return _items(outcome, count, numbers, report_batch_item_failures)._replace(state=state)


def _items(
    outcome: Outcome, count: int, numbers: Callable[[], Sequence[int]], report_batch_item_failures: bool
) -> Verdict:
    """What the response says of the batch's records."""
    response = outcome.response
    if not report_batch_item_failures or response is None or response in ("", [], {}):
        return Verdict(count)
    if not isinstance(response, Mapping):
        return _invalid(f"the response is {_said(response)}, not an object with batchItemFailures")
    failures = response.get("batchItemFailures")
    if failures is None or failures == []:
        return Verdict(count)
    if not isinstance(failures, Sequence) or isinstance(failures, str):
        return _invalid(f"batchItemFailures is {_said(failures)}, not a list")
    return _first_failed(failures, count, numbers(), outcome.cause)


def _first_failed(failures: Sequence[Any], count: int, numbers: Sequence[int], cause: FunctionError | None) -> Verdict:
    places = {number: index for index, number in enumerate(numbers)}
    first: tuple[int, int] | None = None
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, Mapping) else None
        # Only a JSON string names a record: an integer is unknown even where its value fits.
        number = _number(identifier) if isinstance(identifier, str) else -1
        place = places.get(number)
        if place is None:
            return _invalid(f"batchItemFailures names {_said(item)}, which is no record of the batch")
        if first is None or place < first[0]:
            first = (place, number)
    if first is None:  # a sequence that is empty and not a list
        return Verdict(count)
    index, number = first
    error = FunctionError(type=ITEM_FAILED, message=f"the response reports record {number} as failed", reported=True)
    if cause is not None:
        error = replace(cause, reported=True)
    return Verdict(index, error, is_partial=True)


def _number(text: str) -> int:
    """The number that a text is; -1 for any other text. Python itself refuses texts of thousands of digits."""
    digits = text.lstrip("0")
    return int(digits) if len(digits) <= _NUMBER_DIGITS and digits.isascii() and digits.isdigit() else -1


def _invalid(message: str, kind: str = INVALID_RESPONSE) -> Verdict:
    return Verdict(0, FunctionError(type=kind, message=message, reported=True))


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
