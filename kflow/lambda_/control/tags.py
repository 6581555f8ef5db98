"""Tags of functions. Source: documented: TagResource; recorded: the text, but for those marked chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kflow.lambda_.errors import InvalidParameterValue

TAGS: Final = 50
KEY_CHARACTERS: Final = 128
VALUE_CHARACTERS: Final = 256


def checked(present: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Tags with more of them.

    Raises:
        InvalidParameterValue: too many, or one that is reserved or too long.
    """
    for key, value in more.items():
        if key.lower().startswith("aws:"):
            raise InvalidParameterValue("Tag keys that begin with aws: are reserved: choose another one.")  # chosen
        if not 1 <= len(key) <= KEY_CHARACTERS or len(value) > VALUE_CHARACTERS:
            raise InvalidParameterValue(
                f"A tag's key has 1 to {KEY_CHARACTERS} characters, and its value {VALUE_CHARACTERS} at most."  # chosen
            )
    after = {**present, **more}
    if len(after) > TAGS:
        raise InvalidParameterValue("Number of tags exceeds resource tag limit.")
    return after


def without(present: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Tags less some of them; those that are not there are removed already."""
    gone = set(keys)
    return {key: value for key, value in present.items() if key not in gone}
