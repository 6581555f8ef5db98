"""How callers name a function: by its name, a part of its ARN, or all of it, with a qualifier or without.

Source: documented: FunctionName; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kflow import arn
from kflow.aws.calls import Place
from kflow.errors import ValidationFailed
from kflow.lambda_.control.facts import LATEST
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound

NAME_CHARACTERS: Final = 64
UNQUALIFIED: Final = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)

_FORM: Final = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?"
    r"(?:((?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(\d{12}):)?(?:function:)?"
    r"([a-zA-Z0-9_-]+)(?::(\$LATEST|[a-zA-Z0-9_-]+))?"
)
_NUMBER: Final = re.compile(r"[0-9]+")


class Named(NamedTuple):
    """A function as somebody names it.

    Attributes:
        place: account and region that it is looked for in.
        name: its own.
        qualifier: as it was given: empty, `$LATEST`, a number or an alias.
    """

    place: Place
    name: str
    qualifier: str = ""

    @property
    def arn(self) -> str:
        """With the qualifier, if there is one."""
        return qualified(arn.function_arn(self.place.region, self.place.account, self.name), self.qualifier)

    def not_found(self) -> ResourceNotFound:
        """The refusal of one that is not there."""
        return ResourceNotFound(f"Function not found: {self.arn}")


def parse(text: str, place: Place, qualifier: str | None = None) -> Named:
    """A function's name in any of its forms; that the model's pattern fits has been checked.

    Args:
        text: as the caller has it.
        place: of the caller.
        qualifier: given beside the name.

    Raises:
        ValidationFailed: the name is too long.
        InvalidParameterValue: two qualifiers that differ, or it is no function's name.
        ResourceNotFound: it is the ARN of a function of another region.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidParameterValue(f"{text} is not the name or the ARN of a function.")  # chosen
    region, account, name, own = match.groups()
    if len(name) > NAME_CHARACTERS:
        raise ValidationFailed(
            f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: "
            f"Member must have length less than or equal to {NAME_CHARACTERS}"
        )
    if region is not None and region != place.region:
        raise ResourceNotFound(f"Functions from '{region}' are not reachable in this region ('{place.region}')")
    if own is not None and qualifier and own != qualifier:
        raise InvalidParameterValue(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return Named(Place(account or place.account, place.region), name, own or qualifier or "")


def parse_unqualified(text: str, place: Place, refusal: str = UNQUALIFIED) -> Named:
    """A name that must have no qualifier.

    Raises:
        InvalidParameterValue: it has one; and as `parse`.
    """
    named = parse(text, place)
    if named.qualifier:
        raise InvalidParameterValue(refusal)
    return named


def qualified(text: str, qualifier: str) -> str:
    """A function's ARN or key, with a qualifier."""
    return f"{text}:{qualifier}" if qualifier else text


def own_log_group(name: str) -> str:
    """The log group of a function that names none."""
    return f"/aws/lambda/{name}"


def is_number(qualifier: str) -> bool:
    """Whether it names a version by number."""
    return _NUMBER.fullmatch(qualifier) is not None


def key(place: Place, home: Place, name: str, qualifier: str = "") -> str:
    """What names a function for the node and its workers; `$LATEST` is what none means."""
    function = name if place == home else f"{name}@{place.account}.{place.region}"
    return qualified(function, "" if qualifier == LATEST else qualifier)
