"""Faults on request: errors, throttles and delays for the calls that a rule names, the same ones for the same seed.

    kinesis.PutRecords: 5% ProvisionedThroughputExceeded
    kinesis.Get*: 10% InternalFailure, 100ms latency
    kinesis.*: throttle

Before the colon a service and an operation, where `*` and `?` stand for letters; behind it what happens, each with its
own rate; without a rate it happens to every call. Pure: no clock, and no randomness but the seed's.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from kflow import errors as ours
from kflow.errors import AwsError, UsageError

EXAMPLE: Final = "kinesis.PutRecords: 5% ProvisionedThroughputExceeded"
THROTTLE: Final = "throttle"
_THROTTLES: Final = ("ProvisionedThroughputExceededException", "ThrottlingException", "LimitExceededException")
"""What `throttle` is: the first of these that the operation's model lists."""
_BY_ENTRY: Final = frozenset({("kinesis", "PutRecords")})
"""Operations that throttle single entries of a call, not the call."""
_SECONDS: Final = {"ms": 0.001, "s": 1.0}
_LONGEST_S: Final = 600.0

_TARGET = re.compile(r"\s*([A-Za-z0-9*?-]+)\.([A-Za-z0-9*?]+)\s*:")
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%")
_DELAY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)(?:\s+(?:latency|delay))?(?=\s*(?:,|$))")
_NAME = re.compile(r"\s*([A-Za-z]+)\s*(?=,|$)")
_KINDS = {
    kind.code.removesuffix("Exception").lower(): kind
    for name, kind in vars(ours).items()
    if isinstance(kind, type) and issubclass(kind, AwsError) and not name.startswith("_")
}


@dataclass(slots=True)
class Fault:
    """One thing that may happen to the calls of some operations.

    Attributes:
        text: the rule it comes from.
        service: glob.
        operation: glob.
        rate: 0 to 1.
        what: lower-case name of an error without `Exception`, `throttle`, or empty: a delay.
        delay_s: how long an answer is held back, seconds.
        draws: decides which calls; its own, so that one rule does not disturb another.
    """

    text: str
    service: str
    operation: str
    rate: float
    what: str
    delay_s: float
    draws: random.Random = field(compare=False, repr=False)

    def concerns(self, service: str, operation: str) -> bool:
        """Whether it may happen to calls of an operation."""
        return fnmatchcase(service, self.service) and fnmatchcase(operation, self.operation)

    def happens(self) -> bool:
        """Whether it happens this time."""
        return self.rate >= 1 or self.draws.random() < self.rate

    def error(self, listed: Sequence[str]) -> AwsError:
        """What the caller gets.

        Args:
            listed: names of the errors that the operation's model has.
        """
        if self.what == THROTTLE:
            code = next((code for code in _THROTTLES if code in listed), _THROTTLES[-1])
            kind = _KINDS[code.removesuffix("Exception").lower()]
        else:
            kind = _KINDS[self.what]
        return kind(f"Injected by the fault '{self.text}'")


class Faults:
    """All rules of a run."""

    def __init__(self, rules: Iterable[str], seed: int = 0) -> None:
        """Read the rules.

        Raises:
            UsageError: one cannot be read; says where, and shows one that can.
        """
        self._faults: list[Fault] = []
        for rule in rules:
            self._faults += _parsed(rule, f"{seed}/{len(self._faults)}")

    def __bool__(self) -> bool:
        return bool(self._faults)

    def check(self, service: str, operations: Sequence[str]) -> None:
        """See that rules for a service name operations that it has.

        Raises:
            UsageError: one does not; names the nearest.
        """
        for fault in self._faults:
            if fault.service == service and not any(fnmatchcase(name, fault.operation) for name in operations):
                near = difflib.get_close_matches(fault.operation, operations, 1)
                hint = f"; did you mean {near[0]}?" if near else f", for example {operations[0]}"
                raise UsageError(f"fault '{fault.text}': {service} has no operation {fault.operation}{hint}")

    def meet(self, service: str, operation: str, listed: Sequence[str] = ()) -> AwsError | float | None:
        """What happens to a call: the first error, which comes at once, else all its delays together, in seconds."""
        delay_s = 0.0
        for fault in self._faults:
            if not fault.concerns(service, operation) or _is_by_entry(fault, service, operation):
                continue
            if fault.happens():
                if fault.what:
                    return fault.error(listed)
                delay_s += fault.delay_s
        return delay_s or None

    def entries(self, service: str, operation: str, count: int) -> frozenset[int] | None:
        """Which entries of a call that has `count` are throttled, by their indexes; None: none of them."""
        found: set[int] = set()
        for fault in self._faults:
            if fault.concerns(service, operation) and _is_by_entry(fault, service, operation):
                found.update(index for index in range(count) if fault.happens())
        return frozenset(found) or None


def _is_by_entry(fault: Fault, service: str, operation: str) -> bool:
    return (service, operation) in _BY_ENTRY and fault.what in (THROTTLE, "provisionedthroughputexceeded")


def _parsed(rule: str, seed: str) -> list[Fault]:
    target = _TARGET.match(rule)
    if target is None:
        raise _wrong(rule, 0, "a service and an operation with a colon behind, such as kinesis.PutRecords:")
    at = target.end()
    found: list[Fault] = []
    while True:
        rate = _RATE.match(rule, at)
        chance = float(rate[1]) / 100 if rate else 1.0
        if chance > 1:
            raise _wrong(rule, at, "a rate of at most 100%")
        at = rate.end() if rate else at
        what, delay_s, at = _effect(rule, at)
        # The seed of a generator is text: hashing it does not depend on the process.
        draws = random.Random(f"{seed}.{len(found)}")  # noqa: S311  # decides about tests, keeps no secret
        found.append(Fault(rule.strip(), target[1], target[2], chance, what, delay_s, draws))
        rest = rule[at:].lstrip()
        if not rest:
            return found
        if not rest.startswith(","):
            raise _wrong(rule, at, "a comma, or the end")
        at = rule.index(",", at) + 1


def _effect(rule: str, at: int) -> tuple[str, float, int]:
    """What happens: a name or a delay in seconds, and where its text ends."""
    delay = _DELAY.match(rule, at)
    if delay is not None:
        seconds = float(delay[1]) * _SECONDS[delay[2]]
        if not 0 < seconds <= _LONGEST_S:
            raise _wrong(rule, at, f"a delay of more than 0 and at most {_LONGEST_S:.0f} s")
        return "", seconds, delay.end()
    name = _NAME.match(rule, at)
    if name is None:
        raise _wrong(rule, at, "a rate such as 5%, a delay such as 100ms, or the name of an error")
    what = name[1].removesuffix("Exception").lower()
    if what != THROTTLE and what not in _KINDS:
        known = {kind.code.removesuffix("Exception"): kind for kind in _KINDS.values()}
        near = difflib.get_close_matches(name[1], [*known, THROTTLE], 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise _wrong(rule, name.start(1), f"the name of an error, not {name[1]}{hint}: {', '.join(sorted(known))}")
    return what, 0.0, name.end()


def _wrong(rule: str, at: int, expected: str) -> UsageError:
    at += len(rule[at:]) - len(rule[at:].lstrip())
    return UsageError(f"fault '{rule}': at character {at + 1} there should be {expected}; for example '{EXAMPLE}'")
