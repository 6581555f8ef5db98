"""What AWS's services are called on the wire, of all that botocore knows: read from the first lines of their models.

A model is up to some MiB, and its metadata stands before everything else: 0.2 ms a service.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from kflow.aws.models import data_folder

_HEAD_BYTES: Final = 16 * 1024
_METADATA: Final = re.compile(r'"metadata"\s*:\s*')


class Named(NamedTuple):
    """A service's names.

    Attributes:
        service: botocore's.
        signing_name: in credential scopes.
        target_prefix: of the `X-Amz-Target` header, without the dot; empty where it has none.
        protocol: as its model says, for example `rest-json`.
    """

    service: str
    signing_name: str
    target_prefix: str
    protocol: str


def named(service: str) -> Named | None:
    """The names of one service; None: botocore has no model of it that can be read."""
    return _read(data_folder() / service)


@cache
def everything() -> tuple[Named, ...]:
    """Those of all services. Takes some 0.1 s, once: not for the loop."""
    found = (_read(folder) for folder in sorted(data_folder().iterdir()) if folder.is_dir())
    return tuple(each for each in found if each is not None)


def _read(folder: Path) -> Named | None:
    try:
        models = [version / "service-2.json.gz" for version in sorted(folder.iterdir(), reverse=True)]
        model = next((each for each in models if each.exists()), None)
        if model is None:
            return None
        with gzip.open(model) as file:
            text = file.read(_HEAD_BYTES).decode(errors="replace")
        begin = _METADATA.search(text)
        metadata: Mapping[str, Any] = {} if begin is None else json.JSONDecoder().raw_decode(text, begin.end())[0]
    except (OSError, EOFError, ValueError):
        return None
    prefix = metadata.get("endpointPrefix")
    if not prefix:
        return None
    return Named(
        folder.name,
        metadata.get("signingName", prefix),
        metadata.get("targetPrefix", ""),
        metadata.get("protocol", ""),
    )
