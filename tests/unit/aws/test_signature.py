"""Strict authentication; botocore signs."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kflow.aws.models import load
from kflow.aws.signature import Verifier
from kflow.errors import AwsError

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW_MS = 1_764_000_000_000
NOW = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC)
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class Request:
    """The part of an exchange that a verifier reads."""

    def __init__(self, prepared):
        parts = urlsplit(prepared.url)
        self.method = prepared.method
        self.target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.headers = {"host": parts.netloc} | {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in prepared.headers.items()
        }
        self.body = prepared.body or b""
        if isinstance(self.body, str):
            self.body = self.body.encode()


@pytest.fixture
def clock(monkeypatch):
    """Sets botocore's clock."""

    def set_to(seconds: int) -> None:
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW + dt.timedelta(seconds=seconds))

    set_to(0)
    return set_to


@pytest.fixture(autouse=True)
def _now(clock):
    pass


TARGET = {"X-Amz-Target": "Kinesis_20131202.ListStreams", "Content-Type": "application/x-amz-json-1.1"}


def signed(
    how=SigV4Auth,
    service="kinesis",
    *,
    method="POST",
    url="http://127.0.0.1:4566/",
    headers=TARGET,
    data=b"{}",
    key=KEY,
    secret=SECRET,
    token=None,
    **more,
):
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=data)
    request.context.update({"client_config": None, "has_streaming_input": False})
    how(Credentials(key, secret, token), service, "eu-west-1", **more).add_auth(request)
    return Request(request.prepare())


def told(request, service="kinesis", now_ms=NOW_MS):
    try:
        Verifier({KEY: SECRET}, lambda: now_ms).verify(request, load(service))
    except AwsError as error:
        return error.code, error.http_status, str(error)
    return None


def test_a_signed_request_is_let_in():
    assert told(signed()) is None
    assert told(signed(token="session")) is None


@pytest.mark.parametrize(
    ("secret", "token", "later_ms", "expected"),
    [
        ("given", "token", 0, None),
        ("given", None, 0, ("InvalidClientTokenId", "The security token included in the request is invalid.")),
        ("given", "other", 0, ("InvalidClientTokenId", "The security token included in the request is invalid.")),
        ("given", "token", 1, ("ExpiredToken", "The security token included in the request is expired")),
        ("guessed", "token", 0, ("SignatureDoesNotMatch", None)),
    ],
)
def test_a_key_that_was_given_out_needs_its_token_until_it_expires(secret, token, later_ms, expected):
    given = SimpleNamespace(secret="given", token="token", expires_ms=NOW_MS + 1)
    verifier = Verifier({}, lambda: NOW_MS + later_ms, {"ASIA": given}.get)
    request = signed(service="sts", headers={}, key="ASIA", secret=secret, token=token)
    if expected is None:
        verifier.verify(request, load("sts"))
        return
    with pytest.raises(AwsError) as caught:
        verifier.verify(request, load("sts"))
    assert caught.value.code == expected[0]
    assert expected[1] in (None, str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "http://h/2015-03-31/functions/arn%3Aaws%3Alambda/invocations",
        "http://h//a/./b/../c//",
        "http://h/a%20b/%C3%BC?x=1&b=%2F&a=%20&a=&c",
        "http://h/?b=2&a=1&B=3&a=0",
        "http://h/~x_-.",
    ],
)
def test_paths_and_queries_are_signed_as_botocore_does(url):
    assert told(signed(service="lambda", url=url, headers={}), "lambda") is None


@pytest.mark.parametrize("url", ["http://b/k%20y/../a//b?versionId=x", "http://b/", "http://b/%C3%BC?uploads"])
def test_s3_s_paths_are_signed_as_they_are(url):
    assert told(signed(S3SigV4Auth, "s3", url=url, headers={}), "s3") is None
    presigned = signed(S3SigV4QueryAuth, "s3", url=url, headers={}, method="GET", data=b"", expires=60)
    assert told(presigned, "s3") is None


def test_a_presigned_request_is_let_in():
    assert (
        told(
            signed(
                SigV4QueryAuth,
                "sts",
                method="GET",
                url="http://h/?Action=GetCallerIdentity",
                headers={},
                data=b"",
                expires=60,
            ),
            "sts",
        )
        is None
    )


def test_white_space_in_headers_does_not_count():
    request = signed(headers=TARGET | {"X-Amz-Meta": "a   b"})
    request.headers["x-amz-meta"] = " a b  "

    assert told(request) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(request, "body", b"[]"),
        lambda request: setattr(request, "method", "PUT"),
        lambda request: setattr(request, "target", "/x"),
        lambda request: setattr(request, "target", "/?x"),
        lambda request: request.headers.update({"x-amz-target": "Kinesis_20131202.DeleteStream"}),
        lambda request: request.headers.update({"host": "elsewhere"}),
        lambda request: request.headers.pop("content-type", None) or request.headers.pop("x-amz-target"),
        lambda request: request.headers.update({"authorization": request.headers["authorization"][:-1] + "ü"}),
    ],
)
def test_what_was_changed_after_it_was_signed_is_refused(change):
    request = signed()
    change(request)

    assert told(request) == ("InvalidSignatureException", 400, MISMATCH)


