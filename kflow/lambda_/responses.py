"""What a handler's return value means for its batch: `ReportBatchItemFailures`.

Source: recorded: answers of real mappings to `None`, `""`, `[]`, `{}`, an empty and a null list (success), to empty,
null and foreign identifiers and to items without one (complete failure); chosen: a mix of known and unknown
identifiers, and values of other types, are complete failures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kflow.interfaces import FunctionError, Outcome
from kflow.lambda_.pieces import Piece
from kflow.lambda_.shapes import Shape

INVALID_RESPONSE = "InvalidBatchItemFailures"
ITEM_FAILED = "BatchItemFailure"


class Verdict(NamedTuple):
    """What an invocation came to for its records.

    Attributes:
        done: how many records at the front it settled.
        error: why the others failed; None where all are done.
        is_partial: whether the response named the first failed record: such a batch is cut there, never halved.
    """

    done: int
    error: FunctionError | None = None
    is_partial: bool = False


def judge(outcome: Outcome, piece: Piece, shape: Shape, *, report_batch_item_failures: bool) -> Verdict:
    """Say which records of a piece an invocation settled.

    Args:
        outcome: what the invocation came to.
        piece: what it was given.
        shape: how the records are shaped.
        report_batch_item_failures: whether the mapping lists it; without it any value returned is success.
    """
    if outcome.error is not None:
        return Verdict(0, outcome.error)
    response = outcome.response
    if not report_batch_item_failures or response is None or response in ("", [], {}):
        return Verdict(piece.count)
    if not isinstance(response, Mapping):
        return _invalid(f"the response is {_said(response)}, not an object with batchItemFailures")
    failures = response.get("batchItemFailures")
    if failures is None or failures == []:
        return Verdict(piece.count)
    if not isinstance(failures, Sequence) or isinstance(failures, str):
        return _invalid(f"batchItemFailures is {_said(failures)}, not a list")
    return _first_failed(failures, piece, shape, outcome.cause)


def _first_failed(failures: Sequence[Any], piece: Piece, shape: Shape, cause: FunctionError | None) -> Verdict:
    # Numbers of freshly built records: the handler may have changed those it was given.
    places = {shape.sequence_number(record): index for index, record in enumerate(piece.rebuilt(shape).records)}
    first: tuple[int, int] | None = None
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, Mapping) else None
        # Only a JSON string names a record: an integer is unknown even where its value fits.
        number = int(identifier) if isinstance(identifier, str) and _is_number(identifier) else -1
        place = places.get(number)
        if place is None:
            return _invalid(f"batchItemFailures names {_said(item)}, which is no record of the batch")
        if first is None or place < first[0]:
            first = (place, number)
    if first is None:  # a sequence that is empty and not a list
        return Verdict(piece.count)
    index, number = first
    error = cause or FunctionError(type=ITEM_FAILED, message=f"the response reports record {number} as failed")
    return Verdict(index, error, is_partial=True)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _invalid(message: str) -> Verdict:
    return Verdict(0, FunctionError(type=INVALID_RESPONSE, message=message))


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
