"""The endpoint's port: the one that was asked for or none, else the first free one from 4566 on; kept in a file.

The file `endpoint` in the data folder holds the URL, for tools that look for it. It stays behind a node that was
killed, so who reads it asks the lock whether a node runs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from kflow.errors import UsageError

TRIES: Final = 100
"""Ports from the default one on that are tried before the system is asked for any."""
_FILE: Final = "endpoint"
_LISTENING: Final = "0A"
"""State of a socket in /proc/net/tcp. Source: documented: Linux, include/net/tcp_states.h."""
Holder = Callable[[int], tuple[int, str] | None]
_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EACCES})


def holder(port: int) -> tuple[int, str] | None:
    """Process id and name of who listens at a port of this machine; None where that cannot be seen."""
    sockets = _listening(port)
    if not sockets:
        return None
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # another user's process, or one that has just ended
            if any(_link(fd) in sockets for fd in (folder / "fd").iterdir()):
                return int(folder.name), (folder / "comm").read_text().strip()
    return None


def _listening(port: int) -> set[str]:
    """What descriptors of sockets that listen at the port are linked to."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):  # no Linux, or no IPv6
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed meanwhile
        return ""


def choose(
    bind: str,
    port: int,
    *,
    is_set: bool,
    listen: Callable[[str, int], int],
    holder: Holder = holder,
) -> int:
    """Listen at the port by the rule.

    Args:
        bind: address or name.
        port: the wanted one; 0: any.
        is_set: whether somebody chose it, so that no other will do.
        listen: binds and listens; returns the port; raises OSError.
        holder: who listens at a port.

    Returns:
        The port that is listened at.

    Raises:
        UsageError: it is taken, and no other will do; or nothing can be bound at that address.
    """
    try:
        return listen(bind, port)
    except OSError as error:
        if error.errno not in _TAKEN or (is_set and port):
            raise UsageError(_refusal(bind, port, error, holder)) from error
    for other in (*range(port + 1, min(port + TRIES, 65536)), 0):
        try:
            return listen(bind, other)
        except OSError as error:
            if error.errno not in _TAKEN or not other:
                raise UsageError(_refusal(bind, other, error, holder)) from error
    raise AssertionError("the last try returns or raises")


def url(bind: str, port: int, *, tls: bool) -> str:
    """How to reach, from this machine, what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(bind, bind)  # noqa: S104  # compared
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach what listens there."""
    return bind in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", bind) is not None


def keep(data_dir: Path, text: str) -> None:
    """Write the URL into the data folder; as a whole, or not at all."""
    path = data_dir / _FILE
    beside = path.with_name(f"{_FILE}.{os.getpid()}")
    beside.write_text(f"{text}\n")
    beside.replace(path)


def kept(data_dir: Path) -> str | None:
    """The URL that the last node of a data folder was reached at; None where there was none."""
    try:
        return (data_dir / _FILE).read_text().strip() or None
    except OSError:
        return None


def forget(data_dir: Path) -> None:
    """Nobody listens any more."""
    (data_dir / _FILE).unlink(missing_ok=True)


def _refusal(bind: str, port: int, error: OSError, holder: Holder) -> str:
    if error.errno == errno.EADDRINUSE:
        who = holder(port)
        named = "another process" if who is None else f"process {who[0]} ({who[1]})"
        return (
            f"port {port} is held by {named}: end it, or choose another with --port "
            "(--port 0 takes any; without `port` in the settings the next free one is taken)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one above 1023 with --port"
    return f"the endpoint cannot listen at {bind!r}: {error.strerror or error}; see the settings `bind` and `port`"
