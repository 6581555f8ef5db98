"""Heads of HTTP/1.1: what is read, what is refused, what is written."""

from __future__ import annotations

import logging

import pytest

from kflow.web.heads import HeadReader, Refused, RequestHead, response_head


def read(text: str, header_count: int = 100) -> RequestHead:
    return HeadReader(header_count).read(text.replace("\n", "\r\n").encode("latin-1"))


def refused(text: str, header_count: int = 100) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        read(text, header_count)
    return caught.value.status, str(caught.value)


def test_a_request_of_an_sdk_is_read():
    head = read(
        "POST /?a=%20b HTTP/1.1\nHost: 127.0.0.1:4566\nX-Amz-Target: Kinesis_20131202.PutRecord\nContent-Length: 7\n\n"
    )
    assert head == (
        "POST",
        "/?a=%20b",
        {"host": "127.0.0.1:4566", "x-amz-target": "Kinesis_20131202.PutRecord", "content-length": "7"},
        "1.1",
        True,
        7,
        False,
    )


def test_a_header_given_twice_is_joined():
    assert read("GET / HTTP/1.1\nHost: h\nAccept: a\naccept: b\n\n").headers == {"host": "h", "accept": "a, b"}


def test_bytes_above_ascii_are_kept_as_latin_1():
    assert read("GET / HTTP/1.1\nHost: h\nX: caf\xe9\n\n").headers["x"] == "caf\xe9"


def test_empty_lines_before_a_request_are_skipped():
    assert read("\n\nGET / HTTP/1.1\nHost: h\n\n").method == "GET"


@pytest.mark.parametrize(
    ("text", "version", "is_kept"),
    [
        ("GET / HTTP/1.1\nHost: h\n\n", "1.1", True),
        ("GET / HTTP/1.1\nHost: h\nConnection: close\n\n", "1.1", False),
        ("GET / HTTP/1.0\n\n", "1.0", False),
        ("GET / HTTP/1.0\nConnection: keep-alive\n\n", "1.0", True),
    ],
)
def test_who_wants_to_stay_connected_is_known(text, version, is_kept):
    head = read(text)
    assert (head.version, head.is_kept) == (version, is_kept)


def test_an_offer_to_upgrade_is_not_taken_up():
    head = read(
        "POST / HTTP/1.1\nHost: h\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMA\n"
        "Content-Length: 3\n\n"
    )
    assert (head.method, head.length) == ("POST", 3)
    assert read("GET / HTTP/1.1\nHost: h\nConnection: Upgrade\nUpgrade: websocket\n\n").method == "GET"


def test_a_target_of_a_proxy_becomes_a_path_on_its_host():
    head = read("GET http://kinesis.local:4566/a?b HTTP/1.1\nHost: other\n\n")
    assert (head.target, head.headers["host"]) == ("/a?b", "kinesis.local:4566")
    assert read("GET http://h HTTP/1.1\nHost: h\n\n").target == "/"
    assert read("GET http://h?q HTTP/1.1\nHost: h\n\n").target == "/?q"


def test_options_may_be_about_the_whole_server():
    assert read("OPTIONS * HTTP/1.1\nHost: h\n\n").target == "*"


def test_who_waits_to_send_the_body_is_known():
    assert read("PUT / HTTP/1.1\nHost: h\nExpect: 100-Continue\nContent-Length: 9\n\n").is_expecting
    assert not read("PUT / HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 0\n\n").is_expecting
    assert not read("PUT / HTTP/1.0\nHost: h\nExpect: 100-continue\nContent-Length: 9\n\n").is_expecting


def test_a_body_in_chunks_has_no_length():
    assert read("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: Chunked\n\n").length is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\nHost: b\n\n", 400),
        ("GET / HTTP/1.1\nHost: h\nContent-Length: 1\nContent-Length: 2\n\n", 400),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: -1\n\n", 400),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: +1\n\n", 400),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 99999999999999999999999\n\n", 400),
        ("POST / HTTP/1.1\nHost: h\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", 400),
        ("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip, chunked\n\n", 501),
        ("POST / HTTP/1.1\nHost: h\nTransfer-Encoding: gzip\n\n", 400),
        ("POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n", 400),
        ("GET / HTTP/2.0\nHost: h\n\n", 505),
        ("GET / HTTP/3.7\nHost: h\n\n", 400),
        ("GET /\n\n", 505),
        ("\n\n", 400),
        ("GET relative HTTP/1.1\nHost: h\n\n", 400),
        ("CONNECT h:443 HTTP/1.1\nHost: h\n\n", 400),
        ("GET ftp://h/ HTTP/1.1\nHost: h\n\n", 400),
        ("GET / HTTP/1.1\nHost: h\nBad Name: x\n\n", 400),
        ("GET / HTTP/1.1\nHost: h\n folded: x\n\n", 400),
        ("GET / HTTP/1.1\nHost: h\nX: a\0b\n\n", 400),
        ("GOT / HTTP/1.1\nHost: h\n\n", 400),
        ("PUT / HTTP/1.1\nHost: h\nExpect: a-miracle\n\n", 417),
    ],
)
def test_what_is_no_request_is_refused(text, status):
    assert refused(text)[0] == status


def test_a_head_with_too_many_headers_is_refused_and_named():
    text = "GET / HTTP/1.1\nHost: h\n" + "X: y\n" * 3 + "\n"
    assert read(text, header_count=4).headers == {"host": "h", "x": "y, y, y"}
    assert refused(text, header_count=3) == (431, "more than 3 headers")


def test_a_refusal_does_not_touch_the_next_head():
    reader = HeadReader(100)
    with pytest.raises(Refused):
        reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert reader.read(b"GET /next HTTP/1.1\r\nHost: c\r\n\r\n") == (
        "GET",
        "/next",
        {"host": "c"},
        "1.1",
        True,
        0,
        False,
    )


def test_names_that_peers_invent_take_no_memory_for_ever():
    reader = HeadReader(100)
    for number in range(5000):
        reader.read(b"GET / HTTP/1.1\r\nHost: h\r\nX-%d: y\r\n\r\n" % number)
    assert len(reader._names) <= 1024


def test_a_head_is_written_in_the_order_given():
    assert (
        response_head(
            200, [(b"Content-Type", b"application/json"), (b"X", b"y")], b"content-length: 2\r\n", b"date: now\r\n"
        )
        == b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: y\r\ncontent-length: 2\r\ndate: now\r\n\r\n"
    )
    assert response_head(299, (), b"", b"") == b"HTTP/1.1 299 Unknown\r\n\r\n"


def test_a_value_cannot_write_headers_of_its_own(caplog):
    with caplog.at_level(logging.WARNING):
        head = response_head(200, [(b"X", b"a\r\nset-cookie: b")], b"", b"")
    assert head == b"HTTP/1.1 200 OK\r\nX: a  set-cookie: b\r\n\r\n"
    assert "line breaks in the headers of an answer" in caplog.text


def test_whatever_byte_stands_anywhere_in_a_plain_head_what_needs_no_parser_is_read_as_by_the_parser():
    head = b"POST /a?b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nX-Y: a, b\r\nContent-Length: 3\r\n\r\n"
    plain = 0
    for at in range(len(head)):
        for byte in range(256):
            for changed in (head[:at] + bytes((byte,)) + head[at:], head[:at] + bytes((byte,)) + head[at + 1 :]):
                found = HeadReader(100).plain(changed)
                if found is not None:
                    plain += 1
                    assert found == HeadReader(100).exact(changed), changed
    assert plain > 2000
