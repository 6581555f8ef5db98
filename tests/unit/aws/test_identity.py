"""Who a request says it comes from."""

import pytest

from kflow.aws.calls import Place
from kflow.aws.identity import Caller, Callers, RequestIds

HOME = Place("000000000000", "us-east-1")


def header(credential):
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"}


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("AKID/20261123/eu-west-1/kinesis/aws4_request", Caller(Place(HOME.account, "eu-west-1"), "AKID", "kinesis")),
        ("123456789012/20261123/us-east-1/sqs/aws4_request",
         Caller(Place("123456789012", "us-east-1"), "123456789012", "sqs")),
        ("ASIAKFLOW123456789012ABCDEF7/20261123/us-east-1/sqs/aws4_request",
         Caller(Place("123456789012", "us-east-1"), "ASIAKFLOW123456789012ABCDEF7", "sqs")),
        ("ASIAKFLOW123456789012ABCDEF/20261123/us-east-1/sqs/aws4_request",
         Caller(HOME, "ASIAKFLOW123456789012ABCDEF", "sqs")),
        ("A/B/20261123/us-east-1/kinesis/aws4_request", Caller(HOME, "A/B", "kinesis")),
        ("AKID/20261123/../kinesis/aws4_request", Caller(HOME, "AKID", "kinesis")),
        ("AKID/20261123//kinesis/aws4_request", Caller(HOME, "AKID", "kinesis")),
        ("AKID/20261123", Caller(HOME)),
        ("", Caller(HOME)),
    ],
)  # fmt: skip
def test_the_scope_says_account_and_region(credential, expected):
    callers = Callers(HOME)
    assert callers.of(header(credential), "/") == expected
    assert callers.of(header(credential), "/") == expected


def test_other_headers_and_none_at_all_are_of_home():
    callers = Callers(HOME)
    assert callers.of({"authorization": "Basic abc"}, "/") == Caller(HOME)
    assert callers.of({"authorization": ""}, "/") == Caller(HOME)
    assert callers.of({}, "/?Action=X") == Caller(HOME)
    spaced = {"authorization": "AWS4-HMAC-SHA256 Credential=K/20261123/eu-west-1/kinesis/aws4_request SignedHeaders=h"}
    assert callers.of(spaced, "/").place.region == "eu-west-1"


def test_a_presigned_request_says_it_in_its_query():
    target = "/?X-Amz-Credential=K%2F20261123%2Feu-west-1%2Fkinesis%2Faws4_request&X-Amz-Date=1"
    assert Callers(HOME).of({}, target) == Caller(Place(HOME.account, "eu-west-1"), "K", "kinesis")
    assert Callers(HOME).of({}, "/?X-Amz-Credential=") == Caller(HOME)


def test_what_is_remembered_is_bounded():
    callers = Callers(HOME)
    for number in range(3000):
        callers.of(header(f"K{number}/20261123/eu-west-1/kinesis/aws4_request"), "/")
    callers.of(header("K" * 1000), "/")
    assert len(callers._known) <= 1000


def test_ids_are_unique():
    ids = RequestIds()
    assert len({each for _ in range(1000) for each in ids.new()}) == 2000
