"""What a handler's return value means for its messages: `ReportBatchItemFailures` of a queue.

Source: recorded: `{}` is success, an item with a wrong key a complete failure; documented: empty, null and foreign
identifiers are; chosen: as of streams, for all other values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kflow.interfaces import FunctionError
from kflow.lambda_.fleet import Reply
from kflow.lambda_.responses import INVALID_RESPONSE, ITEM_FAILED


class Verdict(NamedTuple):
    """What an invocation came to for its messages.

    Attributes:
        left: places of those that failed; all others are done.
        error: why; None where all are done.
    """

    left: frozenset[int]
    error: FunctionError | None = None


def judge(reply: Reply, ids: Sequence[str], *, report_batch_item_failures: bool) -> Verdict:
    """Say which messages of a batch an invocation has done.

    Args:
        reply: what it came to.
        ids: `messageId` of each message.
        report_batch_item_failures: whether the mapping lists it; without it any value returned is success.
    """
    everything = frozenset(range(len(ids)))
    if reply.error is not None:
        return Verdict(everything, reply.error)
    if not report_batch_item_failures:
        return Verdict(frozenset())
    try:
        response = json.loads(reply.payload) if reply.payload else None
    except (ValueError, RecursionError):
        return Verdict(everything, _invalid("the response is not JSON"))
    failures = _failures(response)
    if isinstance(failures, FunctionError):
        return Verdict(everything, failures)
    places = {each: place for place, each in enumerate(ids)}
    left: set[int] = set()
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, Mapping) else None
        if not isinstance(identifier, str) or identifier not in places:
            return Verdict(
                everything, _invalid(f"batchItemFailures names {_said(item)}, which is no message of the batch")
            )
        left.add(places[identifier])
    if not left:
        return Verdict(frozenset())
    what = "1 message" if len(left) == 1 else f"{len(left)} messages"
    error = FunctionError(type=ITEM_FAILED, message=f"the response reports {what} as failed", reported=True)
    return Verdict(frozenset(left), error)


def _failures(response: Any) -> Sequence[Any] | FunctionError:
    """The items of a response."""
    if response is None or response in ("", [], {}):
        return ()
    if not isinstance(response, Mapping):
        return _invalid(f"the response is {_said(response)}, not an object with batchItemFailures")
    failures = response.get("batchItemFailures")
    if failures is None:
        return ()
    if not isinstance(failures, list):
        return _invalid(f"batchItemFailures is {_said(failures)}, not a list")
    return failures


def _invalid(message: str) -> FunctionError:
    return FunctionError(type=INVALID_RESPONSE, message=message, reported=True)


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
