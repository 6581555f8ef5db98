"""Services that are made when they are first called, and formats that are; errors with two codes."""

from __future__ import annotations

import json

import pytest

from kflow.aws.calls import Context
from kflow.aws.dispatch import Deferred, Dispatcher
from kflow.aws.door import Door
from kflow.errors import InvalidArgument, UsageError
from kflow.services.sqs.forms import Forms, is_form
from kflow.services.sqs.models import forms, loose
from tests.unit.aws.fakes import HOME, Exchange, Timers, model

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/sqs/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
)


class Missing(InvalidArgument):
    code = "Missing"
    query_code = "Older.Missing"


class Queues:
    service_name = "sqs"

    def __init__(self):
        self.calls = []

    def get_queue_url(self, call, given):
        self.calls.append((call.context, given))
        if given.QueueName == "nix":
            raise Missing("it is not there")
        return {"QueueUrl": f"{call.context.base_url}/{given.QueueName}"}


@pytest.fixture
def made():
    return []


@pytest.fixture
def service():
    return Queues()


@pytest.fixture
def dispatcher(service, made):
    def make():
        made.append(True)
        return service, loose(model("sqs"))

    deferred = {"sqs": Deferred("sqs", "AmazonSQS", "1.0", make)}
    return Dispatcher([], {}, call_later=Timers().call_later, deferred=deferred)


@pytest.fixture
def door(dispatcher):
    late = (Forms(), [forms(model("sqs"))])
    return Door(dispatcher, home=HOME, late=lambda exchange, name: late if name == "sqs" or is_form(exchange) else None)


def call(door, name="jobs", **headers):
    head = {"x-amz-target": "AmazonSQS.GetQueueUrl", "content-type": "application/x-amz-json-1.0", **headers}
    exchange = Exchange("POST", "/", head, json.dumps({"QueueName": name}).encode())
    door(exchange)
    return exchange.answer


def test_it_is_made_with_the_first_call_and_once(door, dispatcher, made):
    assert (dispatcher.knows("sqs"), dispatcher.knows("nix"), made, dispatcher.models) == (True, False, [], {})
    assert json.loads(call(door).body) == {"QueueUrl": "http://127.0.0.1:4566/jobs"}
    call(door)
    assert made == [True]
    assert (dispatcher.deferred, list(dispatcher.models)) == ({}, ["sqs"])


def test_calls_from_this_process_make_it_too(dispatcher, made):
    results = []
    context = Context(place=HOME, request_id="r")
    dispatcher.invoke(context, "sqs", "GetQueueUrl", {"QueueName": "jobs"}, results.append)
    assert results == [{"QueueUrl": "/jobs"}]
    assert made == [True]


def test_one_that_cannot_be_made_is_tried_again():
    def fail():
        raise UsageError("no model")

    deferred = {"sqs": Deferred("sqs", "AmazonSQS", "1.0", fail)}
    door = Door(Dispatcher([], {}, call_later=Timers().call_later, deferred=deferred), home=HOME)
    assert [call(door).status for _ in range(2)] == [500, 500]


def test_the_base_of_urls_is_how_the_caller_names_the_endpoint(door, service):
    call(door, host="localhost:1234")
    ((context, _),) = service.calls
    assert context.base_url == "http://localhost:1234"


def test_an_error_has_both_its_codes(door):
    answer = call(door, "nix")
    assert answer.status == 400
    assert answer.headers[b"x-amzn-query-error"] == b"Older.Missing;Sender"
    assert json.loads(answer.body) == {"__type": "com.amazonaws.sqs#Missing", "message": "it is not there"}


def test_what_the_wire_refuses_has_both_too(door):
    head = {"x-amz-target": "AmazonSQS.GetQueueUrl", "content-type": "application/x-amz-json-1.0"}
    exchange = Exchange("POST", "/", head, b'{"QueueName": []}')
    door(exchange)
    assert exchange.answer.headers[b"x-amzn-query-error"] == b"SerializationException;Sender"


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/", {"authorization": SIGNED}, b"Action=GetQueueUrl&QueueName=jobs"),
        ("/", {}, b"Action=GetQueueUrl&QueueName=jobs&Version=2012-11-05"),
        ("/123456789012/jobs", {}, b"Action=GetQueueUrl&QueueName=jobs"),
    ],
)
def test_forms_are_known_by_signature_version_or_path(door, target, headers, body):
    head = {"content-type": "application/x-www-form-urlencoded", **headers}
    exchange = Exchange("POST", target, head, body)
    door(exchange)
    assert exchange.answer.status == 200
    assert b"<QueueUrl>http://127.0.0.1:4566/jobs</QueueUrl>" in exchange.answer.body


def test_forms_of_others_are_not_its_business(door, made):
    exchange = Exchange("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, b"Action=ListTopics")
    door(exchange)
    assert (exchange.answer.status, made) == (403, [])
