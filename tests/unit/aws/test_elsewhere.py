"""Requests that others answer: at the door, before they are read."""

import cbor2
import pytest

from kflow.aws.errors import AccessRefused
from tests.unit.aws.fakes import Exchange, Kinesis, ask, make_door

SIGNED = "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/{}/aws4_request, SignedHeaders=host, Signature=00"


class Elsewhere:
    """Answers what it is asked, if it will."""

    def __init__(self, *takes, answers=True):
        self.takes = frozenset(takes)
        self.answers = answers
        self.asked = []

    def forward(self, exchange, caller, extra, request_id):
        self.asked.append((caller.signing_name, caller.place.region, extra))
        assert len(request_id) == 36
        if self.answers:
            exchange.respond(200, extra, b"elsewhere")
        return self.answers


def request(service, method="POST", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(method, headers={"authorization": SIGNED.format(service), **given}, body=b"{}")


def test_a_service_that_is_not_here_is_passed_on():
    elsewhere = Elsewhere()
    for method in ("GET", "POST", "PUT"):
        exchange = request("s3", method)
        make_door(elsewhere=elsewhere)(exchange)
        assert exchange.answer.body == b"elsewhere"
    assert elsewhere.asked == [("s3", "eu-west-1", [])] * 3


def test_what_nobody_else_answers_is_refused():
    exchange = request("dynamodb", x_amz_target="DynamoDB_20120810.ListTables")
    make_door(elsewhere=Elsewhere(answers=False), stranger=lambda name: f"no {name}")(exchange)
    assert (exchange.answer.status, exchange.json) == (
        501,
        {"__type": "NotImplementedException", "message": "no dynamodb"},
    )


def test_a_service_that_is_here_is_not_passed_on():
    elsewhere = Elsewhere()
    exchange = ask("DescribeLimits")
    make_door(Kinesis(describe_limits={}), elsewhere=elsewhere)(exchange)
    unknown = ask("Nothing", authorization=SIGNED.format("s3"))
    make_door(elsewhere=elsewhere)(unknown)
    assert (exchange.answer.status, unknown.json["__type"]) == (200, "UnknownOperationException")
    assert elsewhere.asked == []


@pytest.mark.parametrize("taken", ["kinesis", "Kinesis_20131202"])
def test_a_service_that_is_here_is_passed_on_where_that_is_wanted(taken):
    exchange = ask("DescribeLimits", authorization=None if taken == "Kinesis_20131202" else SIGNED.format("kinesis"))
    make_door(Kinesis(describe_limits={}), elsewhere=Elsewhere(taken))(exchange)
    assert exchange.answer.body == b"elsewhere"


def test_kflows_own_paths_and_foreign_hosts_are_not_passed_on():
    elsewhere = Elsewhere("s3")
    own = Exchange("GET", "/_kflow/health", headers={"authorization": SIGNED.format("s3")})
    make_door(elsewhere=elsewhere, own=lambda exchange: exchange.respond(200, (), b"own"))(own)
    foreign = Exchange("GET", headers={"host": "evil.example.org", "authorization": SIGNED.format("s3")})
    make_door(elsewhere=elsewhere)(foreign)
    assert (own.answer.body, foreign.answer.status, elsewhere.asked) == (b"own", 403, [])


def test_a_page_of_this_machine_may_read_the_answer():
    exchange = request("s3", origin="http://localhost:3000")
    make_door(elsewhere=Elsewhere())(exchange)
    assert exchange.answer.headers[b"Access-Control-Allow-Origin"] == b"*"


@pytest.mark.parametrize(
    ("headers", "protocol"),
    [
        ({"x_amz_target": "DynamoDB_20120810.ListTables"}, "json"),
        ({"content_type": "application/x-www-form-urlencoded; charset=utf-8"}, "query"),
        ({}, "rest-json"),
    ],
)
def test_strict_authentication_comes_before_everything_else(headers, protocol):
    seen = []

    def authenticate(exchange, signee):
        seen.append((signee.signing_name, signee.protocol))
        raise AccessRefused("not you")

    elsewhere = Elsewhere()
    exchange = request("iam", **headers)
    make_door(elsewhere=elsewhere, authenticate=authenticate)(exchange)
    assert (exchange.answer.status, b"not you" in exchange.answer.body) == (403, True)
    assert (seen, elsewhere.asked) == ([("iam", protocol)], [])


def test_who_speaks_rpc_in_cbor_is_refused_in_cbor():
    exchange = request("arc-region-switch", smithy_protocol="rpc-v2-cbor", content_type="application/cbor")
    make_door(stranger=lambda name: f"no {name}")(exchange)
    assert cbor2.loads(exchange.answer.body) == {"__type": "NotImplementedException", "message": "no arc-region-switch"}
    assert exchange.answer.headers[b"smithy-protocol"] == b"rpc-v2-cbor"
