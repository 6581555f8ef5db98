"""Sealed tokens and pages: nobody makes one up, none is taken for another, and they end."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kflow.errors import ExpiredNextToken, InvalidArgument
from kflow.kinesis import pages
from kflow.kinesis.seals import Seal

SEAL = Seal(b"0123456789abcdef0123456789abcdef")


def test_no_two_tokens_are_alike_and_both_say_the_same() -> None:
    first, second = SEAL.close(b"streams", b"payload"), SEAL.close(b"streams", b"payload")
    assert first != second
    assert SEAL.open(b"streams", first) == SEAL.open(b"streams", second) == b"payload"


def test_a_token_of_another_kind_or_another_folder_is_none() -> None:
    token = SEAL.close(b"streams", b"payload")
    assert SEAL.open(b"consumers", token) is None
    assert Seal(b"another").open(b"streams", token) is None


@given(some.binary(max_size=200), some.integers(0, 10_000), some.integers(1, 255))
def test_a_token_with_any_byte_changed_is_none(payload: bytes, place: int, change: int) -> None:
    raw = bytearray(base64.b64decode(SEAL.close(b"k", payload)))
    raw[place % len(raw)] ^= change
    assert SEAL.open(b"k", base64.b64encode(raw).decode()) is None


@given(some.text() | some.binary().map(lambda raw: base64.b64encode(raw).decode()))
def test_a_text_that_is_no_token_is_none(text: str) -> None:
    assert SEAL.open(b"k", text) is None


def test_a_page_says_what_it_was_told_for_five_minutes() -> None:
    token = pages.token(SEAL, b"streams", 1_000_000, "orders", ["a", 1])
    assert pages.said(SEAL, b"streams", token, 1_300_000) == ["orders", ["a", 1]]
    with pytest.raises(ExpiredNextToken):
        pages.said(SEAL, b"streams", token, 1_300_001)
    with pytest.raises(InvalidArgument, match="NextToken is invalid"):
        pages.said(SEAL, b"consumers", token, 1_000_000)
