"""Filters of an event source mapping: patterns in EventBridge's grammar, compiled once, tried on records' bytes.

A record passes where any filter matches it. What is matched is an object whose `data` is the record's payload, parsed,
beside what else is known of the record (`partitionKey` ...). A payload that is not JSON satisfies nothing that is asked
of `data`; one that is JSON and no object has no fields. Bytes are looked at and never changed.

    text -- pattern_grammar --> rules (conjunctions of paths) -- here --> one tree of tests a rule
    payload -- msgspec, the named fields only --> fields -- tests --> passes or not

A `data` clause costs about 0.5 us a record of 100 bytes (bench `filter`): fields that no filter names are skipped by
the decoder, not built. What that decoder cannot tell apart is parsed again in full: payloads that are no object or not
JSON, and objects with a name in dots (`"a.b"` is `b` in `a`).

Source: documented: Lambda Developer Guide, event filtering; recorded: EventBridge TestEventPattern, October 2025.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
from msgspec import UNSET

from kflow.events.pattern_grammar import Grammar, PatternError, Rule
from kflow.events.pattern_values import ABSENT, HIT, MISS, Test, flat, value_test
from kflow.limits import FILTER_CHARACTERS, FILTERS, FILTERS_MAX

__all__ = ["Filters", "PatternError", "compile_filters"]

Metadata = Callable[[int], Mapping[str, Any]]

_NOT_JSON: Final = object()

_METADATA: Final = ("partitionKey", "sequenceNumber", "approximateArrivalTimestamp", "kinesisSchemaVersion")
"""What an event record holds beside its data."""


def compile_filters(texts: Sequence[str]) -> Filters:
    """Compile the filters of a mapping.

    Args:
        texts: patterns as JSON text, up to 10 of up to 4,096 characters.

    Raises:
        PatternError: one of them is not a pattern; the text names which, and the place in it.
    """
    return Filters(*compiled_rules(texts, _check))


def compiled_rules(
    texts: Sequence[str], check: Callable[[Sequence[Rule]], list[str]]
) -> tuple[list[Rule], tuple[str, ...]]:
    """The rules of patterns, and warnings.

    Args:
        texts: as above.
        check: what is special to the source of the records: returns its warnings, and may raise.

    Raises:
        PatternError: as above.
    """
    if len(texts) > FILTERS_MAX:
        raise PatternError(f"{len(texts)} filters: AWS takes {FILTERS}, and {FILTERS_MAX} at most")
    warnings: list[str] = []
    if len(texts) > FILTERS:
        warnings.append(f"{len(texts)} filters: AWS takes more than {FILTERS} after a quota increase only")
    rules: list[Rule] = []
    for index, text in enumerate(texts):
        grammar = Grammar()
        try:
            if len(text) > FILTER_CHARACTERS:
                raise PatternError(f"has {len(text)} characters, AWS takes {FILTER_CHARACTERS}")
            found = grammar.rules(text)
            warnings += [f"filters[{index}]: {warning}" for warning in (*grammar.warnings, *check(found))]
        except PatternError as error:
            raise PatternError(f"filters[{index}]: {error}") from None
        rules += found
    return rules, tuple(dict.fromkeys(warnings))


class Filters:
    """Compiled filters; holds nothing of the records it has seen, so any number of engines may share it.

    Attributes:
        warnings: what works here and may not on AWS, one text each, with its place.
    """

    def __init__(self, rules: Sequence[Rule], warnings: tuple[str, ...] = ()) -> None:
        """Build the tests of rules."""
        self.warnings = warnings
        self._data_rules = [_Tree(_below(rule, "data")) for rule in rules]
        self._other_rules = [_Tree({path: rule[path] for path in rule if path[0] != "data"}) for rule in rules]
        self._fields = _Fields(self._data_rules)
        tests = [
            (
                self._fields.test(data) if data else None,
                data.dict_test() if data else None,
                other.dict_test() if other else None,
            )
            for data, other in zip(self._data_rules, self._other_rules, strict=True)
        ]
        self._rules = tests
        self._needs_data = any(tree for tree in self._data_rules)
        self._on_data_alone = not any(tree for tree in self._other_rules)

    def __bool__(self) -> bool:
        """Whether there is any filter."""
        return bool(self._rules)

    def select(self, datas: Sequence[bytes], metadata: Metadata) -> list[int] | None:
        """Which records pass.

        Args:
            datas: payloads, as they were put.
            metadata: from an index to what else is known of that record; called only where a filter asks.

        Returns:
            The indexes that pass, ascending; None where all do.
        """
        if not self._rules:
            return None
        if self._on_data_alone and len(self._rules) == 1:
            passed = self._select_by_one(datas)
        else:
            passed = [index for index, data in enumerate(datas) if self._passes(index, data, metadata)]
        return None if len(passed) == len(datas) else passed

    def _select_by_one(self, datas: Sequence[bytes]) -> list[int]:
        """The common case: one rule, on the payload alone."""
        test, dict_test, _ = self._rules[0]
        read = self._fields.read
        assert test is not None
        assert dict_test is not None
        passed = []
        for index, data in enumerate(datas):
            fields = read(data)
            if test(fields) if fields is not None else dict_test(parsed(data)):
                passed.append(index)
        return passed

    def _passes(self, index: int, data: bytes, metadata: Metadata) -> bool:
        fields: Any = None
        whole: Any = UNSET
        known: Any = UNSET
        if self._needs_data:
            fields = self._fields.read(data)
            if fields is None:
                whole = parsed(data)
        for test, dict_test, other_test in self._rules:
            if other_test is not None:
                if known is UNSET:
                    known = dict(metadata(index))
                if not other_test(known):
                    continue
            if test is None or dict_test is None or (test(fields) if fields is not None else dict_test(whole)):
                return True
        return False


def _check(rules: Sequence[Rule]) -> list[str]:
    """What a pattern may not do for Kinesis; returns the warnings."""
    warnings: list[str] = []
    for rule in rules:
        for path in rule:
            if path == ("data",):
                # recorded: the mapping is refused.
                raise PatternError("must be an object: a record's data is matched by its fields", "data")
            if path[0] not in ("data", *_METADATA):
                warnings.append(
                    f"{'.'.join(path)}: a record has no field {path[0]} beside its data: fields of the payload stand "
                    f'below data: {{"data": {{"{path[0]}": ...}}}}'
                )
            elif path[0] != "data":
                warnings.append(f"{'.'.join(path)}: AWS's documentation supports data alone for Kinesis")
    return warnings


def _below(rule: Rule, name: str) -> Rule:
    return {path[1:]: wanted for path, wanted in rule.items() if path[0] == name}


def parsed(data: bytes) -> Any:
    """A payload in full; `_NOT_JSON` where it is none.

    As JSON has it, and not as msgspec does: numbers may be too large for a double, and surrogates may stand alone.
    """

    def no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        return json.loads(data.decode(), parse_constant=no_constant, parse_int=_integer)
    except (ValueError, RecursionError):  # chosen: what is nested too deeply to be read is not JSON
        return _NOT_JSON


def _integer(digits: str) -> float:
    # Python's own limit on digits of an int is not JSON's.
    return int(digits) if len(digits) < 1_000 else float(digits)


class _Tree:
    """The fields that one rule asks for at one level, and below each the same again.

    Attributes:
        names: first names of the paths.
        dotted: other ways an event may name the paths' beginnings: `a.b` for `b` in `a`.
        absent: whether all of it passes where nothing is there.
    """

    def __init__(self, rule: Rule) -> None:
        self._tests: dict[str, list[Test]] = {}
        self._below: dict[str, _Tree] = {}
        self.names = tuple(dict.fromkeys(path[0] for path in rule))
        self.dotted = frozenset(".".join(path[:length]) for path in rule for length in range(2, len(path) + 1))
        self.absent = all(wanted.absent for wanted in rule.values())
        for name in self.names:
            here = [wanted for path, wanted in rule.items() if path == (name,)]
            below = {path[1:]: wanted for path, wanted in rule.items() if path[0] == name and len(path) > 1}
            tests = [value_test(wanted) for wanted in here]
            if below:
                tests.append(_Tree(below).object_test())
            self._tests[name] = tests

    def __bool__(self) -> bool:
        return bool(self.names)

    def fields_test(self, getter: Callable[[str], Callable[[Any], Any]]) -> Test:
        """The test of a container of fields; `getter` says how to take a field from it."""
        parts = [(getter(name), test) for name in self.names for test in self._tests[name]]
        if len(parts) == 1:
            ((get, test),) = parts
            return lambda fields: test(get(fields))

        def every(fields: Any) -> int:
            best = ABSENT
            for get, test in parts:
                result = test(get(fields))
                if not result:
                    return MISS
                if result == HIT:
                    best = HIT
            return best

        return every

    def object_test(self) -> Test:
        """The test of the value at a path that has paths below it: an object, or objects in arrays.

        What is asked of several fields must hold within one object of an array; where it is only asked that nothing is
        there, it must hold in all of them.
        """
        every = self.fields_test(lambda name: lambda fields: fields.get(name, UNSET))
        nothing = ABSENT if self.absent else MISS
        dotted = self.dotted

        def one(value: dict[str, Any]) -> int:
            return every(value if dotted.isdisjoint(value) else _undotted(value, dotted))

        def test(value: Any) -> int:
            if type(value) is dict:
                return one(value)
            if type(value) is not list:
                return nothing
            worst = ABSENT
            empty = True
            for element in flat(value):
                empty = False
                result = one(element) if type(element) is dict else nothing
                if result == HIT:
                    return HIT
                if result == MISS:
                    worst = MISS
            return nothing if empty else worst

        return test

    def dict_test(self) -> Test:
        """The test of a whole payload, or of the metadata: arrays have no fields there."""
        test = self.object_test()
        nothing = ABSENT if self.absent else MISS

        def whole(value: Any) -> int:
            if type(value) is dict:
                return test(value)
            return MISS if value is _NOT_JSON else nothing

        return whole


class _Fields:
    """Reads the named top-level fields of a payload, without building the others."""

    def __init__(self, trees: Sequence[_Tree]) -> None:
        names = list(dict.fromkeys(name for tree in trees for name in tree.names))
        dotted = list(dict.fromkeys(name for tree in trees for name in sorted(tree.dotted)))
        # Their own names may be anything: msgspec's field names must be identifiers.
        self._attributes = {name: f"f{index}" for index, name in enumerate([*names, *dotted])}
        made = msgspec.defstruct(
            "Fields",
            [(attribute, Any, UNSET) for attribute in self._attributes.values()],
            rename={attribute: name for name, attribute in self._attributes.items()},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(made).decode
        self._dotted = [operator.attrgetter(self._attributes[name]) for name in dotted]

    def test(self, tree: _Tree) -> Test:
        """The test of a tree on what `read` returns."""
        return tree.fields_test(lambda name: operator.attrgetter(self._attributes[name]))

    def read(self, data: bytes) -> Any:
        """The fields, or None where the payload must be parsed in full."""
        try:
            fields = self._decode(data)
            if not data.isascii():
                # What the decoder skips it does not check, and what is not UTF-8 is not JSON.
                data.decode()
        except (ValueError, RecursionError):
            return None
        for get in self._dotted:
            if get(fields) is not UNSET:
                return None
        return fields


def _undotted(event: dict[str, Any], dotted: frozenset[str]) -> dict[str, Any]:
    """An object with its names in dots (those of `dotted`) taken apart at the first dot."""
    result = dict(event)
    for key in event:
        if key not in dotted:
            continue
        value = result.pop(key)
        head, _, rest = key.partition(".")
        before = result.get(head, UNSET)
        if before is UNSET:
            result[head] = {rest: value}
        elif type(before) is dict and rest not in before:
            result[head] = {**before, rest: value}
        else:  # one path, two values: either may match
            result[head] = [*before, {rest: value}] if type(before) is list else [before, {rest: value}]
    return result


def object_test(rules: Sequence[Rule]) -> Callable[[Any], bool]:
    """The test of whole objects, parsed, by the rules of one pattern; what is no object has no fields."""
    tests = [_Tree(rule).dict_test() for rule in rules]
    return lambda value: any(test(value) for test in tests)
