"""A model file boiled down: what parsing, validation and serialising need, a tenth of the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = 1
"""Of what `digest` leaves: a cached digest of another version is made anew."""

_PROSE = frozenset({"documentation", "documentationUrl", "deprecatedMessage", "deprecatedSince"})


def digest(model: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the prose, and every shape that no operation reaches.

    Args:
        model: a `service-2.json` as parsed.

    Returns:
        `metadata`, `operations`, `shapes`: what `kflow.aws.shapes.Model` takes. Plain JSON.
    """
    shapes = model["shapes"]
    kept: dict[str, Any] = {}
    waiting: list[str] = []
    for operation in model["operations"].values():
        waiting += [operation[side]["shape"] for side in ("input", "output") if side in operation]
        waiting += [error["shape"] for error in operation.get("errors", ())]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            shape = shapes[name]
            kept[name] = _told(shape)
            waiting += [member["shape"] for member in shape.get("members", {}).values()]
            waiting += [shape[part]["shape"] for part in ("member", "key", "value") if part in shape]
    return {
        "metadata": model["metadata"],
        "operations": {name: _told(operation) for name, operation in model["operations"].items()},
        "shapes": {name: kept[name] for name in shapes if name in kept},
    }


def _told(value: Any, *, names: bool = False) -> Any:
    """Without prose. `names`: the keys are names of members, which may be called `documentation` too."""
    if isinstance(value, dict):
        return {key: _told(part, names=key == "members") for key, part in value.items() if names or key not in _PROSE}
    if isinstance(value, list):
        return [_told(part) for part in value]
    return value
