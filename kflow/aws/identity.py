"""Who calls and where, from the credential scope; and the names of requests."""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from kflow.aws.calls import Place

_ACCOUNT = re.compile(r"([0-9]{12})|ASIAKFLOW([0-9]{12})[A-Z2-7]{7}")
"""Whose key it is: an account itself, or one that STS gave out (`kflow.broker.sessions`)."""
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_KEPT: Final = 1000
"""Credential scopes remembered; a client's changes once a day."""


class Caller(NamedTuple):
    """What a request says of who sends it.

    Attributes:
        place: whose resources it is about.
        access_key: empty where it is unsigned.
        signing_name: the service in the credential scope; empty where it is unsigned.
    """

    place: Place
    access_key: str = ""
    signing_name: str = ""


class Callers:
    """Reads credential scopes, and remembers them: 0.2 us for one that came before.

    The account is the access key where that is twelve digits, or names them as those do that kflow gives out, else the
    setting; the region is the scope's.
    """

    def __init__(self, home: Place) -> None:
        self._home = Caller(home)
        self._known: dict[str, Caller] = {}

    def of(self, headers: Mapping[str, str], target: str) -> Caller:
        """The caller, by the `authorization` header, else by the query of a presigned request."""
        header = headers.get("authorization")
        if header is not None:
            head = header[: header.find(",")]
            return self._known.get(head) or self._read(head)
        if "X-Amz-Credential=" in target:
            values = parse_qs(target.partition("?")[2]).get("X-Amz-Credential")
            if values:
                return self._scoped(values[0])
        return self._home

    def _read(self, head: str) -> Caller:
        """`AWS4-HMAC-SHA256 Credential=KEY/20261123/us-east-1/kinesis/aws4_request`."""
        start = head.find("Credential=")
        caller = self._home if start < 0 else self._scoped(head[start + 11 :].split(" ", 1)[0])
        if len(self._known) >= _KEPT:
            self._known.clear()
        if len(head) < 512:
            self._known[head] = caller
        return caller

    def _scoped(self, scope: str) -> Caller:
        home = self._home.place
        parts = scope.split("/")
        if len(parts) < 5:
            return self._home
        key, region, name = "/".join(parts[:-4]), parts[-3], parts[-2]
        account = _account(key) or home.account
        return Caller(Place(account, region if _REGION.fullmatch(region) else home.region), key, name)


def _account(key: str) -> str:
    found = _ACCOUNT.fullmatch(key)
    return "" if found is None else found[1] or found[2]


class RequestIds:
    """`x-amzn-RequestId` and `x-amz-id-2`: unique, and cheap. A uuid4 costs 1.5 us, these 0.3."""

    def __init__(self) -> None:
        head = os.urandom(10).hex()
        self._head = f"{head[:8]}-{head[8:12]}-4{head[13:16]}-8{head[16:19]}-"
        self._extended = base64.b64encode(os.urandom(63))
        self._next = itertools.count(int.from_bytes(os.urandom(5), "big")).__next__

    def new(self) -> tuple[str, bytes]:
        """The id, as a UUID, and the extended one, base64 of 72 bytes."""
        number = f"{self._next():012x}"
        return self._head + number, self._extended + number.encode()