def test_another_secret_is_refused():
    assert told(signed(secret="x")) == ("InvalidSignatureException", 400, MISMATCH)


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("kinesis", ("UnrecognizedClientException", 400, "The security token included in the request is invalid.")),
        ("lambda", ("UnrecognizedClientException", 403, "The security token included in the request is invalid.")),
        ("sns", ("InvalidClientTokenId", 403, "The security token included in the request is invalid.")),
        ("s3", ("InvalidAccessKeyId", 403, "The security token included in the request is invalid.")),
    ],
)
def test_a_key_that_nobody_knows_is_refused_in_the_service_s_words(service, answer):
    assert told(signed(service=service, key="other"), service) == answer


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("kinesis", ("MissingAuthenticationTokenException", 400, "Missing Authentication Token")),
        ("lambda", ("MissingAuthenticationTokenException", 403, "Missing Authentication Token")),
        ("sns", ("MissingAuthenticationToken", 403, "Request is missing Authentication Token")),
        ("s3", ("AccessDenied", 403, "Access Denied")),
    ],
)
def test_an_unsigned_request_is_refused(service, answer):
    request = signed(service=service)
    del request.headers["authorization"]

    assert told(request, service) == answer


def test_a_query_protocol_says_that_signatures_do_not_match():
    assert told(signed(service="sns", secret="x"), "sns") == ("SignatureDoesNotMatch", 403, MISMATCH)


@pytest.mark.parametrize(
    ("header", "date", "text"),
    [
        (
            "AWS4-HMAC-SHA256 Signature=a",
            "20251124T160000Z",
            (
                "Authorization header requires 'Credential' parameter. "
                "Authorization header requires 'SignedHeaders' parameter. "
                "Authorization=AWS4-HMAC-SHA256 Signature=a"
            ),
        ),
        (
            "X",
            "",
            (
                "Authorization header requires 'Credential' parameter. "
                "Authorization header requires 'Signature' parameter. "
                "Authorization header requires 'SignedHeaders' parameter. "
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=X"
            ),
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=host,Signature=a",
            "20251124T160000Z",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'a/b'",
        ),
        (
            "AWS4-X Credential=a/b,SignedHeaders=host,Signature=a",
            "20251124T160000Z",
            "Unsupported AWS 'algorithm': 'AWS4-X'.",
        ),
    ],
)
def test_an_incomplete_header_is_told_what_it_lacks(header, date, text):
    request = signed()
    request.headers["authorization"] = header
    request.headers["x-amz-date"] = date

    assert told(request) == ("IncompleteSignatureException", 400, text)


def test_an_incomplete_query_is_told_what_it_lacks():
    request = signed()
    del request.headers["authorization"]
    request.target = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a"

    assert told(request) == (
        "IncompleteSignatureException",
        400,
        (
            "AWS query-string parameters must include 'X-Amz-Signature'. "
            "AWS query-string parameters must include 'X-Amz-SignedHeaders'. "
            "AWS query-string parameters must include 'X-Amz-Date'. "
            "Re-examine the query-string parameters."
        ),
    )


def test_header_and_query_at_once_are_refused():
    request = signed()
    request.target = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256"

    assert told(request) == (
        "InvalidSignatureException",
        400,
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    )


def test_the_scope_must_be_of_the_service_and_the_day():
    request = signed(service="firehose")
    assert told(request) == (
        "InvalidSignatureException",
        400,
        "Credential should be scoped to correct service: 'kinesis'. ",
    )
    request = signed()
    request.headers["authorization"] = request.headers["authorization"].replace("/20251124/", "/20251123/")
    assert told(request) == (
        "InvalidSignatureException",
        400,
        (
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            "'20251123' != '20251124', from '20251124T160000Z'. "
        ),
    )
    request = signed()
    request.headers["authorization"] = request.headers["authorization"].replace("aws4_request", "x")
    assert told(request)[2] == "Credential should be scoped with a valid terminator: 'aws4_request', not 'x'. "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-900, None),
        (-901, "Signature expired: 20251124T154459Z is now earlier than 20251124T154500Z (20251124T160000Z - 15 min.)"),
        (300, None),
        (
            301,
            (
                "Signature not yet current: 20251124T160501Z is still later than 20251124T160500Z "
                "(20251124T160000Z + 5 min.)"
            ),
        ),
    ],
)
def test_a_signature_counts_for_a_quarter_of_an_hour(clock, seconds, text):
    clock(seconds)
    expected = None if text is None else ("InvalidSignatureException", 400, text)

    assert told(signed()) == expected


def test_a_presigned_request_lives_as_long_as_it_says(clock):
    def asked():
        return signed(SigV4QueryAuth, method="GET", headers={}, data=b"", expires=3600)

    clock(-3600)
    assert told(asked()) is None
    clock(-3601)
    assert told(asked())[2].startswith("Signature expired: 20251124T145959Z is now earlier than 20251124T150000Z")


def test_a_signature_that_leaves_out_the_host_or_the_target_is_refused():
    for name, shown in (("host;", "'Host' or ':authority'"), (";x-amz-target", "'X-Amz-Target'")):
        request = signed()
        request.headers["authorization"] = request.headers["authorization"].replace(name, "")
        assert told(request) == (
            "InvalidSignatureException",
            400,
            f"{shown} must be a 'SignedHeader' in the AWS Authorization.",
        )


def test_an_http_date_serves_as_well():
    request = signed(headers=TARGET | {"Date": "Mon, 24 Nov 2025 16:00:00 GMT"})
    assert "x-amz-date" not in request.headers
    assert told(request) is None


@pytest.mark.parametrize("date", ["20251324T160000Z", "yesterday", "Mon, 99 Nov 2025 16:00:00 GMT"])
def test_a_date_that_is_none_is_refused(date):
    request = signed()
    request.headers["x-amz-date"] = date
    request.headers["authorization"] = request.headers["authorization"].replace("/20251124/", f"/{date[:8]}/")

    assert told(request)[1] == 400
