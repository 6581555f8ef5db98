"""Checks of decorator options: each raises a `UsageError` that names the line, the option and its range."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from kflow import limits
from kflow.errors import UsageError
from kflow.loading.marks import FUNCTION_NAME
from kflow.loading.places import Place

_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")


def whole(place: Place, option: str, value: object, low: int, high: int, *, also: int | None = None) -> int:
    """A whole number from `low` to `high`, or `also`."""
    good = isinstance(value, int) and not isinstance(value, bool) and (low <= value <= high or value == also)
    if not good or not isinstance(value, int):
        other = f"{also} or " if also is not None else ""
        raise UsageError(f"{place}: {option} must be {other}a whole number from {low} to {high}, not {value!r}")
    return value


def flag(place: Place, option: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise UsageError(f"{place}: {option} must be True or False, not {value!r}")
    return value


def function_name(place: Place, value: object) -> str | None:
    """A function's name as Lambda takes it; None leaves it to the Python name."""
    if value is None:
        return None
    if not isinstance(value, str) or not FUNCTION_NAME.fullmatch(value):
        raise UsageError(
            f"{place}: function_name must be 1 to 64 of the letters a-z and A-Z, digits, - and _, not {value!r}"
        )
    return value


def environment(place: Place, value: object) -> dict[str, str] | None:
    """Environment variables as Lambda takes them: names, text, 4 KB in all."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise UsageError(f"{place}: environment must be a dict of names to text, not {value!r}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise UsageError(f"{place}: environment must be a dict of names to text, not {name!r}: {text!r}")
        if not _VARIABLE.fullmatch(name):
            raise UsageError(
                f"{place}: environment: {name!r} must start with a letter and have at least two letters, digits or _"
            )
        if name in limits.RESERVED_VARIABLES:
            raise UsageError(f"{place}: environment: {name} is reserved, Lambda sets it itself: remove it")
    total = sum(len(name.encode()) + len(text.encode()) for name, text in value.items())
    if total > limits.ENVIRONMENT_BYTES:
        raise UsageError(f"{place}: environment has {total} bytes, Lambda takes {limits.ENVIRONMENT_BYTES}")
    return dict(value)


def filters(place: Place, value: object, *, of_messages: bool = False) -> tuple[str, ...]:
    """Filter patterns, each as the JSON text that a mapping would hold.

    Args:
        place: of the decorator.
        value: what it was given.
        of_messages: whether they are for messages of a queue, and not for records of a stream.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise UsageError(f"{place}: filters must be a list of patterns, each a dict or JSON text, not {value!r}")
    if not value:
        return ()
    texts = [pattern if isinstance(pattern, str) else _as_json(place, pattern) for pattern in value]
    # Only for mappings that filter: no part of a light `import kflow`.
    from kflow.events.patterns import PatternError, compile_filters

    try:
        if of_messages:
            from kflow.events.queue_patterns import compile_message_filters

            compile_message_filters(texts)
        else:
            compile_filters(texts)
    except PatternError as error:
        raise UsageError(f"{place}: {error}") from error
    return tuple(texts)


def _as_json(place: Place, pattern: object) -> str:
    if not isinstance(pattern, Mapping):
        raise UsageError(f"{place}: filters: a pattern is a dict or JSON text, not {pattern!r}")
    try:
        # Strict: msgspec would write NaN as null and a Decimal as text, which match something else.
        return json.dumps(pattern, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).partition(": ")[0]  # from Python 3.13 on, the value follows; it is in the text already
        raise UsageError(f"{place}: filters: {pattern!r} cannot be written as JSON: {reason}") from error


def unknown(place: Place, decorator: str, names: Iterable[str], known: Iterable[str]) -> UsageError:
    """The error for an option that the decorator does not have, with the nearest name that it has."""
    name = next(iter(names))
    (score, _), near = max((_likeness(name, option), option) for option in known)
    hint = f"did you mean {near}?" if score >= _LIKE else f"it has {', '.join(sorted(known))}"
    return UsageError(f"{place}: {decorator} has no option {name}: {hint}")


_LIKE = 0.6
"""From this likeness on a name is proposed; below it the list is shown."""


def _likeness(given: str, option: str) -> tuple[float, float]:
    """How near two names are: as wholes, or (`retries` for `maximum_retry_attempts`) in one of their words.

    Returns:
        The nearness, and that of the wholes, which decides among equals.
    """
    # Needed for a mistake alone.
    from difflib import SequenceMatcher

    def ratio(one: str, other: str) -> float:
        return SequenceMatcher(None, one, other).ratio()

    given = given.lower()
    words = max(ratio(one, other) for one in given.split("_") for other in option.split("_") if len(other) > 2)
    whole = ratio(given, option)
    return max(whole, 0.9 * words), whole
