"""The temporary credentials that were given out, kept until they expire.

An access key names its account, so that it needs no look here to find whose resources a call is about:

    ASIAKFLOW 123456789012 ABCDEFG        a mark, the account of the role, seven letters of chance
"""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec

from kflow.broker import statefile
from kflow.broker.host import Host
from kflow.errors import Damaged
from kflow.interfaces import Done

FILE_NAME: Final = "sessions.json"
MARK: Final = "ASIAKFLOW"
log = logging.getLogger(__name__)

MOST: Final = 1000
"""Sessions that are kept; of more, those that expire first are forgotten."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One assumed role.

    Attributes:
        access_key: names the account.
        secret: of it.
        token: which goes with each of its requests.
        expires_ms: milliseconds since the epoch.
        role: ARN of the role.
        name: of the session.
        source: the source identity, or empty.
    """

    access_key: str
    secret: str
    token: str
    expires_ms: int
    role: str
    name: str
    source: str = ""


class _Stored(msgspec.Struct):
    version: int = 1
    sessions: list[Session] = []


# Made once, here: msgspec ends the process where two threads use a type for the first time at the same time.
_read_stored = msgspec.json.Decoder(_Stored).decode


class Sessions:
    """All of them. Belongs to the loop's thread.

    Args:
        host: the node.

    Raises:
        StorageError: what was kept cannot be read.
    """

    def __init__(self, host: Host) -> None:
        stored = _Stored()
        try:
            text = statefile.load(host.folder, FILE_NAME)
            if text is not None:
                stored = _read_stored(text)
        except (Damaged, msgspec.MsgspecError) as error:  # who has lost one assumes the role again
            log.warning("temporary credentials are lost file=%s: %s", FILE_NAME, error)
        self._sessions = {each.access_key: each for each in stored.sessions}
        self._file = statefile.StateFile(host, FILE_NAME, self._content)

    def find(self, access_key: str) -> Session | None:
        """The session of a key, expired or not; None: there is none."""
        return self._sessions.get(access_key)

    def begin(
        self, account: str, *, role: str, name: str, source: str, now_ms: int, seconds: int, told: Done
    ) -> Session:
        """Give out credentials.

        Args:
            account: of the role, twelve digits.
            role: its ARN.
            name: of the session.
            source: the source identity, or empty.
            now_ms: milliseconds since the epoch.
            seconds: how long they are good.
            told: told None when they are kept, else why they are not.
        """
        session = Session(
            access_key=f"{MARK}{account}{_letters(7)}",
            secret=base64.b64encode(os.urandom(30)).decode(),
            token=base64.b64encode(os.urandom(96)).decode(),
            expires_ms=(now_ms // 1000 + seconds) * 1000,
            role=role,
            name=name,
            source=source,
        )
        alive = [each for each in self._sessions.values() if each.expires_ms > now_ms]
        if len(alive) >= MOST:
            alive.sort(key=lambda each: each.expires_ms)
            del alive[: len(alive) - MOST + 1]
        self._sessions = {each.access_key: each for each in (*alive, session)}
        self._file.keep(told)
        return session

    def clear(self, then: Callable[[], object]) -> None:
        """Forget all; calls back when that is kept."""
        self._sessions = {}
        self._file.keep(lambda _: then())

    def _content(self) -> bytes:
        return msgspec.json.encode(_Stored(sessions=list(self._sessions.values())))


def _letters(count: int) -> str:
    return base64.b32encode(os.urandom(count)).decode()[:count]
