"""Filter policies: which messages a subscription is told of, by their attributes or by their body.

The grammar is that of event patterns (`kflow.events.pattern_grammar`), and so are the tests. What SNS has of its own: a
policy on attributes has no nested fields; texts and numbers of an attribute are told apart by its type, and a
`String.Array` is a list of values.

Source: documented: SNS Developer Guide, subscription filter policies; chosen: the texts behind the first colon.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from kflow.events.pattern_grammar import Grammar, PatternError
from kflow.events.patterns import object_test
from kflow.messaging.errors import InvalidParameter
from kflow.messaging.messages import Attribute, Message

ON_ATTRIBUTES: Final = "MessageAttributes"
ON_BODY: Final = "MessageBody"
SCOPES: Final = (ON_ATTRIBUTES, ON_BODY)
_KEYS: Final = 5
_COMBINATIONS: Final = 150
_CHARACTERS: Final = 256 * 1024

Passes = Callable[[Message], bool]


def compile_policy(text: str, scope: str) -> Passes:
    """The test of a policy.

    Args:
        text: the policy, as JSON; `{}` lets all pass.
        scope: `MessageAttributes` or `MessageBody`.

    Raises:
        InvalidParameter: it is none.
    """
    if len(text) > _CHARACTERS:
        raise _wrong("Policy is too large")
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"failed to parse JSON. {error}") from error
    if not isinstance(policy, dict):
        raise _wrong("Filter policy must be an object")
    if not policy:
        return lambda _: True
    try:
        if scope == ON_ATTRIBUTES:
            _check_flat(policy)
        test, (combinations, names) = object_test(Grammar().rules(text)), _measure(policy, 0)
    except PatternError as error:
        raise _wrong(str(error)) from error
    except RecursionError:
        raise _wrong("Filter policy is nested too deeply") from None
    if names > _KEYS:
        raise _wrong("Filter policy can not have more than 5 keys")
    if combinations > _COMBINATIONS:
        raise _wrong("Filter policy is too complex")
    if scope == ON_ATTRIBUTES:
        return lambda message: test(_values(message.attributes))
    return lambda message: test(message.parsed)


def _wrong(reason: str) -> InvalidParameter:
    return InvalidParameter(f"FilterPolicy: {reason}")


def _check_flat(policy: Mapping[str, Any]) -> None:
    for name, wanted in policy.items():
        if name == "$or" and isinstance(wanted, list):
            for each in wanted:
                if isinstance(each, dict):
                    _check_flat(each)
        elif isinstance(wanted, dict):
            raise _wrong("Filter policy scope MessageAttributes does not support nested filter policy")


def _measure(policy: Mapping[str, Any], depth: int) -> tuple[int, int]:
    """Combinations and keys: values are multiplied, and those of a nested field by how deep it is.

    Source: documented: SNS Developer Guide, filter policy constraints.
    """
    combinations, names = 1, 0
    for name, wanted in policy.items():
        if name == "$or" and isinstance(wanted, list):
            inner = [_measure(each, depth) for each in wanted if isinstance(each, dict)]
            combinations *= max(1, sum(each[0] for each in inner))
            names += max((each[1] for each in inner), default=0)
        elif isinstance(wanted, dict):
            found = _measure(wanted, depth + 1)
            combinations *= found[0]
            names += found[1]
        elif isinstance(wanted, list):
            combinations *= max(1, len(wanted)) * (depth + 1)
            names += 1
    return combinations, names


def _values(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """Attributes as a policy sees them; binary ones it does not see."""
    found: dict[str, Any] = {}
    for name, (kind, value) in attributes.items():
        if isinstance(value, bytes):
            continue
        if kind.partition(".")[0] == "Number":
            found[name] = float(value)
        elif kind == "String.Array":
            found[name] = json.loads(value)
        else:
            found[name] = value
    return found
