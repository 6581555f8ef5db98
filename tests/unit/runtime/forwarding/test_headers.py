"""What goes through, and what is between two neighbours only."""

from __future__ import annotations

import pytest

from kflow.runtime.forwarding.headers import back, is_old_s3, onward, target_of


def test_what_is_between_neighbours_stays_there_on_the_way_out() -> None:
    given = {
        "host": "localhost:4566",
        "connection": "keep-alive, X-Mine",
        "x-mine": "1",
        "te": "trailers",
        "transfer-encoding": "chunked",
        "content-length": "5",
        "expect": "100-continue",
        "content-type": "text/plain",
        "x-amz-meta-a": "b",
    }
    assert onward(given) == [("content-type", "text/plain"), ("x-amz-meta-a", "b")]


def test_what_is_between_neighbours_stays_there_on_the_way_back() -> None:
    given = [
        ("Connection", "close, X-Mine"),
        ("X-Mine", "1"),
        ("Date", "today"),
        ("Content-Length", "12"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("x-amz-meta-c", "r\u00f6t"),
    ]
    assert back(given) == ([(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"x-amz-meta-c", b"r\xf6t")], 12)


@pytest.mark.parametrize("length", ["-1", "1_0", "\u0663", ""])
def test_a_length_that_is_none_is_not_believed(length: str) -> None:
    assert back([("Content-Length", length)]) == ([], None)


@pytest.mark.parametrize(
    ("target", "host", "asked"),
    [
        ("/b/k?x=%20y", "127.0.0.1:4566", "/b/k?x=%20y"),
        ("/k", "photos.localhost:4566", "/photos/k"),
        ("/k", "my.photos.s3.localhost", "/my.photos/k"),
        ("/k", "photos.s3.eu-west-1.localhost:80", "/photos/k"),
        ("/k", "photos.s3-eu-west-1.localhost:80", "/photos/k"),
        ("/b/k", "s3.localhost:4566", "/b/k"),
        ("/b/k", "s3.eu-west-1.localhost:4566", "/b/k"),
        ("/b/k", "localhost:4566", "/b/k"),
        ('/b/k\u00e9"<', "localhost", '/b/k%E9"<'),
        ("*", "localhost", "/*"),
    ],
)
def test_the_bucket_in_a_host_name_moves_into_the_path(target: str, host: str, asked: str) -> None:
    assert target_of(target, host, is_s3=True) == asked


def test_other_services_have_no_buckets() -> None:
    assert target_of("/k", "photos.localhost", is_s3=False) == "/k"


@pytest.mark.parametrize(
    ("target", "authorization", "is_old"),
    [
        ("/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", "", True),
        ("/b/k?Signature=b&Expires=1&AWSAccessKeyId=a", "", True),
        ("/b/k", "AWS AKID:c2lnbg==", True),
        ("/?Action=Select&AWSAccessKeyId=a&SignatureVersion=2&Signature=b", "", False),
        ("/b/k?Signature=b", "", False),
        ("/b/k", "AWS4-HMAC-SHA256 Credential=a", False),
    ],
)
def test_s3_is_known_by_its_old_signatures(target: str, authorization: str, is_old: bool) -> None:
    assert is_old_s3(target, authorization) is is_old
