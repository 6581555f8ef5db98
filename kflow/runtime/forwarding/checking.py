"""Whether what `[tool.kflow.services]` says can work on this machine: for people who ask before they start."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from kflow.errors import UsageError
from kflow.runtime.forwarding.moto import INSTALL, missing
from kflow.runtime.forwarding.routes import Routes
from kflow.settings.services import DEFAULT, Route

CONNECT_S: Final = 2.0


def problems(services: Mapping[str, str], spoken: Collection[str]) -> Iterator[str]:
    """What would go wrong, with the fix; blocks, and connects to the endpoints that are named.

    Args:
        services: the table of the settings.
        spoken: the services that kflow speaks.
    """
    try:
        routes = Routes(services, spoken)
    except UsageError as error:
        yield str(error)
        return
    by_route: dict[Route, list[str]] = {}
    for service, route in (*routes.ways.items(), (DEFAULT, routes.default)):
        by_route.setdefault(route, []).append(service)
    for route, names in by_route.items():
        problem = _problem(route)
        if problem:
            yield f"services.{', services.'.join(names)}: {problem}"


def _problem(route: Route) -> str:
    if route.kind == "moto" and (name := missing()):
        return f"{name} is not installed beside kflow: {INSTALL}"
    if route.kind == "url":
        parts = urlsplit(route.value)
        try:
            socket.create_connection(
                (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), CONNECT_S
            ).close()
        except OSError as error:
            return f"nothing answers at {route.value} now: {error}"
    if route.kind == "aws":
        from botocore.session import Session

        known = Session().available_profiles
        if route.value not in known:
            return f"~/.aws has no profile {route.value!r}; it has {', '.join(known) or 'none'}"
    return ""
