"""Pages of a long list, and the tokens that lead from one to the next.

A token is valid for five minutes and carries what the first call asked for: the calls after it name nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kflow.errors import ExpiredNextToken, InvalidArgument
from kflow.kinesis.seals import Seal

TOKEN_MS: Final = 300_000
"""Source: documented: ListShards, ListStreamConsumers."""


def token(seal: Seal, kind: bytes, now_ms: int, *said: Any) -> str:
    """The token of the next page.

    Args:
        seal: makes it.
        kind: of the list.
        now_ms: milliseconds since the epoch.
        said: what the next call is to know: JSON values.
    """
    return seal.close(kind, msgspec.json.encode((now_ms, *said)))


def said(seal: Seal, kind: bytes, text: str, now_ms: int) -> list[Any]:
    """What a token says.

    Raises:
        InvalidArgument: it is none of ours, or another list's.
        ExpiredNextToken: it is older than five minutes.

    Source: documented: the five minutes; chosen: the texts.
    """
    payload = seal.open(kind, text)
    if payload is None:
        raise InvalidArgument("NextToken is invalid: give one of the last five minutes as it was returned.")
    issued_ms, *content = msgspec.json.decode(payload, type=list[Any])
    if now_ms - issued_ms > TOKEN_MS:
        raise ExpiredNextToken("The pagination token passed to the operation is expired.")
    return list(content)
