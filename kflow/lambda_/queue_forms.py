"""How handlers of queues are called: with all messages of an invocation, or with one after the other.

What fails is named in the response, and comes again when the queue's visibility timeout is over; all else is deleted.
Of a FIFO queue the group of a message that fails is left there, for nothing may be done before it; other groups go on.
Where nothing at all succeeded, the first failure is raised: Lambda's error metric sees it, and the queue does the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import force_setattr

from kflow.errors import UsageError
from kflow.interfaces import Invocation
from kflow.lambda_.binding import Bind, Typed, Wait
from kflow.records import Message, Messages

Call = Callable[[Invocation, Any], Any]
Failure = tuple[Message[Any], Exception]


def message_call(bind: Bind, value: Typed | None, wait: Wait | None, log: logging.Logger, root: str) -> Call:
    """One message at a time."""

    def call(invocation: Invocation, context: Any) -> dict[str, Any] | None:
        each = _Each(invocation.records)
        handle = bind(context)
        if wait is None:
            for message in each:
                try:
                    _decode(message, value)
                    handle(message)
                except Exception as error:  # noqa: BLE001  (user code: whatever it raises is this message's failure)
                    each.fail(message, error)
        else:

            async def one_by_one() -> None:
                for message in each:
                    try:
                        _decode(message, value)
                        await handle(message)
                    except Exception as error:  # noqa: BLE001  (as above)
                        each.fail(message, error)

            wait(one_by_one())
        return each.response(log, root)

    return call


class _Each:
    """The messages of an invocation that are to be handled: not those behind a failure in their group."""

    def __init__(self, messages: Sequence[Message[Any]]) -> None:
        self._messages = messages
        self._failures: list[Failure] = []
        self._left: list[str] = []
        self._groups: set[str] = set()

    def __iter__(self) -> Iterator[Message[Any]]:
        for message in self._messages:
            if is_ordered(message) and message.group in self._groups:
                self._left.append(message.message_id)
            else:
                yield message

    def fail(self, message: Message[Any], error: Exception) -> None:
        """A message was not done."""
        self._failures.append((message, error))
        self._left.append(message.message_id)
        self._groups.add(message.group)

    def response(self, log: logging.Logger, root: str) -> dict[str, Any] | None:
        """What the invocation comes to."""
        if not self._failures:
            return None
        if len(self._left) == len(self._messages):
            _log(log, self._failures[1:], root)
            raise self._failures[0][1]
        _log(log, self._failures, root)
        return {"batchItemFailures": [{"itemIdentifier": each} for each in self._left]}


def messages_call(
    bind: Bind, value: Typed | None, wait: Wait | None, log: logging.Logger, takes_failures: Callable[[str], bool]
) -> Call:
    """All messages at once; those that do not decode are left out, and reported."""

    def call(invocation: Invocation, context: Any) -> Any:
        messages: Sequence[Message[Any]] = invocation.records
        may_report = takes_failures(invocation.stream)
        undecoded: list[Message[Any]] = []
        if value is not None:
            messages, undecoded = _decoded(messages, value, log, may_fail=may_report)
        batch: Messages[Any] = Messages(messages, invocation.stream)
        response = bind(context)(batch)
        if wait is not None:
            response = wait(response)
        failures = batch.response()
        if failures is None and not undecoded:
            return response
        if not may_report:
            raise UsageError(
                "messages.failed() needs report_batch_item_failures=True in the decorator: without it AWS ignores "
                "which messages failed, and deletes the whole batch"
            )
        items: list[Any] = list(failures["batchItemFailures"]) if failures else []
        items += [{"itemIdentifier": each.message_id} for each in undecoded]
        return with_failures(response, items)

    return call


def with_failures(response: Any, items: list[Any]) -> Any:
    """The handler's own response with further failures. What is no batch response stays: AWS's rules judge it."""
    if not response:
        return {"batchItemFailures": items}
    said = response.get("batchItemFailures") if isinstance(response, dict) else ""
    if not isinstance(response, dict) or (said is not None and not isinstance(said, list)):
        return response
    return {**response, "batchItemFailures": [*(said or ()), *items]}


def is_ordered(message: Message[Any]) -> bool:
    """Whether its queue keeps an order: in others, too, a message may have a group."""
    return message.source_arn.endswith(".fifo")


def _decode(message: Message[Any], value: Typed | None) -> None:
    if value is not None:
        try:
            decoded = value.decode(message.body.encode())
        except Exception as error:  # of msgspec, Pydantic, or a model's own __post_init__
            raise value.failed_message(message, error) from error
        force_setattr(message, "decoded", decoded)


def _decoded(
    messages: Sequence[Message[Any]], value: Typed, log: logging.Logger, *, may_fail: bool
) -> tuple[list[Message[Any]], list[Message[Any]]]:
    """The messages with their values set, and those that stay: what does not decode, and its group behind it.

    Where none is left, or partial batch responses are off, it raises instead.
    """
    good: list[Message[Any]] = []
    left: list[Message[Any]] = []
    failures: list[Exception] = []
    groups: set[str] = set()
    for message in messages:
        if is_ordered(message) and message.group in groups:
            left.append(message)
            continue
        try:
            _decode(message, value)
        except Exception as error:
            if not may_fail:
                raise
            failures.append(error)
            left.append(message)
            groups.add(message.group)
        else:
            good.append(message)
    if failures and not good:
        raise failures[0]
    for failure in failures:
        log.error("%s", failure)
    return good, left


def _log(log: logging.Logger, failures: Sequence[Failure], root: str) -> None:
    for message, error in failures:
        # Needed for a failure alone, and no part of a light `import kflow`.
        from kflow.loading.tracebacks import trimmed

        trace = trimmed(error.__traceback__, root)
        log.error("message %s failed", message.message_id, exc_info=(type(error), error, trace))
