"""Requests of runtimes, out of bytes in pieces of any size."""

from __future__ import annotations

import pytest

from kflow.runtime.worker.hosted.requests import Known, Malformed, Parser, Request

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nUser-Agent: x\r\n\r\n"
ANSWER = (
    b"POST /2018-06-01/runtime/invocation/42/response?a=b HTTP/1.1\r\nHost: h\r\n"
    b'Content-Type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'
)
CHUNKED = (
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\r\n"
    b"4\r\nab\r\n\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"
)


def read(data: bytes, step: int = 1 << 20) -> list[Request]:
    parser = Parser()
    found = []
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
        while (request := parser.next()) is not None:
            found.append(request)
    assert parser.is_between
    return found


@pytest.mark.parametrize("step", [1, 2, 7, 64, 1 << 20])
def test_requests_are_found_wherever_the_bytes_are_cut(step):
    first, answer, again, chunked = read(NEXT + ANSWER + NEXT + CHUNKED, step)
    assert (first.method, first.path, first.body) == ("GET", "/2018-06-01/runtime/invocation/next", b"")
    assert first.headers == {"host": "127.0.0.1:9001", "user-agent": "x"}
    assert (answer.path, answer.body, answer.size) == (
        "/2018-06-01/runtime/invocation/42/response",
        b'{"ok":true}',
        11,
    )
    assert again == first
    assert (chunked.body, chunked.size, chunked.trailers) == (b"ab\r\n0123456789", 14, {})


def post(request_id: str, body: bytes, length: int | None = None, *more: bytes) -> bytes:
    head = f"POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1\r\nHost: h\r\nUser-Agent: u"
    return b"\r\n".join(
        [head.encode(), *more, b"content-length: %d" % (len(body) if length is None else length), b"", body]
    )


def test_requests_like_those_before_are_known_at_a_glance():
    known = Known()
    for data in (NEXT, post("41", b"{}")):
        assert known.request(data) is None
        known.learn(data, read(data)[0])
    for data in (NEXT, post("42", b"{}"), post("43", b'{"longer":"\r\n\r\n"}'), post("44", b"")):
        seen, parsed = known.request(data), read(data)[0]
        assert seen is not None
        assert (seen.method, seen.path, seen.body, seen.size) == (parsed.method, parsed.path, parsed.body, parsed.size)
        assert (seen.keep, seen.trailers, seen.too_large) == (True, {}, False)


@pytest.mark.parametrize(
    "data",
    [
        NEXT[:-1],
        NEXT + NEXT,
        post("42", b"{}", 3),
        post("42", b"{}", 1),
        post("42", b"{}") + NEXT,
        post("42", b"{}", 2, b"Connection: close"),
        post("42", b"{}", 2, b"Lambda-Runtime-Function-Response-Mode: streaming"),
        post("42", b"x" * 6_291_557),
        post("42", b"{}").replace(b"content-length: 2", b"content-length: 02"),
        post("42", b"{}").replace(b"content-length: 2", b"content-length: 2\r\nOrigin: http://evil.example"),
        post("4 2", b"{}").replace(b" HTTP/1.1", b" HTTP/1.0"),
    ],
)
def test_whatever_is_otherwise_is_read_in_full(data):
    known = Known()
    for each in (NEXT, post("41", b"{}")):
        known.learn(each, read(each)[0])
    assert known.request(data) is None


def test_a_request_that_has_more_to_say_is_not_remembered():
    known = Known()
    for data in (post("1", b"{}", 2, b"Connection: close"), post("1", b"{}", 2, b"Expect: 100-continue")):
        known.learn(data, read(data)[0])
        assert known.request(data) is None


def test_trailers_come_with_a_body_in_chunks():
    data = (
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        b"Lambda-Runtime-Function-Error-Type: Function.Broken\r\nother: 1\r\n\r\n"
    )
    assert read(data, 5)[0].trailers == {"lambda-runtime-function-error-type": "Function.Broken", "other": "1"}


def test_a_head_of_a_mebibyte_is_read_and_its_utf_8_kept():
    cause = "é" * (1 << 19)
    request = read(f"POST /x HTTP/1.1\r\nX-Cause: {cause}\r\nContent-Length: 0\r\n\r\n".encode(), 100_000)[0]
    assert request.headers["x-cause"] == cause


def test_a_body_of_just_the_limit_is_kept_and_one_byte_more_thrown_away():
    for size, kept, too_large in ((6_291_556, 6_291_556, False), (6_291_557, 0, True)):
        data = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        request = read(data + NEXT, 1 << 18)[0]
        assert (len(request.body), request.size, request.too_large) == (kept, size, too_large)


def test_a_peer_that_waits_for_leave_to_send_its_body_is_noticed():
    parser = Parser()
    parser.feed(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert parser.next() is None
    assert parser.expects
    parser.feed(b"ok")
    request = parser.next()
    assert request is not None
    assert request.body == b"ok"


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_whether_the_connection_goes_on_is_as_http_says(head, keeps):
    assert read(head)[0].keep is keeps


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n name: value\r\n\r\n",
        b"GET / HTTP/1.1\r\nname : value\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 20_000,
        b"x" * ((1 << 20) + (256 << 10) + 1),
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_no_request_is_refused(data):
    parser = Parser()
    parser.feed(data)
    with pytest.raises(Malformed):
        parser.next()
