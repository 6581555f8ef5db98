"""Garbage at the query and REST protocols: refused in AWS's way or read, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kflow.aws.models import load
from kflow.aws.query import Ec2, Query
from kflow.aws.rest_json import RestJson
from kflow.aws.rest_xml import RestXml
from kflow.aws.signature import Verifier
from kflow.errors import AwsError
from tests.unit.aws.test_formats import Request

FORM = "application/x-www-form-urlencoded"
SNS, EC2, LAMBDA, S3 = (load(name) for name in ("sns", "ec2", "lambda", "s3"))
names = some.sampled_from(
    [
        "Action",
        "Version",
        "MessageAttributes",
        "entry",
        "member",
        "1",
        "2",
        "Name",
        "Value",
        "BinaryValue",
        "key",
        "",
        "ü",
    ]
)
pieces = some.lists(names, min_size=1, max_size=6).map(".".join)
values = some.sampled_from(["Publish", "2010-03-31", "", "AP8=", "%FF", "+", "x"]) | some.text(max_size=8)
forms = some.lists(some.tuples(pieces, values), max_size=8).map(
    lambda pairs: "&".join("=".join(pair) for pair in pairs)
)
xml_pieces = some.lists(
    some.sampled_from(
        [
            "<Tagging>",
            "</Tagging>",
            "<TagSet>",
            "</TagSet>",
            "<Tag/>",
            "<Tag>",
            "</Tag>",
            "<Key>",
            "</Key>",
            "k",
            "&#1;",
            "<!--",
            "]]>",
        ]
    ),
    max_size=12,
).map("".join)
json_bodies = some.recursive(
    some.none() | some.booleans() | some.floats() | some.text(max_size=5) | some.integers(),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["FunctionName", "Code", "ZipFile", "Tags", "Environment", "Variables", "Timeout"]),
            inner,
            max_size=4,
        )
    ),
)
header_values = some.text(some.characters(max_codepoint=255), max_size=30)


def read(made, model, request):
    try:
        operation = made.route([model], request)
        if operation is not None:
            made.parse(operation, request)
    except AwsError as error:
        refusal = error
    else:
        return
    assert made.error(None, refusal, "id").status == refusal.http_status < 500


@given(forms, some.booleans())
def test_any_form_is_read_or_refused(form, publish):
    body = ("Action=Publish&" if publish else "") + form
    read(Query(), SNS, Request(headers={"content-type": FORM}, body=body.encode("utf-8", "surrogatepass")))
    read(
        Ec2(),
        EC2,
        Request(headers={"content-type": FORM}, body=b"Action=RunInstances&" + body.encode("utf-8", "surrogatepass")),
    )


@given(xml_pieces | some.text(max_size=40))
def test_any_xml_is_read_or_refused(text):
    read(RestXml(), S3, Request("PUT", "/b?tagging", {}, text.encode("utf-8", "surrogatepass")))


@given(json_bodies)
def test_any_json_is_read_or_refused(value):
    read(RestJson(), LAMBDA, Request("POST", "/2015-03-31/functions", {}, json.dumps(value).encode()))


@given(
    some.text(max_size=60),
    some.dictionaries(some.sampled_from(["x-amz-object-attributes", "x-amz-meta-a", "range"]), header_values),
)
def test_any_path_and_header_is_read_or_refused(path, headers):
    request = Request("GET", "/" + path, headers)
    read(RestXml(), S3, request)
    read(RestJson(), LAMBDA, request)
    read(Query(), SNS, request)


SCOPE = "key/20251124/r/{}/aws4_request"


@pytest.mark.parametrize("model", [SNS, LAMBDA, S3])
@given(header_values, some.text(some.characters(max_codepoint=255), max_size=60), some.text(max_size=60))
def test_any_signature_is_refused(model, date, text, query):
    verifier = Verifier({"key": "secret"}, lambda: 1_764_000_000_000)
    scoped = (
        f"AWS4-HMAC-SHA256 Credential={SCOPE.format(model.signing_name)}, SignedHeaders=host;{text}, Signature={text}"
    )
    requests = [
        Request("GET", "/", {"authorization": text, "x-amz-date": date}),
        Request("GET", "/", {"authorization": scoped, "x-amz-date": "20251124T160000Z", "host": text}),
        Request("GET", f"/{query}?X-Amz-Algorithm=AWS4-HMAC-SHA256&{query}"),
    ]
    for request in requests:
        with pytest.raises(AwsError):
            verifier.verify(request, model)
