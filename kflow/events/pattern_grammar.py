"""From the JSON text of a filter pattern to rules: a rule is one conjunction, paths and what is wanted at each.

    pattern := object, not empty
    object  := { field: object | array }
    array   := list of items, not empty
    item    := string | number | true | false | null | {operator}
    operator, exactly one key:
      {"prefix": "s"}  {"suffix": "s"}  {"equals-ignore-case": "s"}  {"wildcard": "a*b"}
      {"prefix": {"equals-ignore-case": "s"}}  {"suffix": {"equals-ignore-case": "s"}}
      {"exists": true|false}
      {"numeric": [op, n]} or [op, n, op, n]       op: = < <= > >= ; two terms are a range, lower bound first
      {"anything-but": v | [v...]}                 all strings or all numbers
      {"anything-but": {"prefix" | "suffix" | "equals-ignore-case" | "wildcard": s | [s...]}}
      {"cidr": "10.0.0.0/24"}
    "$or": [object, object ...]                    at least 2, none with an operator's name as a field

`$or` multiplies rules, as it does on AWS; a field `a.b` and a field `b` in an `a` are one path; of the same path twice
in one rule the last one counts.

Source: documented: EventBridge User Guide, event patterns; recorded: EventBridge TestEventPattern, October 2025.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final, NoReturn

from kflow.errors import UsageError
from kflow.events import wildcards
from kflow.events.pattern_values import Wanted, double, in_network, in_range

Rule = dict[tuple[str, ...], Wanted]
"""A conjunction: what is wanted at each path."""

MAX_RULES: Final = 1_000
"""Most combinations that `$or` may come to. Source: documented: EventBridge User Guide, `$or`."""

MAX_DEPTH: Final = 100
"""Most fields in a path. Chosen: AWS's bound is not published."""

OPERATORS: Final = (
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
)

_NOT_SURE: Final = "may be rejected by AWS: it is documented for event buses, not for event source mappings"


class PatternError(UsageError):
    """A filter pattern that is none. The text says where, and what is wrong.

    Attributes:
        at: where in the pattern, as `data.order.type[0]`; `line 1, column 9` where it is no JSON.
    """

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(f"{at}: {message}" if at else message)
        self.at = at


class Grammar:
    """Reads one pattern. `warnings` is filled on the way."""

    def __init__(self) -> None:
        """Begin with no warnings."""
        self.warnings: list[str] = []

    def rules(self, text: str) -> list[Rule]:
        """The rules of a pattern: an event passes where any of them holds.

        Raises:
            PatternError: it is not a pattern.
        """
        pattern = _parsed(text)
        if not isinstance(pattern, dict):
            raise PatternError(f"a pattern is a JSON object, as {{'data': {{...}}}}, not {_said(pattern)}")
        return self._object(pattern, (), [{}])

    def _object(self, fields: dict[str, Any], path: tuple[str, ...], rules: list[Rule]) -> list[Rule]:
        if not fields:
            raise PatternError("empty objects are not allowed: name a field", _place(path))
        for name, wanted in fields.items():
            if name == "$or" and _is_or(wanted):
                rules = self._or(wanted, path, rules)
                continue
            here = (*path, *name.split("."))
            if len(here) > MAX_DEPTH:
                raise PatternError(f"more than {MAX_DEPTH} fields deep", _place(here[:3]) + "...")
            if isinstance(wanted, dict):
                rules = self._object(wanted, here, rules)
            elif isinstance(wanted, list):
                value = self._array(wanted, here)
                for rule in rules:
                    rule[here] = value
            else:
                raise PatternError(
                    f"must be an object or an array, not {_said(wanted)}: write [{_said(wanted)}]", _place(here)
                )
        return rules

    def _or(self, branches: list[dict[str, Any]], path: tuple[str, ...], rules: list[Rule]) -> list[Rule]:
        found: list[Rule] = []
        for branch in branches:
            found += self._object(branch, path, [dict(rule) for rule in rules])
            if len(found) > MAX_RULES:
                raise PatternError(f"the $or come to more than {MAX_RULES} combinations", _place((*path, "$or")))
        return found

    def _array(self, items: list[Any], path: tuple[str, ...]) -> Wanted:
        if not items:
            raise PatternError("empty arrays are not allowed: name a value", _place(path))
        wanted = Wanted()
        for index, item in enumerate(items):
            at = f"{_place(path)}[{index}]"
            if isinstance(item, dict):
                self._operator(item, wanted, at)
            elif isinstance(item, str):
                wanted.strings.add(item)
            elif item is None or isinstance(item, bool):
                wanted.constants.add(item)
            elif isinstance(item, (int, float)):
                wanted.numbers.add(_number(item, at))
                self._warn(
                    at,
                    f"the number {_said(item)} is compared by value here; Lambda's documentation compares texts "
                    f'(300 is not 300.0): {{"numeric": ["=", {_said(item)}]}} is the same everywhere',
                )
            else:
                raise PatternError("a value is a string, a number, true, false, null or {operator}, not an array", at)
        return wanted

    def _operator(self, item: dict[str, Any], wanted: Wanted, at: str) -> None:
        name, operand = _only(item, at)
        if name not in OPERATORS:
            # Needed for a mistake alone.
            from difflib import get_close_matches

            near = get_close_matches(name.lower(), OPERATORS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(OPERATORS)}"
            raise PatternError(f"unrecognized match type {name}: {hint}", at)
        at = f"{at}.{name}"
        if name == "exists":
            if not isinstance(operand, bool):
                raise PatternError(f"must be true or false, not {_said(operand)}", at)
            if operand:
                wanted.exists()
            else:
                wanted.absent = True
        elif name == "numeric":
            _numeric(operand, wanted, at)
        elif name == "anything-but":
            self._anything_but(operand, wanted, at)
        elif name == "cidr":
            self._warn(at, f"cidr {_NOT_SURE}")
            try:
                wanted.string_tests.append(in_network(_text(operand, at)))
            except ValueError as error:
                raise PatternError(f"malformed CIDR {_said(operand)}: {error}", at) from None
        else:
            if name == "wildcard":
                self._warn(at, f"wildcard {_NOT_SURE}")
            if name in ("prefix", "suffix") and isinstance(operand, dict):
                inner, text = _only(operand, at)
                if inner != "equals-ignore-case":
                    raise PatternError(f"only equals-ignore-case may stand in a {name}, not {inner}", at)
                name, operand = f"{name} {inner}", text
            wanted.string_tests.append(_text_test(name, _text(operand, at), at))

    def _anything_but(self, operand: Any, wanted: Wanted, at: str) -> None:
        if not isinstance(operand, dict):
            values = operand if isinstance(operand, list) else [operand]
            if values and all(isinstance(value, str) for value in values):
                wanted.no_string(frozenset(values).__contains__)
            elif values and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
                wanted.no_number(_number(value, at) for value in values)
            else:
                raise PatternError("takes strings, or numbers, not both, and nothing else", at)
            return
        name, inner = _only(operand, at)
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise PatternError(
                f"unsupported anything-but pattern {name}: prefix, suffix, equals-ignore-case or wildcard", at
            )
        self._warn(at, f"{name} in anything-but {_NOT_SURE}")
        at = f"{at}.{name}"
        texts = [_text(text, at) for text in (inner if isinstance(inner, list) else [inner])]
        if not texts:
            raise PatternError("empty arrays are not allowed: name a value", at)
        if name in ("prefix", "suffix") and "" in texts:
            raise PatternError(f"an empty {name} would exclude every string", at)
        tests = [_text_test(name, text, at) for text in texts]
        wanted.no_string(lambda value: any(test(value) for test in tests))

    def _warn(self, at: str, message: str) -> None:
        self.warnings.append(f"{at}: {message}")


