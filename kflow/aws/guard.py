"""Who may talk to the endpoint from a browser: it listens on this machine, and so do the pages people visit.

A page of a foreign site may send requests to 127.0.0.1 (its `Origin` tells), or have its own name resolve to 127.0.0.1
(its `Host` tells). Programs send no `Origin`, and a `Host` that is where they connected to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_KEPT: Final = 256


class Guard:
    """Decides by header.

    Attributes:
        fine: values of `Host` that were admitted; always the same set.
    """

    def __init__(self, hosts: Iterable[str] | None = ()) -> None:
        """Admit loopback, and these.

        Args:
            hosts: names, besides those of loopback, by which the endpoint may be called; None: any.
        """
        self.fine: set[str] = set()
        self._hosts = None if hosts is None else {host.lower().strip("[]") for host in hosts}

    def admits_host(self, host: str | None) -> bool:
        """Whether a `Host` header means this endpoint. Without one no browser is at work."""
        if host is None or host in self.fine or self._hosts is None:
            return True
        name = _name(f"//{host}")
        if name is None or not (_is_loopback(name) or name in self._hosts):
            return False
        if len(self.fine) >= _KEPT:
            self.fine.clear()
        self.fine.add(host)
        return True

    def admits_origin(self, origin: str) -> bool:
        """Whether a page of this origin may change things: one that this machine serves."""
        name = _name(origin) if "://" in origin else None
        return name is not None and (_is_loopback(name) or name in (self._hosts or ()))


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
