"""The handler of a scenario: what it does is data. Standard library alone, for it is copied into projects.

A handler is a list of rules; the first that applies to an invocation is what happens, and none is success.

    on       text, or list of texts: applies where one of these payloads is in the batch; without it, always
    final    applies only to the call that ends a tumbling window (true), or only to the others (false)
    first    applies to the first so many invocations that it applies to, no more
    after    applies only once so many invocations have gone before

and one of
    raises   message: the function raises; "{surrogate}" is a text that UTF-8 cannot hold
    returns  JSON: what the function returns; "{number:TEXT}" is the sequence number of that payload, as the text that
             it is in the event, "{integer:TEXT}" as a number; "{large:COUNT}" a text of so many characters, and
             "{large:9:COUNT}" of so many nines; "{state}" the state that the default would return; "{null}" is null
    reports  list of payloads: those that are in the batch are reported as failed, with the default's state
    exits    code: the process ends
    sleeps   seconds: beyond the function's timeout
    stops    "clean" or "crash": whoever runs the function goes away meanwhile, and comes back (the engine alone)

In a tumbling window the default returns a state that counts records: {"n": 3}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

ACTIONS = ("raises", "returns", "reports", "exits", "sleeps", "stops")


class Call(NamedTuple):
    """One invocation, in terms of any of its forms.

    Attributes:
        datas: payloads, without what only makes them large.
        numbers: sequence numbers, as in the event.
        state: of the tumbling window; None without windows.
        final: whether it ends its window.
    """

    datas: Sequence[str]
    numbers: Sequence[str]
    state: Mapping[str, Any] | None = None
    final: bool = False


class Act(NamedTuple):
    """What an invocation does."""

    action: str
    value: Any


def text_of(data: bytes) -> str:
    """A payload as rules name it: records that are made large are padded with blanks."""
    return data[:4096].decode("utf-8", "replace").rstrip(" ") if len(data) > 4096 else data.decode("utf-8", "replace")


def decide(rules: Sequence[Mapping[str, Any]], call: Call, fired: Callable[[int], int], before: int) -> tuple[int, Act]:
    """What happens in an invocation.

    Args:
        rules: of the scenario.
        call: the invocation.
        fired: from the index of a rule to how often it has applied before.
        before: invocations that have gone before.

    Returns:
        The index of the rule, -1 for none, and what it does.
    """
    for index, rule in enumerate(rules):
        wanted = rule.get("on")
        texts = [wanted] if isinstance(wanted, str) else wanted
        if texts is not None and not set(texts) & set(call.datas):
            continue
        if "final" in rule and rule["final"] != call.final:
            continue
        if before < rule.get("after", 0) or fired(index) >= rule.get("first", float("inf")):
            continue
        action = next(name for name in ACTIONS if name in rule)
        value = rule[action]
        if action == "reports":
            found = [number for data, number in zip(call.datas, call.numbers, strict=True) if data in value]
            return index, Act("returns", {**success(call), "batchItemFailures": [{"itemIdentifier": n} for n in found]})
        if action == "raises":
            return index, Act(action, "\udcff" if value == "{surrogate}" else value)
        return index, Act(action, filled(value, call) if action == "returns" else value)
    return -1, Act("returns", success(call) or None)


def success(call: Call) -> dict[str, Any]:
    """What a handler returns that has done its work."""
    if call.state is None:
        return {}
    return {"state": {**call.state, "n": call.state.get("n", 0) + len(call.datas)}}


NO_CALL = Call((), ())


def filled(value: Any, call: Call = NO_CALL) -> Any:
    """A response, or a state, with its places filled in."""
    if isinstance(value, dict):
        return {key: filled(each, call) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, call) for each in value]
    if value == "{state}":
        return success(call).get("state", {})
    if value == "{null}":  # TOML has none
        return None
    if isinstance(value, str) and value.startswith("{large:"):
        text, _, count = value[7:-1].rpartition(":")
        return (text or "x") * int(count)
    if isinstance(value, str) and value.startswith("{") and ":" in value:
        kind, _, text = value.strip("{}").partition(":")
        number = call.numbers[list(call.datas).index(text)]
        return number if kind == "number" else int(number)
    return value