def _parsed(text: str) -> Any:
    def no_constant(name: str) -> NoReturn:
        raise PatternError(f"{name} is not JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise PatternError(f"not JSON: {error.msg}", f"line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise PatternError(f"more than {MAX_DEPTH} fields deep") from None


def _is_or(wanted: Any) -> bool:
    """Whether this value of a field `$or` makes it the operator; else it is a field as any other."""
    return (
        isinstance(wanted, list)
        and len(wanted) >= 2
        and all(isinstance(branch, dict) and not branch.keys() & set(OPERATORS) for branch in wanted)
    )


def _only(operator: dict[str, Any], at: str) -> tuple[str, Any]:
    if len(operator) != 1:
        raise PatternError(f"exactly one key is allowed in a match expression, not {len(operator)}", at)
    return next(iter(operator.items()))


def _text(operand: Any, at: str) -> str:
    if not isinstance(operand, str):
        raise PatternError(f"must be a string, not {_said(operand)}", at)
    return operand


def _number(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PatternError(f"must be a number, not {_said(value)}", at)
    number = double(value)
    if math.isinf(number):
        raise PatternError("the number is larger than a double can hold", at)
    return number


def _numeric(operand: Any, wanted: Wanted, at: str) -> None:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise PatternError(
            f'must be [operator, number], twice for a range, not {_said(operand)}: [">", 0, "<=", 5]', at
        )
    operator, first = operand[0], _number(operand[1], at)
    if operator not in ("=", "<", "<=", ">", ">="):
        raise PatternError(f"unrecognized numeric range operator {_said(operator)}: =, <, <=, > or >=", at)
    if len(operand) == 4:
        top = operand[2]
        if operator not in (">", ">=") or top not in ("<", "<="):
            raise PatternError(
                f"bad numeric range {_said(operand)}: the lower bound (> or >=) comes first, then the upper (< or <=)",
                at,
            )
        second = _number(operand[3], at)
        if first >= second:
            raise PatternError(f"bottom must be less than top in {_said(operand)}", at)
        wanted.number_tests.append(in_range(first, operator == ">", second, top == "<"))
    elif operator == "=":
        wanted.numbers.add(first)
    elif operator in (">", ">="):
        wanted.number_tests.append(in_range(first, operator == ">", math.inf, high_open=False))
    else:
        wanted.number_tests.append(in_range(-math.inf, False, first, operator == "<"))


def _text_test(name: str, text: str, at: str) -> Callable[[str], bool]:
    """The test of an operator on texts."""
    lower = text.lower()
    if name == "prefix":
        return lambda value: value.startswith(text)
    if name == "suffix":
        return lambda value: value.endswith(text)
    if name == "prefix equals-ignore-case":
        return lambda value: value.lower().startswith(lower)
    if name == "suffix equals-ignore-case":
        return lambda value: value.lower().endswith(lower)
    if name == "equals-ignore-case":
        return lambda value: value.lower() == lower
    try:
        pattern = wildcards.tokens(text)
    except wildcards.WildcardError as error:
        raise PatternError(f"{_said(text)}: {error}", at) from None
    if wildcards.complexity(pattern) > wildcards.MAX_COMPLEXITY:
        raise PatternError(
            f"{_said(text)} is too complex: use fewer wildcard characters, or fewer repeating character sequences "
            "after a wildcard character",
            at,
        )
    return wildcards.matcher(pattern)


def _place(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _said(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
