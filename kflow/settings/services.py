"""`[tool.kflow.services]`: where calls of other AWS services go, by service.

    "off"           nowhere: the caller is told so
    "moto"          to a server of moto that the runtime starts with the first call
    "http://..."    to an endpoint, https too
    "aws:PROFILE"   to AWS itself, signed anew with that profile of this machine

Services are called as botocore calls them (`dynamodb`, `s3`); `default` stands for all that are not named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, Literal, NamedTuple

from kflow.errors import UsageError
from kflow.settings.convert import nearest

DEFAULT: Final = "default"

Kind = Literal["off", "moto", "url", "aws"]


class Route(NamedTuple):
    """Where the calls of a service go.

    Attributes:
        kind: `off`, `moto`, `url` or `aws`.
        value: of `url` the URL without a slash at its end, of `aws` the profile; else empty.
    """

    kind: Kind
    value: str = ""


NOWHERE: Final = Route("off")
_EXPECTED: Final = "one of off, moto, http://HOST:PORT, aws:PROFILE"
_PROFILE: Final = re.compile(r"[^\s:]{1,128}")


def route(text: str, spelled: str) -> Route:
    """What an entry means.

    Args:
        text: its value.
        spelled: its name, for people.

    Raises:
        UsageError: it means nothing; with what it may be.
    """
    if text in {"off", "moto"}:
        return Route("moto" if text == "moto" else "off")
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "aws":
        if rest == DEFAULT:
            raise UsageError(
                f"{spelled} must name a profile of its own, not `default`, which so much falls back to by accident: "
                "give those credentials a name in ~/.aws/config, then write aws:NAME"
            )
        if not _PROFILE.fullmatch(rest):
            raise UsageError(f"{spelled} must name a profile of ~/.aws/config, like 'aws:dev', not {text!r}")
        return Route("aws", rest)
    if colon and scheme in {"http", "https"}:
        return Route("url", _checked(text, spelled))
    raise UsageError(f"{spelled} must be {_EXPECTED}, not {text!r}{nearest(text, ['off', 'moto'])}")


def _checked(text: str, spelled: str) -> str:
    from urllib.parse import urlsplit  # which who sets no URL need not pay for

    try:
        parts = urlsplit(text)
        fits = bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or any(character.isspace() for character in text):
        raise UsageError(f"{spelled} must be a URL like 'http://localhost:9000', not {text!r}")
    if parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{spelled} must be a URL of a host and perhaps a path, nothing more, not {text!r}")
    return text.rstrip("/")


def check(services: Mapping[str, str], origins: Mapping[str, str]) -> None:
    """See that each service is one of AWS's, and each value means something.

    Args:
        services: values by service.
        origins: where each value came from, by dotted name.

    Raises:
        UsageError: of the first that does not; an unknown service with the nearest there is.
    """
    for name, value in services.items():
        spelled = f"services.{name} in {origins.get(f'services.{name}', 'the settings')}"
        names = known()
        if names and name != DEFAULT and name not in names:
            raise UsageError(f"{spelled}: AWS has no service of that name{nearest(name, [DEFAULT, *names])}")
        route(value, spelled)


def entry(spelled: str, present: Iterable[str]) -> str:
    """The service that a variable means: its name is in capitals and cannot hold `-`."""
    plain = spelled.lower().replace("-", "_")
    for name in (*present, *known()):
        if name.replace("-", "_") == plain:
            return name
    return spelled.lower()


@cache
def known() -> tuple[str, ...]:
    """AWS's services by botocore's names: the folders of its data; none where it is not installed."""
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        return ()
    folder = Path(found.submodule_search_locations[0]) / "data"
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
