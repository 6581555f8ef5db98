"""What a field of a filter pattern asks of the value at its path: one test for each type of JSON, put together once.

A test answers `HIT`, `MISS`, or `ABSENT`: satisfied because nothing is there (`{"exists": false}`). An array is
flattened: one element that hits is enough; nothing is there when it has no element that is a value of its own.

Source: documented: EventBridge User Guide, content filtering; recorded: EventBridge TestEventPattern, October 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET

MISS: Final = 0
HIT: Final = 1
ABSENT: Final = -1

Test = Callable[[Any], int]
"""From the value at a path (`UNSET` where there is none) to `HIT`, `MISS` or `ABSENT`."""


@dataclass(slots=True)
class Wanted:
    """The items of one field's array, sorted by what they look at; a value passes where any of them does.

    Attributes:
        strings: texts to equal.
        numbers: numbers to equal, as doubles.
        constants: of True, False and None those that pass.
        string_tests: tests of texts.
        number_tests: tests of doubles.
        any_string: whether every text passes.
        any_number: whether every number passes.
        absent: whether it passes that nothing is there.
    """

    strings: set[str] = field(default_factory=set)
    numbers: set[float] = field(default_factory=set)
    constants: set[bool | None] = field(default_factory=set)
    string_tests: list[Callable[[str], bool]] = field(default_factory=list)
    number_tests: list[Callable[[float], bool]] = field(default_factory=list)
    any_string: bool = False
    any_number: bool = False
    absent: bool = False

    def exists(self) -> None:
        """Every value of its own passes."""
        self.any_string = self.any_number = True
        self.constants |= {True, False, None}

    def no_string(self, excluded: Callable[[str], bool]) -> None:
        """Every value passes but the texts that `excluded` says; values of other types are different, so they pass."""
        self.string_tests.append(lambda text: not excluded(text))
        self.any_number = True
        self.constants |= {True, False, None}

    def no_number(self, excluded: Iterable[float]) -> None:
        """Every value passes but these numbers."""
        numbers = frozenset(excluded)
        self.number_tests.append(lambda number: number not in numbers)
        self.any_string = True
        self.constants |= {True, False, None}


def value_test(wanted: Wanted) -> Test:
    """The test of one field."""
    on_string = _string_test(wanted)
    on_number = _number_test(wanted)
    nothing = ABSENT if wanted.absent else MISS
    # Not a set: True == 1, and 1 is a number.
    on_constant = {constant: constant in wanted.constants for constant in (True, False, None)}

    def one(value: Any) -> bool:
        kind = type(value)
        if kind is str:
            return on_string(value)
        if kind is int or kind is float:
            return on_number(double(value))
        return on_constant[value]

    def test(value: Any) -> int:
        kind = type(value)
        if kind is str:
            return on_string(value)
        if value is UNSET or kind is dict:
            return nothing
        if kind is not list:
            return one(value)
        empty = True
        for element in flat(value):
            if type(element) is not dict:
                if one(element):
                    return HIT
                empty = False
        return nothing if empty else MISS

    return test


def flat(array: list[Any]) -> Iterable[Any]:
    """The elements of an array and of the arrays in it, in order."""
    waiting = [iter(array)]
    while waiting:
        for element in waiting[-1]:
            if type(element) is list:
                waiting.append(iter(element))
                break
            yield element
        else:
            waiting.pop()


def double(number: float) -> float:
    """A number of JSON as an IEEE double: what is too large for one is infinite."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def in_range(low: float, low_open: bool, high: float, high_open: bool) -> Callable[[float], bool]:
    """A test of numbers; the bounds themselves pass where they are not open."""

    def test(number: float) -> bool:
        return (low < number or (low == number and not low_open)) and (
            number < high or (number == high and not high_open)
        )

    return test


def in_network(text: str) -> Callable[[str], bool]:
    """A test of texts that are addresses of a block of addresses, as `10.0.0.0/24`.

    Raises:
        ValueError: the text is no block, or one that holds a single address only.
    """
    # Few patterns have one, and `import kflow` stays light.
    from ipaddress import ip_address, ip_network

    address, slash, bits = text.partition("/")
    if not slash or not bits.isascii() or not bits.isdigit():
        raise ValueError("not an address, a slash and a number of bits")
    block = ip_network(f"{ip_address(address)}/{bits}", strict=False)
    if block.num_addresses == 1:
        # recorded: "IPv4 mask bits must be < 32".
        raise ValueError(f"the number of bits must be less than {block.max_prefixlen}")
    # The block begins at the address that is written, whatever the bits say: so does AWS's.
    low, high, version = int(ip_address(address)), int(block.broadcast_address), block.version

    def test(text: str) -> bool:
        try:
            found = ip_address(text)
        except ValueError:
            return False
        return found.version == version and low <= int(found) <= high

    return test


def _string_test(wanted: Wanted) -> Callable[[str], bool]:
    if wanted.any_string:
        return lambda _: True
    exact = frozenset(wanted.strings)
    tests = tuple(wanted.string_tests)
    if not tests:
        return exact.__contains__
    if not exact and len(tests) == 1:
        return tests[0]
    return lambda text: text in exact or any(test(text) for test in tests)


def _number_test(wanted: Wanted) -> Callable[[float], bool]:
    if wanted.any_number:
        return lambda _: True
    exact = frozenset(wanted.numbers)
    tests = tuple(wanted.number_tests)
    if not tests:
        return exact.__contains__
    if not exact and len(tests) == 1:
        return tests[0]
    return lambda number: number in exact or any(test(number) for test in tests)
