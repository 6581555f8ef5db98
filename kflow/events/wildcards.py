r"""Wildcards of filter patterns: `*` is zero or more characters, `\*` and `\\` are the only escapes.

Matching is linear: the literal parts are looked for one after the other, never again. AWS's machine is not, and refuses
patterns that would keep it in many places at once; `complexity` says how many those are.

Source: recorded: EventBridge TestEventPattern, October 2025; the bound chosen between what it refused and what it took.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_COMPLEXITY: Final = 9
"""Most places in a pattern at once. Chosen: `*:*:*:*:*:event-bus/*` comes to 10 and is refused on AWS (recorded), while
`/Users/*/dir/dir/dir/dir/dir/doc.txt` comes to 7 and is taken (recorded)."""

_MAX_SETS: Final = 20_000
"""Sets of places looked at before a pattern counts as too complex: bounds the time, whatever the text."""

STAR: Final = "*"


class WildcardError(ValueError):
    """The text is no wildcard pattern."""


def tokens(text: str) -> list[str | None]:
    """The characters of a pattern, None for a wildcard.

    Raises:
        WildcardError: two wildcards in a row, or an escape that is none.
    """
    found: list[str | None] = []
    characters = iter(text)
    for character in characters:
        if character == STAR:
            if found and found[-1] is None:
                raise WildcardError("consecutive wildcards: one * is enough")
            found.append(None)
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "\\") or not escaped:
                raise WildcardError(rf"\{escaped} is no escape: \* and \\ are the only ones")
            found.append(escaped)
        else:
            found.append(character)
    return found


def complexity(pattern: list[str | None]) -> int:
    """In how many places of the pattern some input can be at once, counted up to `MAX_COMPLEXITY` + 1.

    A place is a character just matched, or a wildcard that goes on.
    """

    def closed(places: set[int]) -> frozenset[int]:
        return frozenset(places | {place + 1 for place in places if place < len(pattern) and pattern[place] is None})

    start = closed({0})
    seen, waiting, most = {start}, [start], len(start)
    while waiting:
        places = waiting.pop()
        goes_on = {place for place in places if place and pattern[place - 1] is None}
        # Any other character goes on with the wildcards alone, as "" does.
        for character in {"", *(pattern[place] for place in places if place < len(pattern))} - {None}:
            moved = {place + 1 for place in places if place < len(pattern) and pattern[place] == character}
            after = closed(goes_on | moved)
            most = max(most, len(after))
            if most > MAX_COMPLEXITY or len(seen) > _MAX_SETS:
                return MAX_COMPLEXITY + 1
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return most


def matcher(pattern: list[str | None]) -> Callable[[str], bool]:
    """A test of whole texts."""
    parts = [""]
    for character in pattern:
        if character is None:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) == 1:
        return parts[0].__eq__
    first, *inner, last = parts
    shortest = sum(map(len, parts))

    def matches(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in inner:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches
