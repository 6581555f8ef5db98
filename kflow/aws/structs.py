"""A type for each input: what a service's method is given, and what a body is decoded into at one go.

Decoding into such a type checks types and constraints in C: what comes through is right. What does not come through is
looked at again, slowly, by `kflow.aws.coerce` and `kflow.aws.validate`, which say what is wrong in AWS's words, or find
that AWS is more lenient than the type.
"""

from __future__ import annotations

import datetime as dt
import keyword
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from kflow.aws.patterns import compiled, python_pattern
from kflow.aws.shapes import ListOf, MapOf, Member, Scalar, Shape, Structure

INTEGERS: Final = {
    "byte": (-(2**7), 2**7 - 1),
    "short": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
}
FLOATS: Final = frozenset({"float", "double", "bigdecimal"})

Type: TypeAlias = Any
"""What msgspec takes for a type; some are made at run time."""


class Milliseconds(int):
    """A timestamp, since the epoch, on its way into an input: a type of its own, so that msgspec asks how to read it.

    What a method is given are plain integers: see `settled`.
    """

    __slots__ = ()


def attribute(name: str) -> str:
    """The attribute of a member: its name, with `_` behind it where Python needs the word."""
    return f"{name}_" if keyword.iskeyword(name) else name


class Structs:
    """The types of one model, made when they are first needed.

    Attributes:
        blobs: `bytes`: checked and, out of JSON, decoded; `str`: left as base64, for whoever does it faster.
        is_wire: members are called as on the wire in what is decoded; else as in the model.
    """

    def __init__(self, *, blobs: type[bytes | str] = bytes, is_wire: bool = True) -> None:
        self.blobs = blobs
        self.is_wire = is_wire
        self._types: dict[str, type[msgspec.Struct]] = {}
        self._making: set[str] = set()
        self._loose: set[str] = set()

    def of(self, shape: Structure) -> type[msgspec.Struct]:
        """The type of a structure. Required members have no default; all others are None where absent."""
        made = self._types.get(shape.name)
        if made is None:
            self._making.add(shape.name)
            fields: list[Any] = []
            rename: dict[str, str] = {}
            for member in shape.members.values():
                name = attribute(member.name)
                kind = self._type(member.shape)
                fields.append((name, kind) if member.is_required else (name, kind | None, None))
                given = member.wire_name if self.is_wire else member.name
                if given != name:
                    rename[name] = given
            made = msgspec.defstruct(
                "".join(c for c in shape.name if c.isalnum() or c == "_"),
                fields,
                kw_only=True,
                gc=False,
                rename=rename or None,
                module=__name__,
            )
            self._types[shape.name] = made
            self._making.discard(shape.name)
        return made

    def is_exact(self, shape: Structure) -> bool:
        """Whether all constraints are in the type: they are not where it holds itself."""
        self.of(shape)
        return not self._loose & _reached(shape)

    def _type(self, shape: Shape) -> Type:
        if isinstance(shape, Structure):
            if shape.is_document or shape.is_event_stream:
                return Any
            if shape.name in self._making:
                self._loose.add(shape.name)
                return Any
            return self.of(shape)
        if isinstance(shape, ListOf):
            return _within(shape, list[self._type(shape.element.shape)])  # type: ignore[misc] # made at run time
        if isinstance(shape, MapOf):
            key, value = self._type(shape.key.shape), self._type(shape.value.shape)
            return _within(shape, dict[key, value])  # type: ignore[valid-type] # made at run time
        assert isinstance(shape, Scalar)
        return self._scalar(shape)

    def _scalar(self, shape: Scalar) -> Type:
        match shape.kind:
            case "blob":
                return _within(shape, bytes) if self.blobs is bytes else str
            case "timestamp":
                return Milliseconds
            case "boolean":
                return bool
            case kind if kind in INTEGERS:
                least, greatest = INTEGERS[kind]
                least = least if shape.minimum is None else max(least, math.ceil(shape.minimum))
                greatest = greatest if shape.maximum is None else min(greatest, math.floor(shape.maximum))
                return Annotated[int, msgspec.Meta(ge=least, le=greatest)]
            case "biginteger":
                return int
            case kind if kind in FLOATS:
                return Annotated[float, msgspec.Meta(ge=shape.minimum, le=shape.maximum)]
        if shape.enum:
            return Literal[shape.enum]
        pattern = None
        if shape.pattern is not None:
            pattern = python_pattern(shape.pattern)
            if pattern is not None:
                compiled(pattern)
        if pattern is None and shape.minimum is None and shape.maximum is None:
            return str
        return Annotated[str, msgspec.Meta(min_length=shape.minimum, max_length=shape.maximum, pattern=pattern)]

    def made(self, shape: Structure, values: Mapping[str, Any]) -> Any:
        """The struct of values that have been validated, by member name."""
        members = shape.members
        return self.of(shape)(
            **{
                attribute(name): self._value(members[name], value)
                for name, value in values.items()
                if value is not None
            }
        )

    def _value(self, member: Member, value: Any) -> Any:
        shape = member.shape
        if isinstance(shape, Structure):
            return value if shape.is_document or shape.is_event_stream else self.made(shape, value)
        if isinstance(shape, ListOf):
            element = shape.element
            return [self._value(element, part) for part in value]
        if isinstance(shape, MapOf):
            inner = shape.value
            return {key: self._value(inner, part) for key, part in value.items()}
        return int(value) if shape.kind == "timestamp" else value


def _within(shape: Shape, kind: Type) -> Type:
    if shape.minimum is None and shape.maximum is None:
        return kind
    return Annotated[kind, msgspec.Meta(min_length=shape.minimum, max_length=shape.maximum)]


Settle: TypeAlias = Callable[[Any], Any]


def settled(shape: Shape) -> Settle | None:
    """What makes plain integers of the timestamps in a decoded value, and returns it; None: it can have none.

    Only for shapes that do not hold themselves.
    """
    if isinstance(shape, Structure):
        parts = [(attribute(member.name), settled(member.shape)) for member in shape.members.values()]
        return _settled_members([(name, part) for name, part in parts if part is not None])
    if isinstance(shape, ListOf | MapOf):
        inner = settled(shape.element.shape if isinstance(shape, ListOf) else shape.value.shape)
        return None if inner is None else _settled_parts(inner, is_map=isinstance(shape, MapOf))
    return int if shape.kind == "timestamp" else None


def _settled_parts(part: Settle, *, is_map: bool) -> Settle:
    if is_map:
        return lambda value: {key: part(each) for key, each in value.items()}
    return lambda value: [part(each) for each in value]


def _settled_members(parts: list[tuple[str, Settle]]) -> Settle | None:
    def settle(value: Any) -> Any:
        for name, part in parts:
            if (given := getattr(value, name)) is not None:
                setattr(value, name, part(given))
        return value

    return settle if parts else None


def _reached(shape: Shape, seen: set[str] | None = None) -> set[str]:
    seen = set() if seen is None else seen
    if shape.name not in seen:
        seen.add(shape.name)
        if isinstance(shape, Structure):
            for member in shape.members.values():
                _reached(member.shape, seen)
        elif isinstance(shape, ListOf):
            _reached(shape.element.shape, seen)
        elif isinstance(shape, MapOf):
            _reached(shape.key.shape, seen)
            _reached(shape.value.shape, seen)
    return seen


def milliseconds(value: Any) -> Milliseconds:
    """Of a datetime (without a time zone it is local time, as in botocore), or of seconds since the epoch."""
    if isinstance(value, dt.datetime):
        value = value.timestamp()
    return Milliseconds(round(value * 1000))
