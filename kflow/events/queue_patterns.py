"""Filters of an event source mapping for a queue: patterns tried on messages, as the event has them.

A message passes where any filter matches it. What is matched is the event's record (`messageId`, `attributes` ...),
with a `body` that is parsed where it is JSON:

    body     asked of body          what happens
    text     text (`["urgent"]`)    matched
    JSON     fields (`{"a": [1]}`)  matched
    text     fields                 does not pass
    JSON     text                   does not pass
    any      nothing                the rest decides

Chosen: a body is JSON where it is an object or an array; what else JSON has (`12`, `"a"`) is text.

Source: documented: Lambda Developer Guide, event filtering with SQS; the grammar: `patterns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kflow.events.pattern_grammar import Rule
from kflow.events.patterns import compiled_rules, object_test, parsed

_FIELDS: Final = frozenset(
    {
        "attributes",
        "awsRegion",
        "body",
        "eventSource",
        "eventSourceARN",
        "md5OfBody",
        "md5OfMessageAttributes",
        "messageAttributes",
        "messageId",
        "receiptHandle",
    }
)


class _Test(NamedTuple):
    """One rule.

    Attributes:
        body: whether its body is asked for as JSON; None: it is not asked for.
        passes: the test of the record.
    """

    body: bool | None
    passes: Callable[[Any], bool]


class MessageFilters:
    """Compiled filters; any number of mappings may share them.

    Attributes:
        warnings: what works here and may not on AWS, one text each, with its place.
    """

    def __init__(self, rules: Sequence[Rule], warnings: tuple[str, ...] = ()) -> None:
        self.warnings = warnings
        self._tests = [_Test(_asks_json(rule), object_test([rule])) for rule in rules]
        self._reads_body = any(test.body is not None for test in self._tests)

    def passes(self, record: Mapping[str, Any]) -> bool:
        """Whether a message passes.

        Args:
            record: as the event has it.
        """
        is_json = False
        shown = dict(record)
        if self._reads_body:
            value = parsed(record["body"].encode())
            is_json = isinstance(value, dict | list)
            if is_json:
                shown["body"] = value
        return any(test.body in (None, is_json) and test.passes(shown) for test in self._tests)


def compile_message_filters(texts: Sequence[str]) -> MessageFilters:
    """Compile the filters of a mapping.

    Args:
        texts: patterns as JSON text, up to 10 of up to 4,096 characters.

    Raises:
        PatternError: one of them is not a pattern; the text names which, and the place in it.
    """
    return MessageFilters(*compiled_rules(texts, _unknown))


def _unknown(rules: Sequence[Rule]) -> list[str]:
    """Warnings of what a message has not."""
    return [
        f"{'.'.join(path)}: a message has no field {path[0]}: fields of a body that is JSON stand below body: "
        f'{{"body": {{"{path[0]}": ...}}}}'
        for rule in rules
        for path in rule
        if path[0] not in _FIELDS
    ]


def _asks_json(rule: Rule) -> bool | None:
    below = [len(path) > 1 for path in rule if path[0] == "body"]
    return any(below) if below else None
