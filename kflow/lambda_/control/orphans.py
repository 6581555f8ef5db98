"""Event source mappings whose function is not there: they wait for it, and people are told."""

from __future__ import annotations

from collections.abc import Iterable

from kflow.aws.calls import Place
from kflow.lambda_.control import names
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.lambda_.control.registry import Registry


def texts(mappings: Iterable[Mapping], functions: Registry) -> list[str]:
    """What people are told: a text for each function, version or alias that is not there.

    Args:
        mappings: those that are looked at.
        functions: all that there are.
    """
    found: dict[tuple[Place, str], list[Mapping]] = {}
    for mapping in mappings:
        place = Place(mapping.account, mapping.region)
        function = functions.get(place, mapping.function)
        is_there = function is not None and function.version(mapping.qualifier) is not None
        if mapping.enabled and not mapping.is_deleting and not is_there:
            found.setdefault((place, names.qualified(mapping.function, mapping.qualifier)), []).append(mapping)
    return [_text(name, waiting) for (_, name), waiting in found.items()]


def _text(name: str, waiting: list[Mapping]) -> str:
    one = min(waiting, key=lambda each: (each.source, each.uuid))
    what = f"its mapping of {one.source} waits for it: create it, or remove the mapping"
    if len(waiting) > 1:
        what = f"its {len(waiting)} mappings wait for it, such as that of {one.source}: create it, or remove them"
    return f"there is no function {name}, and {what} (`aws lambda delete-event-source-mapping --uuid {one.uuid}`)"
