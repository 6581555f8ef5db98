"""The model's constraints, checked one by one, and reported in AWS's words: one error for the whole request.

The slow path: taken where the quick one (`kflow.aws.structs`) did not fit. Order: members as in the model, and for one
member null, pattern, length or value, enum. AWS's own order is not deterministic.

Source: recorded: kinesalite's test-suite against AWS; blobs and lists of structures without their value: seen 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kflow.aws.patterns import LONGEST, compiled, python_pattern
from kflow.aws.shapes import ListOf, MapOf, Scalar, Shape, Structure
from kflow.errors import ValidationFailed

MOST: Final = 10
"""Failures reported at most; the count in the text is that of those reported."""
_SHOWN: Final = 65_536
"""Characters of a value that are shown at most (chosen: an answer is no amplifier)."""
_NULL = "Member must not be null"


def validate(shape: Structure, values: Mapping[str, Any]) -> None:
    """Check values of the right types.

    Args:
        shape: of the input.
        values: by member name: str, int, float, bool, bytes, int (timestamps), lists, dicts; None is absent.

    Raises:
        ValidationFailed: with AWS's text.
    """
    failures: list[str] = []
    for failure in _structure(shape, values, ""):
        failures.append(failure)
        if len(failures) == MOST:
            break
    if failures:
        errors = "error" if len(failures) == 1 else "errors"
        raise ValidationFailed(f"{len(failures)} validation {errors} detected: {'; '.join(failures)}")


def failure(path: str, constraint: str, value: Any = ...) -> str:
    """One item of the text. Without a value it is not shown."""
    shown = "" if value is ... else " null" if value is None else f" '{_shown(value)}'"
    return f"Value{shown} at '{path}' failed to satisfy constraint: {constraint}"


def _structure(shape: Structure, values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in shape.members.items():
        path = f"{prefix}{name[:1].lower()}{name[1:]}"
        value = values.get(name)
        if value is not None:
            yield from _value(member.shape, value, path)
        elif member.is_required:
            yield failure(path, _NULL, None)


def _value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, Structure):
        if not shape.is_document and not shape.is_event_stream:
            yield from _structure(shape, value, f"{path}.")
    elif isinstance(shape, ListOf):
        yield from _list(shape, value, path)
    elif isinstance(shape, MapOf):
        yield from _map(shape, value, path)
    else:
        assert isinstance(shape, Scalar)
        for constraint in _broken(shape, value):
            yield failure(path, constraint, ... if shape.kind == "blob" else value)


def _list(shape: ListOf, value: list[Any], path: str) -> Iterator[str]:
    inner = shape.element.shape
    shown = value if isinstance(inner, Scalar) and inner.kind != "blob" else ...
    for constraint in _length(shape, len(value)):
        yield failure(path, constraint, shown)
    if shown is value:
        assert isinstance(inner, Scalar)
        if any(part is not None and _is_broken(inner, part) for part in value):
            yield failure(path, f"Member must satisfy constraint: [{_rules(inner)}]", shown)
    for index, part in enumerate(value, 1):
        if part is None:
            yield failure(f"{path}.{index}.member", _NULL, None)
        elif shown is not value:
            yield from _value(inner, part, f"{path}.{index}.member")


def _map(shape: MapOf, value: dict[str, Any], path: str) -> Iterator[str]:
    keys, inner = shape.key.shape, shape.value.shape
    shown = value if isinstance(inner, Scalar) and inner.kind != "blob" else ...
    for constraint in _length(shape, len(value)):
        yield failure(path, constraint, shown)
    assert isinstance(keys, Scalar)
    if any(_is_broken(keys, key) for key in value):
        yield failure(path, f"Map keys must satisfy constraint: [{_rules(keys)}]", shown)
    if shown is value:
        assert isinstance(inner, Scalar)
        if any(part is not None and _is_broken(inner, part) for part in value.values()):
            yield failure(path, f"Map value must satisfy constraint: [{_rules(inner)}]", shown)
    for key, part in value.items():
        if part is None:
            yield failure(f"{path}.{key}.member", _NULL, None)
        elif shown is not value:
            yield from _value(inner, part, f"{path}.{key}.member")


def _broken(shape: Scalar, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        return
    if isinstance(value, str):
        is_long = len(value) > LONGEST and shape.maximum is not None and len(value) > shape.maximum
        if shape.pattern is not None and not is_long and not _matches(shape.pattern, value):
            yield f"Member must satisfy regular expression pattern: {shape.pattern}"
        yield from _length(shape, len(value))
        if shape.enum and value not in shape.enum:
            yield f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
    elif isinstance(value, bytes):
        yield from _length(shape, len(value))
    elif shape.kind != "timestamp":
        if shape.minimum is not None and value < shape.minimum:
            yield f"Member must have value greater than or equal to {shape.minimum}"
        if shape.maximum is not None and value > shape.maximum:
            yield f"Member must have value less than or equal to {shape.maximum}"


def _length(shape: Shape, length: int) -> Iterator[str]:
    if shape.minimum is not None and length < shape.minimum:
        yield f"Member must have length greater than or equal to {shape.minimum}"
    if shape.maximum is not None and length > shape.maximum:
        yield f"Member must have length less than or equal to {shape.maximum}"


def _rules(shape: Scalar) -> str:
    """All that is asked of an element, whichever it breaks."""
    what = "length" if shape.kind in {"string", "blob", "character"} else "value"
    rules: list[str] = []
    if shape.maximum is not None:
        rules.append(f"Member must have {what} less than or equal to {shape.maximum}")
    if shape.minimum is not None:
        rules.append(f"Member must have {what} greater than or equal to {shape.minimum}")
    if shape.pattern is not None:
        rules.append(f"Member must satisfy regular expression pattern: {shape.pattern}")
    if shape.enum:
        rules.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    return ", ".join(rules)


def _is_broken(shape: Scalar, value: Any) -> bool:
    return next(_broken(shape, value), None) is not None


def _matches(pattern: str, value: str) -> bool:
    ours = _OURS.get(pattern, "")
    if ours == "":
        ours = _OURS[pattern] = python_pattern(pattern)
    return ours is None or compiled(ours).match(value) is not None


_OURS: dict[str, str | None] = {}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        text = f"[{', '.join(map(_text, value))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}={_text(part)}' for key, part in value.items())}}}"
    else:
        text = _text(value)
    return text[:_SHOWN]


def _text(value: Any) -> str:
    """As Java prints it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
