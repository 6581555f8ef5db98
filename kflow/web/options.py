"""What a server of the web may be asked to bear: limits with their defaults, and where its certificate comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kflow.web.exchange import Headers
from kflow.web.heads import Refused

HIGH_BYTES = 256 * 1024
"""A connection whose peer has not taken this much is given nothing more to do; also the most that one send offers."""
UNREAD_BYTES = 64 * 1024
"""A connection that has sent this much beyond the request being answered is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Where the certificate comes from.

    Attributes:
        certificate: a PEM file, the server's own certificate first; None: one is made and kept in `folder`.
        key: the PEM file of its key; None: it is in `certificate`.
        folder: where a self-made certificate is kept.
    """

    certificate: Path | None = None
    key: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Limits of a server. What exceeds one is answered or closed, and harms nobody else.

    Attributes:
        body_bytes: of one request; above it 413, without a body. chosen: 10 MiB of records make up to 14 MiB of JSON.
        large_bytes: of one request to one of `large_targets`.
        large_targets: what such a target begins with.
        large_refusal: what a 413 to one of them says, by method and target; None: nothing.
        held_bytes: of all requests that have not arrived as a whole; above it 503 for whoever wants more. chosen.
        unsent_bytes: of all answers that their peers have not taken; above it, the connection whose peer has taken
            nothing for the longest is closed. chosen.
        header_bytes: of a request's head; above it 431. chosen.
        header_count: of a request's head; above it 431. chosen.
        connections: open at once; None: as many as the limit of descriptors allows, less `RESERVED_DESCRIPTORS`.
        streams: requests under way at once on a connection of HTTP/2. chosen, as most servers.
        idle_s: how long a connection may rest between requests. chosen, as nginx.
        request_s: from a request's first byte to its last; above it 408. chosen.
        write_s: how long a peer may take nothing of a complete answer. chosen.
        linger_s: how long a closed connection's last bytes are waited for, so that its peer reads the last answer.
        sweep_s: how often times are looked at while there are connections; the limits above are that coarse.
        tls: serves TLS beside plain text on the same port; None: plain text only.
    """

    body_bytes: int = 16 * 1024 * 1024
    large_bytes: int = 0
    large_targets: tuple[str, ...] = ()
    large_refusal: Callable[[str, str], tuple[Headers, bytes]] | None = None
    held_bytes: int = 256 * 1024 * 1024
    unsent_bytes: int = 256 * 1024 * 1024
    header_bytes: int = 64 * 1024
    header_count: int = 100
    connections: int | None = None
    streams: int = 100
    idle_s: float = 75.0
    request_s: float = 60.0
    write_s: float = 120.0
    linger_s: float = 5.0
    sweep_s: float = 5.0
    tls: Tls | None = None

    def most(self, target: str) -> int:
        """Bytes that a body may have."""
        return max(self.body_bytes, self.large_bytes) if target.startswith(self.large_targets) else self.body_bytes

    def refusal(self, method: str, target: str) -> Refused:
        """Of a body that is longer."""
        text = f"a body has at most {self.most(target)} bytes"
        if self.large_refusal is None or not target.startswith(self.large_targets):
            return Refused(413, text)
        return Refused(413, text, *self.large_refusal(method, target))


RESERVED_DESCRIPTORS = 256
"""Left to the log, the workers and everything else, of the process's limit."""
LEAST_CONNECTIONS = 64
"""Allowed even where the limit of descriptors is very low."""


def connection_limit(options: WebOptions) -> int:
    """How many connections may be open at once."""
    if options.connections is not None:
        return options.connections
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max(soft - RESERVED_DESCRIPTORS, min(LEAST_CONNECTIONS, soft // 2))
