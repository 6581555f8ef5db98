"""Decorated handlers as the Lambda API shows them: their source is their code, and is read when somebody asks."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kflow import arn
from kflow.aws.calls import Place
from kflow.lambda_.control.facts import LATEST, Code, Configuration
from kflow.lambda_.control.host import Host
from kflow.lambda_.fleet import Published

UNREAD: Final = Code(hashlib.sha256(b"").hexdigest(), 0, 0)
"""Of a source that was not read, or cannot be."""
RUNTIME: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""Handlers run in this very Python."""


class Described:
    """One handler's configuration."""

    __slots__ = ("configuration",)

    def __init__(self, declared: Published, place: Place, code: Code = UNREAD, modified_ms: int = 0) -> None:
        handler = declared.handler
        self.configuration = Configuration(
            version=LATEST,
            revision=_revision(handler.name, code),
            modified_ms=modified_ms,
            runtime=RUNTIME,
            role=arn.role_arn(place.account, handler.name),
            entry=f"{handler.module}.{handler.qualname}",
            code=code,
            timeout_s=declared.timeout_s,
            memory_mb=declared.memory_mb,
            environment=dict(declared.environment) or None,
        )


class Source(Protocol):
    """Whose source is read."""

    declared: Published | None

    def describe(self, code: Code, modified_ms: int) -> None:
        """It was."""
        ...


class Sources:
    """Reads them once, in a thread. Belongs to the loop's thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._is_read = False
        self._waiting: list[Callable[[], object]] = []

    def read(self, functions: Sequence[Source], then: Callable[[], object]) -> None:
        """Have all described, and call back; at once where that was done before."""
        if self._is_read or not functions:
            then()
            return
        self._waiting.append(then)
        if len(self._waiting) > 1:
            return
        paths = {each.declared.handler.file for each in functions if each.declared is not None}

        def work() -> dict[str, tuple[Code, int]]:
            return {path: _read(path, self._host) for path in paths}

        def done(found: dict[str, tuple[Code, int]] | object) -> None:
            assert isinstance(found, dict), "each file that cannot be read is answered for"
            self._is_read = True
            for each in functions:
                if each.declared is not None:
                    each.describe(*found[each.declared.handler.file])
            waiting, self._waiting = self._waiting, []
            for each_then in waiting:
                each_then()

        self._host.submit(work, done)


def _read(path: str, host: Host) -> tuple[Code, int]:
    """The code of a file, and when it was changed; a file that is gone since is empty."""
    files = host.folder.files
    try:
        text = files.read_bytes(path)
        modified_ms = files.stat(path).st_mtime_ns // 1_000_000
    except (OSError, ValueError):
        return UNREAD, 0
    return Code(hashlib.sha256(text).hexdigest(), len(text), len(text)), modified_ms


def _revision(name: str, code: Code) -> str:
    """A UUID that is the same for the same source."""
    digest = hashlib.blake2b(f"{name} {code.digest}".encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:]}"
