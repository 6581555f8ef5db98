"""Whose a request is, and what of its old signature stays behind."""

from __future__ import annotations

import datetime as dt

import pytest

from kflow.aws.catalogue import Named
from kflow.aws.signature import Unauthenticated, Verifier
from kflow.runtime.forwarding.asking import Failed, Request
from kflow.runtime.forwarding.resign import Meant, Profile, _service
from tests.unit.aws.fakes import Exchange


def meant(signing_name: str, target_prefix: str = "", *named: str) -> Meant:
    return Meant(signing_name, target_prefix, "eu-west-1", named)


@pytest.mark.parametrize(
    ("whose", "method", "path", "service"),
    [
        (meant("s3"), "GET", "/bucket/key", "s3"),
        (meant("s3"), "GET", "/v20180820/jobs", "s3control"),
        (meant("states", "AWSStepFunctions"), "POST", "/", "stepfunctions"),
        (meant("dynamodb", "DynamoDBStreams_20120810"), "POST", "/", "dynamodbstreams"),
        (meant("bedrock"), "POST", "/model/some.model/invoke", "bedrock-runtime"),
        (meant("bedrock"), "GET", "/foundation-models", "bedrock"),
        (meant("rds"), "POST", "/", "rds"),
        (meant("rds", "", "neptune"), "POST", "/", "neptune"),
        (meant("", "AWSCognitoIdentityProviderService"), "POST", "/", "cognito-idp"),
    ],
)
def test_the_service_is_told_by_name_target_and_path(whose: Meant, method: str, path: str, service: str) -> None:
    assert _service(whose, method, path, ()) == service


def test_a_service_that_botocore_does_not_know_is_refused() -> None:
    with pytest.raises(Failed, match="botocore knows no service that is signed for 'nothing'"):
        _service(meant("nothing"), "GET", "/", ())


@pytest.fixture
def profile(tmp_path, monkeypatch) -> Profile:
    (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = AKIAREAL\naws_secret_access_key = real\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASHELL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "shell")
    return Profile("dev")


OLD = [
    ("authorization", "AWS4-HMAC-SHA256 Credential=fake"),
    ("x-amz-date", "20200101T000000Z"),
    ("x-amz-security-token", "fake"),
    ("content-type", "text/plain"),
]


def test_a_request_goes_to_aws_with_the_profiles_key_and_nothing_of_the_callers(profile: Profile) -> None:
    made = profile.signed(Request("", "PUT", "/photos/a%2Bb?partNumber=1", OLD, b"hello"), meant("s3"))
    headers = {name.lower(): value for name, value in made.headers}
    assert (made.url, made.target) == ("https://s3.eu-west-1.amazonaws.com", "/photos/a%2Bb?partNumber=1")
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAREAL/")
    assert "/eu-west-1/s3/aws4_request" in headers["authorization"]
    assert headers["x-amz-content-sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert "x-amz-security-token" not in headers
    assert "fake" not in str(made)


def test_a_global_service_is_signed_for_the_region_that_it_is_in(profile: Profile) -> None:
    made = profile.signed(Request("", "POST", "/", OLD, b"Action=ListUsers"), meant("iam"))
    assert made.url == "https://iam.amazonaws.com"
    assert "/us-east-1/iam/aws4_request" in dict(made.headers)["Authorization"]


def test_a_presigned_request_loses_the_parameters_of_its_signature(profile: Profile) -> None:
    query = (
        "versionId=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=f&X-Amz-Date=d&X-Amz-Expires=9&"
        "X-Amz-SignedHeaders=host&X-Amz-Signature=s"
    )
    made = profile.signed(Request("", "GET", f"/b/k?{query}", [], b""), meant("s3"))
    assert made.target == "/b/k?versionId=1"
    old = profile.signed(Request("", "GET", "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", [], b""), meant("s3"))
    assert old.target == "/b/k"
    own = profile.signed(Request("", "GET", "/b/k?Expires=1", [], b""), meant("s3"))
    assert own.target == "/b/k?Expires=1"


def test_a_body_in_chunks_is_sent_without_them(profile: Profile) -> None:
    headers = [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"), ("content-encoding", "aws-chunked")]
    made = profile.signed(Request("", "PUT", "/b/k", headers, b"5\r\nhello\r\n0\r\n\r\n"), meant("s3"))
    assert made.body == b"hello"
    assert "content-encoding" not in dict(made.headers)


def test_a_call_that_nobody_signs_stays_so(profile: Profile) -> None:
    whose = meant("", "AWSCognitoIdentityProviderService")
    made = profile.signed(Request("", "POST", "/", [("x-amz-target", "A.B")], b"{}"), whose)
    assert (made.url, list(made.headers)) == ("https://cognito-idp.eu-west-1.amazonaws.com", [("x-amz-target", "A.B")])


@pytest.mark.parametrize(
    ("signing_name", "method", "target", "body"),
    [
        ("s3", "PUT", "/photos/a%2Bb/c%20d/../e?partNumber=1&uploadId=x%3D", b"hello"),
        ("s3", "GET", "/photos?list-type=2&prefix=a%2Fb&delimiter=%2F", b""),
        ("lambda", "POST", "/2015-03-31/functions/arn%3Aaws%3Alambda/invocations", b"{}"),
        ("execute-api", "DELETE", "/prod/%40connections/a%3D", b""),
    ],
)
def test_the_new_signature_is_right(profile: Profile, signing_name: str, method: str, target: str, body: bytes) -> None:
    made = profile.signed(Request("", method, target, OLD, body), meant(signing_name))
    headers = {name.lower(): value for name, value in made.headers} | {"host": made.url.removeprefix("https://")}
    arrived = Exchange(method, made.target, headers, made.body)
    at = dt.datetime.strptime(headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
    verifier = Verifier({"AKIAREAL": "real"}, lambda: int(at.timestamp() * 1000))
    verifier.verify(arrived, Named(signing_name, signing_name, "", "rest-json"))
    with pytest.raises(Unauthenticated):
        Verifier({"AKIAREAL": "other"}, lambda: int(at.timestamp() * 1000)).verify(
            arrived, Named(signing_name, signing_name, "", "rest-json")
        )
