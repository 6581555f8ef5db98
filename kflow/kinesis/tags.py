"""Tags of streams, consumers and queues: what may be added, in AWS's words. Pure.

Source: documented: AddTagsToStream, TagResource; recorded: the texts for characters and numbers, with 10 in place of
50; chosen: the texts for resources that are no streams, and for the reserved prefix.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Final

from kflow import limits
from kflow.errors import InvalidArgument

_SIGNS: Final = frozenset("_.:/=+-@%")
_RESERVED: Final = "aws:"


def added(what: str, account: str, before: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The tags of something once more are added, or their values replaced.

    Args:
        what: for people, for example `stream orders`.
        account: of it.
        before: its tags.
        more: to be added.

    Raises:
        InvalidArgument: a character that is not allowed, a key that is reserved, or too many of them.
    """
    texts = [text for pair in more.items() for text in pair]
    if not all(_is_allowed(sign) for text in texts for sign in text):
        raise InvalidArgument(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, "
            "_ . / = + - % @."
        )
    name = what.removeprefix("stream ")
    if any("%" in text for text in texts):
        raise InvalidArgument(
            f"Failed to add tags to stream {name} under account {account} because some tags contained illegal "
            "characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'."
        )
    for key in more:
        if key.lower().startswith(_RESERVED):
            raise InvalidArgument(f"Tag keys that begin with {_RESERVED} are reserved: {key}")
    after = {**before, **more}
    if len(after) > limits.TAGS:
        raise InvalidArgument(
            f"Failed to add tags to stream {name} under account {account} because a given stream cannot have more than "
            f"{limits.TAGS} tags associated with it."
        )
    return after


def without(before: Mapping[str, str], keys: list[str]) -> dict[str, str]:
    """The tags that are left; keys that are not there do not matter."""
    gone = set(keys)
    return {key: value for key, value in before.items() if key not in gone}


def _is_allowed(sign: str) -> bool:
    return sign in _SIGNS or sign.isspace() or unicodedata.category(sign)[0] in "LNM"
