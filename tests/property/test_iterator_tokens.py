"""Whatever is given for a token, it is taken or refused in AWS's words."""

from __future__ import annotations

import base64
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from kflow.errors import ExpiredIterator, ExpiredNextToken, InvalidArgument
from kflow.kinesis import iterators, pages
from kflow.kinesis.iterators import Place
from kflow.kinesis.seals import Seal
from kflow.records import Position

SEAL = Seal(b"a folder")
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
ANYTHING = st.one_of(st.text(max_size=512), st.binary(max_size=384).map(lambda raw: base64.b64encode(raw).decode()))


@given(token=ANYTHING, now_ms=U64)
def test_what_is_no_token_is_refused(token: str, now_ms: int) -> None:
    with suppress(InvalidArgument):
        raise AssertionError(iterators.decode(SEAL, token, now_ms))
    with suppress(InvalidArgument):
        raise AssertionError(pages.said(SEAL, b"shards", token, now_ms))


@given(stream_id=U64, shard=U32, offset=U64, index=U32, name=st.text("abc_.-0", min_size=1, max_size=128), now_ms=U64)
def test_a_token_says_what_was_put_into_it(
    stream_id: int, shard: int, offset: int, index: int, name: str, now_ms: int
) -> None:
    place = Place(stream_id, name, shard, Position(offset, index))
    token = iterators.encode(SEAL, place, now_ms)
    assert len(token) <= 512
    assert iterators.decode(SEAL, token, now_ms) == place
    with suppress(InvalidArgument):
        raise AssertionError(pages.said(SEAL, b"shards", token, now_ms))


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), now_ms=st.integers(0, 2**40))
def test_a_token_with_one_bit_changed_is_none(at: int, bit: int, now_ms: int) -> None:
    raw = bytearray(base64.b64decode(iterators.encode(SEAL, Place(1, "orders", 0, Position(5, 5)), now_ms)))
    raw[at % len(raw)] ^= 1 << bit
    with suppress(InvalidArgument, ExpiredIterator, ExpiredNextToken):
        raise AssertionError(iterators.decode(SEAL, base64.b64encode(raw).decode(), now_ms))
